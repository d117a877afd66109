package directory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/store"
)

// Rules are lists of small objects that are no settings and have neither mail nor identity: they stand beside the settings,
// under names with a slash, so that a change of them is a version with lines in the history like any other. All of them are in memory;
// a set of rules is never changed, but replaced.
type Rules struct {
	Access  []AccessRule
	Sending []SendingLimit
}

// The names of rules begin with these.
const (
	accessRules  = "access/"
	sendingRules = "sending/"
)

// rule is what the lists have in common.
type rule[T any] interface {
	key() string
	normal() (T, error)
}

// ruleRows gives the rows of a list by name, in the form in which they are compared; place names the list in errors.
func ruleRows[T rule[T]](prefix, place string, limit int, list []T, rows map[string]string) ([]T, error) {
	if len(list) > limit {
		return nil, &FieldError{Field: place, Want: fmt.Sprintf("at most %d", limit)}
	}
	out := make([]T, 0, len(list))
	for i, r := range list {
		r, err := r.normal()
		if err != nil {
			return nil, at(place, i, err)
		}
		name := prefix + r.key()
		if _, dup := rows[name]; dup {
			return nil, at(place, i, &FieldError{Field: "subject", Value: r.key(), Want: "each one once"})
		}
		raw, err := json.Marshal(r)
		if err != nil {
			return nil, at(place, i, err)
		}
		rows[name] = string(raw)
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b T) int { return cmp.Compare(a.key(), b.key()) })
	return out, nil
}

// rows gives all rows by name, and the rules in their order.
func (r Rules) rows() (map[string]string, Rules, error) {
	rows := map[string]string{}
	var out Rules
	var err error
	if out.Access, err = ruleRows(accessRules, "access", maxAccessRules, r.Access, rows); err != nil {
		return nil, r, err
	}
	out.Sending, err = ruleRows(sendingRules, "sending_limits", maxSendingLimits, r.Sending, rows)
	return rows, out, err
}

// isRule tells a row of a rule from one of a setting.
func isRule(name string) bool {
	return strings.HasPrefix(name, accessRules) || strings.HasPrefix(name, sendingRules)
}

// rules are the rules that hold.
func (s Settings) rules() Rules {
	if s.Rules == nil {
		return Rules{}
	}
	return *s.Rules
}

func (s *Settings) setRules(r Rules) {
	s.Rules = nil
	if len(r.Access)+len(r.Sending) > 0 {
		s.Rules = &r
	}
}

// takeRule adds the rule of a row to settings that are being read.
func (s *Settings) takeRule(name, value string) error {
	if s.Rules == nil {
		s.Rules = &Rules{}
	}
	return s.Rules.take(name, value)
}

// sortRules puts the rules that were read into their order.
func (s *Settings) sortRules() {
	if s.Rules != nil {
		slices.SortFunc(s.Rules.Access, func(a, b AccessRule) int { return cmp.Compare(a.key(), b.key()) })
		slices.SortFunc(s.Rules.Sending, func(a, b SendingLimit) int { return cmp.Compare(a.key(), b.key()) })
	}
}

func (r *Rules) take(name, value string) error {
	dec := json.NewDecoder(bytes.NewReader([]byte(value)))
	dec.DisallowUnknownFields()
	if strings.HasPrefix(name, accessRules) {
		return takeRule(dec, &r.Access)
	}
	return takeRule(dec, &r.Sending)
}

func takeRule[T rule[T]](dec *json.Decoder, list *[]T) error {
	var x T
	if err := dec.Decode(&x); err != nil {
		return err
	}
	x, err := x.normal()
	if err == nil {
		*list = append(*list, x)
	}
	return err
}

// ruleChanges lists what differs between two sets of rules, in order of name.
func ruleChanges(from, to map[string]string) []store.SettingChange {
	var out []store.SettingChange
	for name, value := range to {
		if old, ok := from[name]; !ok || old != value {
			out = append(out, store.SettingChange{Name: name, Value: &value})
		}
	}
	for name := range from {
		if _, ok := to[name]; !ok {
			out = append(out, store.SettingChange{Name: name})
		}
	}
	slices.SortFunc(out, func(a, b store.SettingChange) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// ChangeRules replaces the rules by what change makes of them, in one transaction and as one version. change must not
// alter the lists that it gets, and may be called again.
func (d *Directory) ChangeRules(ctx context.Context, change func(Rules) (Rules, error)) error {
	d.reload.Lock()
	defer d.reload.Unlock()
	for range maxTries {
		err := d.changeRules(ctx, change)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if err := d.readSettings(ctx); err != nil { // another node's change, or one of accounts, came between
			return err
		}
	}
	return wrap("change", "rules", store.ErrDirectoryConflict)
}

// maxTries is how often a change is tried that others come before.
const maxTries = 20

func (d *Directory) changeRules(ctx context.Context, change func(Rules) (Rules, error)) error {
	next := d.Settings()
	from, now, err := next.rules().rows()
	if err != nil {
		return err
	}
	want, err := change(now)
	if err != nil {
		return err
	}
	to, want, err := want.rows()
	if err != nil {
		return err
	}
	rows := ruleChanges(from, to)
	if len(rows) == 0 {
		return nil
	}
	base := next.Version
	next.setRules(want)
	_, err = d.commit(ctx, store.DirectoryEdit{Base: base, Settings: rows}, &next)
	return wrap("change", "rules", err)
}

// SetAccess makes or replaces an access rule.
func (d *Directory) SetAccess(ctx context.Context, r AccessRule) (AccessRule, error) {
	r, err := r.normal()
	if err != nil {
		return r, err
	}
	return r, d.ChangeRules(ctx, func(now Rules) (Rules, error) {
		now.Access = append(without(now.Access, r.key()), r)
		return now, nil
	})
}

// RemoveAccess removes the rule with the subject, listener and scope of r; ErrNotFound.
func (d *Directory) RemoveAccess(ctx context.Context, r AccessRule) error {
	r.Action = Deny // of no matter here
	r, err := r.normal()
	if err != nil {
		return err
	}
	return d.ChangeRules(ctx, func(now Rules) (Rules, error) {
		rest := without(now.Access, r.key())
		if len(rest) == len(now.Access) {
			return now, wrap("remove access rule", r.Subject, store.ErrNotFound)
		}
		now.Access = rest
		return now, nil
	})
}

// SetSending makes or replaces a limit of sending.
func (d *Directory) SetSending(ctx context.Context, l SendingLimit) (SendingLimit, error) {
	l, err := l.normal()
	if err != nil {
		return l, err
	}
	return l, d.ChangeRules(ctx, func(now Rules) (Rules, error) {
		now.Sending = append(without(now.Sending, l.key()), l)
		return now, nil
	})
}

// RemoveSending removes the limit of a domain or account; ErrNotFound.
func (d *Directory) RemoveSending(ctx context.Context, scope string) error {
	scope, err := normalScope("for", scope)
	if err != nil {
		return err
	}
	return d.ChangeRules(ctx, func(now Rules) (Rules, error) {
		rest := without(now.Sending, scope)
		if len(rest) == len(now.Sending) {
			return now, wrap("remove limit of", scope, store.ErrNotFound)
		}
		now.Sending = rest
		return now, nil
	})
}

// without gives a copy of a list that lacks one rule.
func without[T rule[T]](list []T, key string) []T {
	out := make([]T, 0, len(list)+1)
	for _, r := range list {
		if r.key() != key {
			out = append(out, r)
		}
	}
	return out
}

// planRules compares the rules of a document with those that hold. A nil list leaves them as they are.
func (p *planner) planRules() error {
	now := p.d.Settings().rules()
	want := Rules{Access: p.want.Access, Sending: p.want.Sending}
	if want.Access == nil {
		want.Access = now.Access
	}
	if want.Sending == nil {
		want.Sending = now.Sending
	}
	from, _, err := now.rows()
	if err != nil {
		return err
	}
	to, want, err := want.rows()
	if err != nil {
		return err
	}
	p.settings.setRules(want)
	changes := ruleChanges(from, to)
	p.edit.Settings = append(p.edit.Settings, changes...)
	for _, c := range changes {
		kind, name, _ := strings.Cut(c.Name, "/")
		change := Change{Kind: kind, Name: strings.TrimSpace(name), From: rawOf(from, c.Name), To: rawOf(to, c.Name)}
		switch {
		case change.From == nil:
			change.Act = Make
		case change.To == nil:
			change.Act = Remove
		default:
			change.Act = Alter
		}
		p.change(change)
	}
	return nil
}

// rawOf is a row as a value of a Change.
func rawOf(rows map[string]string, name string) any {
	if text, ok := rows[name]; ok {
		return json.RawMessage(text)
	}
	return nil
}
