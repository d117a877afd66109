// Package blob keeps the bytes of messages: append-only packs on disk, written through a group commit, and a file of
// its own for each large message. Bytes go in once, get a Ref, never change, and are read back by it, checked.
//
// It knows nothing of mailboxes or accounts: which Refs are alive is known to the rows in SQL alone. So package blob
// counts live octets for its own statistics, but asks an Index before it drops anything (Compact).
//
//	ref, err := s.Put(ctx, shard, content, sha256sum) // on stable storage when err is nil
//	err = commitRowsThatName(ref)
//	s.Settle(ref, err == nil)
//	...
//	buf, err = s.ReadInto(ref, buf[:0])
//
// With Keys the records are encrypted, each block by itself; without the key of a record it is ErrEncrypted. Checksums
// cover what is stored, so that damage is found without keys.
//
// The format on disk, the invariants and the roads not taken stand in DESIGN.md.
package blob

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"waxwing/internal/durable"
)

// Errors that callers act on. Any other error of Put is a passing failure of this one call: nothing was stored.
var (
	// ErrFull means no space: ENOSPC, a disk quota, or the reserve is reached. It passes when space returns.
	ErrFull = errors.New("blob: no space left")
	// ErrFailed means that a sync failed: nothing is written any more until the store is opened anew. Reads go on.
	ErrFailed = errors.New("blob: storage failed, writing stopped")
	// ErrCorrupt means that the bytes of this one content are damaged.
	ErrCorrupt = errors.New("blob: content is damaged")
	// ErrNewer means that a newer version of the program wrote the segment: that one can read it.
	ErrNewer = errors.New("blob: segment of a newer version of waxwing")
	// ErrGone means that the segment does not exist: it was compacted after the Ref was read. Look the Ref up again.
	ErrGone = errors.New("blob: segment is gone")
	// ErrEncrypted means a record under a key that the store was not given.
	ErrEncrypted = errors.New("blob: record is encrypted")
	// ErrNotRecovered means a Put before Recover.
	ErrNotRecovered = errors.New("blob: not recovered yet")
	// ErrClosed means a call after Close.
	ErrClosed = errors.New("blob: store is closed")
)

// ID is the SHA-256 of a content.
type ID [32]byte

// prefix is what a Ref holds of the ID.
func (id ID) prefix() int64 { return int64(binary.BigEndian.Uint64(id[:8])) }

// Segment numbers a file of the store. Numbers ascend and are never used again.
type Segment uint32

// largeBit marks the numbers of files that hold one large content.
const largeBit Segment = 1 << 31

// Large reports whether the segment is the file of one large content.
func (g Segment) Large() bool { return g&largeBit != 0 }

func (g Segment) String() string {
	if g.Large() {
		return fmt.Sprintf("large/%08x", uint32(g&^largeBit))
	}
	return fmt.Sprintf("pack/%08x", uint32(g))
}

// ParseSegment reads what String writes.
func ParseSegment(s string) (Segment, error) {
	for kind, base := range map[string]Segment{"pack/": 0, "large/": largeBit} {
		if text, ok := strings.CutPrefix(s, kind); ok {
			if n, err := strconv.ParseUint(text, 16, 31); err == nil {
				return base | Segment(n), nil
			}
		}
	}
	return 0, fmt.Errorf("blob: %q names no segment", s)
}

// Ref says where a content is. It is plain data, to be kept in SQL.
type Ref struct {
	Segment   Segment
	Offset    int64 // of the record in the segment
	StoredLen int64 // octets that the record takes on disk, with its overhead
	Len       int64 // octets of the content
	Sum       int64 // the first 8 octets of its ID, big-endian: an encrypted record opens for no other
}

// End is the offset after the record.
func (r Ref) End() int64 { return r.Offset + r.StoredLen }

func (r Ref) String() string { return fmt.Sprintf("%s@%d+%d", r.Segment, r.Offset, r.StoredLen) }

// Content is the bytes to store: not held in memory when large.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Options of a Store. Zero values mean the defaults given here.
type Options struct {
	FS     durable.FS       // durable.OS
	Dir    string           // made if missing; one Store at a time
	Logger *slog.Logger     // none
	Clock  func() time.Time // time.Now
	Rand   io.Reader        // crypto/rand: markers of segments, nonces; read by several goroutines at the same time
	Keys   Keys             // none: new records are not encrypted
	// Doubt is asked when what was read of a segment looks damaged: true when the octets may have come from a memory that
	// it has given up, and are worth reading once more. None: they are not.
	Doubt func(Segment) bool
	// Reserve is the free space in octets that is left alone, 64 MiB. Negative: none.
	Reserve int64

	SegmentSize int64 // of a pack, 256 MiB
	Step        int64 // by which a pack grows, 16 MiB
	LargeFrom   int64 // contents longer than this get a file of their own, 1 MiB; at most SegmentSize/2
	Writers     int   // packs written at the same time, 2
	OpenFiles   int   // descriptors kept open for reading, 128
	Pending     int64 // octets that wait for a sync at most, 64 MiB; more waits in Put
	LargeAtOnce int64 // large contents written at the same time, 4
}

func (o *Options) setDefaults() {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	if o.FS == nil {
		o.FS = durable.OS
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Writers <= 0 {
		o.Writers = 2
	}
	if o.OpenFiles <= 0 {
		o.OpenFiles = 128
	}
	def(&o.Reserve, 64<<20)
	o.Reserve = max(o.Reserve, 0)
	def(&o.SegmentSize, 256<<20)
	def(&o.Step, 16<<20)
	def(&o.LargeFrom, 1<<20)
	o.LargeFrom = min(o.LargeFrom, o.SegmentSize/2)
	def(&o.Pending, 64<<20)
	o.Pending = max(o.Pending, 2*maxRecordSize(o.LargeFrom))
	def(&o.LargeAtOnce, 4)
}

// Store is an open blob store. All methods may be called at the same time.
type Store struct {
	opt     Options
	lock    io.Closer
	codec   *codec
	numbers *numbers
	files   *fileCache
	table   *segmentTable
	writers []*writer
	pending *semaphore.Weighted
	large   *semaphore.Weighted
	syncs   atomic.Int64

	// ctx ends with Close: waiting Puts give up.
	ctx    context.Context
	cancel context.CancelFunc

	// sealing counts the records on their way by their key.
	sealing struct {
		mu    sync.Mutex
		users map[uint32]int
		large map[Segment]uint32 // of those, large contents that are not settled
	}

	wg    sync.WaitGroup // the writers' goroutines
	calls sync.WaitGroup // Puts of large contents under way

	mu        sync.Mutex // guards what follows
	recovered bool
	closed    bool
	failed    error // the first failed sync; Puts answer ErrFailed with it

	compacting sync.Mutex // one Compact at a time
	pins       pins
}

// Open opens the store in o.Dir and makes it if there is none. The caller must call Recover before the first Put.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	s := &Store{opt: o}
	s.sealing.users, s.sealing.large = map[uint32]int{}, map[Segment]uint32{}
	for _, dir := range []string{s.dir(0), s.dir(largeBit)} {
		if err := o.FS.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("blob: open %s: %w", o.Dir, err)
		}
	}
	lock, err := o.FS.Lock(filepath.Join(o.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("blob: open %s: %w", o.Dir, err)
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("blob: open %s: %w", o.Dir, err), lock.Close())
	}
	s.lock = lock
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.pending = semaphore.NewWeighted(o.Pending)
	s.large = semaphore.NewWeighted(o.LargeAtOnce)
	for i := range o.Writers {
		w := newWriter(s, uint32(i))
		s.writers = append(s.writers, w)
		s.wg.Go(w.run)
	}
	return s, nil
}

// load reads what segments there are, and removes what a crash left unfinished.
func (s *Store) load() error {
	if err := errors.Join(s.removeUnfinished(0), s.removeUnfinished(largeBit)); err != nil {
		return err
	}
	packs, err := s.list(0)
	if err != nil {
		return err
	}
	large, err := s.list(largeBit)
	if err != nil {
		return err
	}
	if s.codec, err = newCodec(s.opt.Rand); err != nil {
		return err
	}
	s.files = newFileCache(s.openSegment, s.opt.OpenFiles)
	s.table = newSegmentTable()
	for _, g := range packs {
		s.table.add(g, segmentInfo{sealed: true})
	}
	s.numbers, err = loadNumbers(s.opt.FS, filepath.Join(s.opt.Dir, "next"), last(packs), last(large))
	if errors.Is(err, errNumbers) {
		s.opt.Logger.Warn("blob: numbers file unreadable, taking the numbers from the segments", "err", err)
		err = nil
	}
	return err
}

func last(sorted []Segment) Segment {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)-1] &^ largeBit
}

// Close waits for the writes under way and closes all files. Open Readers stay usable until they are closed.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	s.calls.Wait()
	s.compacting.Lock()
	defer s.compacting.Unlock()
	var err error
	if s.failure() == nil {
		err = s.numbers.settle()
	}
	s.files.close()
	return errors.Join(err, s.lock.Close())
}

// fail stops all writing for good and returns the error for those who wait.
func (s *Store) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		s.opt.Logger.Error("blob: a sync failed, nothing is stored any more until restart", "err", err)
	}
	return s.failed
}

// failure returns the error of fail, or nil.
func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// usable returns why nothing can be written now, or nil.
func (s *Store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.failed != nil:
		return s.failed
	case !s.recovered:
		return ErrNotRecovered
	}
	return nil
}

// Writable says whether a content of size octets would find room: nil, ErrFull or ErrFailed, at the cost of a statfs.
func (s *Store) Writable(size int64) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.room(size)
}

// room checks that n more octets leave the reserve untouched.
func (s *Store) room(n int64) error {
	free, err := s.opt.FS.Free(s.opt.Dir)
	if err != nil {
		return fmt.Errorf("blob: free space: %w", err)
	}
	if n > free || free-n < s.opt.Reserve {
		return fmt.Errorf("%w: %d octets free, %d wanted, %d in reserve", ErrFull, free, n, s.opt.Reserve)
	}
	return nil
}

// sync counts and runs a sync; its error is final.
func (s *Store) sync(f durable.File) error {
	s.syncs.Add(1)
	if err := f.Sync(); err != nil {
		return s.fail(err)
	}
	return nil
}

func (s *Store) syncDir(dir string) error {
	s.syncs.Add(1)
	if err := s.opt.FS.SyncDir(dir); err != nil {
		return s.fail(err)
	}
	return nil
}

// dir is the directory of a segment.
func (s *Store) dir(g Segment) string {
	if g.Large() {
		return filepath.Join(s.opt.Dir, "large")
	}
	return filepath.Join(s.opt.Dir, "packs")
}

// path is the file of a segment.
func (s *Store) path(g Segment) string {
	return filepath.Join(s.dir(g), fmt.Sprintf("%08x.blob", uint32(g&^largeBit)))
}

// list returns the segments of one kind in ascending order.
func (s *Store) list(kind Segment) ([]Segment, error) {
	entries, err := s.opt.FS.ReadDir(s.dir(kind))
	if err != nil {
		return nil, err
	}
	var found []Segment
	for _, e := range entries { // ReadDir sorts by name, and names sort as their numbers
		if g, ok := parseName(e.Name()); ok {
			found = append(found, g|kind)
		}
	}
	return found, nil
}

// removeUnfinished removes the files that a crash left without their names. Nothing may be written meanwhile.
func (s *Store) removeUnfinished(kind Segment) error {
	entries, err := s.opt.FS.ReadDir(s.dir(kind))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != durable.TempSuffix {
			continue
		}
		if err := s.opt.FS.Remove(filepath.Join(s.dir(kind), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// parseName reads the number in the name of a segment's file; other files in the directory are let be.
func parseName(name string) (Segment, bool) {
	const digits = 8
	if len(name) != digits+len(".blob") || name[digits:] != ".blob" {
		return 0, false
	}
	var g Segment
	for _, c := range []byte(name[:digits]) {
		switch {
		case '0' <= c && c <= '9':
			g = g<<4 | Segment(c-'0')
		case 'a' <= c && c <= 'f':
			g = g<<4 | Segment(c-'a'+10)
		default:
			return 0, false
		}
	}
	return g, g != 0 && !g.Large()
}
