// Package searchtest is the contract of store.Searcher as a test, for each index of text the same. It asks an index that
// stands beside a real store. It is for test code alone.
//
//	func TestContract(t *testing.T) { searchtest.Run(t, open) }
package searchtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
	"waxwing/internal/store/storetest"
)

// Index is what is tested.
type Index interface {
	store.Searcher
	store.SearchProver
	Status() follow.Status
}

// Opener opens a store in dir, which stays the same when it is opened again, with an index whose texts pick takes. The caller
// closes the store.
type Opener func(tb testing.TB, dir string, pick follow.Pick) (*store.Store, Index)

// Run checks that an index keeps the contract.
func Run(t *testing.T, open Opener) {
	for _, c := range []struct {
		name string
		fn   func(h *Harness)
	}{
		{"candidates hold the needle inside words and outside", candidates},
		{"accounts are apart", accountsApart},
		{"words are found, newest first", words},
		{"messages that are not indexed yet are not excluded", notYet},
		{"an index goes on where it ended", goesOn},
		{"messages that are gone leave the index", goneLeave},
		{"what can't be read stays a candidate", unreadable},
		{"no limit of an index leads to a wrong exclusion", limits},
		{"the index agrees with the text", agrees},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := New(t, open)
			c.fn(h)
			h.Sound()
		})
	}
}

// Harness is a store with an index under test. Messages are plain text; account 1 and 2 exist.
type Harness struct {
	*testing.T
	Store *store.Store
	Index Index

	open  Opener
	dir   string
	texts map[store.MessageID]string // of account 1
	last  store.MessageID

	mu    sync.Mutex
	picks int
	hold  chan struct{} // while it is open no text is taken; nil for none
}

// New opens a store with an index.
func New(t *testing.T, open Opener) *Harness {
	h := &Harness{T: t, open: open, dir: t.TempDir(), texts: make(map[store.MessageID]string)}
	h.Start()
	t.Cleanup(h.Stop)
	storetest.Account(t, h.Store, 1)
	storetest.Account(t, h.Store, 2)
	return h
}

// Start opens the store.
func (h *Harness) Start() { h.Store, h.Index = h.open(h.T, h.dir, h.pick) }

// Stop closes it.
func (h *Harness) Stop() {
	if h.Store == nil {
		return
	}
	if err := h.Store.Close(); err != nil {
		h.Errorf("close the store: %v", err)
	}
	h.Store = nil
}

// Hold keeps the index from taking texts until the result is called.
func (h *Harness) Hold() (release func()) {
	hold := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold = hold
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.hold = nil
		close(hold)
	}
}

// pick takes the whole message as its body.
func (h *Harness) pick(d *search.Document, r io.ReaderAt, size int64) error {
	h.mu.Lock()
	h.picks++
	hold := h.hold
	h.mu.Unlock()
	if hold != nil {
		<-hold
	}
	b := make([]byte, size)
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch {
	case bytes.Contains(b, []byte("panic")):
		panic("a message that no parser bears")
	case bytes.Contains(b, []byte("damaged")):
		return store.ErrCorrupt
	}
	d.Text(search.Body, b)
	d.Words(search.Body, string(b))
	return nil
}

// Deliver files a message into the INBOX of an account.
func (h *Harness) Deliver(acct store.AccountID, text string) store.Placed {
	h.Helper()
	d, err := h.Store.Deliver(h.Context(), store.Delivery{
		Content: strings.NewReader(text), Local: []store.NewEntry{{Account: acct, Role: store.RoleInbox}},
	})
	if err != nil {
		h.Fatal(err)
	}
	if h.last = d.Local[0].Message; acct == 1 {
		h.texts[h.last] = text
	}
	return d.Local[0]
}

// Erase expunges messages of account 1 so that they are gone for good.
func (h *Harness) Erase(list ...store.Placed) {
	h.Helper()
	uids := make([]store.UID, len(list))
	for i, p := range list {
		uids[i] = p.UID
		delete(h.texts, p.Message)
	}
	if _, err := h.Store.Expunge(h.Context(), 1, list[0].Mailbox, uids, false); err != nil {
		h.Fatal(err)
	}
}

// Until waits until something holds.
func (h *Harness) Until(what string, fn func() bool) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !fn() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			h.Fatalf("%s: waited in vain: %+v", what, h.Index.Status())
		}
	}
}

// Reach waits until all messages that were delivered are indexed, and their like alone excluded: what is looked for stands in
// none of them.
func (h *Harness) Reach() {
	h.Helper()
	if h.last == 0 {
		return
	}
	h.Until("index", func() bool {
		_, upto, err := h.Index.Words(h.Context(), 1, search.Body, "nothing", 1)
		return err == nil && upto >= h.last
	})
}

// Finds lists the candidates of a needle; nil when nothing is excluded.
func (h *Harness) Finds(acct store.AccountID, needle string) []int64 {
	h.Helper()
	hits, err := h.Index.Candidates(h.Context(), acct, search.AppendFold(nil, []byte(needle)), search.Body)
	if err != nil {
		h.Fatal(err)
	}
	if hits == nil {
		return nil
	}
	return append([]int64{}, hits.IDs...)
}

// Expect fails when the candidates of a needle are not those.
func (h *Harness) Expect(acct store.AccountID, needle string, want ...store.Placed) {
	h.Helper()
	ids := make([]int64, len(want))
	for i, p := range want {
		ids[i] = int64(p.Message)
	}
	if got := h.Finds(acct, needle); got == nil || !slices.Equal(got, ids) {
		h.Errorf("%q of account %d: got %v, want %v", needle, acct, got, ids)
	}
}

// Sound fails when the index can't prove itself.
func (h *Harness) Sound() {
	h.Helper()
	if h.Store == nil {
		return
	}
	h.Reach()
	err := h.Index.Prove(h.Context(), 0, func(m store.MessageRef, text string) { h.Errorf("message %d: %s", m.Message, text) })
	if err != nil {
		h.Error(err)
	}
}

func candidates(h *Harness) {
	could := h.Deliver(1, "you could have")
	invoice := h.Deliver(1, "您的电子发票已开具")
	h.Deliver(1, "nothing of it")
	meeting := h.Deliver(1, "会议 at Köln: it's 50 \\ 50")
	h.Reach()
	h.Expect(1, "oul", could)
	h.Expect(1, "COULD HAVE", could)
	h.Expect(1, "发票", invoice)
	h.Expect(1, "票", invoice)
	h.Expect(1, "会议", meeting)
	h.Expect(1, "köln", meeting)
	h.Expect(1, "wonderland")
	for _, short := range []string{"of", "'", "\\", "", ":*", "&"} {
		if got := h.Finds(1, short); got != nil {
			h.Errorf("%q excludes something: %v", short, got)
		}
	}
}

func accountsApart(h *Harness) {
	one := h.Deliver(1, "the same words")
	two := h.Deliver(2, "the same words")
	h.Reach()
	h.Expect(1, "same", one)
	h.Expect(2, "same", two)
	h.Expect(3, "same")
}

func words(h *Harness) {
	h.Deliver(2, "my invoice")
	first := h.Deliver(1, "two invoice lists")
	second := h.Deliver(1, "an invoice of John.Doe@example.test")
	h.Deliver(1, "in voice")
	chinese := h.Deliver(1, "发票")
	h.Reach()
	for _, c := range []struct {
		text  string
		limit int
		want  []store.MessageID
	}{
		{"Invoice", 10, []store.MessageID{second.Message, first.Message}},
		{"invoice", 1, []store.MessageID{second.Message}},
		{"invoice doe", 10, []store.MessageID{second.Message}},
		{"example.test", 10, []store.MessageID{second.Message}},
		{"oice", 10, nil},
		{"票", 10, []store.MessageID{chinese.Message}},
		{"...", 10, nil},
	} {
		got, _, err := h.Index.Words(h.Context(), 1, search.Body, c.text, c.limit)
		if err != nil || !slices.Equal(got, c.want) {
			h.Errorf("%q: got %v, %v; want %v", c.text, got, err, c.want)
		}
	}
	if got, _, err := h.Index.Words(h.Context(), 1, search.Subject, "invoice", 1); err != nil || len(got) > 0 {
		h.Errorf("in another field: %v, %v", got, err)
	}
}

func notYet(h *Harness) {
	first := h.Deliver(1, "first")
	h.Reach()
	release := h.Hold()
	second := h.Deliver(1, "second")
	hits, err := h.Index.Candidates(h.Context(), 1, []byte("WONDER"), search.Body)
	if err != nil || !hits.Excludes(int64(first.Message)) || hits.Excludes(int64(second.Message)) {
		h.Errorf("hits %+v, %v", hits, err)
	}
	release()
	h.Reach()
	h.Expect(1, "second", second)
}

func goesOn(h *Harness) {
	alpha := h.Deliver(1, "alpha")
	h.Deliver(1, "beta")
	h.Reach()
	h.Stop()
	h.mu.Lock()
	h.picks = 0
	h.mu.Unlock()
	h.Start()
	gamma := h.Deliver(1, "gamma")
	h.Reach()
	h.Expect(1, "alpha", alpha)
	h.Expect(1, "gamma", gamma)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.picks != 1 {
		h.Errorf("%d messages were read, all but one of them again", h.picks)
	}
}

func goneLeave(h *Harness) {
	var list []store.Placed
	for i := range 5 {
		list = append(list, h.Deliver(1, fmt.Sprint("alpha ", i)))
	}
	h.Reach()
	h.Erase(list[1], list[3])
	h.Until("erase", func() bool { return len(h.Finds(1, "alpha")) == 3 })
	h.Expect(1, "alpha", list[0], list[2], list[4])
	release := h.Hold() // gone before it is indexed
	last := h.Deliver(1, "alpha six")
	h.Erase(last)
	release()
	list = append(list, h.Deliver(1, "alpha seven"))
	h.Reach()
	h.Until("erase", func() bool { return len(h.Finds(1, "alpha")) == 4 })
	h.Expect(1, "alpha", list[0], list[2], list[4], list[5])
}

func unreadable(h *Harness) {
	h.Deliver(1, "alpha")
	panics := h.Deliver(1, "a panic")
	damaged := h.Deliver(1, "damaged")
	omega := h.Deliver(1, "omega")
	h.Reach()
	h.Expect(1, "omega", panics, damaged, omega)
	h.Expect(1, "nowhere", panics, damaged)
}

func limits(h *Harness) {
	var b strings.Builder
	for r := rune(0x4e00); r < 0x4e00+16_000; r++ {
		b.WriteRune(r)
		b.WriteRune(r ^ 0x55)
	}
	many := h.Deliver(1, b.String()) // more grams than a document takes
	b.Reset()
	for i := range 6_000 { // words of 1.2 MB together
		fmt.Fprintf(&b, "%06d%s ", i, strings.Repeat("ф", 97))
	}
	long := h.Deliver(1, b.String()+"zebra")
	one := h.Deliver(1, strings.Repeat("x", 1<<18)+"quagga")
	h.Reach()
	h.Expect(1, "zebra", many, long)
	h.Expect(1, "005999фф", many, long)
	h.Expect(1, "quagga", many, one)
	h.Expect(1, "一一", many)
}

var vocabulary = []string{"could", "cloud", "发票", "会议", "票发", "Köln", "x1y2", "ﾊﾝｶｸ", "회의", "🎉", "it's", "a\\b", "\x00\xff"}

// agrees compares with a search through all texts, over restarts, erasures and an index that is made anew.
func agrees(h *Harness) {
	text := rapid.Custom(func(t *rapid.T) string {
		s := fmt.Sprint(len(h.texts), " ")
		for _, w := range rapid.SliceOfN(rapid.SampledFrom(vocabulary), 0, 5).Draw(t, "words") {
			s += w + rapid.SampledFrom([]string{" ", "", "-"}).Draw(t, "between")
		}
		return s
	})
	var there []store.Placed
	for i := range 40 {
		switch i % 8 {
		case 3:
			h.Stop()
			h.Start()
		case 5:
			if n := i % len(there); n > 0 {
				h.Erase(there[n])
				there = slices.Delete(there, n, n+1)
			}
		case 6:
			if i > 30 {
				if err := h.Index.Renew(h.Context()); err != nil {
					h.Fatal(err)
				}
			}
		case 7:
			h.Reach()
		default:
			there = append(there, h.Deliver(1, text.Example(i)))
			h.Deliver(2, text.Example(i+1000))
		}
		for _, w := range vocabulary {
			h.compare(w)
			h.compare(string([]rune(w)[1:]))
		}
	}
}

// compare fails when a message that holds the needle is excluded.
func (h *Harness) compare(needle string) {
	h.Helper()
	folded := search.AppendFold(nil, []byte(needle))
	hits := h.Store.Candidates(h.Context(), 1, folded, search.Body)
	for id, text := range h.texts {
		if bytes.Contains(search.AppendFold(nil, []byte(text)), folded) && hits.Excludes(int64(id)) {
			h.Fatalf("message %d with %q is excluded for %q", id, text, needle)
		}
	}
}
