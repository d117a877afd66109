package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"waxwing/internal/store/blob"
)

// ObjectStore keeps contents in sealed objects: package objects. What its methods answered without an error is there to
// stay, and was seen there.
type ObjectStore interface {
	LargeFrom() int64 // contents longer than this get an object of their own
	// PutPack and PutLarge tell the one key that all is sealed with, 0 for none or several.
	PutPack(ctx context.Context, g blob.Segment, list []blob.Content, ids []blob.ID) ([]blob.Ref, uint32, error)
	PutLarge(ctx context.Context, g blob.Segment, c blob.Content, id blob.ID) (blob.Ref, uint32, error)
	ReadInto(ref blob.Ref, buf []byte) ([]byte, error)
	Open(ref blob.Ref) (*blob.Reader, error)
	Remove(ctx context.Context, g blob.Segment) error
	// Audit returns a reader that sees the objects as they are now, past all caches; the caller closes it.
	Audit() (*blob.Store, error)
	// List lists the objects that there are.
	List(ctx context.Context) ([]blob.Segment, error)
	Box() *blob.Box  // for contents that are not in an object yet
	Keys() blob.Keys // nil: nothing is encrypted
	Close() error
}

// Objects makes a BlobStore in which contents first stand in the database, committed by the transaction of the rows that name
// them, and are moved to objects in the background. Large ones go to objects at once. So a node holds nothing that others
// lack. In the database they are records as in a segment: compressed, checked, encrypted, bound to their content and place.
func Objects(o ObjectStore) BlobStore { return &fresh{objects: o, box: o.Box()} }

// freshSegment is the segment of contents that stand in the database: table fresh_content, under the offset.
const freshSegment blob.Segment = 0

// Bounds of the mover.
const (
	packOctets  = 16 << 20 // of the contents of one object
	packCount   = 4096
	moveEvery   = time.Minute
	objectGrace = time.Hour // an object that nothing names stays as long: readers may still have its place
)

// fresh is the BlobStore of Objects. A nil *fresh takes nothing.
type fresh struct {
	s       *Store
	objects ObjectStore
	box     *blob.Box

	wake   chan struct{} // there is enough for an object
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	moving sync.Mutex // one mover at a time

	mu     sync.Mutex
	octets int64 // committed since the last move
	pins   int   // see Pin
}

func (f *fresh) attach(s *Store) {
	if f != nil {
		f.s = s
	}
}

// start begins to move contents in the background, until stop.
func (f *fresh) start(s *Store) {
	if f == nil {
		return
	}
	f.wake = make(chan struct{}, 1)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.done.Go(func() {
		tick := time.NewTicker(moveEvery)
		defer tick.Stop()
		for {
			select {
			case <-f.ctx.Done():
				return
			case <-tick.C:
			case <-f.wake:
			}
			ctx, done := s.WhileLeading(f.ctx)
			if ctx.Err() != nil { // another node does it
				done()
				continue
			}
			_, err := s.MoveContents(ctx)
			done()
			if err != nil && f.ctx.Err() == nil {
				s.log.Warn("store: contents stay in the database for now", "err", err)
			}
		}
	})
}

func (f *fresh) stop() {
	if f == nil || f.cancel == nil {
		return
	}
	f.cancel()
	f.done.Wait()
}

// takes says whether a content of this size commits with its row.
func (f *fresh) takes(size int64) bool { return f != nil && size <= f.objects.LargeFrom() }

// committed counts octets, and wakes the mover when there is enough for an object.
func (f *fresh) committed(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.octets += n; f.octets >= packOctets {
		f.octets = 0
		f.stir()
	}
}

// stir wakes the mover.
func (f *fresh) stir() {
	if f == nil {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// adopt makes the place of a content sure within the transaction that lets row id name it: fresh octets are written, an
// object is taken off the list of those that may go. If it is not on the list any more it has gone.
func (tx *Tx) adopt(t *settled, id int64) error {
	f := tx.s.fresh
	if f == nil {
		return nil
	}
	if t.fresh == nil {
		tx.segmentDelta(t.ref.Segment).key = t.key
		gone, err := affected(tx.Exec(`DELETE FROM object_garbage WHERE segment = $1 AND since >= 0`, t.ref.Segment))
		if err == nil && gone == 0 {
			t.put, err = false, errNoContent
		}
		return err
	}
	ref, data := t.fresh.Place(id)
	err := tx.exec(`INSERT INTO fresh_content (blob_id, data, key_id) VALUES ($1, $2, $3)
		ON CONFLICT (blob_id) DO UPDATE SET data = excluded.data, key_id = excluded.key_id`, id, data, t.fresh.Key())
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	t.ref = ref
	n := int64(len(data))
	tx.AfterCommit(func() { f.committed(n) })
	return nil
}

// dropFresh removes fresh octets.
func (tx *Tx) dropFresh(ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	d := tx.s.db.Dialect
	if err := tx.exec(`DELETE FROM fresh_content WHERE `+d.In("blob_id", "$1"), d.Numbers(ids)); err != nil {
		return fmt.Errorf("store: release contents: %w", err)
	}
	return nil
}

// errSwept says that an upload took so long that its object was removed.
var errSwept = errors.New("store: the object has been removed before its rows were written")

// adoptMoved is adopt for contents that move: their new objects are named now, and what was fresh is not needed any more.
func (tx *Tx) adoptMoved(moves []blob.Move, moved []bool) error {
	if tx.s.fresh == nil {
		return nil
	}
	seen := make(map[blob.Segment]bool)
	var fresh []int64
	for i, m := range moves {
		if moved[i] && m.From.Segment == freshSegment {
			fresh = append(fresh, m.From.Offset)
		}
		g := m.To.Segment
		if !moved[i] || seen[g] {
			continue
		}
		seen[g] = true
		var named int64
		gone, err := affected(tx.Exec(`DELETE FROM object_garbage WHERE segment = $1 AND since >= 0`, g))
		if err == nil && gone == 0 { // named by an earlier step, or gone
			err = tx.QueryRow(`SELECT count(*) FROM segment WHERE segment = $1`, g).Scan(&named)
		}
		if err != nil {
			return err
		}
		if gone == 0 && named == 0 {
			return errSwept
		}
	}
	return tx.dropFresh(fresh)
}

// number takes the number of a new object. From now on it may go unless a row names it.
func (f *fresh) number(ctx context.Context, large bool) (blob.Segment, error) {
	name, base := "pack", blob.Segment(0)
	if large {
		name, base = "large", largeSegments
	}
	var n int64
	err := f.s.Write(ctx, func(tx *Tx) error {
		err := tx.QueryRow(`INSERT INTO sequence (name, next) VALUES ($1, 2)
			ON CONFLICT (name) DO UPDATE SET next = sequence.next + 1 RETURNING next - 1`, name).Scan(&n)
		if err != nil {
			return err
		}
		if n >= int64(largeSegments) {
			return fmt.Errorf("numbers of objects: %w", ErrLimit)
		}
		return tx.exec(`INSERT INTO object_garbage (segment, since) VALUES ($1, $2)`, base|blob.Segment(n), tx.now.Unix())
	})
	return base | blob.Segment(n), err
}

// Put implements BlobStore, for contents that are too large for the database.
func (f *fresh) Put(ctx context.Context, _ uint32, c blob.Content, sum blob.ID) (blob.Ref, error) {
	ref, _, err := f.putLarge(ctx, c, sum)
	return ref, err
}

// putLarge puts a content into an object of its own, and tells its key.
func (f *fresh) putLarge(ctx context.Context, c blob.Content, sum blob.ID) (blob.Ref, uint32, error) {
	g, err := f.number(ctx, true)
	if err != nil {
		return blob.Ref{}, 0, err
	}
	return f.objects.PutLarge(ctx, g, c, sum)
}

// Settle implements BlobStore: an object that no row took stands on the list of those that may go.
func (*fresh) Settle(blob.Ref, bool) {}

// Delete implements BlobStore: an object without rows goes by Compact.
func (*fresh) Delete(blob.Ref) {}

// ReadInto implements BlobStore.
func (f *fresh) ReadInto(ref blob.Ref, buf []byte) ([]byte, error) {
	if ref.Segment != freshSegment {
		return f.objects.ReadInto(ref, buf)
	}
	return f.read(ref, buf)
}

func (f *fresh) read(ref blob.Ref, buf []byte) (b []byte, err error) {
	err = f.s.reads.with(context.Background(), func(q *reader) error {
		b, err = f.readWith(q, ref, buf)
		return err
	})
	return b, err
}

// readWith reads a content from the database over a connection.
func (f *fresh) readWith(q *reader, ref blob.Ref, buf []byte) ([]byte, error) {
	var b []byte
	found := false
	err := q.each(func(rows *sql.Rows) error {
		var raw sql.RawBytes
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		b, found = append(b, raw...), true
		return nil
	}, `SELECT data FROM fresh_content WHERE blob_id = $1`, ref.Offset)
	switch {
	case err != nil:
		return nil, fmt.Errorf("store: content %d: %w", ref.Offset, err)
	case !found:
		return nil, blob.ErrGone // moved, or deleted
	}
	return f.open(ref, b, buf)
}

// open makes the content of what stands in the database. Before migration 14 that was the octets as they are.
func (f *fresh) open(ref blob.Ref, data, buf []byte) ([]byte, error) {
	if ref.StoredLen == ref.Len && int64(len(data)) == ref.Len {
		return data, nil
	}
	return f.box.Open(ref, data, buf)
}

// memory is an open content that is held in memory: it came from the database.
type memory struct{ *bytes.Reader }

func inMemory(b []byte) Blob { return memory{bytes.NewReader(b)} }

// Close implements Blob.
func (memory) Close() error { return nil }

// Open implements BlobStore.
func (f *fresh) Open(ref blob.Ref) (Blob, error) {
	if ref.Segment != freshSegment {
		return f.objects.Open(ref)
	}
	b, err := f.read(ref, nil)
	if err != nil {
		return nil, err
	}
	return inMemory(b), nil
}

// Recover implements BlobStore: a crash of a node leaves nothing but numbers on the list of what may go.
func (*fresh) Recover(context.Context, map[blob.Segment]blob.Known, func(blob.Ref, blob.ID) (bool, error)) (blob.Recovered, error) {
	return blob.Recovered{}, nil
}

// errHome says that the contents are elsewhere than where the store was told to look.
var errHome = errors.New("store: the contents of this database are kept elsewhere: in packs, or in a bucket")

// sameHome refuses to look in a bucket for what is in packs, or the other way round: the numbers of their segments are the
// same.
func (s *Store) sameHome(ctx context.Context, segments bool) error {
	var numbers int
	err := s.reads.row(ctx, []any{&numbers}, `SELECT count(*) FROM sequence WHERE name = 'pack' OR name = 'large'`)
	if err != nil {
		return err
	}
	var rows int
	if err := s.reads.row(ctx, []any{&rows}, `SELECT count(*) FROM (SELECT 1 FROM fresh_content LIMIT 1) AS f`); err != nil {
		return err
	}
	inBucket := numbers > 0 || rows > 0
	if s.fresh == nil && inBucket || s.fresh != nil && segments && numbers == 0 {
		return errHome
	}
	return nil
}

// Pin implements BlobStore: no object goes. Fresh octets need nothing: whoever sees their row in a snapshot sees them too.
func (f *fresh) Pin() (release func()) {
	f.pin(1)
	return sync.OnceFunc(func() { f.pin(-1) })
}

func (f *fresh) pin(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pins += n
}

func (f *fresh) pinned() bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pins > 0
}

// Writable implements BlobStore: whether the database has room shows when it is written.
func (*fresh) Writable(int64) error { return nil }

// Close implements BlobStore.
func (f *fresh) Close() error { return f.objects.Close() }

// MoveContents moves what stands in the database to objects, and returns how many contents it moved. It may be stopped at
// any point. Without objects it does nothing.
func (s *Store) MoveContents(ctx context.Context) (int, error) {
	f := s.fresh
	if f == nil {
		return 0, nil
	}
	f.moving.Lock()
	defer f.moving.Unlock()
	total, after := 0, int64(0)
	for {
		b, err := f.gather(ctx, after)
		if err != nil {
			return total, fmt.Errorf("store: move contents: %w", err)
		}
		if b.last == 0 {
			return total, nil
		}
		after = b.last
		n, err := f.pack(ctx, b)
		total += n
		if err != nil {
			return total, fmt.Errorf("store: move contents: %w", blobError(err))
		}
	}
}

// cargo is what goes into one object.
type cargo struct {
	contents []blob.Content
	ids      []blob.ID
	from     []blob.Ref
	octets   int64
	last     int64 // the last row looked at
}

func (b *cargo) add(c []byte, id blob.ID, from blob.Ref) {
	b.contents = append(b.contents, bytes.NewReader(c))
	b.ids = append(b.ids, id)
	b.from = append(b.from, from)
	b.octets += int64(len(c))
}

func (b *cargo) full() bool { return b.octets >= packOctets || len(b.ids) >= packCount }

var errCargoFull = errors.New("store: enough for one object")

// gather reads fresh contents behind a row. Those that are not what their hash says are left where they are.
func (f *fresh) gather(ctx context.Context, after int64) (*cargo, error) {
	b := &cargo{}
	err := f.s.reads.each(ctx, func(rows *sql.Rows) error {
		ref := blob.Ref{Segment: freshSegment}
		var hash, data []byte
		if err := rows.Scan(&ref.Offset, &hash, &ref.StoredLen, &ref.Len, &ref.Sum, &data); err != nil {
			return err
		}
		b.last = ref.Offset
		data, err := f.open(ref, data, nil)
		if sum := sha256.Sum256(data); err == nil && !bytes.Equal(sum[:], hash) {
			err = fmt.Errorf("%w: SHA-256 differs", blob.ErrCorrupt)
		}
		if errors.Is(err, blob.ErrCorrupt) || errors.Is(err, blob.ErrEncrypted) {
			f.s.log.Error("store: a content in the database can't be moved", "content", ref.Offset, "err", err)
			return nil
		}
		if err != nil {
			return err
		}
		b.add(data, blob.ID(hash), ref)
		if b.full() {
			return errCargoFull
		}
		return nil
	}, `SELECT f.blob_id, b.hash, b.stored, b.length, b.hash_key, f.data FROM fresh_content AS f, blob AS b
		WHERE b.blob_id = f.blob_id AND b.segment = 0 AND f.blob_id > $1 ORDER BY f.blob_id LIMIT $2`, after, gatherRows)
	if errors.Is(err, errCargoFull) {
		err = nil
	}
	return b, err
}

// gatherRows bounds what one query reads; a driver may hold all of it.
const gatherRows = 256

// pack puts a batch into an object, and lets the rows name it.
func (f *fresh) pack(ctx context.Context, b *cargo) (int, error) {
	if len(b.ids) == 0 {
		return 0, nil
	}
	g, err := f.number(ctx, false)
	if err != nil {
		return 0, err
	}
	to, key, err := f.objects.PutPack(ctx, g, b.contents, b.ids)
	if err != nil {
		return 0, err
	}
	moves, moved := make([]blob.Move, len(to)), make([]bool, len(to))
	for i := range to {
		moves[i] = blob.Move{ID: b.ids[i], From: b.from[i], To: to[i]}
	}
	if err := (compaction{f.s}).move(ctx, moves, moved, key); err != nil {
		return 0, err
	}
	n := 0
	for i := range moved {
		if moved[i] {
			n++
		}
	}
	return n, nil
}
