package intake

import (
	"context"
	"fmt"
	"io"

	"waxwing/internal/smtp"
)

// Release takes in a message of a user that was held back until now, for recipients here (RFC 4865). It returns what was
// refused about single recipients, in their order, or an error about the whole message; what was not refused is committed
// when it returns.
func (in *Intake) Release(ctx context.Context, m smtp.Mail, rcpts []smtp.Rcpt, content io.Reader) ([]error, error) {
	t := in.Begin(Peer{})
	t.internal = true
	defer t.Abort()
	if err := t.Mail(ctx, m); err != nil {
		return nil, fmt.Errorf("release message of <%s>: %w", m.From, err)
	}
	refused := make([]error, len(rcpts))
	taken := 0
	for i, r := range rcpts {
		if refused[i] = t.Rcpt(ctx, r); refused[i] == nil {
			taken++
		}
	}
	if taken == 0 {
		return refused, nil
	}
	sp, err := t.Spool()
	if err == nil {
		_, err = sp.ReadFrom(content)
	}
	if err == nil {
		_, err = t.Commit(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("release message of <%s>: %w", m.From, err)
	}
	return refused, nil
}
