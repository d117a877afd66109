package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// threadRefs are the Message-IDs by which a message finds its thread, as hashes: its own, the first of its references, which
// all messages of a thread share, and the last, the one that it answers.
func threadRefs(m *Summary) []int64 {
	ids := make([]string, 0, 3)
	if m.MessageID != "" {
		ids = append(ids, m.MessageID)
	}
	if n := len(m.References); n > 0 {
		ids = append(ids, m.References[0], m.References[n-1])
	}
	refs := make([]int64, 0, len(ids))
	for _, id := range ids {
		sum := sha256.Sum256([]byte(id))
		ref := int64(binary.BigEndian.Uint64(sum[:8]))
		if !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// thread gives a new message its thread: the oldest that one of its references belongs to, or one of its own.
func (tx *Tx) thread(acct AccountID, id MessageID, m *Summary) (MessageID, error) {
	refs := threadRefs(m)
	if len(refs) == 0 {
		return id, nil
	}
	if len(refs) == 1 { // most begin a thread
		began, err := tx.beginThread(acct, refs[0], id)
		if err != nil || began {
			return id, err
		}
	}
	// Each is looked up by itself: SQLite would make a table of a list, each time anew.
	const look = `SELECT ref, thread_id FROM thread_ref WHERE account_id = $1 AND ref = `
	known, err := tx.numbers(look+`$2 UNION ALL `+look+`$3 UNION ALL `+look+`$4`, acct, refs[0], refs[min(1, len(refs)-1)], refs[len(refs)-1])
	if err != nil {
		return 0, fmt.Errorf("thread: %w", err)
	}
	thread := id
	for i := 0; i+1 < len(known); i += 2 {
		thread = min(thread, MessageID(known[i+1]))
		if j := slices.Index(refs, known[i]); j >= 0 {
			refs = slices.Delete(refs, j, j+1)
		}
	}
	for _, ref := range refs {
		if err := tx.exec(`INSERT INTO thread_ref (account_id, ref, thread_id) VALUES ($1, $2, $3)`, acct, ref, thread); err != nil {
			return 0, fmt.Errorf("thread: %w", err)
		}
	}
	return thread, nil
}

// beginThread gives a reference that none of the account's messages has to a new thread; false when one has it.
func (tx *Tx) beginThread(acct AccountID, ref int64, thread MessageID) (bool, error) {
	res, err := tx.Exec(`INSERT INTO thread_ref (account_id, ref, thread_id) VALUES ($1, $2, $3) ON CONFLICT (account_id, ref) DO NOTHING`,
		acct, ref, thread)
	if err != nil {
		return false, fmt.Errorf("thread: %w", err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
