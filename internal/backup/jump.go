package backup

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"waxwing/internal/store"
)

// How far the numbers of a restored server are ahead of those of the backup. What the server gave out between the backup
// and its end nobody knows; clients do, and none of it may come back with another meaning.
const (
	JumpUIDs     = 1 << 20 // in each mailbox
	JumpModSeqs  = 1 << 32 // in each account
	JumpIDs      = 1 << 24 // of messages and contents, from which POP3's UIDLs come
	JumpAccounts = 1 << 20
	JumpBoxes    = 1 << 20 // mailboxes of each account
	JumpQueue    = 1 << 20 // ids of queued messages and recipients
	JumpValidity = 1 << 10 // above the clock, in each account
)

// Ahead is a backup as a new server takes it: the same mail under the same UIDs and UIDVALIDITY, and
//
//   - all counters ahead, by the constants above;
//   - each entry changed anew, at the account's new MODSEQ: a client that saw later changes than the backup knows reads
//     all flags again, and what it saw come after the backup it finds gone. Tombstones are not needed behind such a step;
//   - all queued mail held: it may have been sent meanwhile, and is never sent again unasked. Asked, it is due as it was, or
//     left out;
//   - no schedule of backups: a copy on another machine must not write into the target of the first.
type Ahead struct {
	*Reader
	At    time.Time // of the restore; the same when it is begun again
	Queue QueueFate

	modseqs map[int64]int64 // of the accounts, the new ones
}

// QueueFate is what becomes of queued mail.
type QueueFate string

// The fates; the empty one is HoldQueue.
const (
	HoldQueue    QueueFate = "hold"
	ReleaseQueue QueueFate = "release"
	DropQueue    QueueFate = "drop"
)

var _ store.Source = (*Ahead)(nil)

// step changes a row; false leaves it out.
type step func(a *Ahead, r *record) bool

var steps = map[string]step{
	"sequence":          func(_ *Ahead, r *record) bool { return r.add("next", JumpIDs, math.MaxInt64) },
	"directory_counter": countAccounts,
	"mail_account":      stepAccount,
	"mailbox":           stepMailbox,
	"entry":             func(a *Ahead, r *record) bool { return r.set("modseq", a.modseqs[r.int("account_id")]) },
	"tombstone":         leaveOut,
	"mailbox_tombstone": leaveOut,
	"modseq_mark":       leaveOut,
	"queue_message":     func(a *Ahead, _ *record) bool { return a.Queue != DropQueue },
	"queue_recipient":   stepRecipient,
	"queue_destination": leaveOut, // those of waiting recipients: see destinations
	"setting":           func(_ *Ahead, r *record) bool { return r.text("name") != "backup.schedule" },
	"last_id":           func(_ *Ahead, r *record) bool { return r.add("id", JumpQueue, math.MaxInt64) },
}

func leaveOut(*Ahead, *record) bool { return false }

func countAccounts(_ *Ahead, r *record) bool {
	return r.text("name") != "account" || r.add("value", JumpAccounts, math.MaxInt64)
}

func stepAccount(a *Ahead, r *record) bool {
	now := r.int("modseq") + JumpModSeqs
	return r.set("modseq", now) && r.set("horizon", now) && r.add("next_mailbox", JumpBoxes, math.MaxInt64) &&
		r.set("last_validity", int64(AheadValidity(uint32(r.int("last_validity")), a.At)))
}

// AheadValidity is a UIDVALIDITY above those that an account may have given out since it had given out the last one.
func AheadValidity(last uint32, now time.Time) uint32 {
	return uint32(min(max(int64(last), now.Unix())+JumpValidity, math.MaxUint32))
}

// AheadUID is a UID above those that a mailbox may have given out since next was the next one; false when there is none.
func AheadUID(next uint32) (uint32, bool) {
	if next > math.MaxUint32-JumpUIDs {
		return 0, false
	}
	return next + JumpUIDs, true
}

func stepMailbox(a *Ahead, r *record) bool {
	return r.set("modseq", a.modseqs[r.int("account_id")]) && r.add("uid_next", JumpUIDs, math.MaxUint32)
}

func stepRecipient(a *Ahead, r *record) bool {
	if waits(r) {
		state := store.QueueHeld
		if a.Queue == ReleaseQueue {
			state = store.QueueWaiting
		}
		r.put("state", string(state))
	}
	r.put("lease_owner", "")
	return r.set("lease_until", 0) && a.Queue != DropQueue
}

// waits tells a recipient that was to be tried.
func waits(r *record) bool {
	s := r.text("state")
	return s == string(store.QueueWaiting) || s == string(store.QueueLeased)
}

var destinationColumns = []string{"domain", "lane", "due", "not_before"}

// destinations are the destinations of queued mail that is released: each is due when its first recipient is.
func (a *Ahead) destinations(ctx context.Context) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		type line struct {
			domain string
			lane   int64
		}
		due := make(map[line]int64)
		err := a.each(ctx, "queue_recipient", func(r *record) {
			if !waits(r) {
				return
			}
			to := line{r.text("domain"), r.lane()}
			at, known := due[to]
			if next := r.int("next_attempt"); !known || next < at {
				due[to] = next
			}
		})
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		for _, to := range slices.SortedFunc(maps.Keys(due), func(a, b line) int {
			return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.lane, b.lane))
		}) {
			if !yield(store.Record{Columns: destinationColumns, Values: []any{to.domain, to.lane, due[to], int64(0)}}, nil) {
				return
			}
		}
	}
}

// Contents implements store.Source: without what only queued mail named that is dropped.
func (a *Ahead) Contents(ctx context.Context) iter.Seq2[store.ContentInfo, error] {
	if a.Queue != DropQueue {
		return a.Reader.Contents(ctx)
	}
	return func(yield func(store.ContentInfo, error) bool) {
		queued := make(map[int64]int64)
		if err := a.each(ctx, "queue_message", func(r *record) { queued[r.int("blob_id")]++ }); err != nil {
			yield(store.ContentInfo{}, err)
			return
		}
		for c, err := range a.Reader.Contents(ctx) {
			if c.Refs -= queued[c.ID]; err == nil && c.Refs <= 0 && queued[c.ID] > 0 {
				continue
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// record is a row that is changed.
type record struct {
	store.Record
	err error
}

func (r *record) at(column string) int {
	i := slices.Index(r.Columns, column)
	if i < 0 && r.err == nil {
		r.err = fmt.Errorf("no column %s: %w", column, errFormat)
	}
	return i
}

func (r *record) int(column string) int64 {
	if i := r.at(column); i >= 0 {
		if v, ok := r.Values[i].(int64); ok {
			return v
		}
		r.err = fmt.Errorf("column %s: %w", column, errFormat)
	}
	return 0
}

// lane is the lane of a recipient; backups from before there were lanes have none.
func (r *record) lane() int64 {
	if !slices.Contains(r.Columns, "lane") {
		return 1
	}
	return r.int("lane")
}

func (r *record) text(column string) string {
	if i := r.at(column); i >= 0 {
		if v, ok := r.Values[i].(string); ok {
			return v
		}
		r.err = fmt.Errorf("column %s: %w", column, errFormat)
	}
	return ""
}

func (r *record) put(column string, v any) {
	if i := r.at(column); i >= 0 {
		r.Values[i] = v
	}
}

func (r *record) set(column string, v int64) bool {
	r.put(column, v)
	return true
}

// add raises a number; one that has no room for it is an error, as the next of its kind would be given out twice.
func (r *record) add(column string, n, limit int64) bool {
	v := r.int(column)
	if (v < 0 || v > limit-n) && r.err == nil {
		r.err = fmt.Errorf("column %s: %d can't be raised by %d", column, v, n)
	}
	return r.set(column, v+n)
}

// Rows implements store.Source.
func (a *Ahead) Rows(ctx context.Context, name string, acct store.AccountID) iter.Seq2[store.Record, error] {
	if name == "queue_destination" && a.Queue == ReleaseQueue {
		return a.destinations(ctx)
	}
	change := steps[name]
	if change == nil {
		return a.Reader.Rows(ctx, name, acct)
	}
	return func(yield func(store.Record, error) bool) {
		err := a.readModSeqs(ctx)
		if err != nil {
			yield(store.Record{}, err)
			return
		}
		for row, err := range a.Reader.Rows(ctx, name, acct) {
			if err != nil {
				yield(row, err)
				return
			}
			r := &record{Record: row}
			stays := change(a, r)
			if r.err != nil {
				yield(row, fmt.Errorf("backup %s: table %s: %w", a.ID, name, r.err))
				return
			}
			if stays && !yield(r.Record, nil) {
				return
			}
		}
	}
}

// readModSeqs learns the new MODSEQ of each account. Entries of an account that is gone, and still to be removed, get 0.
func (a *Ahead) readModSeqs(ctx context.Context) error {
	if a.modseqs != nil {
		return nil
	}
	found := make(map[int64]int64)
	for row, err := range a.Reader.Rows(ctx, "mail_account", 0) {
		if err != nil {
			return err
		}
		r := &record{Record: row}
		found[r.int("account_id")] = r.int("modseq") + JumpModSeqs
		if r.err != nil {
			return r.err
		}
	}
	a.modseqs = found
	return nil
}
