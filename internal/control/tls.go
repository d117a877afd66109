package control

import (
	"context"
	"encoding/json"

	"waxwing/internal/directory"
	"waxwing/internal/tlspolicy"
)

// Operations on the table that says how connections to other servers must be protected. The table is one setting, so that
// it has its versions, and stands in the document.
var (
	TLSPolicySet    = operation("tls.policy.set", (*Service).tlsPolicySet)
	TLSPolicyRemove = operation("tls.policy.remove", (*Service).tlsPolicyRemove)
	TLSPolicyList   = operation("tls.policy.list", (*Service).tlsPolicyList)
)

// TLSPolicy is one entry of the table.
type TLSPolicy struct {
	Domain string   `json:"domain"`
	Level  string   `json:"level"`
	Match  []string `json:"match,omitempty"` // names that the certificate may be for
}

// TLSPolicies is the table.
type TLSPolicies struct {
	Policies []TLSPolicy `json:"policies"`
}

func (s *Service) tlsPolicySet(ctx context.Context, req TLSPolicy) (TLSPolicy, error) {
	e, err := tlspolicy.New(req.Domain, tlspolicy.Level(req.Level), req.Match)
	if err != nil {
		return TLSPolicy{}, &Error{Kind: Invalid, Field: "policy", Text: err.Error(), cause: err}
	}
	err = s.changeTLSPolicies(ctx, func(t *tlspolicy.Table) error {
		t.Set(e)
		return nil
	})
	return TLSPolicy{Domain: e.Domain, Level: string(e.Level), Match: e.Match}, err
}

func (s *Service) tlsPolicyRemove(ctx context.Context, req DomainRef) (Done, error) {
	return Done{}, s.changeTLSPolicies(ctx, func(t *tlspolicy.Table) error {
		if !t.Remove(req.Name) {
			return Errorf(NotFound, "%s has no entry: `waxwing tls policy list` shows those that there are", req.Name)
		}
		return nil
	})
}

// changeTLSPolicies changes the table as it is: a change that comes between is a conflict, not lost.
func (s *Service) changeTLSPolicies(ctx context.Context, change func(*tlspolicy.Table) error) error {
	now := s.dir.Settings()
	table, err := tlspolicy.Parse(now.TLSPolicies)
	if err == nil {
		err = change(table)
	}
	if err != nil {
		return err
	}
	raw, err := json.Marshal(table.String())
	if err != nil {
		return err
	}
	_, err = s.dir.ChangeSettings(ctx, now.Version, directory.Actor(ctx), map[string]json.RawMessage{"tls.policies": raw})
	return err
}

func (s *Service) tlsPolicyList(context.Context, Done) (TLSPolicies, error) {
	table, err := tlspolicy.Parse(s.dir.Settings().TLSPolicies)
	if err != nil {
		return TLSPolicies{}, err
	}
	out := TLSPolicies{Policies: []TLSPolicy{}}
	for _, e := range table.Entries() {
		out.Policies = append(out.Policies, TLSPolicy{Domain: e.Domain, Level: string(e.Level), Match: e.Match})
	}
	return out, nil
}
