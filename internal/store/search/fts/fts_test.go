package fts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

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

// TestSearchesDoNotWaitForAnIndexThatIsBeingOpened asks while a file is opened, which takes long when its pages get their sums.
func TestSearchesDoNotWaitForAnIndexThatIsBeingOpened(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	last := r.mail.add(1, "alpha", "beta")
	r.reach(last)
	r.stop()
	opening, opened := make(chan struct{}), make(chan struct{})
	r.mail.set(func() {
		r.mail.asked = sync.OnceFunc(func() {
			close(opening)
			<-opened
		})
	})
	r.start()
	<-opening
	answered := make(chan error, 1)
	go func() {
		hits, err := r.idx.Candidates(t.Context(), 1, []byte("beta"), search.Body)
		if hits != nil {
			err = fmt.Errorf("an index that is not open says %v", hits.IDs)
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a search waits")
	}
	close(opened)
	r.stand(last)
	r.expect(1, "beta", 2)
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
