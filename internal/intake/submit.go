package intake

import (
	"context"
	"fmt"

	"waxwing/internal/address"
	"waxwing/internal/smtp"
	"waxwing/internal/trace"
)

// Submit takes a message that this server made: a notification, or what the command line sends. The sender may be null
// and need not be anyone's own address; recipients may be here or elsewhere. All recipients get it or, with an error
// that names the one that was refused, none. Date and Message-ID are supplied when they are missing, Bcc is removed.
func (in *Intake) Submit(ctx context.Context, from address.Address, rcpts []address.Address, raw []byte) (Receipt, error) {
	trail := in.opts.Trace.Trail()
	defer trail.Close()
	t := in.Begin(Peer{Trail: trail})
	t.internal = true
	defer t.Abort()
	in.tellOrigin(ctx, trail, from, rcpts)
	if err := t.fill(ctx, from, rcpts, raw); err != nil {
		return Receipt{}, err
	}
	r, err := t.Commit(ctx)
	if err != nil {
		return Receipt{}, fmt.Errorf("submit from <%s>: %w", from, err)
	}
	in.opts.Trace.Record(trace.CauseOf(ctx), trace.Step{Kind: trace.Report, Data: []trace.Pair{{Name: trace.OtherID, Value: r.TraceID}}})
	return r, nil
}

// fill gives a transaction of this server its envelope and content.
func (t *Transaction) fill(ctx context.Context, from address.Address, rcpts []address.Address, raw []byte) error {
	if err := t.Mail(ctx, smtp.Mail{From: from, Size: int64(len(raw)), UTF8: !from.ASCII()}); err != nil {
		return fmt.Errorf("submit from <%s>: %w", from, err)
	}
	for _, to := range rcpts {
		if err := t.Rcpt(ctx, smtp.Rcpt{To: to}); err != nil {
			return fmt.Errorf("submit to <%s>: %w", to, err)
		}
	}
	sp, err := t.Spool()
	if err == nil {
		_, err = sp.Write(raw)
	}
	if err != nil {
		return fmt.Errorf("submit from <%s>: %w", from, err)
	}
	return nil
}

// tellOrigin begins the trail of a message that this server made.
func (in *Intake) tellOrigin(ctx context.Context, trail *trace.Trail, from address.Address, rcpts []address.Address) {
	trail.SetID(in.opts.IDs())
	step := trace.Step{Kind: trace.Cause, Reason: "made by this server"}
	if cause := trace.CauseOf(ctx); cause != "" {
		step.Data = []trace.Pair{{Name: trace.OtherID, Value: cause}}
	}
	trail.Add(step)
	trail.Add(trace.Step{Kind: trace.Sender, Address: from.String()})
	for _, to := range rcpts {
		trail.Add(trace.Step{Kind: trace.Recipient, Address: to.String()})
	}
}
