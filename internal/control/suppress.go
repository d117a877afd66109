package control

import (
	"context"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/store"
)

// Operations on addresses that nothing is sent to.
var (
	SuppressList   = operation("queue.suppress.list", (*Service).suppressList)
	SuppressAdd    = operation("queue.suppress.add", (*Service).suppressAdd)
	SuppressRemove = operation("queue.suppress.remove", (*Service).suppressRemove)
)

// Suppressed is an address that nothing is sent to, by anybody or by senders of one domain.
type Suppressed struct {
	Address  string    `json:"address"`
	Sender   string    `json:"sender,omitempty"` // domain; "" for all
	Failures int       `json:"failures,omitempty"`
	Since    time.Time `json:"since,omitzero"` // zero: failures are only counted so far
	Expires  time.Time `json:"expires,omitzero"`
	Reason   string    `json:"reason,omitempty"`
}

// SuppressPage asks for suppressed addresses, in their order.
type SuppressPage struct {
	After   Suppressed `json:"after"`             // its address and sender
	Counted bool       `json:"counted,omitempty"` // also those whose failures are only counted
	Limit   int        `json:"limit,omitempty"`
}

// SuppressedList is a page.
type SuppressedList struct {
	Addresses []Suppressed `json:"addresses"`
	More      bool         `json:"more,omitempty"`
}

// maxSuppressPage bounds a page and what is added at a time.
const maxSuppressPage = 1000

func (s *Service) suppressList(ctx context.Context, req SuppressPage) (SuppressedList, error) {
	limit := req.Limit
	if limit <= 0 || limit > maxSuppressPage {
		limit = maxSuppressPage
	}
	list, err := s.store.Suppressions(ctx, store.Suppression{Address: req.After.Address, Sender: req.After.Sender}, req.Counted, limit)
	if err != nil {
		return SuppressedList{}, err
	}
	out := SuppressedList{Addresses: make([]Suppressed, len(list)), More: len(list) == limit}
	for i, x := range list {
		out.Addresses[i] = Suppressed{x.Address, x.Sender, x.Failures, utc(x.Since), utc(x.Expires), x.Reason}
	}
	return out, nil
}

func (s *Service) suppressAdd(ctx context.Context, req SuppressedList) (Done, error) {
	if len(req.Addresses) == 0 || len(req.Addresses) > maxSuppressPage {
		return Done{}, Errorf(Invalid, "addresses: 1 to %d at a time", maxSuppressPage)
	}
	now := time.Now()
	list := make([]store.Suppression, len(req.Addresses))
	for i, x := range req.Addresses {
		a, err := address.Parse(x.Address)
		if err != nil {
			return Done{}, &Error{Kind: Invalid, Field: "address", Text: x.Address + ": " + err.Error()}
		}
		sender := ""
		if x.Sender != "" {
			if sender, err = domainField("sender", x.Sender); err != nil {
				return Done{}, err
			}
		}
		if x.Since.IsZero() {
			x.Since = now
		}
		if x.Expires.IsZero() {
			x.Expires = now.Add(s.suppressFor())
		}
		if x.Reason == "" {
			x.Reason = "by an administrator"
		}
		list[i] = store.Suppression{Address: strings.ToLower(a.String()), Sender: sender, Failures: max(x.Failures, 0), Since: x.Since, Expires: x.Expires, Reason: x.Reason}
	}
	err := s.store.Suppress(ctx, list)
	if err == nil {
		s.log.Info("addresses suppressed", "count", len(list), "first", list[0].Address, "actor", actor(ctx))
	}
	return Done{}, err
}

// suppressFor is for how long nothing is sent to an address.
func (s *Service) suppressFor() time.Duration {
	return time.Duration(s.dir.Settings().SuppressForDays) * 24 * time.Hour
}

func (s *Service) suppressRemove(ctx context.Context, req Suppressed) (Done, error) {
	err := s.store.Unsuppress(ctx, req.Address, req.Sender)
	if err == nil {
		s.log.Info("address no longer suppressed", "address", req.Address, "sender", req.Sender, "actor", actor(ctx))
	}
	return Done{}, err
}
