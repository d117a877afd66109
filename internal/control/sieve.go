package control

import (
	"context"
	"time"

	"waxwing/internal/sieve"
)

// Operations on the filter scripts of accounts.
var (
	SieveList     = operation("sieve.list", (*Service).sieveList)
	SieveShow     = operation("sieve.show", (*Service).sieveShow)
	SieveCheck    = operation("sieve.check", (*Service).sieveCheck)
	SievePut      = operation("sieve.put", (*Service).sievePut)
	SieveActivate = operation("sieve.activate", (*Service).sieveActivate)
	SieveDelete   = operation("sieve.delete", (*Service).sieveDelete)
)

// SieveRef names a script of an account.
type SieveRef struct {
	Address string `json:"address"`
	Name    string `json:"name,omitempty"`
}

// SieveScript is a script; Text only where it was asked for.
type SieveScript struct {
	SieveRef
	Size    int64     `json:"size,omitempty"` // octets
	Active  bool      `json:"active,omitempty"`
	Changed time.Time `json:"changed,omitzero"`
	Text    string    `json:"text,omitempty"`
}

func (s *Service) sieveList(ctx context.Context, r SieveRef) ([]SieveScript, error) {
	a, err := s.account(ctx, r.Address)
	if err != nil {
		return nil, err
	}
	list, err := s.store.SieveScripts(ctx, a.ID)
	out := make([]SieveScript, len(list))
	for i, x := range list {
		out[i] = SieveScript{SieveRef: SieveRef{a.Address.Unicode(), x.Name}, Size: x.Size, Active: x.Active, Changed: utc(x.Changed)}
	}
	return out, err
}

func (s *Service) sieveShow(ctx context.Context, r SieveRef) (SieveScript, error) {
	a, err := s.account(ctx, r.Address)
	if err != nil {
		return SieveScript{}, err
	}
	text, err := s.store.SieveText(ctx, a.ID, r.Name)
	return SieveScript{SieveRef: r, Size: int64(len(text)), Text: string(text)}, err
}

// compiles refuses a script that is wrong, with the line and the column.
func (s *Service) compiles(text string) error {
	if _, err := sieve.Compile([]byte(text), s.dir.Settings().SieveOptions()); err != nil {
		return &Error{Kind: Invalid, Field: "text", Text: err.Error()}
	}
	return nil
}

func (s *Service) sieveCheck(_ context.Context, x SieveScript) (SieveScript, error) {
	return SieveScript{Size: int64(len(x.Text))}, s.compiles(x.Text)
}

func (s *Service) sievePut(ctx context.Context, x SieveScript) (SieveRef, error) {
	a, err := s.account(ctx, x.Address)
	if err != nil {
		return x.SieveRef, err
	}
	if what := sieve.CheckName(x.Name); what != "" {
		return x.SieveRef, &Error{Kind: Invalid, Field: "name", Text: what}
	}
	if err := s.compiles(x.Text); err != nil {
		return x.SieveRef, err
	}
	return x.SieveRef, s.store.PutSieve(ctx, a.ID, x.Name, []byte(x.Text), s.dir.Settings().SieveLimits())
}

func (s *Service) sieveActivate(ctx context.Context, r SieveRef) (SieveRef, error) {
	a, err := s.account(ctx, r.Address)
	if err != nil {
		return r, err
	}
	return r, s.store.ActivateSieve(ctx, a.ID, r.Name)
}

func (s *Service) sieveDelete(ctx context.Context, r SieveRef) (SieveRef, error) {
	a, err := s.account(ctx, r.Address)
	if err != nil {
		return r, err
	}
	return r, s.store.DeleteSieve(ctx, a.ID, r.Name)
}
