package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"waxwing/internal/store/blob"
)

// RepairOptions of Repair.
type RepairOptions struct {
	DryRun bool
	// Digest makes the summary of a content, as at delivery: without it damaged summaries stay, and nothing is rebuilt from packs.
	Digest func(c Content) (Summary, error)
	// Recover is the account whose mailbox "Recovered" takes whole records of the packs that no row names: lost mail, but also
	// mail that was deleted and whose octets are still there. 0: they stay where they are.
	Recover  AccountID
	Found    func(Problem)               // called for each problem, may be nil
	Fixed    func(p Problem, how string) // called for each that was repaired, or would be; may be nil
	Progress func(Verified)
}

// Repaired says what Repair did, or would do.
type Repaired struct {
	Verified
	Fixed     int64
	Recovered int64 // messages brought back from the packs
}

// repair is one run of Repair.
type repair struct {
	s    *Store
	opts RepairOptions
	out  Repaired
	list []Problem
}

// Repair verifies the store and mends what can be mended from what is there: counts, references and accounts of segments are made
// anew, summaries and rows of contents come from the octets, messages without a mailbox go to a mailbox "Recovered" of their
// owner. An entry whose message is lost is removed. A wrong index of text is made anew. Damaged octets can't be mended: they are noted, keep their place, and
// the mailbox keeps what is known of the message; when the same content comes again, by an import say, it takes their place.
func (s *Store) Repair(ctx context.Context, opts RepairOptions) (Repaired, error) {
	r := &repair{s: s, opts: opts}
	var err error
	r.out.Verified, err = s.Verify(ctx, VerifyOptions{Progress: opts.Progress, Found: func(p Problem) {
		r.list = append(r.list, p)
		if opts.Found != nil {
			opts.Found(p)
		}
	}})
	if err != nil {
		return r.out, err
	}
	for _, step := range []func(context.Context) error{r.fromPacks, r.messages, r.accounts, r.maps, r.contents, r.refsAndSegments, r.strays, r.search} {
		if err := step(ctx); err != nil {
			return r.out, fmt.Errorf("store: repair: %w", err)
		}
	}
	return r.out, nil
}

// fix mends one problem by a transaction.
func (r *repair) fix(ctx context.Context, p Problem, how string, fn func(tx *Tx) error) error {
	if !r.opts.DryRun {
		if err := r.s.Write(ctx, fn); err != nil {
			return err
		}
	}
	r.fixed(p, how)
	return nil
}

func (r *repair) fixed(p Problem, how string) {
	r.out.Fixed++
	if r.opts.Fixed != nil {
		r.opts.Fixed(p, how)
	}
}

// of returns the problems of a kind.
func (r *repair) of(kind ProblemKind) []Problem {
	return slices.DeleteFunc(slices.Clone(r.list), func(p Problem) bool { return p.Kind != kind })
}

// messages mends rows of messages and entries.
func (r *repair) messages(ctx context.Context) error {
	for _, p := range r.of(ProblemOrphan) {
		err := r.fix(ctx, p, "put into "+recoveredName, func(tx *Tx) error { return tx.giveHome(p) })
		if err != nil {
			return err
		}
	}
	for _, p := range r.of(ProblemMessage) {
		if err := r.summary(ctx, p); err != nil {
			return err
		}
	}
	for _, p := range r.of(ProblemEntry) {
		err := r.fix(ctx, p, "the entry is removed when its message is lost", func(tx *Tx) error { return tx.dropLost(p) })
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// giveHome gives a message without an entry a place in its owner's mailbox "Recovered". One of a deleted account goes.
func (tx *Tx) giveHome(p Problem) error {
	var size int64
	if err := tx.QueryRow(`SELECT size FROM message WHERE account_id = $1 AND message_id = $2`, p.Account, p.Message).Scan(&size); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	}
	w, err := tx.account(p.Account)
	if errors.Is(err, ErrNotFound) {
		return tx.releaseMessages(p.Account, []MessageID{p.Message})
	}
	if err != nil {
		return err
	}
	b, err := w.boxNamed(tx, recoveredName, "")
	if err != nil {
		return err
	}
	if err := tx.exec(`DELETE FROM shared_message WHERE account_id = $1 AND message_id = $2`, p.Account, p.Message); err != nil {
		return err
	}
	_, err = w.insertEntry(tx, b, entryRow{message: p.Message, size: clampUint32(size), date: tx.now.Unix()})
	return err
}

// summary makes the summary of a message anew from its octets.
func (r *repair) summary(ctx context.Context, p Problem) error {
	if r.opts.Digest == nil {
		return nil
	}
	b, err := r.s.OpenBlob(ctx, p.Account, p.Message)
	if err != nil {
		return nil //nolint:nilerr // without its octets there is nothing to make it from; that is a problem of its own
	}
	m, err := r.opts.Digest(b)
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	return r.fix(ctx, p, "summary made anew", func(tx *Tx) error {
		return tx.exec(`UPDATE message SET summary = $3 WHERE account_id = $1 AND message_id = $2`, p.Account, p.Message, appendSummary(nil, &m))
	})
}

// dropLost removes an entry whose message has no row.
func (tx *Tx) dropLost(p Problem) error {
	var n int
	if err := tx.QueryRow(`SELECT count(*) FROM message WHERE account_id = $1 AND message_id = $2`, p.Account, p.Message).Scan(&n); err != nil || n > 0 {
		return err
	}
	set := uidSet{{p.UID, p.UID}}
	if err := tx.exec(`DELETE FROM expunged_entry WHERE account_id = $1 AND mailbox_id = $2 AND uid = $3`, p.Account, p.Mailbox, p.UID); err != nil {
		return err
	}
	w, err := tx.account(p.Account)
	if err != nil {
		return err
	}
	b, err := w.box(p.Mailbox)
	if err != nil {
		return err
	}
	rows, err := w.rows(tx, b, set, "")
	if err != nil || len(rows) == 0 {
		return err
	}
	return w.vanish(tx, b, rows, w.tick(tx, b))
}

// accounts makes the counts of the accounts anew in which something was wrong, or was mended.
func (r *repair) accounts(ctx context.Context) error {
	byAccount := make(map[AccountID]Problem)
	for _, kind := range []ProblemKind{ProblemCounts, ProblemSharing, ProblemEntry, ProblemOrphan} {
		for _, p := range r.of(kind) {
			byAccount[p.Account] = p
		}
	}
	for acct, p := range byAccount {
		err := r.fix(ctx, p, "counts made anew", func(tx *Tx) error {
			w, err := tx.account(acct)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := w.recount(tx); err != nil {
				return err
			}
			return w.reshare(tx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maps forgets the maps of mailboxes that differ from the entries.
func (r *repair) maps(ctx context.Context) error {
	for _, p := range r.of(ProblemMap) {
		err := r.fix(ctx, p, "the map is made anew when the mailbox is opened", func(tx *Tx) error { return tx.onMap(p.Account, p.Mailbox, distrust) })
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// recount makes the counts of an account anew from its entries, and lifts marks that are too low.
func (w *work) recount(tx *Tx) error {
	w.counters.usedMessages, w.counters.usedOctets = 0, 0
	w.tick(tx)
	for _, id := range w.ids() {
		b, err := w.box(id)
		if err != nil {
			return err
		}
		n, err := tx.numbers(`SELECT count(*), COALESCE(SUM(CASE WHEN flags & $3 = 0 THEN 1 ELSE 0 END), 0),
			COALESCE(SUM(CASE WHEN flags & $4 <> 0 THEN 1 ELSE 0 END), 0), COALESCE(SUM(size), 0), COALESCE(MAX(uid), 0), COALESCE(MAX(modseq), 0)
			FROM entry WHERE account_id = $1 AND mailbox_id = $2`, w.id, id, int64(Seen), int64(Deleted))
		if err != nil {
			return err
		}
		m := &b.info
		m.Messages, m.Unseen, m.Deleted, m.Size = uint32(n[0]), uint32(n[1]), uint32(n[2]), n[3]
		m.UIDNext = max(m.UIDNext, UID(n[4])+1)
		w.counters.modseq = max(w.counters.modseq, ModSeq(n[5]), m.HighestModSeq)
		m.HighestModSeq = max(m.HighestModSeq, ModSeq(n[5]))
		w.counters.lastValidity = max(w.counters.lastValidity, m.UIDValidity)
		w.counters.nextMailbox = max(w.counters.nextMailbox, id+1)
		w.counters.usedMessages += n[0]
		w.counters.usedOctets += n[3]
		b.dirty = true
	}
	return nil
}

// reshare makes the numbers of entries of the account's messages anew.
func (w *work) reshare(tx *Tx) error {
	if err := tx.exec(`DELETE FROM shared_message WHERE account_id = $1`, w.id); err != nil {
		return err
	}
	return tx.exec(`INSERT INTO shared_message (account_id, message_id, entries) SELECT $1, t.message_id, count(*) FROM
		(SELECT message_id FROM entry WHERE account_id = $1 UNION ALL SELECT message_id FROM expunged_entry WHERE account_id = $1) AS t
		GROUP BY t.message_id HAVING count(*) > 1`, w.id)
}

// contents notes damaged contents.
func (r *repair) contents(ctx context.Context) error {
	done := make(map[int64]bool)
	for _, p := range r.of(ProblemContent) {
		if done[p.Content] {
			continue
		}
		done[p.Content] = true
		if r.opts.DryRun {
			continue
		}
		if err := r.s.noteDamage(ctx, p.Content, p.Place, p.Text); err != nil {
			return err
		}
	}
	return nil
}

// noteDamage records that a content was found damaged.
func (s *Store) noteDamage(ctx context.Context, content int64, place, why string) error {
	return s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`INSERT INTO damaged_content (blob_id, place, reason, found) VALUES ($1, $2, $3, $4)
			ON CONFLICT (blob_id) DO UPDATE SET place = excluded.place, reason = excluded.reason`, content, place, why, tx.now.Unix())
	})
}

// refsAndSegments makes references and the accounts of segments anew.
func (r *repair) refsAndSegments(ctx context.Context) error {
	for _, p := range r.of(ProblemRefs) {
		err := r.fix(ctx, p, "references counted anew", func(tx *Tx) error {
			if err := tx.flushReleased(); err != nil { // of others in the transaction: they are not in the count
				return err
			}
			counts, err := countRefs(tx, tx.s.db.Dialect, []int64{p.Content})
			if err != nil {
				return err
			}
			// One more than there are, and then one less: the last step frees what nothing names.
			if err := tx.exec(`UPDATE blob SET refs = $2 WHERE blob_id = $1`, p.Content, counts[p.Content]+1); err != nil {
				return err
			}
			return tx.ReleaseBlob(p.Content)
		})
		if err != nil {
			return err
		}
	}
	if list := r.of(ProblemSegment); len(list) > 0 {
		return r.fix(ctx, list[0], "segments summed anew", (*Tx).resumSegments)
	}
	return nil
}

// search has the index of text made anew when something is wrong with it.
func (r *repair) search(ctx context.Context) error {
	list := r.of(ProblemSearch)
	index, ok := r.s.opts.Search.(SearchProver)
	if len(list) == 0 || !ok {
		return nil
	}
	if !r.opts.DryRun {
		if err := index.Renew(ctx); err != nil {
			return err
		}
	}
	for _, p := range list {
		r.fixed(p, "the index is made anew in the background")
	}
	return nil
}

// resumSegments makes the accounts of all segments anew. What others in the transaction changed of them goes in first: the
// rows of their contents are in the sums already.
func (tx *Tx) resumSegments() error {
	if err := tx.flushSegments(); err != nil {
		return err
	}
	tx.segments = nil
	rows, err := tx.numbers(segmentQuery)
	if err != nil {
		return err
	}
	for i := 0; i+4 < len(rows); i += 5 {
		err := tx.exec(`UPDATE segment SET live = $2, tail = $3 WHERE segment = $1`, rows[i], rows[i+3], max(rows[i+2], rows[i+4]))
		if err != nil {
			return err
		}
	}
	return nil
}

// walker is a BlobStore that can tell of every record that it has.
type walker interface {
	Verify(ctx context.Context, fn func(blob.Ref, blob.ID, error) error) error
}

// fromPacks goes through the records that no row names: the contents of messages that have lost theirs, and, for the account
// that takes them, everything else that is whole.
func (r *repair) fromPacks(ctx context.Context) error {
	blobs, ok := r.s.blobs.(walker)
	lost := r.lostContents()
	if !ok || r.opts.Digest == nil || r.opts.Recover == 0 && len(lost) == 0 {
		return nil
	}
	return blobs.Verify(ctx, func(ref blob.Ref, id blob.ID, bad error) error {
		if bad != nil || id == (blob.ID{}) {
			return ctx.Err()
		}
		if _, known, err := r.s.findContent(ctx, id); err != nil || known {
			return err
		}
		return r.record(ctx, ref, id, lost)
	})
}

// lostContents are the messages whose contents have no row, by content.
func (r *repair) lostContents() map[int64]Problem {
	lost := make(map[int64]Problem)
	for _, p := range r.of(ProblemMessage) {
		lost[p.Content] = p
	}
	return lost
}

// record brings back what one record without a row holds.
func (r *repair) record(ctx context.Context, ref blob.Ref, id blob.ID, lost map[int64]Problem) error {
	b, err := r.s.blobs.Open(ref)
	if errors.Is(err, blob.ErrGone) {
		return nil
	}
	if err != nil {
		return blobError(err)
	}
	m, err := r.opts.Digest(b)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	err = r.restore(ctx, b, ref, id, m, lost)
	return errors.Join(err, b.Close())
}

func (r *repair) restore(ctx context.Context, b Blob, ref blob.Ref, id blob.ID, m Summary, lost map[int64]Problem) error {
	for content, p := range lost {
		if ref.Segment == freshSegment && ref.Offset != content {
			continue // octets in the database have the number of their content
		}
		match := false
		err := r.s.reads.row(ctx, []any{&match}, `SELECT m.size = $3 AND m.summary = $4 AND NOT EXISTS (SELECT 1 FROM blob AS b WHERE b.blob_id = m.blob_id)
			FROM message AS m WHERE m.account_id = $1 AND m.message_id = $2`, p.Account, p.Message, ref.Len, appendSummary(nil, &m))
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if !match {
			continue
		}
		delete(lost, content)
		r.out.Recovered++
		return r.fix(ctx, p, "content found again in the packs", func(tx *Tx) error { return tx.nameRecord(content, ref, id) })
	}
	if r.opts.Recover == 0 {
		return nil
	}
	r.out.Recovered++
	p := Problem{Kind: ProblemOrphan, Account: r.opts.Recover, Place: ref.String(), Text: "a record that no row names"}
	if r.opts.DryRun {
		return r.fix(ctx, p, "", nil)
	}
	box, err := r.recovered(ctx)
	if err != nil {
		return err
	}
	_, err = r.s.Deliver(ctx, Delivery{Content: b, Summary: m, Local: []NewEntry{{Account: r.opts.Recover, Mailbox: box, IgnoreQuota: true}}})
	if err != nil {
		return err
	}
	return r.fix(ctx, p, "put into "+recoveredName, func(*Tx) error { return nil })
}

// nameRecord gives a content whose row is lost a row again.
func (tx *Tx) nameRecord(content int64, ref blob.Ref, id blob.ID) error {
	counts, err := countRefs(tx, tx.s.db.Dialect, []int64{content})
	if err != nil {
		return err
	}
	if err := tx.adoptFound(ref); err != nil {
		return err
	}
	tx.segmentLives(ref, 1)
	return tx.exec(`INSERT INTO blob (blob_id, hash, hash_key, segment, place, stored, length, refs) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		content, id[:], hashKey(id), int64(ref.Segment), ref.Offset, ref.StoredLen, ref.Len, counts[content])
}

// recovered is the mailbox that takes what nobody owns.
func (r *repair) recovered(ctx context.Context) (MailboxID, error) {
	var id MailboxID
	err := r.s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(r.opts.Recover)
		if err != nil {
			return err
		}
		b, err := w.boxNamed(tx, recoveredName, "")
		if err == nil {
			id = b.info.ID
		}
		return err
	})
	return id, err
}
