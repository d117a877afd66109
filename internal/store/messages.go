package store

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"waxwing/internal/store/blob"
)

// summaryBatch is how many summaries one query reads.
const summaryBatch = 128

// Summaries calls fn for the messages in the order of ids. A message that is gone is left out. So is one whose summary is
// damaged: the others are still read, and the error at the end is ErrCorrupt. A Summary is shared with other callers: do not
// change it. An error of fn ends it and is returned as it is. Nothing of the database is held while fn runs, so that it may
// write to the network.
func (s *Store) Summaries(ctx context.Context, acct AccountID, ids []MessageID, fn func(MessageID, *Summary) error) error {
	b := summaryBatches.Get().(*summaryRows)
	defer b.release()
	var damaged error
	for len(ids) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(summaryBatch, len(ids))
		if s.recallSummaries(acct, ids[:n], b); len(b.missing) > 0 {
			if err := s.readSummaries(ctx, acct, b.missing, b); err != nil {
				return fmt.Errorf("store: summaries of account %d: %w", acct, s.db.dbError(err))
			}
			damaged = errors.Join(damaged, s.decodeSummaries(acct, ids[:n], b))
		}
		for i, m := range b.found[:n] {
			if m == nil {
				continue
			}
			if err := fn(ids[i], m); err != nil {
				return err
			}
		}
		ids = ids[n:]
	}
	return damaged
}

// messageKey names a message in the memory of summaries.
type messageKey struct {
	acct AccountID
	id   MessageID
}

// recallSummaries takes what is remembered, and lists what is missing.
func (s *Store) recallSummaries(acct AccountID, ids []MessageID, b *summaryRows) {
	b.missing = b.missing[:0]
	for i, id := range ids {
		if b.found[i], _ = s.summaries.Get(messageKey{acct, id}); b.found[i] == nil {
			b.missing = append(b.missing, id)
		}
	}
}

// summaryOverhead is about what a remembered summary takes beside its octets, which it holds up to twice.
const summaryOverhead = 400

// decodeSummaries puts the rows of a batch, which stand in the order of those that were missing, into their places.
func (s *Store) decodeSummaries(acct AccountID, ids []MessageID, b *summaryRows) (damaged error) {
	rows := b.rows
	for i, id := range ids {
		if b.found[i] != nil || len(rows) == 0 || rows[0].id != id {
			continue // remembered, or gone
		}
		raw := bytes.Clone(rows[0].data(b))
		rows = rows[1:]
		m := new(Summary)
		if err := decodeSummary(raw, m); err != nil {
			s.log.Error("store: damaged summary", "account", acct, "message", id, "err", err)
			damaged = errors.Join(damaged, fmt.Errorf("store: message %d of account %d: %w", id, acct, err))
			continue
		}
		s.summaries.Put(messageKey{acct, id}, m, int64(2*len(raw)+summaryOverhead))
		b.found[i] = m
	}
	return damaged
}

// summaryRows is a batch of encoded summaries: buf holds them all.
type summaryRows struct {
	buf     []byte
	rows    []summaryRow
	missing []MessageID // of a batch: those that must be read
	found   [summaryBatch]*Summary
}

// release gives a batch back, without what it holds of others.
func (r *summaryRows) release() {
	clear(r.found[:])
	summaryBatches.Put(r)
}

type summaryRow struct {
	id       MessageID
	from, to int
}

func (r *summaryRow) data(b *summaryRows) []byte { return b.buf[r.from:r.to] }

var summaryBatches = sync.Pool{New: func() any { return new(summaryRows) }}

// readSummaries reads one batch in the order of ids.
func (s *Store) readSummaries(ctx context.Context, acct AccountID, ids []MessageID, b *summaryRows) error {
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = int64(id)
	}
	b.buf, b.rows = b.buf[:0], b.rows[:0]
	d := s.db.Dialect
	next, ordered := 0, true
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var id MessageID
		var raw sql.RawBytes
		if err := rows.Scan(&id, &raw); err != nil {
			return err
		}
		from := len(b.buf)
		b.buf = append(b.buf, raw...)
		b.rows = append(b.rows, summaryRow{id, from, len(b.buf)})
		for next < len(ids) && ids[next] != id {
			next++
		}
		ordered = ordered && next < len(ids)
		return nil
	}, `SELECT m.message_id, m.summary FROM `+d.Table("t", "$2")+`, message AS m WHERE m.message_id = t.v AND m.account_id = $1`,
		acct, d.Numbers(list))
	if err != nil {
		return err
	}
	if !ordered { // the planner is free to begin with the messages
		b.sort(ids)
	}
	return nil
}

// sort puts the rows into the order of ids.
func (b *summaryRows) sort(ids []MessageID) {
	at := make(map[MessageID]int, len(ids))
	for i, id := range ids {
		at[id] = i
	}
	slices.SortStableFunc(b.rows, func(x, y summaryRow) int { return cmp.Compare(at[x.id], at[y.id]) })
}

// OpenBlob opens the octets of a message; Close it.
func (s *Store) OpenBlob(ctx context.Context, acct AccountID, id MessageID) (Blob, error) {
	var b Blob
	err := s.atRef(ctx, acct, id, func(ref blob.Ref) (err error) {
		b, err = s.blobs.Open(ref)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: open message %d of account %d: %w", id, acct, err)
	}
	return checkedBlob{b}, nil
}

// checkedBlob gives errors of reading their place among the errors of this package.
type checkedBlob struct{ Blob }

func (b checkedBlob) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.Blob.ReadAt(p, off)
	return n, blobError(err)
}

// ReadBlob reads the octets of a whole message, into buf's memory when it suffices. What buf held is lost.
func (s *Store) ReadBlob(ctx context.Context, acct AccountID, id MessageID, buf []byte) ([]byte, error) {
	out := buf
	err := s.atRef(ctx, acct, id, func(ref blob.Ref) (err error) {
		out, err = s.blobs.ReadInto(ref, buf)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: read message %d of account %d: %w", id, acct, err)
	}
	return out, nil
}

// atRef calls fn with the place of a message's octets. Compaction may move them between the look and the touch, and a content
// that came again takes the place of a damaged one: then the place is looked up again.
func (s *Store) atRef(ctx context.Context, acct AccountID, id MessageID, fn func(ref blob.Ref) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ref, cached := s.refs.get(acct, id)
	for range 4 {
		if !cached {
			var err error
			if ref, err = s.findMessage(ctx, acct, id); err != nil {
				return err
			}
			s.refs.put(acct, id, ref)
		}
		err := fn(ref)
		if err == nil {
			return nil
		}
		s.refs.drop(id)
		if !errors.Is(err, blob.ErrGone) && (!cached || !errors.Is(err, blob.ErrCorrupt)) {
			return blobError(err)
		}
		cached = false
	}
	return fmt.Errorf("%w: %s is gone", ErrCorrupt, ref)
}

func (s *Store) findMessage(ctx context.Context, acct AccountID, id MessageID) (blob.Ref, error) {
	var ref blob.Ref
	err := s.reads.row(ctx, scanRef(&ref), `SELECT b.segment, b.place, b.stored, b.length, b.hash_key
		FROM message AS m JOIN blob AS b ON b.blob_id = m.blob_id WHERE m.account_id = $1 AND m.message_id = $2`, acct, id)
	if errors.Is(err, sql.ErrNoRows) {
		return ref, ErrNotFound
	}
	return ref, err
}

// PrefetchBlobs looks up at once where many messages are, for a caller who is about to read them one after the other. It is
// a hint: an error shows where the message is read.
func (s *Store) PrefetchBlobs(ctx context.Context, acct AccountID, ids []MessageID) {
	for len(ids) > 0 && ctx.Err() == nil {
		n := min(summaryBatch, len(ids))
		if err := s.prefetch(ctx, acct, ids[:n]); err != nil {
			s.log.Debug("store: prefetch", "account", acct, "err", err)
			return
		}
		ids = ids[n:]
	}
}

func (s *Store) prefetch(ctx context.Context, acct AccountID, ids []MessageID) error {
	list := make([]int64, 0, len(ids))
	for _, id := range ids {
		if _, ok := s.refs.get(acct, id); !ok {
			list = append(list, int64(id))
		}
	}
	if len(list) == 0 {
		return nil
	}
	d := s.db.Dialect
	return s.reads.each(ctx, func(rows *sql.Rows) error {
		var id MessageID
		var ref blob.Ref
		if err := rows.Scan(append([]any{&id}, scanRef(&ref)...)...); err != nil {
			return err
		}
		s.refs.put(acct, id, ref)
		return nil
	}, `SELECT m.message_id, b.segment, b.place, b.stored, b.length, b.hash_key FROM message AS m JOIN blob AS b ON b.blob_id = m.blob_id
		WHERE m.account_id = $1 AND `+d.In("m.message_id", "$2"), acct, d.Numbers(list))
}

// OpenBlobID opens a content by its own id, which rows of the queue hold.
func (s *Store) OpenBlobID(ctx context.Context, blobID int64) (Blob, error) {
	for range 3 {
		var ref blob.Ref
		err := s.reads.row(ctx, scanRef(&ref), `SELECT segment, place, stored, length, hash_key FROM blob WHERE blob_id = $1`, blobID)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrNotFound
		}
		if err != nil {
			return nil, fmt.Errorf("store: open content %d: %w", blobID, err)
		}
		b, err := s.blobs.Open(ref)
		if errors.Is(err, blob.ErrGone) {
			continue // moved between the look and the touch
		}
		if err != nil {
			return nil, fmt.Errorf("store: open content %d: %w", blobID, blobError(err))
		}
		return checkedBlob{b}, nil
	}
	return nil, fmt.Errorf("store: open content %d: %w", blobID, ErrCorrupt)
}

// GUID names a message for ever, in a form that POP3's UIDL (RFC 1939, section 7) and EMAILID (RFC 8474, section 4) take.
// Copies of a message in several mailboxes have the same.
func (s *Store) GUID(acct AccountID, id MessageID) string {
	b := make([]byte, 0, 28)
	b = append(b, 'M')
	b = strconv.AppendInt(b, int64(acct), 36)
	b = append(b, '-')
	return string(strconv.AppendInt(b, int64(id), 36))
}

// UIDLs returns the POP3 unique ids that messages of the account brought from another server. Those without one have their
// GUID.
func (s *Store) UIDLs(ctx context.Context, acct AccountID) (map[MessageID]string, error) {
	out := make(map[MessageID]string)
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var id MessageID
		var uidl string
		err := rows.Scan(&id, &uidl)
		out[id] = uidl
		return err
	}, `SELECT message_id, uidl FROM message WHERE account_id = $1 AND uidl IS NOT NULL`, acct)
	if err != nil {
		return nil, fmt.Errorf("store: unique ids of account %d: %w", acct, err)
	}
	return out, nil
}

// refs remembers where messages are. It holds two generations of entries: when the new one is full it becomes the old one,
// and what is asked for again moves over.
type refs struct {
	max int

	mu       sync.Mutex
	new, old map[MessageID]refEntry
}

type refEntry struct {
	acct AccountID
	ref  blob.Ref
}

func newRefs(max int) *refs {
	return &refs{max: max, new: make(map[MessageID]refEntry)}
}

func (r *refs) get(acct AccountID, id MessageID) (blob.Ref, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.new[id]
	if !ok {
		if e, ok = r.old[id]; ok {
			r.set(id, e)
		}
	}
	return e.ref, ok && e.acct == acct
}

func (r *refs) put(acct AccountID, id MessageID, ref blob.Ref) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set(id, refEntry{acct, ref})
}

// set adds an entry; r.mu is held.
func (r *refs) set(id MessageID, e refEntry) {
	if len(r.new) >= r.max/2 {
		r.old, r.new = r.new, make(map[MessageID]refEntry, r.max/2)
	}
	r.new[id] = e
}

func (r *refs) drop(id MessageID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.new, id)
	delete(r.old, id)
}
