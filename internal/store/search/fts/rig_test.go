package fts

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mail is a source of messages in memory: the text of each is its body.
type mail struct {
	mu     sync.Mutex
	refs   []store.MessageRef
	text   map[store.MessageID][]byte
	notify func()
	err    error                              // of reading
	broken map[store.MessageID]error          // of reading one message
	full   error                              // of Writable
	before func(ctx context.Context, n int64) // called before a message is read
	asked  func()                             // called when an index that is being opened asks for fingerprints
	reads  int64
}

func newMail() *mail {
	return &mail{text: make(map[store.MessageID][]byte), broken: make(map[store.MessageID]error)}
}

func (m *mail) add(acct store.AccountID, texts ...string) (last store.MessageID) {
	m.mu.Lock()
	for _, text := range texts {
		last = 1
		if n := len(m.refs); n > 0 {
			last = m.refs[n-1].Message + 1
		}
		m.refs = append(m.refs, store.MessageRef{Account: acct, Message: last, Size: int64(len(text))})
		m.text[last] = []byte(text)
	}
	notify := m.notify
	m.mu.Unlock()
	if notify != nil {
		notify()
	}
	return last
}

// drop makes messages gone.
func (m *mail) drop(ids ...store.MessageID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.text, id)
	}
}

// set changes the faults.
func (m *mail) set(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

func (m *mail) MessagesAfter(_ context.Context, after store.MessageID, limit int) ([]store.MessageRef, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.MessageRef
	at, _ := slices.BinarySearchFunc(m.refs, after+1, func(r store.MessageRef, id store.MessageID) int { return int(r.Message - id) })
	for _, r := range m.refs[at:] {
		if m.text[r.Message] != nil && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, m.err
}

func (m *mail) GoneMessages(_ context.Context, ids []store.MessageID) (gone []store.MessageID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if m.text[id] == nil {
			gone = append(gone, id)
		}
	}
	return gone, nil
}

func (m *mail) Fingerprints(_ context.Context, ids []store.MessageID) (map[store.MessageID]int64, error) {
	m.mu.Lock()
	asked := m.asked
	m.mu.Unlock()
	if asked != nil {
		asked()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[store.MessageID]int64)
	for _, id := range ids {
		if text := m.text[id]; text != nil {
			out[id] = int64(crc32.ChecksumIEEE(text))
		}
	}
	return out, nil
}

func (m *mail) LastMessage(context.Context) (store.MessageID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.refs); n > 0 {
		return m.refs[n-1].Message, nil
	}
	return 0, nil
}

type blob struct{ *bytes.Reader }

func (b blob) Size() int64  { return b.Reader.Size() }
func (b blob) Close() error { return nil }

func (m *mail) OpenBlob(ctx context.Context, acct store.AccountID, id store.MessageID) (store.Blob, error) {
	b, err := m.ReadBlob(ctx, acct, id, nil)
	return blob{bytes.NewReader(b)}, err
}

func (m *mail) ReadBlob(ctx context.Context, _ store.AccountID, id store.MessageID, buf []byte) ([]byte, error) {
	m.mu.Lock()
	m.reads++
	n, before := m.reads, m.before
	m.mu.Unlock()
	if before != nil {
		before(ctx, n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.broken[id]; err != nil {
		return nil, err
	}
	if m.text[id] == nil {
		return nil, store.ErrNotFound
	}
	return append(buf, m.text[id]...), ctx.Err()
}

func (m *mail) WatchMessages(notify func()) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notify = notify
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.notify = nil
	}
}

func (m *mail) Writable(int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.full
}

// pick takes the whole message as its body.
func pick(d *search.Document, r io.ReaderAt, size int64) error {
	b := make([]byte, size)
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if bytes.Contains(b, []byte("panic")) {
		panic("a message that no parser bears")
	}
	d.Text(search.Body, b)
	d.Words(search.Body, string(b))
	return nil
}

// rig is an index over mail.
type rig struct {
	tb       testing.TB
	path     string
	mail     *mail
	idx      *Index
	progress chan store.MessageID
	naps     chan time.Duration
	rested   time.Duration // what reach saw of naps
	change   func(o *Options)
}

func newRig(tb testing.TB, change func(o *Options)) *rig {
	r := &rig{tb: tb, path: filepath.Join(tb.TempDir(), "search.db"), mail: newMail(), change: change}
	tb.Cleanup(r.stop)
	return r
}

func (r *rig) start() {
	r.tb.Helper()
	r.progress = make(chan store.MessageID, 1<<12)
	naps := make(chan time.Duration, 8)
	r.naps = naps
	o := Options{
		Path: r.path, Pick: pick,
		Progress: func(_ int, upto store.MessageID) { r.progress <- upto },
		Sleep: func(ctx context.Context, d time.Duration) { // time passes at once, but not while nobody looks
			select {
			case naps <- d:
			case <-ctx.Done():
			}
		},
	}
	if r.change != nil {
		r.change(&o)
	}
	idx, err := New(o)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.idx = idx
	last, _ := r.mail.LastMessage(r.tb.Context())
	idx.Start(r.mail, last+1)
}

func (r *rig) stop() {
	if r.idx == nil {
		return
	}
	if err := r.idx.Close(); err != nil {
		r.tb.Error(err)
	}
	r.idx = nil
}

// reach waits until a message is indexed.
func (r *rig) reach(id store.MessageID) {
	r.tb.Helper()
	for {
		select {
		case upto := <-r.progress:
			if upto >= id {
				return
			}
		case d := <-r.naps:
			r.rested += d
		case <-time.After(time.Minute):
			r.tb.Fatalf("message %d is not indexed: %+v", id, r.idx.Status())
		}
	}
}

// stand waits until the index claims a message, whether it took it in now or had it: a connection that ends late may have
// written a damaged file's pages back from the log.
func (r *rig) stand(id store.MessageID) {
	r.tb.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	end := time.After(time.Minute)
	for store.MessageID(r.idx.upto.Load()) < id {
		select {
		case d := <-r.naps:
			r.rested += d
		case <-look.C:
		case <-end:
			r.tb.Fatalf("the index does not come to message %d: %+v", id, r.idx.Status())
		}
	}
}

// finds lists the candidates of a needle; nil when nothing is excluded.
func (r *rig) finds(acct store.AccountID, needle string) []int64 {
	r.tb.Helper()
	hits, err := r.idx.Candidates(r.tb.Context(), acct, search.AppendFold(nil, []byte(needle)), search.Body)
	if err != nil {
		r.tb.Fatal(err)
	}
	if hits == nil {
		return nil
	}
	return append([]int64{}, hits.IDs...)
}

func (r *rig) expect(acct store.AccountID, needle string, want ...int64) {
	r.tb.Helper()
	if got := r.finds(acct, needle); got == nil || !slices.Equal(got, want) {
		r.tb.Errorf("%q of account %d: got %v, want %v", needle, acct, got, want)
	}
}
