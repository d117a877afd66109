package control

import (
	"context"
	"time"

	"waxwing/internal/directory"
)

// Operations on forwarding, and on the keys that senders of forwarded mail are signed with.
var (
	ForwardSet  = operation("forward.set", (*Service).forwardSet)
	ForwardShow = operation("forward.show", (*Service).forwardShow)
	ForwardList = operation("forward.list", (*Service).forwardList)

	SRSShow   = operation("srs.show", (*Service).srsShow)
	SRSRotate = operation("srs.rotate", (*Service).srsRotate)
)

// Forward is where the mail of an account goes beside its mailbox or in its place.
type Forward struct {
	Address string   `json:"address"` // of the account
	To      []string `json:"to"`      // empty: nowhere
	Copy    bool     `json:"copy"`    // the mailbox gets it too
	Paused  bool     `json:"paused"`
}

// Forwards is all accounts that forward, in order of address.
type Forwards struct {
	Forwards []Forward `json:"forwards"`
}

func shownForward(a directory.Account) Forward {
	return Forward{Address: a.Address.Unicode(), To: shownAddresses(a.Forward.To), Copy: a.Forward.Copy, Paused: a.Forward.Paused}
}

func (f Forward) row() (directory.Forward, error) {
	to, err := parseAddresses("to", f.To)
	return directory.Forward{To: to, Copy: f.Copy, Paused: f.Paused}, err
}

func (s *Service) forwardSet(ctx context.Context, req Forward) (Forward, error) {
	owner, err := parseAddress("address", req.Address)
	if err != nil {
		return Forward{}, err
	}
	row, err := req.row()
	if err != nil {
		return Forward{}, err
	}
	a, err := s.dir.Account(ctx, owner)
	if err != nil {
		return Forward{}, err
	}
	if err := s.dir.SetForward(ctx, a.ID, row); err != nil {
		return Forward{}, err
	}
	return s.forwardShow(ctx, AccountRef{Address: req.Address})
}

func (s *Service) forwardShow(ctx context.Context, req AccountRef) (Forward, error) {
	owner, err := parseAddress("address", req.Address)
	if err != nil {
		return Forward{}, err
	}
	a, err := s.dir.Account(ctx, owner)
	if err != nil {
		return Forward{}, err
	}
	return shownForward(a), nil
}

func (s *Service) forwardList(ctx context.Context, req Listing) (Forwards, error) {
	list, err := s.dir.Accounts(ctx, directory.Filter{Domain: req.Domain, Search: req.Search})
	if err != nil {
		return Forwards{}, err
	}
	out := Forwards{Forwards: []Forward{}}
	for _, a := range list {
		if len(a.Forward.To) > 0 {
			out.Forwards = append(out.Forwards, shownForward(a))
		}
	}
	return out, nil
}

// SRSKeys tells which keys there are, newest first; the keys themselves are shown nowhere.
type SRSKeys struct {
	Keys []SRSKey `json:"keys"`
	Days int      `json:"days"` // for which a rewritten sender is good
}

// SRSKey is one key. The first of the list signs.
type SRSKey struct {
	ID      int64     `json:"id"`
	Created time.Time `json:"created"`
}

func (s *Service) srsShow(ctx context.Context, _ Done) (SRSKeys, error) {
	list, err := s.store.SRSKeys(ctx)
	if err != nil {
		return SRSKeys{}, err
	}
	out := SRSKeys{Keys: make([]SRSKey, len(list)), Days: s.dir.Settings().SRSDays}
	for i, k := range list {
		out.Keys[i] = SRSKey{ID: k.ID, Created: k.Created.UTC()}
	}
	return out, nil
}

func (s *Service) srsRotate(ctx context.Context, _ Done) (SRSKeys, error) {
	if _, err := s.store.SRSKeys(ctx); err != nil { // what is signed by the first key stays good
		return SRSKeys{}, err
	}
	if err := s.store.RotateSRSKey(ctx, time.Duration(s.dir.Settings().SRSDays+1)*24*time.Hour); err != nil {
		return SRSKeys{}, err
	}
	s.log.Info("new key for senders of forwarded mail", "actor", actor(ctx))
	return s.srsShow(ctx, Done{})
}
