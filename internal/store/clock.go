package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Bounds of what a clock that jumps can do.
const (
	clockNote  = time.Hour       // how often the time is noted
	clockGap   = 24 * time.Hour  // a longer one between two looks is a jump, or a server that stood still
	clockGrace = 72 * time.Hour  // for how long at most nothing goes by age after that
	clockBack  = 5 * time.Minute // what a clock may be set back without a word
	clockName  = "clock"         // in house_state
)

// clockBegin is before any time that this program can run at: a clock that is behind it was never set.
var clockBegin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clockState is what is remembered of the clock, in seconds since 1970.
type clockState struct {
	Seen  int64 `json:"seen"`
	Grace int64 `json:"grace,omitempty"` // nothing goes by age before
	Back  bool  `json:"back,omitempty"`  // it was set back, and rows may have times that are yet to come
}

// MayExpire looks at the clock, and tells whether what is old may go now. When the clock jumps ahead, or the server was down
// for days, all that waits for its time seems to be over it at once: mail that users may still want back, and what their
// programs need to catch up. So after a gap of a day nothing goes by age for as long as the gap was, at most three days, in
// which somebody can notice and set the clock right. A clock that was set back is believed after three days: then what
// has a time that is yet to come gets the time of now. Housekeep asks; whoever else lets things go by age asks first.
func (s *Store) MayExpire(ctx context.Context) (bool, error) {
	may, err := s.lookAtClock(ctx, s.clock())
	if err != nil {
		return false, fmt.Errorf("store: clock: %w", err)
	}
	return may, nil
}

func (s *Store) lookAtClock(ctx context.Context, now time.Time) (bool, error) {
	if now.Before(clockBegin) {
		return false, nil
	}
	var st clockState
	var text string
	err := s.reads.row(ctx, []any{&text}, `SELECT value FROM house_state WHERE name = $1`, clockName)
	if err == nil {
		err = json.Unmarshal([]byte(text), &st)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	switch gap := now.Sub(time.Unix(st.Seen, 0)); {
	case st.Seen == 0:
	case gap > clockGap:
		st.Grace = now.Add(min(gap, clockGrace)).Unix()
		s.log.Warn("store: the clock jumped ahead or the server was down: nothing goes by age for a while", "gap", gap, "until", time.Unix(st.Grace, 0))
	case gap < -clockBack:
		st.Grace, st.Back = now.Add(clockGrace).Unix(), true
		s.log.Warn("store: the clock was set back: nothing goes by age for a while", "gap", gap, "until", time.Unix(st.Grace, 0))
	case gap < clockNote:
		return now.Unix() >= st.Grace, nil
	}
	may := now.Unix() >= st.Grace
	if st.Back && may {
		if err := s.setBack(ctx, now); err != nil {
			return false, err
		}
		st.Back = false
	}
	st.Seen = now.Unix()
	b, err := json.Marshal(st)
	if err != nil {
		return false, err
	}
	return may, s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO house_state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, clockName, string(b))
	})
}

// setBack gives what was expunged while the clock was ahead the time of now, so that it can be restored for as long as
// anything else, and no longer. Marks of days to come would keep others from being made.
func (s *Store) setBack(ctx context.Context, now time.Time) error {
	return s.Write(ctx, func(tx *Tx) error {
		for _, query := range []string{
			`UPDATE expunged_entry SET expunged_at = $1 WHERE expunged_at > $1`,
			`UPDATE deleted_mailbox SET deleted_at = $1 WHERE deleted_at > $1`,
			`DELETE FROM modseq_mark WHERE at > $1`,
		} {
			if err := tx.exec(query, now.Unix()); err != nil {
				return err
			}
		}
		return nil
	})
}
