package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"waxwing/internal/store/blob"
)

// ScrubStatus is how far the scrub is, and what it knows.
type ScrubStatus struct {
	Segment  blob.Segment `json:"segment"` // the last content that was read lies there
	Place    int64        `json:"place"`
	Began    time.Time    `json:"began,omitzero"` // this round
	Checked  int64        `json:"checked"`        // contents in this round
	Octets   int64        `json:"octets"`
	Finished time.Time    `json:"finished,omitzero"` // the last whole round
	Damaged  int64        `json:"damaged"`           // contents that are known to be damaged
	Page     int64        `json:"page,omitempty"`    // of the database: where the round goes on, before it comes to the contents
	Broken   int64        `json:"broken,omitempty"`  // pages of the database that this round found damaged
}

// The rhythm of the scrub.
const (
	scrubRound = 24 * time.Hour // a round begins this long after the one before began, at the earliest
	scrubKeep  = 32 << 20       // octets after which the position is recorded
	scrubPage  = 100            // contents that one query lists
	scrubName  = "scrub"
)

// Scrub returns how far the scrub is.
func (s *Store) Scrub(ctx context.Context) (ScrubStatus, error) {
	var st ScrubStatus
	var text string
	err := s.reads.row(ctx, []any{&text}, `SELECT value FROM house_state WHERE name = $1`, scrubName)
	if err == nil {
		err = json.Unmarshal([]byte(text), &st)
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	if err == nil {
		err = s.reads.row(ctx, []any{&st.Damaged}, `SELECT count(*) FROM damaged_content AS d WHERE EXISTS (SELECT 1 FROM blob AS b WHERE b.blob_id = d.blob_id)`)
	}
	if err != nil {
		return st, fmt.Errorf("store: scrub: %w", err)
	}
	return st, nil
}

// ScrubStep reads contents from where the scrub is, about as many octets as recorded at once, at rate octets a second, and
// compares them with their SHA-256. What is damaged is noted and logged; what was, and is sound again, is forgotten. more is
// false when the round is over, until the next may begin. It goes on after a restart.
func (s *Store) ScrubStep(ctx context.Context, rate int64) (more bool, err error) {
	st, err := s.Scrub(ctx)
	if err != nil {
		return false, err
	}
	now := s.clock().UTC()
	if st.Began.IsZero() {
		if now.Sub(st.Finished) < scrubRound && !now.Before(st.Finished) {
			return false, nil
		}
		st = ScrubStatus{Began: now, Finished: st.Finished, Place: -1, Page: 1}
	}
	p := newPace(rate, nil)
	if st.Page > 0 {
		more, err = true, s.scrubDatabase(ctx, &st, p)
	} else {
		more, err = s.scrubSome(ctx, &st, p)
	}
	if err != nil {
		return more, fmt.Errorf("store: scrub: %w", err)
	}
	if !more {
		st.Finished, st.Began = st.Began, time.Time{}
	}
	text, err := json.Marshal(st)
	if err != nil {
		return more, fmt.Errorf("store: scrub: %w", err)
	}
	err = s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO house_state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, scrubName, string(text))
	})
	if err != nil {
		return more, fmt.Errorf("store: scrub: %w", err)
	}
	return more, nil
}

// PageScrubber is a Dialect whose database has sums of its pages.
type PageScrubber interface {
	// ScrubPages looks at a run of pages from one on, and writes back what it can put right.
	ScrubPages(ctx context.Context, conn *sql.Conn, first int64) (PageRun, error)
}

// PageRun is what ScrubPages found.
type PageRun struct {
	Next   int64 // where the next run begins; the first page has number 1, 0 is behind the last
	Octets int64 // that were read
	Mended int64 // pages that were put right
	Broken []int64
}

// scrubPages looks at a run of pages of the database, if it has any.
func (s *Store) scrubPages(ctx context.Context, first int64) (run PageRun, err error) {
	d, ok := s.db.Dialect.(PageScrubber)
	if !ok {
		return run, nil
	}
	err = s.reads.with(ctx, func(q *reader) error {
		run, err = d.ScrubPages(q.ctx, q.conn, first)
		return s.db.dbError(err)
	})
	if run.Mended > 0 {
		s.log.Warn("store: pages of the database had one wrong octet and were put right", "pages", run.Mended)
	}
	for _, n := range run.Broken {
		s.log.Error("store: damaged page of the database", "page", n)
	}
	return run, err
}

// scrubDatabase goes on with the pages of the database.
func (s *Store) scrubDatabase(ctx context.Context, st *ScrubStatus, p pace) error {
	for read := int64(0); read < scrubKeep && st.Page > 0; {
		r, err := s.scrubPages(ctx, st.Page)
		if err != nil {
			return err
		}
		st.Page, st.Broken, read = r.Next, st.Broken+int64(len(r.Broken)), read+r.Octets
		if err := p.spend(ctx, r.Octets); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) scrubSome(ctx context.Context, st *ScrubStatus, p pace) (more bool, err error) {
	open, end, err := s.audit()
	if err != nil {
		return true, err
	}
	defer func() { err = errors.Join(err, end()) }()
	for read := int64(0); read < scrubKeep; {
		list, err := s.contentsAfter(ctx, blob.Ref{Segment: st.Segment, Offset: st.Place}, scrubPage)
		if err != nil || len(list) == 0 {
			return false, err
		}
		for _, c := range list {
			bad, err := s.inspect(ctx, open, c)
			if err != nil {
				return true, err
			}
			if err := s.judged(ctx, c, bad); err != nil {
				return true, err
			}
			st.Segment, st.Place = c.ref.Segment, c.ref.Offset
			st.Checked, st.Octets, read = st.Checked+1, st.Octets+c.ref.Len, read+c.ref.Len
			if err := p.spend(ctx, c.ref.Len); err != nil {
				return true, err
			}
		}
	}
	return true, nil
}

// judged notes what inspect says of a content.
func (s *Store) judged(ctx context.Context, c stored, bad error) error {
	if bad == nil {
		var n int
		err := s.reads.row(ctx, []any{&n}, `SELECT count(*) FROM damaged_content WHERE blob_id = $1`, c.id)
		if err != nil || n == 0 {
			return err
		}
		return s.Write(ctx, func(tx *Tx) error { return tx.exec(`DELETE FROM damaged_content WHERE blob_id = $1`, c.id) })
	}
	owners, err := s.ownersOf(ctx, c.id)
	if err != nil {
		return err
	}
	for _, o := range owners {
		s.log.Error("store: damaged message", "account", o.Account, "mailbox", o.Name, "uid", o.UID, "message", o.Message, "place", c.ref.String(), "err", bad)
	}
	return s.noteDamage(ctx, c.id, c.ref.String(), bad.Error())
}
