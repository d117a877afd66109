package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"waxwing/internal/store"
)

// Opener opens the store in dir, which stays the same when the store is opened again; it need not close it.
type Opener func(tb testing.TB, dir string, clock func() time.Time) *store.Store

// Run checks that a back-end keeps the contract of package store.
func Run(t *testing.T, open Opener) {
	for _, group := range [][]check{mailboxChecks, entryChecks, viewChecks, contentChecks, keepChecks, snapshotChecks, tlsChecks, proofChecks, returningChecks, mapChecks, sieveChecks, sendingChecks} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				h := &harness{T: t, open: open, dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
				h.start()
				t.Cleanup(func() { h.stop() })
				h.account(1)
				c.fn(h)
				h.consistent(1)
			})
		}
	}
}

// check is one behaviour of the contract.
type check struct {
	name string
	fn   func(h *harness)
}

// harness is a store under test with account 1.
type harness struct {
	*testing.T
	open Opener
	dir  string
	s    *store.Store
	n    int // messages made

	rights map[store.AccountID]store.ReturnRight

	mu  sync.Mutex
	now time.Time
}

func (h *harness) clock() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// advance lets time pass, in which the store looks at the clock now and then: it doesn't jump.
func (h *harness) advance(d time.Duration) {
	h.Helper()
	for d > 0 {
		step := min(d, 12*time.Hour)
		d -= step
		h.jump(step)
		_, err := h.s.MayExpire(h.Context())
		h.ok(err)
	}
}

// jump sets the clock to another time.
func (h *harness) jump(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func (h *harness) start() { h.s = h.open(h.T, h.dir, h.clock) }

func (h *harness) stop() {
	if h.s != nil {
		h.ok(h.s.Close())
	}
	h.s = nil
}

// restart closes the store and opens it again.
func (h *harness) restart() {
	h.Helper()
	h.stop()
	h.start()
}

// ok ends the test when there is an error.
func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// is ends the test when the error is not the wanted one.
func (h *harness) is(err, want error) {
	h.Helper()
	if !errors.Is(err, want) {
		h.Fatalf("error %v, want %v", err, want)
	}
}

// equal compares by what is printed: good for short lists.
func (h *harness) equal(what string, got, want any) {
	h.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		h.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

func (h *harness) account(id store.AccountID) {
	h.Helper()
	Account(h, h.s, id)
}

func (h *harness) write(fn func(tx *store.Tx) error) {
	h.Helper()
	h.ok(h.s.Write(h.Context(), fn))
}

func (h *harness) box(name string) store.Mailbox {
	h.Helper()
	m, err := h.s.Mailbox(h.Context(), 1, name)
	h.ok(err)
	return m
}

func (h *harness) create(name string) store.Mailbox {
	h.Helper()
	m, err := h.s.CreateMailbox(h.Context(), 1, name, "")
	h.ok(err)
	return m
}

func (h *harness) names() []string {
	h.Helper()
	list, err := h.s.Mailboxes(h.Context(), 1)
	h.ok(err)
	names := make([]string, len(list))
	for i, m := range list {
		names[i] = m.Name
	}
	return names
}

// text makes a content that no other message of the test has.
func (h *harness) text() []byte {
	h.n++
	return fmt.Appendf(nil, "Message-ID: <%d@example.test>\r\nSubject: number %d\r\n\r\nHello, 你好.\r\n", h.n, h.n)
}

func (h *harness) message() store.NewMessage {
	b := h.text()
	return store.NewMessage{
		Content: bytes.NewReader(b), InternalDate: time.Unix(int64(1_600_000_000+h.n), 0),
		Summary: store.Summary{MessageID: fmt.Sprintf("%d@example.test", h.n), Envelope: []byte("(env)"), BaseSubject: fmt.Sprintf("number %d", h.n)},
	}
}

// fill appends n messages and returns their UIDs.
func (h *harness) fill(box store.MailboxID, n int) []store.UID {
	h.Helper()
	msgs := make([]store.NewMessage, n)
	for i := range msgs {
		msgs[i] = h.message()
	}
	return h.append(box, msgs...)
}

func (h *harness) append(box store.MailboxID, msgs ...store.NewMessage) []store.UID {
	h.Helper()
	placed, err := h.s.Append(h.Context(), 1, box, msgs)
	h.ok(err)
	uids := make([]store.UID, len(placed))
	for i, p := range placed {
		uids[i] = p.UID
	}
	return uids
}

func (h *harness) flags(box store.MailboxID, uids []store.UID, op store.FlagOp, f store.Flags, keywords ...string) (changed []store.UID) {
	h.Helper()
	changed, failed, err := h.s.StoreFlags(h.Context(), 1, box, uids, store.FlagChange{Op: op, Flags: f, Keywords: keywords})
	h.ok(err)
	h.equal("failed", failed, []store.UID{})
	return changed
}

func (h *harness) expunge(box store.MailboxID, uids ...store.UID) {
	h.Helper()
	got, err := h.s.Expunge(h.Context(), 1, box, uids, false)
	h.ok(err)
	h.equal("expunged", got, uids)
}

func (h *harness) view(box store.MailboxID, opts ...store.ViewOption) *store.View {
	h.Helper()
	v, err := h.s.View(h.Context(), 1, box, nil, opts...)
	h.ok(err)
	return v
}

// entries returns what a new View of the mailbox shows.
func (h *harness) entries(box store.MailboxID) []store.Entry {
	h.Helper()
	v := h.view(box, store.Peek())
	defer v.Close()
	return entriesOf(v)
}

func entriesOf(v *store.View) []store.Entry {
	var out []store.Entry
	err := v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		out = append(out, *e)
		return true
	})
	if err != nil {
		panic(fmt.Sprintf("storetest: read the entries: %v", err))
	}
	return out
}

func (h *harness) uids(box store.MailboxID) []store.UID {
	h.Helper()
	var out []store.UID
	for _, e := range h.entries(box) {
		out = append(out, e.UID)
	}
	return out
}

// content reads a message in both ways.
func (h *harness) content(acct store.AccountID, id store.MessageID) string {
	h.Helper()
	b, err := h.s.ReadBlob(h.Context(), acct, id, nil)
	h.ok(err)
	r, err := h.s.OpenBlob(h.Context(), acct, id)
	h.ok(err)
	defer func() { h.ok(r.Close()) }()
	whole, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	h.ok(err)
	if !bytes.Equal(b, whole) {
		h.Fatalf("ReadBlob gives %q, OpenBlob %q", b, whole)
	}
	return string(b)
}

// number asks the rows for one number.
func (h *harness) number(query string, args ...any) int64 {
	h.Helper()
	var n int64
	h.ok(h.s.Read(h.Context(), func(q store.Querier) error { return q.QueryRow(query, args...).Scan(&n) }))
	return n
}

// consistent compares the counts of the account with its entries, what memory shows with the rows, and the references of
// contents with what refers to them.
func (h *harness) consistent(acct store.AccountID) {
	h.Helper()
	if h.s == nil {
		return
	}
	list, err := h.s.Mailboxes(h.Context(), acct)
	if errors.Is(err, store.ErrNotFound) {
		return
	}
	h.ok(err)
	var octets, messages int64
	for _, m := range list {
		h.countsMatch(acct, m)
		octets += m.Size
		messages += int64(m.Messages)
	}
	u, err := h.s.Usage(h.Context(), acct)
	h.ok(err)
	h.equal("used octets and messages", []int64{u.Bytes, u.Messages}, []int64{octets, messages})
	h.equal("contents whose references are miscounted", h.number(`SELECT count(*) FROM blob AS b LEFT JOIN
		(SELECT u.blob_id, count(*) AS n FROM (SELECT blob_id FROM message UNION ALL SELECT blob_id FROM queue_message) AS u GROUP BY u.blob_id) AS t
		ON t.blob_id = b.blob_id WHERE b.refs <> COALESCE(t.n, 0)`), 0)
	h.equal("messages whose entries are miscounted", h.number(`SELECT count(*) FROM message AS m LEFT JOIN
		(SELECT u.account_id, u.message_id, count(*) AS n FROM (SELECT account_id, message_id FROM entry UNION ALL
			SELECT account_id, message_id FROM expunged_entry) AS u GROUP BY u.account_id, u.message_id) AS t
		ON t.account_id = m.account_id AND t.message_id = m.message_id
		LEFT JOIN shared_message AS s ON s.account_id = m.account_id AND s.message_id = m.message_id
		WHERE COALESCE(t.n, 0) <> COALESCE(s.entries, 1)`), 0)
	h.equal("entries without message", h.number(`SELECT count(*) FROM entry AS e WHERE NOT EXISTS
		(SELECT 1 FROM message AS m WHERE m.account_id = e.account_id AND m.message_id = e.message_id)`), 0)
	h.equal("segments whose live octets are miscounted", h.number(`SELECT count(*) FROM segment AS s WHERE live <>
		COALESCE((SELECT sum(b.stored) FROM blob AS b WHERE b.segment = s.segment), 0)`), 0)
}

func (h *harness) countsMatch(acct store.AccountID, m store.Mailbox) {
	h.Helper()
	v, err := h.s.View(h.Context(), acct, m.ID, nil, store.Peek())
	h.ok(err)
	defer v.Close()
	var want store.Mailbox
	var last store.UID
	for _, e := range entriesOf(v) {
		want.Messages++
		want.Size += e.Size
		if e.Flags&store.Seen == 0 {
			want.Unseen++
		}
		if e.Flags&store.Deleted != 0 {
			want.Deleted++
		}
		if e.UID <= last || e.UID >= m.UIDNext || e.ModSeq > m.HighestModSeq {
			h.Fatalf("mailbox %s: entry %+v after UID %d, UIDNEXT %d, HIGHESTMODSEQ %d", m.Name, e, last, m.UIDNext, m.HighestModSeq)
		}
		last = e.UID
	}
	h.equal("counts of "+m.Name, []int64{int64(m.Messages), int64(m.Unseen), int64(m.Deleted), m.Size},
		[]int64{int64(want.Messages), int64(want.Unseen), int64(want.Deleted), want.Size})
	h.equal("rows of "+m.Name, h.number(`SELECT COALESCE(sum(uid * 7 + flags * 11 + (keywords & 1048575) * 13 + modseq * 17 + message_id * 19 + size), 0)
		FROM entry WHERE account_id = $1 AND mailbox_id = $2`, acct, m.ID), h.sumOf(acct, v))
}

// sumOf is what the query in countsMatch gives for the entries in memory.
func (h *harness) sumOf(acct store.AccountID, v *store.View) int64 {
	h.Helper()
	var sum int64
	numbers := make(map[string]int64)
	rows := func(q store.Querier) error {
		r, err := q.Query(`SELECT number, name FROM keyword WHERE account_id = $1 AND mailbox_id = $2`, acct, v.Mailbox().ID)
		if err != nil {
			return err
		}
		defer r.Close()
		for r.Next() {
			var n int64
			var name string
			if err := r.Scan(&n, &name); err != nil {
				return err
			}
			numbers[name] = n
		}
		return r.Err()
	}
	h.ok(h.s.Read(h.Context(), rows))
	for _, e := range entriesOf(v) {
		var set int64
		for _, k := range e.Keywords {
			n, ok := numbers[k]
			if !ok {
				h.Fatalf("keyword %q has no row", k)
			}
			set |= 1 << n
		}
		sum += int64(e.UID)*7 + int64(e.Flags)*11 + set&1048575*13 + int64(e.ModSeq)*17 + int64(e.Message)*19 + e.Size
	}
	return sum
}

// applyExpunges says what is left of a client's list of messages after an update.
func applyExpunges(list []store.UID, u store.Update) []store.UID {
	list = slices.Clone(list)
	for _, seq := range u.Expunged {
		list = slices.Delete(list, seq-1, seq)
	}
	return list
}
