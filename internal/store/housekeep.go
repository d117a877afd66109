package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"waxwing/internal/store/blob"
)

// reapStep is how many entries of a deleted mailbox one transaction removes.
const reapStep = 2000

// Housekeep removes what is left of deleted mailboxes and accounts, carries out the Policy, and gives back the space of dead
// contents. Returns from backups that nobody goes on with are given up. Call it from time to time; it may be stopped at any point and goes on with the next call.
func (s *Store) Housekeep(ctx context.Context) error {
	if err := s.dropStaleReturns(ctx); err != nil {
		return err
	}
	dead, err := s.deadMailboxes(ctx)
	if err != nil {
		return fmt.Errorf("store: housekeeping: %w", err)
	}
	for _, d := range dead {
		if err := s.reap(ctx, d.acct, d.box); err != nil {
			return fmt.Errorf("store: housekeeping: %w", err)
		}
	}
	if err := s.forgetSieve(ctx); err != nil {
		return err
	}
	kept, err := s.retain(ctx)
	if kept != (Retained{}) {
		s.log.Info("store: retention", "expired", kept.Expired, "purged", kept.Purged, "tombstones", kept.Tombstones)
	}
	if err != nil {
		return fmt.Errorf("store: housekeeping: %w", err)
	}
	if err := s.mapMailboxes(ctx); err != nil {
		return fmt.Errorf("store: housekeeping: %w", err)
	}
	done, err := s.blobs.Compact(ctx, compaction{s})
	if done.Segments > 0 || len(done.Damaged) > 0 {
		s.log.Info("store: contents compacted", "segments", done.Segments, "moved", done.Moved, "freed", done.Freed, "damaged", len(done.Damaged))
	}
	if err != nil {
		return fmt.Errorf("store: housekeeping: %w", blobError(err))
	}
	return s.Write(ctx, func(tx *Tx) error {
		// Dead packs have just been removed, and large files went with their rows. A pack that is dead and still there, because
		// it is being written say, is scanned from its beginning at the next start, which does no harm. An object is forgotten
		// only when it stands on the list of those that go: it may have died a moment ago.
		query := `DELETE FROM segment WHERE live <= 0`
		if s.fresh != nil {
			query += ` AND EXISTS (SELECT 1 FROM object_garbage AS g WHERE g.segment = segment.segment)`
		}
		return tx.exec(query)
	})
}

// largeSegments is where the numbers of segments with one large content begin.
const largeSegments blob.Segment = 1 << 31

type deadMailbox struct {
	acct AccountID
	box  MailboxID
}

func (s *Store) deadMailboxes(ctx context.Context) ([]deadMailbox, error) {
	var out []deadMailbox
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var d deadMailbox
		err := rows.Scan(&d.acct, &d.box)
		out = append(out, d)
		return err
	}, `SELECT account_id, mailbox_id FROM dead_mailbox`)
	return out, err
}

// reap removes the entries of a deleted mailbox, a transaction for each step.
func (s *Store) reap(ctx context.Context, acct AccountID, box MailboxID) error {
	for {
		more := false
		err := s.Write(ctx, func(tx *Tx) (err error) {
			more, err = tx.reap(acct, box)
			return err
		})
		if err != nil || !more {
			return err
		}
	}
}

func (tx *Tx) reap(acct AccountID, box MailboxID) (more bool, err error) {
	w, err := tx.account(acct)
	gone := errors.Is(err, ErrNotFound)
	if err != nil && !gone {
		return false, err
	}
	if mine, err := tx.claimDead(acct, box); err != nil || !mine {
		return false, err
	}
	columns, err := tx.numbers(`SELECT uid, message_id, keywords FROM entry WHERE account_id = $1 AND mailbox_id = $2
		ORDER BY uid LIMIT $3`, acct, box, reapStep)
	if err != nil {
		return false, err
	}
	if len(columns) == 0 {
		return false, tx.reaped(acct, box, gone)
	}
	rows := make([]entryRow, 0, len(columns)/3)
	for i := 0; i+2 < len(columns); i += 3 {
		rows = append(rows, entryRow{uid: UID(columns[i]), message: MessageID(columns[i+1]), keywords: uint64(columns[i+2])})
	}
	last := rows[len(rows)-1].uid
	var kept *keptBox
	if !gone {
		if kept, err = w.keptBox(tx, box); err != nil {
			return false, err
		}
		if kept != nil {
			if err := w.keepRows(tx, box, kept.keywords, rows, kept.actor, kept.at); err != nil {
				return false, err
			}
		}
		err := tx.exec(`INSERT INTO tombstone (account_id, mailbox_id, modseq, uid, message_id)
			SELECT account_id, mailbox_id, $3, uid, message_id FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND uid <= $4`,
			acct, box, w.tick(tx), last)
		if err != nil {
			return false, err
		}
	}
	if err := tx.exec(`DELETE FROM entry WHERE account_id = $1 AND mailbox_id = $2 AND uid <= $3`, acct, box, last); err != nil {
		return false, err
	}
	if kept != nil {
		return true, nil
	}
	return true, tx.releaseMessages(acct, messagesOf(rows))
}

// claimDead makes sure that this transaction alone removes entries of a deleted mailbox.
func (tx *Tx) claimDead(acct AccountID, box MailboxID) (bool, error) {
	if !tx.s.shared() {
		return true, nil
	}
	rows, err := tx.numbers(`SELECT mailbox_id FROM dead_mailbox WHERE account_id = $1 AND mailbox_id = $2 FOR UPDATE SKIP LOCKED`, acct, box)
	return len(rows) > 0, err
}

// reaped ends the removal of a mailbox, and with the last one of a deleted account what else is left of it.
func (tx *Tx) reaped(acct AccountID, box MailboxID, gone bool) error {
	queries := []string{
		`DELETE FROM dead_mailbox WHERE account_id = $1 AND mailbox_id = $2`,
		`DELETE FROM keyword WHERE account_id = $1 AND mailbox_id = $2`,
	}
	if gone {
		queries = append(queries, `DELETE FROM tombstone WHERE account_id = $1 AND mailbox_id = $2`,
			`DELETE FROM thread_ref WHERE account_id = $1 AND NOT EXISTS (SELECT 1 FROM dead_mailbox WHERE account_id = $1 AND mailbox_id <> $2)`)
	}
	for _, q := range queries {
		if err := tx.exec(q, acct, box); err != nil {
			return err
		}
	}
	return nil
}

// compaction is the blob.Index of the store: the rows.
type compaction struct{ s *Store }

// Rows implements blob.Index.
func (c compaction) Rows(ctx context.Context, g blob.Segment, from int64, limit int) ([]blob.Located, error) {
	var out []blob.Located
	err := c.s.reads.each(ctx, func(rows *sql.Rows) error {
		l := blob.Located{Ref: blob.Ref{Segment: g}}
		var hash []byte
		if err := rows.Scan(&hash, &l.Ref.Offset, &l.Ref.StoredLen, &l.Ref.Len); err != nil {
			return err
		}
		copy(l.ID[:], hash)
		l.Ref.Sum = hashKey(l.ID)
		out = append(out, l)
		return nil
	}, `SELECT hash, place, stored, length FROM blob WHERE segment = $1 AND place >= $2 ORDER BY place LIMIT $3`, int64(g), from, limit)
	return out, err
}

// Due implements blob.Deadline: the packs whose dead octets have been on the disk as long as the policy lets them.
func (c compaction) Due(ctx context.Context) ([]blob.Segment, error) {
	erase := c.s.Policy().Erase
	if erase <= 0 {
		return nil, nil
	}
	var out []blob.Segment
	err := c.s.reads.each(ctx, func(rows *sql.Rows) error {
		var g blob.Segment
		err := rows.Scan(&g)
		out = append(out, g)
		return err
	}, `SELECT segment FROM segment WHERE dead_since > 0 AND dead_since <= $1 AND segment < $2`,
		c.s.clock().Add(-erase).Unix(), int64(largeSegments))
	return out, err
}

// Move implements blob.Index.
func (c compaction) Move(ctx context.Context, moves []blob.Move, moved []bool) error {
	return c.move(ctx, moves, moved, 0)
}

// move is Move to objects whose contents are all sealed with one key.
func (c compaction) move(ctx context.Context, moves []blob.Move, moved []bool, key uint32) error {
	return c.s.Write(ctx, func(tx *Tx) error {
		for i, m := range moves {
			res, err := tx.Exec(`UPDATE blob SET segment = $4, place = $5, stored = $6, length = $7 WHERE hash_key = $1 AND segment = $2 AND place = $3`,
				hashKey(m.ID), int64(m.From.Segment), m.From.Offset, int64(m.To.Segment), m.To.Offset, m.To.StoredLen, m.To.Len)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			if moved[i] = n > 0; moved[i] {
				tx.segmentLives(m.From, -1)
				tx.segmentLives(m.To, 1)
				tx.segmentDelta(m.To.Segment).key = key
			}
		}
		return tx.adoptMoved(moves, moved)
	})
}

// recoverBlobs makes the blob store ready, and tells it what the rows know of each segment.
func (s *Store) recoverBlobs(ctx context.Context) error {
	known := make(map[blob.Segment]blob.Known)
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var g blob.Segment
		var k blob.Known
		err := rows.Scan(&g, &k.End, &k.Live)
		if g < largeSegments || k.Live > 0 { // the file of a large content went with its row
			known[g] = k
		}
		return err
	}, `SELECT segment, tail, live FROM segment`)
	if err == nil {
		err = s.sameHome(ctx, len(known) > 0)
	}
	if err != nil {
		return err
	}
	// What no row names was never answered for: it is dead space.
	r, err := s.blobs.Recover(ctx, known, nil)
	if err != nil {
		return blobError(err)
	}
	if r.Found > 0 || r.Torn > 0 || len(r.Missing) > 0 || len(r.Damaged) > 0 {
		s.log.Info("store: contents recovered", "scanned", r.Scanned, "unnamed", r.Found, "torn", r.Torn, "missing", len(r.Missing), "damaged", len(r.Damaged))
	}
	return nil
}
