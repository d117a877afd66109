package smtpserver

import (
	"io"

	"waxwing/internal/auth"
	"waxwing/internal/intake"
)

var _ Authenticator = (*auth.Auth)(nil)

// Bind makes the intake of this server an Intake.
func Bind(in *intake.Intake) Intake { return bound{in} }

type bound struct{ *intake.Intake }

func (b bound) Begin(p intake.Peer) Transaction { return boundTransaction{b.Intake.Begin(p)} }

type boundTransaction struct{ *intake.Transaction }

func (t boundTransaction) Spool() (io.Writer, error) {
	spool, err := t.Transaction.Spool()
	if err != nil {
		return nil, err // not a nil *Spool in a non-nil Writer
	}
	return spool, nil
}
