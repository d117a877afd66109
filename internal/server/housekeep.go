package server

import (
	"context"
	"errors"
	"time"

	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/store/schema"
)

// The rhythm of the house.
const (
	housekeepEvery = 10 * time.Minute
	lookEvery      = 15 * time.Second
	certWarning    = 21 * 24 * time.Hour
)

// watch looks after the conditions that the health page shows.
func (s *Server) watch(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		s.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// housekeep frees what nothing refers to and, when there is a new data key, encrypts anew. That may take hours.
func (s *Server) housekeep(ctx context.Context) {
	clean := time.NewTicker(housekeepEvery)
	defer clean.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-clean.C:
		case <-s.state.keysChanged():
		}
		lead, done := s.state.Store.WhileLeading(ctx) // of several nodes one does it
		var err error
		if lead.Err() == nil {
			err = ignoreStop(lead, errors.Join(s.state.Store.Housekeep(lead), s.parts.trace.Expire(lead), s.parts.trace.Tidy(lead)))
		}
		done()
		if err = ignoreStop(ctx, errors.Join(err, s.state.expireCopies(ctx))); err != nil {
			s.log.Error("housekeeping failed, it is tried again", "error", err)
		}
		s.health.Set("housekeeping", err)
	}
}

func ignoreStop(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// look sets the conditions.
func (s *Server) look(ctx context.Context) {
	free, err := durable.OS.Free(s.cfg.DataDir)
	if err == nil && free < int64(s.cfg.Spool.DiskReserve) {
		err = errors.New("less free space than spool.disk_reserve: mail is put off until there is more")
	}
	s.health.Set("disk", err)
	err = s.askStore(ctx, lookEvery)
	var newer *schema.NewerError
	if errors.As(err, &newer) { // nodes of a newer version have the database now
		s.fail(err)
	}
	s.health.Set("store", err)
	s.health.Set("search", s.state.search.Status().Err)
	var expiry error
	for _, c := range s.keys.Certificates() {
		switch left := time.Until(c.Leaf.NotAfter); {
		case left <= 0:
			expiry = errors.New("the certificate of " + c.Leaf.Subject.CommonName + " has expired")
		case left < certWarning && expiry == nil:
			expiry = errors.New("the certificate of " + c.Leaf.Subject.CommonName + " expires on " + c.Leaf.NotAfter.UTC().Format(time.DateOnly))
		}
	}
	s.health.Set("certificate", expiry)
}

// errAnswered is what the question to the writer ends with, so that nothing is written.
var errAnswered = errors.New("the writer answers")

// askStore reads one row, and has the writer open a transaction that writes nothing. A store whose writer hangs answers
// readers for hours, while nothing is taken and nothing can be marked as read.
func (s *Server) askStore(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := s.state.Store.Read(ctx, func(q store.Querier) error {
		var one int
		return q.QueryRow(`SELECT 1`).Scan(&one)
	})
	if err != nil {
		return err
	}
	err = s.state.Store.Write(ctx, func(*store.Tx) error { return errAnswered })
	if errors.Is(err, errAnswered) {
		return nil
	}
	return err
}

// alive tells whether the store answers in time. An answer that it can't write now, as on a full disk, is one: a restart
// mends nothing there, and mail can still be read.
func (s *Server) alive(ctx context.Context, within time.Duration) bool {
	err := s.askStore(ctx, within)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		s.log.Error("the store does not answer", "within", within)
		return false
	}
	return true
}
