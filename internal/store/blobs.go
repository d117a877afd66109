package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math"
	"slices"
	"sync"

	"waxwing/internal/store/blob"
)

// BlobStore keeps the octets of messages; Packs makes one from a pack store. Its methods mean what those of blob.Store mean.
type BlobStore interface {
	Put(ctx context.Context, shard uint32, c blob.Content, sum blob.ID) (blob.Ref, error)
	Settle(ref blob.Ref, kept bool)
	Delete(ref blob.Ref)
	ReadInto(ref blob.Ref, buf []byte) ([]byte, error)
	Open(ref blob.Ref) (Blob, error)
	Recover(ctx context.Context, known map[blob.Segment]blob.Known, fn func(blob.Ref, blob.ID) (bool, error)) (blob.Recovered, error)
	Compact(ctx context.Context, ix blob.Index) (blob.Compacted, error)
	Pin() (release func())
	Writable(size int64) error
	Close() error
}

// Packs makes a BlobStore from packs on disk.
func Packs(s *blob.Store) BlobStore { return packs{s} }

type packs struct{ *blob.Store }

func (p packs) Open(ref blob.Ref) (Blob, error) { return p.Store.Open(ref) }

// settled is a content on its way into the rows: hashed, and put into the blob store unless a row with the same content is
// there already.
type settled struct {
	content Content
	sum     blob.ID
	shard   uint32

	put   bool        // there is a copy of our own: a record, which must be settled, or fresh
	fresh *blob.Boxed // the record, when it is to commit with its row
	ref   blob.Ref    // where put
	key   uint32      // that it is sealed with in an object of its own
	kept  bool        // the row names ref, as far as the last run of the transaction knows
}

// errNoContent says that the row that a content was to share has gone meanwhile.
var errNoContent = errors.New("store: content is gone")

// hashKey is the part of a hash that is indexed.
func hashKey(sum blob.ID) int64 { return int64(binary.BigEndian.Uint64(sum[:8])) }

// lookFrom is the size from which a delivery looks for the same content before it stores its own. What is delivered is
// hardly ever the same, its Received field alone sees to that, so for small contents the look would cost more than it spares.
const lookFrom = 64 << 10

// settle hashes a content and puts it on stable storage. With look it is spared when a row with the same content is there.
func (s *Store) settle(ctx context.Context, shard uint32, c Content, look bool) (*settled, error) {
	size := c.Size()
	if size < 0 || size > math.MaxUint32 {
		return nil, fmt.Errorf("content of %d octets: %w", size, ErrLimit)
	}
	t := &settled{content: c, shard: shard}
	if err := sumContent(c, &t.sum); err != nil {
		return nil, fmt.Errorf("read content: %w", err)
	}
	if look {
		ref, found, err := s.findContent(ctx, t.sum)
		if err != nil {
			return nil, err
		}
		// A copy is only spared when the first one can be read.
		if found && s.checkContent(ref) == nil {
			return t, nil
		}
	}
	return t, s.putContent(ctx, t)
}

// hashers lends out what hashing needs: a buffer for each delivery would be more than all else that it allocates.
var hashers = sync.Pool{New: func() any { return &hasher{hash: sha256.New(), buf: make([]byte, 32<<10)} }}

type hasher struct {
	hash hash.Hash
	buf  []byte
}

// sumContent computes the SHA-256 of a content.
func sumContent(c Content, sum *blob.ID) error {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.hash.Reset()
	for off, size := int64(0), c.Size(); off < size; {
		n, err := c.ReadAt(h.buf[:min(int64(len(h.buf)), size-off)], off)
		h.hash.Write(h.buf[:n])
		if off += int64(n); off < size && err != nil {
			return noEOF(err)
		}
	}
	h.hash.Sum(sum[:0])
	return nil
}

// noEOF makes an error of the end of a content that is shorter than it said.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// putContent puts a content on stable storage, or has it ready to commit with its row.
func (s *Store) putContent(ctx context.Context, t *settled) error {
	if s.fresh.takes(t.content.Size()) {
		b, err := s.fresh.box.Put(t.content, t.sum)
		if err != nil {
			return blobError(err)
		}
		t.put, t.fresh = true, b
		return nil
	}
	var err error
	if s.fresh != nil {
		t.ref, t.key, err = s.fresh.putLarge(ctx, t.content, t.sum)
	} else {
		t.ref, err = s.blobs.Put(ctx, t.shard, t.content, t.sum)
	}
	t.put = err == nil
	return blobError(err)
}

// findContent looks for a committed row with this content.
func (s *Store) findContent(ctx context.Context, sum blob.ID) (blob.Ref, bool, error) {
	var ref blob.Ref
	err := s.reads.row(ctx, scanRef(&ref), `SELECT segment, place, stored, length, hash_key FROM blob WHERE hash_key = $1 AND hash = $2`,
		hashKey(sum), sum[:])
	if errors.Is(err, sql.ErrNoRows) {
		return ref, false, nil
	}
	if err != nil {
		return ref, false, fmt.Errorf("look for content: %w", err)
	}
	return ref, true, nil
}

// scanRef is where the columns segment, place, stored, length and hash_key go.
func scanRef(ref *blob.Ref) []any {
	return []any{&ref.Segment, &ref.Offset, &ref.StoredLen, &ref.Len, &ref.Sum}
}

// checkContent reads a record to its end, from where it is kept.
func (s *Store) checkContent(ref blob.Ref) (err error) {
	open, end, err := s.audit()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	b, err := open(ref)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.NewSectionReader(b, 0, b.Size()))
	return errors.Join(err, b.Close())
}

// withContents runs fn in a transaction in which each content has a row. When the row that one was to share has gone since
// it was looked for, the content is put and the transaction runs again.
func (s *Store) withContents(ctx context.Context, list []*settled, fn func(tx *Tx) error) error {
	var err error
	for range 3 {
		for _, t := range list {
			t.kept = false
		}
		err = s.Write(ctx, fn)
		if !errors.Is(err, errNoContent) {
			break
		}
		for _, t := range list {
			if t.put {
				continue
			}
			if err := s.putContent(ctx, t); err != nil {
				s.settleAll(list, err)
				return err
			}
		}
	}
	s.settleAll(list, err)
	return err
}

// settleAll tells the blob store what became of the contents.
func (s *Store) settleAll(list []*settled, err error) {
	if f := faultOf(err); f == FaultFailed || f == FaultUnknown {
		// A commit whose sync failed, or whose answer got lost, may show up later: then its rows must find their contents.
		// They stay in flight until the next start, when recovery counts again.
		return
	}
	for _, t := range list {
		if t.put && t.fresh == nil {
			s.blobs.Settle(t.ref, err == nil && t.kept)
		}
	}
}

// blobRow gives the content a row with refs references more and returns its id.
func (tx *Tx) blobRow(t *settled, refs int64) (int64, error) {
	var id int64
	var at blob.Ref
	t.kept = false
	err := tx.QueryRow(tx.forUpdate(`SELECT blob_id, segment, place, stored, length FROM blob WHERE hash_key = $1 AND hash = $2
		ORDER BY blob_id LIMIT 1`), hashKey(t.sum), t.sum[:]).Scan(&id, &at.Segment, &at.Offset, &at.StoredLen, &at.Len)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if !t.put {
			return 0, errNoContent
		}
		if id, err = tx.s.ids.blob.take(); err != nil {
			return 0, err
		}
		return id, tx.insertBlob(t, id, refs)
	case err != nil:
		return 0, fmt.Errorf("look for content: %w", err)
	}
	if t.put {
		return id, tx.replaceBlob(t, id, at, refs)
	}
	if err := tx.exec(`UPDATE blob SET refs = refs + $2 WHERE blob_id = $1`, id, refs); err != nil {
		return 0, fmt.Errorf("share content: %w", err)
	}
	return id, nil
}

func (tx *Tx) insertBlob(t *settled, id, refs int64) error {
	if err := tx.adopt(t, id); err != nil {
		return err
	}
	err := tx.exec(`INSERT INTO blob (blob_id, hash, hash_key, segment, place, stored, length, refs) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		id, t.sum[:], hashKey(t.sum), t.ref.Segment, t.ref.Offset, t.ref.StoredLen, t.ref.Len, refs)
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	tx.segmentLives(t.ref, 1)
	t.kept = true
	return nil
}

// replaceBlob lets a row name the record that was just written in place of an older one with the same content: the new one
// is known to be sound, and what its sender was promised can't hang on octets that nobody has looked at for years.
func (tx *Tx) replaceBlob(t *settled, id int64, old blob.Ref, refs int64) error {
	if err := tx.adopt(t, id); err != nil {
		return err
	}
	err := tx.exec(`UPDATE blob SET segment = $2, place = $3, stored = $4, length = $5, refs = refs + $6 WHERE blob_id = $1`,
		id, t.ref.Segment, t.ref.Offset, t.ref.StoredLen, t.ref.Len, refs)
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	tx.segmentLives(t.ref, 1)
	t.kept = true
	if old.Segment == freshSegment { // under the same id: what is fresh again was written over it
		if t.ref.Segment == freshSegment {
			return nil
		}
		return tx.dropFresh([]int64{id})
	}
	tx.segmentLives(old, -1)
	tx.freed = append(tx.freed, old)
	return nil
}

// segmentDelta is what a transaction changes of a segment.
type segmentDelta struct {
	live, tail int64
	key        uint32 // that all of an object is sealed with
	died       bool   // a record in it is named by no row any more
}

// segmentLives counts a record in, or out.
func (tx *Tx) segmentLives(ref blob.Ref, n int64) {
	if ref.Segment == freshSegment {
		return
	}
	d := tx.segmentDelta(ref.Segment)
	d.live += n * ref.StoredLen
	d.died = d.died || n < 0
	if n > 0 {
		d.tail = max(d.tail, ref.End())
	}
}

func (tx *Tx) segmentDelta(g blob.Segment) *segmentDelta {
	if tx.segments == nil {
		tx.segments = make(map[blob.Segment]*segmentDelta)
	}
	d := tx.segments[g]
	if d == nil {
		d = &segmentDelta{}
		tx.segments[g] = d
	}
	return d
}

func (tx *Tx) flushSegments() error {
	for _, g := range slices.Sorted(maps.Keys(tx.segments)) {
		d := tx.segments[g]
		since := int64(0)
		if d.died {
			since = tx.now.Unix()
		}
		err := tx.exec(`INSERT INTO segment (segment, tail, live, dead_since, key_id) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (segment) DO UPDATE SET
			tail = CASE WHEN excluded.tail > segment.tail THEN excluded.tail ELSE segment.tail END, live = segment.live + excluded.live,
			dead_since = CASE WHEN segment.dead_since = 0 THEN excluded.dead_since ELSE segment.dead_since END`,
			g, d.tail, d.live, since, d.key)
		if err != nil {
			return fmt.Errorf("store: segment %s: %w", g, err)
		}
	}
	return nil
}

// AcquireBlob adds a reference to a content; ReleaseBlob takes one away.
func (tx *Tx) AcquireBlob(blobID int64) error {
	res, err := tx.Exec(`UPDATE blob SET refs = refs + 1 WHERE blob_id = $1`, blobID)
	if err != nil {
		return fmt.Errorf("store: content %d: %w", blobID, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("store: content %d: %w", blobID, errors.Join(ErrNotFound, err))
	}
	return nil
}

// ReleaseBlob takes a reference away from a content. With the last one its row goes, at the end of the transaction, and after
// the commit its octets count as dead.
func (tx *Tx) ReleaseBlob(blobID int64) error {
	return tx.releaseBlobs([]int64{blobID})
}

// releaseBlobs takes references away, one for each time that an id stands in the list. It is done at the end of the
// transaction, so that nobody waits for these rows longer than the commit takes.
func (tx *Tx) releaseBlobs(ids []int64) error {
	tx.wrote = true
	tx.released = append(tx.released, ids...)
	return nil
}

// flushReleased carries releaseBlobs out, in the order of the ids: two nodes that release the same contents don't wait for each
// other.
func (tx *Tx) flushReleased() error {
	if len(tx.released) == 0 {
		return nil
	}
	once, again := splitRepeats(tx.released)
	tx.released = nil
	slices.Sort(once)
	d := tx.s.db.Dialect
	if tx.s.shared() {
		if _, err := tx.numbers(`SELECT blob_id FROM blob WHERE `+d.In("blob_id", "$1")+` ORDER BY blob_id FOR UPDATE`, d.Numbers(once)); err != nil {
			return fmt.Errorf("store: release contents: %w", err)
		}
	}
	if err := tx.exec(`UPDATE blob SET refs = refs - 1 WHERE `+d.In("blob_id", "$1"), d.Numbers(once)); err != nil {
		return fmt.Errorf("store: release contents: %w", err)
	}
	for _, id := range again {
		if err := tx.exec(`UPDATE blob SET refs = refs - 1 WHERE blob_id = $1`, id); err != nil {
			return fmt.Errorf("store: release content %d: %w", id, err)
		}
	}
	rows, err := tx.Query(`DELETE FROM blob WHERE `+d.In("blob_id", "$1")+` AND refs <= 0 RETURNING segment, place, stored, length`, d.Numbers(once))
	if err != nil {
		return fmt.Errorf("store: release contents: %w", err)
	}
	defer rows.Close()
	var fresh []int64
	for rows.Next() {
		var ref blob.Ref
		if err := rows.Scan(&ref.Segment, &ref.Offset, &ref.StoredLen, &ref.Len); err != nil {
			return fmt.Errorf("store: release contents: %w", err)
		}
		if ref.Segment == freshSegment {
			fresh = append(fresh, ref.Offset)
			continue
		}
		tx.segmentLives(ref, -1)
		tx.freed = append(tx.freed, ref)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return tx.failed(err)
	}
	return tx.dropFresh(fresh)
}

// splitRepeats returns each number once, and those that stood there more often as often as they did beyond that.
func splitRepeats(ids []int64) (once, again []int64) {
	seen := make(map[int64]struct{}, len(ids))
	once = make([]int64, 0, len(ids))
	for _, id := range ids {
		if _, ok := seen[id]; ok {
			again = append(again, id)
			continue
		}
		seen[id] = struct{}{}
		once = append(once, id)
	}
	return once, again
}

// share counts one entry more for each message in the list.
func (w *work) share(tx *Tx, ids []int64) error {
	once, again := splitRepeats(ids)
	d := tx.s.db.Dialect
	const conflict = ` ON CONFLICT (account_id, message_id) DO UPDATE SET entries = shared_message.entries + 1`
	err := tx.exec(`INSERT INTO shared_message (account_id, message_id, entries) SELECT $1, v, 2 FROM `+d.Table("t", "$2")+` WHERE true`+conflict,
		w.id, d.Numbers(once))
	if err != nil {
		return fmt.Errorf("share messages: %w", err)
	}
	for _, id := range again {
		if err := tx.exec(`INSERT INTO shared_message (account_id, message_id, entries) VALUES ($1, $2, 2)`+conflict, w.id, id); err != nil {
			return fmt.Errorf("share message %d: %w", id, err)
		}
	}
	return nil
}

// releaseMessages counts one entry less for each message in the list. Messages without entries go, with their hold on
// the contents.
func (tx *Tx) releaseMessages(acct AccountID, ids []MessageID) error {
	counts := make(map[MessageID]int64, len(ids))
	for _, id := range ids {
		counts[id]++
	}
	if err := tx.unshare(acct, counts); err != nil {
		return fmt.Errorf("release messages: %w", err)
	}
	dead := make([]int64, 0, len(counts))
	for id := range counts {
		dead = append(dead, int64(id))
	}
	if len(dead) == 0 {
		return nil
	}
	d := tx.s.db.Dialect
	blobs, err := tx.numbers(`DELETE FROM message WHERE account_id = $1 AND `+d.In("message_id", "$2")+` RETURNING blob_id`, acct, d.Numbers(dead))
	if err != nil {
		return fmt.Errorf("release messages: %w", err)
	}
	if len(blobs) == 0 {
		return nil
	}
	tx.AfterCommit(func() {
		for _, id := range dead {
			tx.s.summaries.Drop(messageKey{acct, MessageID(id)})
		}
	})
	if purged := tx.s.opts.Purged; purged != nil {
		tx.AfterCommit(func() { purged(acct, messageIDs(dead)) })
	}
	return tx.releaseBlobs(blobs)
}

func messageIDs(numbers []int64) []MessageID {
	ids := make([]MessageID, len(numbers))
	for i, n := range numbers {
		ids[i] = MessageID(n)
	}
	return ids
}

// unshare takes the counted entries from messages with several, and leaves in counts the messages that have none any more.
func (tx *Tx) unshare(acct AccountID, counts map[MessageID]int64) error {
	ids := make([]int64, 0, len(counts))
	for id := range counts {
		ids = append(ids, int64(id))
	}
	d := tx.s.db.Dialect
	pairs, err := tx.numbers(`SELECT message_id, entries FROM shared_message WHERE account_id = $1 AND `+d.In("message_id", "$2"), acct, d.Numbers(ids))
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		id := MessageID(pairs[i])
		left := pairs[i+1] - counts[id]
		query, args := `DELETE FROM shared_message WHERE account_id = $1 AND message_id = $2`, []any{acct, id}
		if left > 1 {
			query, args = `UPDATE shared_message SET entries = $3 WHERE account_id = $1 AND message_id = $2`, append(args, left)
		}
		if err := tx.exec(query, args...); err != nil {
			return err
		}
		if left > 0 {
			delete(counts, id)
		}
	}
	return nil
}

// numbers runs a query whose columns are numbers and returns them, row by row.
func (tx *Tx) numbers(query string, args ...any) ([]int64, error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var out []int64
	dest := make([]any, len(columns))
	row := make([]int64, len(columns))
	for i := range row {
		dest[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return nil, err
		}
		out = append(out, row...)
	}
	return out, tx.failed(rows.Err())
}
