package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/guard"
	"waxwing/internal/store"
)

// Operations on what users may send.
var (
	SendingList    = operation("sending.list", (*Service).sendingList)
	SendingLimit   = operation("sending.limit", (*Service).sendingLimit)
	SendingUnlimit = operation("sending.unlimit", (*Service).sendingUnlimit)
	SendingHold    = operation("sending.hold", (*Service).sendingHold)
	SendingRelease = operation("sending.release", (*Service).sendingRelease)
)

// Sending is the limits of domains and accounts that have their own, and who is on hold.
type Sending struct {
	Limits []directory.SendingLimit `json:"limits"`
	Holds  []HeldSender             `json:"holds"`
}

// HeldSender says why the mail of an account is kept in the queue.
type HeldSender struct {
	Address string    `json:"address"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
}

// SendingUse is what an account has sent, as it was written last, half a minute ago at most.
type SendingUse struct {
	MessagesPerHour   Allowance   `json:"messages_per_hour"`
	MessagesPerDay    Allowance   `json:"messages_per_day"`
	RecipientsPerHour Allowance   `json:"recipients_per_hour"`
	RecipientsPerDay  Allowance   `json:"recipients_per_day"`
	Usual             int64       `json:"usual_recipients_per_hour"` // of an hour in which anything is sent
	Hold              *HeldSender `json:"hold,omitempty"`
}

// Allowance is how much of a limit is used; a limit of 0 is none.
type Allowance struct {
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"`
}

// HoldRequest asks to keep an account's mail in the queue.
type HoldRequest struct {
	Address string `json:"address"`
	Reason  string `json:"reason"`
}

// HeldMail tells how many recipients in the queue an act was about.
type HeldMail struct {
	Address    string `json:"address"`
	Recipients int    `json:"recipients"`
}

// SendingScope names what a limit is for.
type SendingScope struct {
	For string `json:"for"`
}

func (s *Service) sendingList(ctx context.Context, _ Done) (Sending, error) {
	out := Sending{Limits: append([]directory.SendingLimit{}, s.rules().Sending...), Holds: []HeldSender{}}
	holds, err := s.store.SendingHolds(ctx)
	if err != nil {
		return out, err
	}
	for _, h := range holds {
		acct, err := s.dir.AccountByID(ctx, h.Account)
		if errors.Is(err, directory.ErrNotFound) {
			continue
		}
		if err != nil {
			return out, err
		}
		out.Holds = append(out.Holds, HeldSender{acct.Address.Unicode(), h.Reason, h.Since.UTC()})
	}
	return out, nil
}

func (s *Service) sendingLimit(ctx context.Context, req directory.SendingLimit) (directory.SendingLimit, error) {
	return s.dir.SetSending(ctx, req)
}

func (s *Service) sendingUnlimit(ctx context.Context, req SendingScope) (Done, error) {
	return Done{}, s.dir.RemoveSending(ctx, req.For)
}

func (s *Service) sendingHold(ctx context.Context, req HoldRequest) (HeldMail, error) {
	acct, err := s.account(ctx, req.Address)
	if err != nil {
		return HeldMail{}, err
	}
	reason := req.Reason
	if reason == "" {
		reason = "by an administrator"
	}
	if _, err := s.store.HoldSending(ctx, acct.ID, reason); err != nil {
		return HeldMail{}, err
	}
	n, err := s.store.QueueHold(ctx, store.QueueFilter{Account: acct.ID})
	s.log.Info("the mail of an account is on hold", "account", acct.Address.String(), "reason", reason, "recipients", n, "actor", actor(ctx))
	return HeldMail{acct.Address.Unicode(), n}, err
}

// sendingRelease ends the hold first: what comes in meanwhile is then not held again.
func (s *Service) sendingRelease(ctx context.Context, req AccountRef) (HeldMail, error) {
	acct, err := s.account(ctx, req.Address)
	if err != nil {
		return HeldMail{}, err
	}
	if err := s.store.ReleaseSending(ctx, acct.ID); err != nil {
		return HeldMail{}, err
	}
	n, err := s.store.QueueRelease(ctx, store.QueueFilter{Account: acct.ID, State: store.QueueHeld})
	s.log.Info("the mail of an account is released", "account", acct.Address.String(), "recipients", n, "actor", actor(ctx))
	return HeldMail{acct.Address.Unicode(), n}, err
}

// sendingUse tells what an account has sent.
func (s *Service) sendingUse(ctx context.Context, acct directory.Account) (*SendingUse, error) {
	count, err := s.store.SendingCount(ctx, acct.ID)
	if err != nil {
		return nil, err
	}
	u := guard.UseOf(s.dir.Settings(), count, acct.Address.Key(), acct.Address.Domain, s.clock())
	allowance := func(i int) Allowance { return Allowance{u.Used[i], u.Allowed[i]} }
	out := &SendingUse{
		MessagesPerHour: allowance(0), MessagesPerDay: allowance(1), RecipientsPerHour: allowance(2), RecipientsPerDay: allowance(3), Usual: u.Usual,
	}
	holds, err := s.store.SendingHolds(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(holds, func(h store.SendingHold) bool { return h.Account == acct.ID }); i >= 0 {
		out.Hold = &HeldSender{acct.Address.Unicode(), holds[i].Reason, holds[i].Since.UTC()}
	}
	return out, nil
}
