package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/guard"
	"waxwing/internal/intake"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

// How often it is looked who is on hold, and what was sent is written.
const (
	holdsEvery  = 2 * time.Second
	countsEvery = 30 * time.Second
)

// maxAlarms is how many alarms may wait to be mailed; each stands in the log before.
const maxAlarms = 100

// buildSending makes the check of what users send.
func (s *Server) buildSending(ctx context.Context, m *metrics) (err error) {
	s.parts.alarms = make(chan guard.Alarm, maxAlarms)
	s.parts.sending, err = guard.NewSending(ctx, guard.SendingOptions{
		Store: s.state.Store, Settings: s.state.Directory, Clock: time.Now, Logger: s.log.With("part", "guard"),
		Alarm: func(a guard.Alarm) {
			m.anomalies.Inc()
			select {
			case s.parts.alarms <- a:
			default:
			}
		},
		OnHold: s.onHold,
	})
	if err != nil {
		return fmt.Errorf("learn what was sent: %w", err)
	}
	return nil
}

func newAnomalies() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_sending_anomalies_total", Help: "Accounts that sent as they never did; each stands in the log, and its mail is on hold unless the settings say otherwise."})
}

// onHold ends the sessions of an account that has come on hold, where the settings ask for it.
func (s *Server) onHold(acct store.AccountID) {
	if s.parts.pop3 == nil || s.state.Directory.Settings().Guard.Sending.EndSessions != directory.Yes {
		return
	}
	if n := s.evict(int64(acct)); n > 0 {
		s.log.Info("sessions ended: the account is on hold", "account", int64(acct), "sessions", n)
	}
}

// runSending keeps what is known of sending in step with the store until ctx ends.
func (s *Server) runSending(ctx context.Context) {
	tick := time.NewTicker(holdsEvery)
	defer tick.Stop()
	flushed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			err := s.parts.sending.LearnHolds(ctx)
			if now.Sub(flushed) >= countsEvery {
				flushed = now
				err = errors.Join(err, s.parts.sending.Flush(ctx))
			}
			if err != nil && ctx.Err() == nil {
				s.log.Error("what users send can't be written or learned, it is tried again", "error", err)
			}
		}
	}
}

// runAlarms mails alarms to the postmaster until ctx ends.
func (s *Server) runAlarms(ctx context.Context, in *intake.Intake) {
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-s.parts.alarms:
			if err := s.mailAlarm(ctx, in, a); err != nil && ctx.Err() == nil {
				s.log.Error("the postmaster can't be told of an account that sends as it never did", "account", int64(a.Account), "error", err)
			}
		}
	}
}

func (s *Server) mailAlarm(ctx context.Context, in *intake.Intake, a guard.Alarm) error {
	acct, err := s.state.Directory.AccountByID(ctx, a.Account)
	if err != nil {
		return err
	}
	to, err := address.Parse("postmaster@" + acct.Address.Domain)
	if err != nil {
		return err
	}
	done, next := "Its mail flows on.", "waxwing sending hold "+acct.Address.String()
	if a.Held {
		done = "Its mail to others is kept in the queue, what it sends from now on too."
		next = "waxwing sending release " + acct.Address.String()
	}
	b := message.NewBuilder()
	b.Addresses("From", message.Address{Name: "Mail server", Local: "postmaster", Domain: acct.Address.Domain})
	b.Addresses("To", message.Address{Local: to.Local, Domain: to.Domain})
	b.Text("Subject", fmt.Sprintf("Unusual sending by %s", acct.Address))
	b.Date(time.Now())
	b.MessageID(s.cfg.Hostname)
	b.Raw("Auto-Submitted", "auto-generated") // RFC 3834, section 5
	b.Body(message.PlainText(fmt.Sprintf("The account %s sends as it never did.\n\n%s\n\n%s\nIf a stranger uses it, change its password and drop the mail:\n\n    waxwing account password %[1]s\n    waxwing queue drop --from %[1]s --state held\n\nIf all is well, or to act by hand:\n\n    %[4]s\n",
		acct.Address, a.Reason, done, next)))
	raw, err := b.Bytes()
	if err != nil {
		return err
	}
	_, err = in.Submit(ctx, address.Address{}, []address.Address{to}, raw)
	return err
}
