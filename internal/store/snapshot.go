package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"waxwing/internal/store/blob"
)

const (
	snapshotPage = 250 // rows that are read at a time
	maxSnapshots = 2   // open at the same time
)

// Source is a whole store at one moment: a Snapshot, or what was written of one.
type Source interface {
	// Rows gives the rows of a table, in the order of its primary key. With an account it gives only that account's, none of a
	// table that isn't by account; 0 is all.
	Rows(ctx context.Context, table string, acct AccountID) iter.Seq2[Record, error]
	// Contents gives what the rows name, in ascending order of ID.
	Contents(ctx context.Context) iter.Seq2[ContentInfo, error]
	// Open opens a content; ErrCorrupt, from Open or from reading, says that this one is damaged.
	Open(ctx context.Context, c ContentInfo) (Blob, error)
}

// ContentInfo is a content as rows name it.
type ContentInfo struct {
	ID   int64   // blob_id of the rows that name it
	Sum  blob.ID // SHA-256
	Size int64
	Refs int64 // rows of messages and of the queue that name it

	ref   blob.Ref
	known bool // ref is
}

// Snapshot is all that the store holds at one moment, while the store goes on: its rows are read in one transaction, and the
// contents that they name stay readable until Close. Its methods may be called at the same time.
//
// An open snapshot has its price, so close it soon: it keeps one of the connections that read; contents that are deleted or
// moved meanwhile keep their space; SQLite's log grows with each commit and PostgreSQL keeps dead rows, as both do for any
// open transaction. When the connection to the database breaks, the snapshot is lost: all that is asked afterwards fails.
type Snapshot struct {
	s       *Store
	taken   time.Time
	release func() // gives up the pin of the contents

	mu sync.Mutex
	q  *reader // nil when it is closed
}

var _ Source = (*Snapshot)(nil)

// Snapshot takes a snapshot. Two may be open at the same time: a third waits for the end of one. Closing the store closes it.
func (s *Store) Snapshot(ctx context.Context) (*Snapshot, error) {
	select {
	case s.snapshots.free <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n := &Snapshot{s: s}
	if err := n.begin(ctx); err != nil {
		<-s.snapshots.free
		return nil, fmt.Errorf("store: snapshot: %w", err)
	}
	if !s.snapshots.add(n) {
		return nil, errors.Join(ErrClosed, n.Close())
	}
	return n, nil
}

// begin pins the contents first: what a commit after the snapshot gives up finds the pin.
func (n *Snapshot) begin(ctx context.Context) (err error) {
	n.release = n.s.blobs.Pin()
	if err := n.s.link.pin(ctx); err != nil {
		n.release()
		return err
	}
	if n.q, err = n.s.reads.take(ctx); err != nil {
		n.release()
		return err
	}
	defer func() {
		if err != nil {
			n.release()
			if n.q.conn != nil {
				n.q.discard()
			}
			n.s.reads.idle <- n.q
		}
	}()
	if err := n.q.begin(n.s.db.Dialect.BeginSnapshot()); err != nil {
		return err
	}
	var some int // the first query makes the moment
	n.taken = n.s.clock()
	return n.q.QueryRow(`SELECT count(*) FROM sequence`).Scan(&some)
}

// Close ends the snapshot. Contents that are open stay readable until they are closed themselves.
func (n *Snapshot) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.q == nil {
		return nil
	}
	n.s.snapshots.remove(n)
	var err error
	if n.q.unsound() {
		n.q.discard()
	} else {
		err = n.q.end()
	}
	n.s.reads.idle <- n.q
	n.q = nil
	n.release()
	<-n.s.snapshots.free
	return err
}

// Taken is when the snapshot was taken, by the store's clock.
func (n *Snapshot) Taken() time.Time { return n.taken }

// ask calls fn with the connection.
func (n *Snapshot) ask(ctx context.Context, fn func(q *reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.q == nil {
		return fmt.Errorf("snapshot: %w", ErrClosed)
	}
	return fn(n.q)
}

// Rows implements Source. The rows of one account are found by an index, but for those of the table message, which are looked
// for among all.
func (n *Snapshot) Rows(ctx context.Context, table string, acct AccountID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		t, err := tableNamed(table)
		if err == nil && acct != 0 && t.Account == "" {
			return
		}
		var after []any
		for err == nil {
			var page []Record
			if page, after, err = n.page(ctx, t, acct, after); err != nil {
				break
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if after == nil {
				return
			}
		}
		yield(Record{}, fmt.Errorf("store: snapshot: %s: %w", table, err))
	}
}

// page reads the rows behind a key, nil for the first; next is nil behind the last page.
func (n *Snapshot) page(ctx context.Context, t *Table, acct AccountID, after []any) (page []Record, next []any, err error) {
	if t.Name == lastIDs {
		page, err = n.lastIDs(ctx)
		return page, nil, err
	}
	args := slices.Clone(after)
	if acct != 0 {
		args = append(args, int64(acct))
	}
	order := t.order(acct)
	var columns []string
	var last []any
	err = n.ask(ctx, func(q *reader) error {
		return q.each(func(rows *sql.Rows) error {
			if columns == nil {
				if columns, err = rows.Columns(); err != nil {
					return err
				}
			}
			values := make([]any, len(columns))
			dest := make([]any, len(columns))
			for i := range values {
				dest[i] = &values[i]
			}
			if err := rows.Scan(dest...); err != nil {
				return err
			}
			last = keyOf(columns, values, order) // before it is made neutral
			for i, v := range values {
				if values[i], err = neutral(v); err != nil {
					return fmt.Errorf("column %s: %w", columns[i], err)
				}
			}
			page = append(page, Record{Columns: columns, Values: values})
			return nil
		}, t.listing(acct, after == nil), args...)
	})
	if len(page) == snapshotPage {
		next = last
	}
	return page, next, err
}

func keyOf(columns []string, values []any, key []string) []any {
	out := make([]any, len(key))
	for i, k := range key {
		out[i] = values[slices.Index(columns, k)]
	}
	return out
}

// neutral is a value as every back-end can hold it.
func neutral(v any) (any, error) {
	switch v := v.(type) {
	case nil, int64:
		return v, nil
	case string:
		return strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", "\uFFFD"), nil
	case []byte:
		if v == nil {
			v = []byte{} // an empty one: NULL is nil without a type
		}
		return v, nil
	}
	return nil, fmt.Errorf("a value of type %T: %w", v, ErrCorrupt)
}

func (n *Snapshot) lastIDs(ctx context.Context) (page []Record, err error) {
	columns := []string{"name", "id"}
	err = n.ask(ctx, func(q *reader) error {
		for i := range tables {
			if !tables[i].counted {
				continue
			}
			id, err := n.s.db.Dialect.LastID(q, tables[i].Name)
			if err != nil {
				return err
			}
			page = append(page, Record{Columns: columns, Values: []any{tables[i].Name, id}})
		}
		return nil
	})
	return page, err
}

// Contents implements Source.
func (n *Snapshot) Contents(ctx context.Context) iter.Seq2[ContentInfo, error] {
	return func(yield func(ContentInfo, error) bool) {
		for after := int64(0); ; {
			page, err := n.contents(ctx, `blob_id > $1 ORDER BY blob_id LIMIT $2`, after, snapshotPage)
			if err != nil {
				yield(ContentInfo{}, fmt.Errorf("store: snapshot: contents: %w", err))
				return
			}
			for _, c := range page {
				after = c.ID
				if !yield(c, nil) {
					return
				}
			}
			if len(page) < snapshotPage {
				return
			}
		}
	}
}

func (n *Snapshot) contents(ctx context.Context, where string, args ...any) (page []ContentInfo, err error) {
	err = n.ask(ctx, func(q *reader) error {
		return q.each(func(rows *sql.Rows) error {
			c := ContentInfo{known: true}
			var hash []byte
			if err := rows.Scan(append([]any{&c.ID, &hash, &c.Refs}, scanRef(&c.ref)...)...); err != nil {
				return err
			}
			copy(c.Sum[:], hash)
			c.Size = c.ref.Len
			page = append(page, c)
			return nil
		}, `SELECT blob_id, hash, refs, segment, place, stored, length, hash_key FROM blob WHERE `+where, args...)
	})
	return page, err
}

// Open implements Source, for contents of this snapshot: one that Contents gave, or that has the ID of one.
func (n *Snapshot) Open(ctx context.Context, c ContentInfo) (Blob, error) {
	b, err := n.open(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("store: snapshot: content %d: %w", c.ID, blobError(err))
	}
	return checkedBlob{b}, nil
}

func (n *Snapshot) open(ctx context.Context, c ContentInfo) (Blob, error) {
	if !c.known {
		page, err := n.contents(ctx, `blob_id = $1`, c.ID)
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			return nil, ErrNotFound
		}
		c = page[0]
	}
	if n.s.fresh == nil || c.ref.Segment != freshSegment {
		// A closed snapshot has no pin.
		if err := n.ask(ctx, func(*reader) error { return nil }); err != nil {
			return nil, err
		}
		return n.s.blobs.Open(c.ref)
	}
	var b []byte
	err := n.ask(ctx, func(q *reader) (err error) {
		b, err = n.s.fresh.readWith(q, c.ref, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return inMemory(b), nil
}

// snapshots are those that are open.
type snapshots struct {
	free chan struct{} // bounds them

	mu     sync.Mutex
	open   map[*Snapshot]struct{}
	closed bool
}

func newSnapshots(n int) *snapshots {
	return &snapshots{free: make(chan struct{}, max(1, n)), open: make(map[*Snapshot]struct{})}
}

// add is false when the store is being closed.
func (l *snapshots) add(n *Snapshot) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.open[n] = struct{}{}
	}
	return !l.closed
}

func (l *snapshots) remove(n *Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, n)
}

// close closes all, and refuses others.
func (l *snapshots) close() error {
	l.mu.Lock()
	l.closed = true
	list := make([]*Snapshot, 0, len(l.open))
	for n := range l.open {
		list = append(list, n)
	}
	l.mu.Unlock()
	var err error
	for _, n := range list {
		err = errors.Join(err, n.Close())
	}
	return err
}
