package control

import (
	"context"
	"slices"
	"time"

	"waxwing/internal/guard/surge"
)

// AccountSurge shows or sets what becomes of the surplus of a mail bomb against an account.
var AccountSurge = operation("account.surge", (*Service).accountSurge)

// SurgeChoice asks for it.
type SurgeChoice struct {
	Address string  `json:"address"`
	Action  *string `json:"action,omitempty"` // folder, defer, off, or default for the server's; nil only shows it
}

// SurgeState is what becomes of the surplus.
type SurgeState struct {
	Address string    `json:"address"`
	Action  string    `json:"action"` // the account's own choice, default for none
	Holds   string    `json:"holds"`  // what is done
	Told    time.Time `json:"told,omitzero"`
}

// defaultSurge is how "the server's choice" is asked for.
const defaultSurge = "default"

func (s *Service) accountSurge(ctx context.Context, req SurgeChoice) (SurgeState, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return SurgeState{}, err
	}
	if req.Action != nil {
		action := surge.Action(*req.Action)
		if action == defaultSurge {
			action = surge.Default
		} else if !slices.Contains(surge.Actions, action) {
			return SurgeState{}, &Error{Kind: Invalid, Field: "action", Text: "action: one of folder, defer, off, default"}
		}
		if err := s.store.SetSurgeAction(ctx, a.ID, string(action)); err != nil {
			return SurgeState{}, err
		}
		if s.server != nil {
			s.server.SurgeChanged(a.ID)
		}
		s.log.Info("choice for mail bombs changed", "account", a.Address.String(), "action", *req.Action, "actor", actor(ctx))
	}
	row, err := s.store.SurgeRow(ctx, a.ID)
	if err != nil {
		return SurgeState{}, err
	}
	out := SurgeState{Address: a.Address.Unicode(), Action: row.Action, Holds: row.Action, Told: utc(row.Told)}
	if row.Action == "" {
		out.Action, out.Holds = defaultSurge, s.dir.Settings().Stranger.SurgeAction
	}
	return out, nil
}
