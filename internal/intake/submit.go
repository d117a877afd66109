package intake

import (
	"context"
	"fmt"

	"waxwing/internal/address"
	"waxwing/internal/smtp"
)

// Submit takes a message that this server made: a notification, or what the command line sends. The sender may be null
// and need not be anyone's own address; recipients may be here or elsewhere. All recipients get it or, with an error
// that names the one that was refused, none. Date and Message-ID are supplied when they are missing, Bcc is removed.
func (in *Intake) Submit(ctx context.Context, from address.Address, rcpts []address.Address, raw []byte) (Receipt, error) {
	t := in.Begin(Peer{})
	t.internal = true
	defer t.Abort()
	if err := t.Mail(ctx, smtp.Mail{From: from, Size: int64(len(raw)), UTF8: !from.ASCII()}); err != nil {
		return Receipt{}, fmt.Errorf("submit from <%s>: %w", from, err)
	}
	for _, to := range rcpts {
		if err := t.Rcpt(ctx, smtp.Rcpt{To: to}); err != nil {
			return Receipt{}, fmt.Errorf("submit to <%s>: %w", to, err)
		}
	}
	sp, err := t.Spool()
	if err != nil {
		return Receipt{}, fmt.Errorf("submit from <%s>: %w", from, err)
	}
	if _, err := sp.Write(raw); err != nil {
		return Receipt{}, fmt.Errorf("submit from <%s>: %w", from, err)
	}
	r, err := t.Commit(ctx)
	if err != nil {
		return Receipt{}, fmt.Errorf("submit from <%s>: %w", from, err)
	}
	return r, nil
}
