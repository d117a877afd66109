package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"waxwing/internal/store"
)

// proofChecks are what Verify and Repair owe on every back-end, whether contents lie where they came or have been moved.
var proofChecks = []check{
	{"ASoundStoreIsFoundSound", func(h *harness) {
		proofFill(h)
		for range 2 {
			list, done := Problems(h.T, h.s, store.VerifyOptions{})
			if len(list) > 0 || done.Entries != proofLeft || done.Messages != 10 || done.Contents != 10 || done.Octets != done.Total {
				h.Fatalf("%+v, %v", done, list)
			}
			proofMove(h)
		}
	}},
	{"RepairMendsWhatCanBeMended", func(h *harness) {
		proofFill(h)
		for i := range proofBreaks {
			proofBreak(h, &proofBreaks[i])
			if i == len(proofBreaks)/2 {
				proofMove(h)
			}
		}
	}},
	{"TheScrubReadsEverything", func(h *harness) {
		proofFill(h)
		for {
			more, err := h.s.ScrubStep(h.Context(), 0)
			if err != nil {
				h.Fatal(err)
			}
			if !more {
				break
			}
		}
		st, err := h.s.Scrub(h.Context())
		if err != nil || st.Damaged != 0 || st.Checked != 10 || st.Finished.IsZero() {
			h.Errorf("%+v, %v", st, err)
		}
	}},
}

// proofLeft is how many entries proofFill leaves: ten messages less one expunged, and two copies.
const proofLeft = 11

// damage is a statement that breaks something, and what it is found as.
type damage struct {
	name, query string
	args        []any
	kind        store.ProblemKind
}

// proofBreaks are damages of the rows that repair must mend without a loss, each on top of what is mended before.
var proofBreaks = []damage{
	{"counts of a mailbox", `UPDATE mailbox SET messages = messages + 5, unseen = 0, octets = 7 WHERE name = 'INBOX'`, nil, store.ProblemCounts},
	{"the use of an account", `UPDATE mail_account SET used_octets = 1 WHERE account_id = 1`, nil, store.ProblemCounts},
	{"UIDNEXT", `UPDATE mailbox SET uid_next = 2 WHERE name = 'INBOX'`, nil, store.ProblemCounts},
	{"MODSEQ", `UPDATE mail_account SET modseq = 1 WHERE account_id = 1`, nil, store.ProblemCounts},
	{"numbers of entries", `UPDATE shared_message SET entries = 9`, nil, store.ProblemSharing},
	{"a lost row of a content", `DELETE FROM blob WHERE blob_id = 5`, nil, store.ProblemMessage},
	{"too many references", `UPDATE blob SET refs = 3 WHERE blob_id = 6`, nil, store.ProblemRefs},
	{"a damaged summary", `UPDATE message SET summary = $1 WHERE message_id = 5`, []any{[]byte{1, 2, 3}}, store.ProblemMessage},
	{"another lost row of a content", `DELETE FROM blob WHERE blob_id = 7`, nil, store.ProblemMessage},
	{"too few references", `UPDATE blob SET refs = 0 WHERE blob_id = 6`, nil, store.ProblemRefs},
	{"the account of a segment", `UPDATE segment SET live = 5, tail = 10`, nil, store.ProblemSegment},
	{"a lost entry", `DELETE FROM entry WHERE mailbox_id = 1 AND uid = 5`, nil, store.ProblemOrphan},
}

// Digest is what the summaries of these checks are made by.
func Digest(c store.Content) (store.Summary, error) {
	b := make([]byte, min(c.Size(), 40))
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return store.Summary{}, err
	}
	return store.Summary{BaseSubject: string(b)}, nil
}

// proofFill puts ten messages into the INBOX, two copies into Archive, and expunges one.
func proofFill(h *harness) {
	h.s.SetPolicy(store.Policy{Undelete: 1 << 50})
	in, archive := h.box("INBOX"), h.box("Archive")
	for i := range 10 {
		c := bytes.NewReader(fmt.Appendf(nil, "Subject: message %d\r\n\r\n%s\r\n", i, bytes.Repeat([]byte{byte('a' + i)}, 50*i)))
		m, err := Digest(c)
		if err == nil {
			_, err = h.s.Append(h.Context(), 1, in.ID, []store.NewMessage{{Content: c, Summary: m}})
		}
		if err != nil {
			h.Fatal(err)
		}
	}
	if _, _, _, err := h.s.Copy(h.Context(), 1, in.ID, []store.UID{1, 2}, archive.ID); err != nil {
		h.Fatal(err)
	}
	if _, err := h.s.Expunge(h.Context(), 1, in.ID, []store.UID{3}, false); err != nil {
		h.Fatal(err)
	}
}

// proofMove moves contents to where they stay.
func proofMove(h *harness) {
	if _, err := h.s.MoveContents(h.Context()); err != nil {
		h.Fatal(err)
	}
}

// proofBreak breaks one thing behind the store's back, and has it found and mended.
func proofBreak(h *harness, b *damage) {
	h.Helper()
	if err := h.s.Write(h.Context(), func(tx *store.Tx) error { _, err := tx.Exec(b.query, b.args...); return err }); err != nil {
		h.Fatal(err)
	}
	list, _ := Problems(h.T, h.s, store.VerifyOptions{})
	if b.kind == store.ProblemSegment && len(list) == 0 {
		return // nothing stands in a segment yet
	}
	if !slices.ContainsFunc(list, func(p store.Problem) bool { return p.Kind == b.kind }) {
		h.Errorf("%s: found %v", b.name, list)
	}
	if _, err := h.s.Repair(h.Context(), store.RepairOptions{Digest: Digest}); err != nil {
		h.Fatalf("%s: %v", b.name, err)
	}
	if list, done := Problems(h.T, h.s, store.VerifyOptions{}); len(list) > 0 || done.Entries != proofLeft || done.Contents != 10 {
		h.Fatalf("%s: left %v of %+v", b.name, list, done)
	}
}

// Problems verifies a store and lists what is found.
func Problems(tb testing.TB, s *store.Store, opts store.VerifyOptions) (list []store.Problem, done store.Verified) {
	tb.Helper()
	opts.Found = func(p store.Problem) { list = append(list, p) }
	done, err := s.Verify(tb.Context(), opts)
	if err != nil {
		tb.Fatal(err)
	}
	return list, done
}
