package fts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/sqlitefile"
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

func TestCandidatesHoldTheNeedleInsideWordsAndOutside(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "you could have", "您的电子发票已开具", "nothing of it", "会议 at Köln"))
	r.expect(1, "oul", 1)
	r.expect(1, "COULD HAVE", 1)
	r.expect(1, "发票", 2)
	r.expect(1, "票", 2)
	r.expect(1, "会议", 4)
	r.expect(1, "köln", 4)
	r.expect(1, "wonderland")
	if got := r.finds(1, "of"); got != nil {
		t.Errorf("two letters exclude something: %v", got)
	}
}

func TestAccountsAreApart(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.mail.add(1, "the same words")
	r.mail.add(12, "the same words")
	r.reach(r.mail.add(2, "the same words"))
	r.expect(1, "same", 1)
	r.expect(12, "same", 2)
	r.expect(2, "same", 3)
	r.expect(3, "same")
}

func TestWordsAreFoundNewestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Stem = true })
	r.start()
	r.mail.add(2, "my invoice")
	last := r.mail.add(1, "two invoices", "an invoice of John.Doe@example.test", "in voice", "发票")
	r.reach(last)
	for _, c := range []struct {
		text string
		want []store.MessageID
	}{
		{"Invoice", []store.MessageID{3, 2}},
		{"invoice doe", []store.MessageID{3}},
		{"example.test", []store.MessageID{3}},
		{"oice", nil},
		{"票", []store.MessageID{5}},
		{"...", nil},
	} {
		got, upto, err := r.idx.Words(t.Context(), 1, search.Body, c.text, 10)
		if err != nil || upto != last || !slices.Equal(got, c.want) {
			t.Errorf("%q: got %v up to %d, %v; want %v", c.text, got, upto, err, c.want)
		}
	}
	if got, _, err := r.idx.Words(t.Context(), 1, search.Body, "invoice", 1); err != nil || !slices.Equal(got, []store.MessageID{3}) {
		t.Errorf("the newest: %v, %v", got, err)
	}
	if got, _, err := r.idx.Words(t.Context(), 1, search.Subject, "invoice", 1); err != nil || len(got) > 0 {
		t.Errorf("in another field: %v, %v", got, err)
	}
}

func TestMessagesThatAreNotIndexedYetAreNotExcluded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "first"))
	hold := make(chan struct{})
	reading := make(chan struct{}, 1)
	r.mail.set(func() {
		r.mail.before = func(context.Context, int64) {
			select {
			case reading <- struct{}{}:
			default:
			}
			<-hold
		}
	})
	id := r.mail.add(1, "second")
	<-reading
	hits, err := r.idx.Candidates(t.Context(), 1, []byte("WONDER"), search.Body)
	if err != nil || !hits.Excludes(1) || hits.Excludes(int64(id)) {
		t.Errorf("hits %+v, %v", hits, err)
	}
	close(hold)
	r.reach(id)
	r.expect(1, "second", int64(id))
}

func TestAnIndexGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha", "beta"))
	r.stop()
	r.mail.add(1, "gamma")
	r.mail.set(func() { r.mail.reads = 0 })
	r.start()
	r.reach(3)
	r.expect(1, "alpha", 1)
	r.expect(1, "gamma", 3)
	if r.mail.reads != 1 {
		t.Errorf("%d messages were read, all but one of them again", r.mail.reads)
	}
}

func flip(path string, at ...int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, i := range at {
		b[i] ^= 0x40
	}
	return os.WriteFile(path, b, 0o600)
}

func TestAFlippedByteCostsNothing(t *testing.T) {
	t.Parallel()
	for _, at := range []int{3, 20, 3000, 4096 + 1, 2*4096 + 4000} {
		flipOne(t, func(int) int { return at })
	}
}

func TestSoakAFlippedByteCostsNothing(t *testing.T) {
	o := ordeal.Soak(t)
	chance := o.Chance(0)
	for range o.Times(1000) {
		flipOne(t, chance.IntN)
		o.Fault(1)
	}
}

// flipOne flips one octet of an index, at a place that is chosen by its size, and goes on.
func flipOne(t *testing.T, place func(size int) int) {
	t.Helper()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha", "beta"))
	r.stop()
	fi, err := os.Stat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	at := place(int(fi.Size()))
	if err := flip(r.path, at); err != nil {
		t.Fatal(err)
	}
	r.mail.add(1, "gamma")
	r.start()
	r.reach(3)
	r.expect(1, "beta", 2)
	r.expect(1, "gamma", 3)
	if n := r.idx.Status().Rebuilds; n != 0 {
		t.Errorf("octet %d: made anew %d times", at, n)
	}
	r.stop()
}

func TestALostOrDamagedFileIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(path string) error{
		"deleted":        os.Remove,
		"emptied":        func(path string) error { return os.Truncate(path, 0) },
		"cut":            func(path string) error { return os.Truncate(path, 5000) },
		"scribbled":      func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("scribble"), 1000), 0o600) },
		"damaged header": func(path string) error { return flip(path, 3, 5) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.start()
			r.reach(r.mail.add(1, "alpha", "beta"))
			r.stop()
			if err := harm(r.path); err != nil {
				t.Fatal(err)
			}
			r.start()
			r.stand(2)
			r.expect(1, "beta", 2)
		})
	}
}

func TestDamageThatASearchFindsLeadsToANewIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha", "beta"))
	r.stop()
	// The lists alone are damaged: neither opening the file nor the sweep looks into them.
	f, err := sqlitefile.Open(t.Context(), r.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	db, err := f.Pool(t.Context(), sqlitefile.Pool{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE term_data SET block = x'ffffffffffffffff' WHERE id > 10`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var found error
	for found == nil && ctx.Err() == nil { // until the file is open there is nothing to find
		_, found = r.idx.Candidates(ctx, 1, []byte("ALPHA"), search.Body)
		runtime.Gosched()
	}
	if !mustDiscard(found) {
		t.Fatalf("the search ended with %v", found)
	}
	r.reach(2)
	r.expect(1, "alpha", 1)
	if n := r.idx.Status().Rebuilds; n != 1 {
		t.Errorf("made anew %d times", n)
	}
}

func TestAnIndexOfOtherRulesOrOfALaterStateIsMadeAnew(t *testing.T) {
	t.Parallel()
	t.Run("other rules", func(t *testing.T) {
		t.Parallel()
		stem := false
		r := newRig(t, func(o *Options) { o.Stem = stem })
		r.start()
		r.reach(r.mail.add(1, "invoices"))
		r.stop()
		stem = true
		r.start()
		r.reach(1)
		if got, _, err := r.idx.Words(t.Context(), 1, search.Body, "invoice", 1); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("later state", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		r.start()
		r.reach(r.mail.add(1, "alpha", "beta", "gamma"))
		r.stop()
		r.mail = newMail() // the store of before
		r.mail.add(1, "alpha")
		r.start()
		r.reach(r.mail.add(1, "delta"))
		r.expect(1, "delta", 2)
		r.expect(1, "beta")
		if r.idx.Status().Rebuilds != 1 {
			t.Errorf("status %+v", r.idx.Status())
		}
	})
}

func TestAnIndexOfAnotherStoreIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		other    func(m *mail)
		rebuilds int64
	}{
		"the same store": {func(m *mail) {
			for i := range 100 {
				m.add(1, fmt.Sprint("number ", i))
			}
		}, 0},
		"other messages": {func(m *mail) {
			for i := range 150 {
				m.add(1, fmt.Sprint("letter ", i))
			}
		}, 1},
		"none of the messages": {func(m *mail) {
			for i := range 150 {
				m.add(1, fmt.Sprint("letter ", i))
			}
			for i := range 101 {
				m.drop(store.MessageID(i))
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.start()
			for i := range 100 { // each is a batch, and a witness
				r.reach(r.mail.add(1, fmt.Sprint("number ", i)))
			}
			r.stop()
			r.mail = newMail()
			c.other(r.mail)
			r.start()
			last := r.mail.add(1, "omega")
			r.reach(last)
			r.expect(1, "omega", int64(last))
			if got := r.idx.Status().Rebuilds; got != c.rebuilds {
				t.Errorf("made anew %d times", got)
			}
		})
	}
}

func TestGoneMessagesLeaveTheIndex(t *testing.T) {
	t.Parallel()
	t.Run("when told", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		r.start()
		r.reach(r.mail.add(1, "alpha", "alpha", "alpha"))
		r.mail.drop(2)
		r.idx.Purged(1, []store.MessageID{2})
		r.reach(r.mail.add(1, "alpha"))
		r.expect(1, "alpha", 1, 3, 4)
	})
	t.Run("after a start", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		r.start()
		r.reach(r.mail.add(1, "alpha", "alpha", "alpha"))
		r.stop()
		r.mail.drop(1, 3)
		r.start()
		select {
		case <-r.progress:
		case <-time.After(time.Minute):
			t.Fatal("the sweep removes nothing")
		}
		if rows, err := rowsAfter(t.Context(), r.idx.db.writer, 0, 10); err != nil || len(rows) != 1 {
			t.Errorf("left are %v, %v", rows, err)
		}
		r.expect(1, "alpha", 2)
	})
}

func TestWhatCannotBeReadStaysACandidate(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.mail.broken[2] = fmt.Errorf("flipped: %w", store.ErrCorrupt)
	r.mail.broken[4] = errors.New("too many open files")
	r.start()
	r.reach(r.mail.add(1, "alpha", "alpha", "a panic", "alpha", "omega"))
	r.expect(1, "omega", 2, 3, 4, 5)
	r.expect(1, "nowhere", 2, 3, 4)
}

func TestAPassingErrorLeavesNothingOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.mail.err = errors.New("database is busy")
	r.mail.add(1, "alpha")
	r.start()
	first, second := <-r.naps, <-r.naps
	if first != time.Second || second != 2*time.Second {
		t.Errorf("tried again after %v and %v", first, second)
	}
	if r.idx.Status().Err == nil {
		t.Error("the status hides the error")
	}
	if got := r.finds(1, "omega"); got != nil {
		t.Errorf("an index of nothing excludes: %v", got)
	}
	r.mail.set(func() { r.mail.err = nil })
	r.reach(1)
	r.expect(1, "alpha", 1)
}

func TestAFullDiskIsLeftToMail(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.mail.full = store.ErrFull
	r.mail.add(1, "alpha")
	r.start()
	<-r.naps
	<-r.naps
	if s := r.idx.Status(); !errors.Is(s.Err, store.ErrFull) || s.Waiting != 1 {
		t.Errorf("status %+v", s)
	}
	r.mail.set(func() { r.mail.full = nil })
	r.reach(1)
}

func TestAFileThatMayNotGrowKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.MaxPages = 60 })
	r.start()
	r.reach(r.mail.add(1, "alpha"))
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		text := make([]rune, 300)
		for i := range text {
			text[i] = 0x4e00 + rnd.Int32N(20_000)
		}
		r.mail.add(1, string(text))
	}
	for r.idx.Status().Err == nil {
		select {
		case <-r.progress:
		case <-r.naps:
		case <-time.After(time.Minute):
			t.Fatal("the file grew beyond its bound")
		}
	}
	go func() { // let it try again and again until the end of the test
		for range r.naps {
		}
	}()
	defer func() { naps := r.naps; r.stop(); close(naps) }()
	hits, err := r.idx.Candidates(t.Context(), 1, []byte("ALPHA"), search.Body)
	if err != nil || !slices.Contains(hits.IDs, 1) || hits.Excludes(401) {
		t.Errorf("hits %+v, %v", hits, err)
	}
}

func TestMailInFlowGoesFirst(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	r := newRig(t, func(o *Options) {
		o.Clock = func() time.Time { // each look takes a millisecond; the index's goroutine alone looks
			now = now.Add(time.Millisecond)
			return now
		}
	})
	r.mail.before = func(_ context.Context, n int64) {
		if n < 5 {
			r.mail.add(1, "more")
		}
	}
	r.mail.add(1, "first")
	r.start()
	r.reach(5)
	if r.rested == 0 {
		r.rested = <-r.naps
	}
	if r.rested <= 0 {
		t.Errorf("rested for %v beside mail", r.rested)
	}
}

// TestIndexAgreesWithTheText compares with a search through all texts, over restarts, purges and lost files.
func TestIndexAgreesWithTheText(t *testing.T) {
	t.Parallel()
	words := []string{"could", "cloud", "发票", "会议", "票发", "Köln", "x1y2", "ﾊﾝｶｸ", "회의", "🎉"}
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		r := &rig{tb: t, path: filepath.Join(dir, fmt.Sprint(n, ".db")), mail: newMail()}
		r.start()
		defer r.stop()
		text := rapid.Custom(func(t *rapid.T) string {
			s := ""
			for _, w := range rapid.SliceOfN(rapid.SampledFrom(words), 0, 5).Draw(t, "words") {
				s += w + rapid.SampledFrom([]string{" ", "", "-"}).Draw(t, "between")
			}
			return s
		})
		var last store.MessageID
		for range rapid.IntRange(1, 6).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				r.stop()
				if rapid.Bool().Draw(rt, "lost") {
					_ = os.Remove(r.path)
				}
				r.start()
				if last > 0 && len(r.mail.text) > 0 {
					last = r.mail.add(1, "again")
					r.reach(last)
				}
			case 1:
				if last > 0 {
					id := store.MessageID(rapid.Int64Range(1, int64(last)).Draw(rt, "id"))
					r.mail.drop(id)
					r.idx.Purged(1, []store.MessageID{id})
				}
			default:
				last = r.mail.add(store.AccountID(rapid.IntRange(1, 2).Draw(rt, "account")), rapid.SliceOfN(text, 1, 4).Draw(rt, "texts")...)
				r.reach(last)
			}
			for _, w := range words {
				r.agrees(rt, w)
				r.agrees(rt, string([]rune(w)[1:]))
			}
		}
	})
}

// agrees fails when a message that holds the needle is excluded, or one of another account is found.
func (r *rig) agrees(t *rapid.T, needle string) {
	folded := search.AppendFold(nil, []byte(needle))
	hits, err := r.idx.Candidates(r.tb.Context(), 1, folded, search.Body)
	if err != nil {
		t.Fatal(err)
	}
	owner := make(map[int64]store.AccountID)
	for _, ref := range r.mail.refs {
		owner[int64(ref.Message)] = ref.Account
	}
	for id, text := range maps.Clone(r.mail.text) {
		if owner[int64(id)] == 1 && bytes.Contains(search.AppendFold(nil, text), folded) && hits.Excludes(int64(id)) {
			t.Fatalf("message %d with %q is excluded for %q", id, text, needle)
		}
	}
	if hits == nil {
		return
	}
	for _, id := range hits.IDs {
		if owner[id] != 1 {
			t.Fatalf("message %d of account %d is found", id, owner[id])
		}
	}
}
