package storetest

import (
	"math/rand/v2"
	"slices"
	"sync"

	"waxwing/internal/store"
)

// mapChecks are about large mailboxes, which are opened by the map of their UIDs.
var mapChecks = []check{
	{"a large mailbox opens by its map as by its entries", openByMap},
	{"a map that is wrong is found and made anew", wrongMaps},
	{"a map that is missing is made anew", lostMap},
	{"a map goes with its mailbox", mapOfDeleted},
	{"entries are read while they change", readBesideChanges},
}

// large is more than a mailbox has that is read whole.
const large = 3000

// fillSame appends one message many times.
func fillSame(h *harness, box store.MailboxID) []store.UID {
	return h.append(box, slices.Repeat([]store.NewMessage{h.message()}, large)...)
}

// fillLarge makes a large mailbox with gaps and flags, and returns what is in it.
func fillLarge(h *harness) (store.MailboxID, []store.UID) {
	in := h.box("INBOX").ID
	var gone, seen, marked []store.UID
	for _, uid := range fillSame(h, in) {
		switch {
		case uid%7 == 0 && uid < 2500, uid > 100 && uid < 400:
			gone = append(gone, uid)
		case uid < 1500:
			seen = append(seen, uid)
		case uid%400 == 0:
			marked = append(marked, uid)
		}
	}
	h.flags(in, seen, store.FlagsAdd, store.Seen)
	h.flags(in, marked, store.FlagsAdd, store.Deleted)
	h.expunge(in, gone...)
	left := h.uids(in)
	h.equal("left", len(left), large-len(gone))
	return in, left
}

// mapped says how many UIDs are gone by the maps, -1 for none.
func mapped(h *harness) int64 { return h.number(`SELECT COALESCE(max(gone), -1) FROM uid_map`) }

func openByMap(h *harness) {
	in, left := fillLarge(h)
	h.equal("gone by the map", mapped(h), large-len(left))
	for range 2 {
		h.restart()
		v := h.view(in)
		h.equal("exists", v.Len(), len(left))
		h.equal("newest", []store.UID{v.UID(v.Len()), v.UID(1)}, []store.UID{left[len(left)-1], left[0]})
		unseen, err := v.FirstUnseen()
		h.ok(err)
		h.equal("first unseen", v.UID(unseen), 1500)
		deleted, err := v.Deleted()
		h.ok(err)
		h.equal("deleted", deleted, []store.UID{1600, 2000, 2400, 2800})
		h.expunge(in, left[40], left[len(left)-1]) // of chunks that were not read
		h.flags(in, left[50:51], store.FlagsRemove, store.Seen)
		u := v.Sync(true)
		h.equal("expunged", u.Expunged, []int{len(left), 41})
		left = slices.Delete(slices.Delete(left, len(left)-1, len(left)), 40, 41)
		h.equal("changed", u.Changed, []int{50})
		unseen, err = v.FirstUnseen()
		h.ok(err)
		h.equal("first unseen", unseen, 50)
		h.flags(in, left[49:50], store.FlagsAdd, store.Seen)
		h.equal("UIDs", uidsOf(entriesOf(v)), left)
		v.Close()
	}
	list, _ := Problems(h.T, h.s, store.VerifyOptions{RowsOnly: true})
	h.equal("problems", list, []store.Problem{})
}

// mapBreaks are damages of a map; $1 is the row of uid_gap, changed.
var mapBreaks = []struct {
	name, query string
	change      func(gone []byte) []byte
}{
	{"a page that is lost", `DELETE FROM uid_gap WHERE page = 0`, nil},
	{"another number", `UPDATE uid_map SET gone = gone + 1`, nil},
	{"seen messages that are not", `UPDATE uid_map SET seen_below = 2900`, nil},
	{"a page of another place", `UPDATE uid_gap SET page = page + 900`, nil},
	{"a page cut short", `UPDATE uid_gap SET gone = $1`, func(gone []byte) []byte { return gone[:100] }},
	{"another UID that is gone", `UPDATE uid_gap SET gone = $1`, func(gone []byte) []byte {
		gone[0] &^= 1 << 7 // UID 7, which is gone
		gone[1] |= 1       // UID 8, which is not
		return gone
	}},
}

// wrongMaps breaks the map behind the store's back: each time Verify finds it, Repair mends it, and without that the mailbox
// shows what is in it the second time it is opened, at the latest.
func wrongMaps(h *harness) {
	in, left := fillLarge(h)
	for i := range mapBreaks {
		b := &mapBreaks[i]
		for _, repair := range []bool{true, false} {
			h.view(in).Close() // a map is there again
			h.settle()
			h.equal(b.name, mapped(h), large-len(left))
			breakMap(h, b.query, b.change)
			h.restart()
			list, _ := Problems(h.T, h.s, store.VerifyOptions{RowsOnly: true})
			if !slices.ContainsFunc(list, func(p store.Problem) bool { return p.Kind == store.ProblemMap && p.Mailbox == in }) {
				h.Fatalf("%s: found %v", b.name, list)
			}
			if repair || b.query == `UPDATE uid_map SET seen_below = 2900` {
				_, err := h.s.Repair(h.Context(), store.RepairOptions{Digest: Digest})
				h.ok(err)
				list, _ = Problems(h.T, h.s, store.VerifyOptions{RowsOnly: true})
				h.equal(b.name+": left", list, []store.Problem{})
			} else {
				h.uids(in)
				h.settle()
			}
			h.equal(b.name, h.uids(in), left)
		}
	}
}

func breakMap(h *harness, query string, change func([]byte) []byte) {
	h.write(func(tx *store.Tx) error {
		var args []any
		if change != nil {
			var gone []byte
			if err := tx.QueryRow(`SELECT gone FROM uid_gap WHERE page = 0`).Scan(&gone); err != nil {
				return err
			}
			args = []any{change(gone)}
		}
		_, err := tx.Exec(query, args...)
		return err
	})
}

// settle waits until the writer has done what nobody waits for.
func (h *harness) settle() { h.write(func(*store.Tx) error { return nil }) }

func lostMap(h *harness) {
	in, left := fillLarge(h)
	h.write(func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM uid_map`)
		return err
	})
	h.restart()
	h.equal("scanned", h.uids(in), left)
	h.settle()
	h.equal("gone by the new map", mapped(h), large-len(left))
	h.restart()
	h.equal("mapped", h.uids(in), left)
	h.write(func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM uid_map`)
		return err
	})
	h.restart()
	h.ok(h.s.Housekeep(h.Context()))
	h.equal("gone by the map of housekeeping", mapped(h), large-len(left))
	h.expunge(in, left...)
	h.equal("small again", mapped(h), -1)
	h.equal("left", len(h.uids(in)), 0)
}

func mapOfDeleted(h *harness) {
	m := h.create("big")
	fillSame(h, m.ID)
	h.expunge(m.ID, 5)
	h.equal("gone", mapped(h), 1)
	h.ok(h.s.DeleteMailbox(h.Context(), 1, m.ID))
	h.equal("maps", h.number(`SELECT (SELECT count(*) FROM uid_map) + (SELECT count(*) FROM uid_gap)`), 0)
}

// readBesideChanges reads entries that are not in memory while others change them: no entry goes back to an older state, and
// in the end all Views have what the rows have.
func readBesideChanges(h *harness) {
	in, _ := fillLarge(h)
	h.restart()
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for i := range 3 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			newest := make(map[store.UID]store.ModSeq)
			for {
				v, err := h.s.View(h.Context(), 1, in, nil, store.Peek())
				if err != nil {
					h.Error(err)
					return
				}
				for range 4 {
					first := 1 + r.IntN(v.Len())
					err := v.Entries(first, first+200, func(_ int, e *store.Entry) bool {
						if e.ModSeq < newest[e.UID] {
							h.Errorf("UID %d goes back from MODSEQ %d to %d", e.UID, newest[e.UID], e.ModSeq)
						}
						newest[e.UID] = e.ModSeq
						return true
					})
					if err != nil {
						h.Error(err)
					}
					v.Sync(r.IntN(2) == 0)
				}
				v.Close()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	keep := h.view(in)
	defer keep.Close()
	for i := range 2 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			for range 40 {
				lo := store.UID(1 + r.IntN(large))
				uids := []store.UID{lo, lo + 1, lo + 2, lo + 500}
				if r.IntN(3) == 0 {
					if _, err := h.s.Expunge(h.Context(), 1, in, uids[:2], false); err != nil {
						h.Error(err)
					}
					continue
				}
				ops := []store.FlagOp{store.FlagsSet, store.FlagsAdd, store.FlagsRemove}
				_, _, err := h.s.StoreFlags(h.Context(), 1, in, uids, store.FlagChange{Op: ops[r.IntN(3)], Flags: store.Flags(r.IntN(32))})
				if err != nil {
					h.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	keep.Sync(true)
	v := h.view(in)
	defer v.Close()
	h.equal("entries", entriesOf(keep), entriesOf(v))
	list, _ := Problems(h.T, h.s, store.VerifyOptions{RowsOnly: true})
	h.equal("problems", list, []store.Problem{})
}
