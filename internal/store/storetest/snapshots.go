package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"waxwing/internal/store"
)

var snapshotChecks = []check{
	{"a snapshot shows one moment, whatever happens to the store", snapshotStands},
	{"a snapshot has the rows of one account", snapshotOfAccount},
	{"a snapshot has every table, in a form of no back-end", snapshotTables},
	{"a closed snapshot says so, and closing the store closes it", snapshotClosed},
}

func (h *harness) snapshot() *store.Snapshot {
	h.Helper()
	n, err := h.s.Snapshot(h.Context())
	h.ok(err)
	h.Cleanup(func() { h.ok(n.Close()) })
	return n
}

// rows reads a table of a snapshot.
func (h *harness) rows(n store.Source, table string, acct store.AccountID) []store.Record {
	h.Helper()
	var out []store.Record
	for r, err := range n.Rows(h.Context(), table, acct) {
		h.ok(err)
		out = append(out, r)
	}
	return out
}

// read reads all contents of a source, and compares them with their SHA-256.
func (h *harness) read(n store.Source) map[int64]string {
	h.Helper()
	out := map[int64]string{}
	for c, err := range n.Contents(h.Context()) {
		h.ok(err)
		b, err := n.Open(h.Context(), c)
		h.ok(err)
		text, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		h.ok(errors.Join(err, b.Close()))
		if sha256.Sum256(text) != c.Sum || int64(len(text)) != c.Size || c.Refs < 1 {
			h.Fatalf("content %d of %d octets, %d times named, is read as %d octets", c.ID, c.Size, c.Refs, len(text))
		}
		out[c.ID] = string(text)
	}
	return out
}

func snapshotStands(h *harness) {
	in := h.box("INBOX").ID
	uids := h.fill(in, 300)
	uids = append(uids, h.append(in, store.NewMessage{Content: strings.NewReader(strings.Repeat("a large content\r\n", 150_000))})...)
	h.restart() // seals what was written
	n := h.snapshot()
	before, err := store.TallyRows(h.Context(), n, nil)
	h.ok(err)
	texts := h.read(n)
	h.equal("contents", len(texts), 301)

	h.s.SetPolicy(store.Policy{Erase: time.Hour})
	h.expunge(in, uids[:200]...)
	h.expunge(in, uids[300])
	h.fill(in, 10)
	for range 3 {
		h.housekeep()
		h.advance(3 * time.Hour)
	}
	after, err := store.TallyRows(h.Context(), n, nil)
	h.ok(err)
	h.equal("rows that changed", before.Difference(after), []store.TallyKey{})
	if again := h.read(n); !maps.Equal(texts, again) {
		h.Errorf("%d contents, then %d", len(texts), len(again))
	}
	h.ok(n.Close())
	h.housekeep()
	now := h.snapshot()
	h.equal("entries now", len(h.rows(now, "entry", 0)), 110)
	h.equal("contents now", len(h.read(now)), 110)
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(texts)), func(id int64) bool { return id > 200 })
	_, err = now.Open(h.Context(), store.ContentInfo{ID: gone[0]})
	h.is(err, store.ErrNotFound)
	b, err := now.Open(h.Context(), store.ContentInfo{ID: gone[len(gone)-1] + 1}) // by its id alone
	h.ok(err)
	h.ok(b.Close())
}

func snapshotOfAccount(h *harness) {
	twoAccounts(h)
	n := h.snapshot()
	for _, t := range store.Tables() {
		all := h.rows(n, t.Name, 0)
		for _, acct := range []store.AccountID{1, 2, 3} {
			var want []string
			for _, r := range all {
				if i := slices.Index(r.Columns, t.Account); t.Account != "" && r.Values[i] == int64(acct) {
					want = append(want, fmt.Sprint(r.Values))
				}
			}
			var got []string
			for _, r := range h.rows(n, t.Name, acct) {
				got = append(got, fmt.Sprint(r.Values))
			}
			h.equal(fmt.Sprintf("%s of account %d", t.Name, acct), got, want)
		}
	}
	for _, err := range n.Rows(h.Context(), "no_table", 0) {
		h.is(err, store.ErrNotFound)
	}
}

// twoAccounts fills the store of a check, whose account 1 is there, with a second one.
func twoAccounts(h *harness) {
	h.account(2)
	h.fill(h.box("INBOX").ID, 700) // more than a page
	_, err := h.s.Deliver(h.Context(), store.Delivery{Content: bytes.NewReader(h.text()), Local: []store.NewEntry{
		{Account: 1, Role: store.RoleInbox}, {Account: 2, Role: store.RoleInbox},
	}})
	h.ok(err)
}

func snapshotTables(h *harness) {
	h.write(func(tx *store.Tx) error { return h.s.DeleteAccountState(tx, 1) })
	h.housekeep()
	Fill(h.T, h.s, 0)
	n := h.snapshot()
	for _, t := range store.Tables() {
		rows := h.rows(n, t.Name, 0)
		if len(rows) == 0 {
			h.Errorf("Fill left table %s empty", t.Name)
		}
		for _, r := range rows {
			for i, v := range r.Values {
				switch v := v.(type) {
				case nil, int64:
				case string:
					if strings.ToValidUTF8(v, "") != v || strings.Contains(v, "\x00") {
						h.Errorf("%s.%s holds %q", t.Name, r.Columns[i], v)
					}
				case []byte:
					if v == nil {
						h.Errorf("%s.%s holds an untrue NULL", t.Name, r.Columns[i])
					}
				default:
					h.Errorf("%s.%s holds a %T", t.Name, r.Columns[i], v)
				}
			}
		}
	}
	h.read(n)
}

func snapshotClosed(h *harness) {
	h.fill(h.box("INBOX").ID, 1)
	n := h.snapshot()
	for c, err := range n.Contents(h.Context()) {
		h.ok(err)
		ended, cancel := context.WithCancel(h.Context())
		cancel()
		for _, err := range n.Rows(ended, "entry", 0) {
			h.is(err, context.Canceled)
		}
		h.ok(n.Close())
		_, err = n.Open(h.Context(), c)
		h.is(err, store.ErrClosed)
	}
	for _, err := range n.Rows(h.Context(), "entry", 0) {
		h.is(err, store.ErrClosed)
	}
	first, second := h.snapshot(), h.snapshot()
	soon, cancel := context.WithCancel(h.Context())
	cancel()
	_, err := h.s.Snapshot(soon) // a third waits
	h.is(err, context.Canceled)
	h.stop()
	for _, n := range []*store.Snapshot{first, second} {
		for _, err := range n.Contents(h.Context()) {
			h.is(err, store.ErrClosed)
		}
	}
}
