package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing/internal/store/blob"
)

// Mail of a backup comes back in two ways. Into a mailbox that is there messages come as any others do, under new UIDs. A
// mailbox that is gone is filled unseen, with the UIDs and the UIDVALIDITY that it had, and shows itself when it is whole:
// nobody sees a UID arrive below one that he knows. An account that is gone returns in the same way, with its directory's
// row. What was begun and is not finished stands in returning_account and returning_mailbox.

// ReturningTime is how long a return waits for somebody to go on with it; then what it brought goes.
const ReturningTime = 7 * 24 * time.Hour

// ReturningMailbox is a mailbox that is being filled unseen.
type ReturningMailbox struct {
	ID          MailboxID
	Name        string
	Role        Role
	Subscribed  bool
	UIDValidity uint32   // that it had
	UIDNext     UID      // that it will have: above all that it ever gave out
	Keywords    []string // by number
	Last        UID      // the highest UID that is in
}

// ReturningAccount is an account that returns; all numbers are above those that it ever gave out.
type ReturningAccount struct {
	Key          string // of its address
	Source       string // the backup
	ModSeq       ModSeq
	LastValidity uint32
}

// ReturningMessage is a message of a backup.
type ReturningMessage struct {
	NewMessage
	Sum blob.ID // SHA-256 of the content
	UID UID     // that it had
}

// ReturnRight is the right to bring mail back into an account.
type ReturnRight struct {
	Account AccountID
	Token   string
}

// ErrRight says that another has taken the right to bring mail back.
var ErrRight = errors.New("store: another brings mail back into this account")

// TakeReturn gives the right to bring mail back into an account to whoever asks last: what others do from here on is ErrRight.
func (s *Store) TakeReturn(ctx context.Context, acct AccountID) (ReturnRight, error) {
	r := ReturnRight{Account: acct, Token: rand.Text()}
	err := s.Write(ctx, func(tx *Tx) error {
		if _, err := tx.account(acct); err != nil { // what others have begun with it is in
			return err
		}
		return tx.exec(`INSERT INTO returning_right (account_id, token, touched) VALUES ($1, $2, $3)
			ON CONFLICT (account_id) DO UPDATE SET token = excluded.token, touched = excluded.touched`, acct, r.Token, tx.now.Unix())
	})
	if err != nil {
		return ReturnRight{}, fmt.Errorf("store: return to account %d: %w", acct, err)
	}
	return r, nil
}

// returning gives the account that mail returns to, if the right to do so is still held.
func (tx *Tx) returning(r ReturnRight) (*work, error) {
	w, err := tx.account(r.Account)
	if err != nil {
		return nil, err
	}
	n, err := affected(tx.Exec(`UPDATE returning_right SET touched = $3 WHERE account_id = $1 AND token = $2`, r.Account, r.Token, tx.now.Unix()))
	if err == nil && n == 0 {
		err = ErrRight
	}
	return w, err
}

// BeginReturn finds the account that returns under an address, or begins one. What was begun from another backup goes.
func (s *Store) BeginReturn(ctx context.Context, r ReturningAccount) (id AccountID, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		var source string
		err := tx.QueryRow(`SELECT account_id, source FROM returning_account WHERE address_key = $1`, r.Key).Scan(&id, &source)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return err
		case source == r.Source:
			return tx.touchReturning(id)
		default:
			if err := tx.dropReturning(id); err != nil {
				return err
			}
		}
		if err := tx.QueryRow(`UPDATE directory_counter SET value = value + 1 WHERE name = 'account' RETURNING value`).Scan(&id); err != nil {
			return err
		}
		err = tx.exec(`INSERT INTO mail_account (account_id, modseq, next_mailbox, last_validity, used_octets, used_messages,
			quota_octets, quota_messages, horizon) VALUES ($1, $2, 1, $3, 0, 0, 0, 0, $2)`, id, r.ModSeq, r.LastValidity)
		if err != nil {
			return err
		}
		return tx.exec(`INSERT INTO returning_account (account_id, address_key, source, touched) VALUES ($1, $2, $3, $4)`, id, r.Key, r.Source, tx.now.Unix())
	})
	if err != nil {
		return 0, fmt.Errorf("store: return of %s: %w", r.Key, err)
	}
	return id, nil
}

// touchReturning notes that somebody goes on.
func (tx *Tx) touchReturning(acct AccountID) error {
	for _, q := range []string{
		`UPDATE returning_account SET touched = $2 WHERE account_id = $1`,
		`UPDATE returning_mailbox SET touched = $2 WHERE account_id = $1`,
	} {
		if err := tx.exec(q, acct, tx.now.Unix()); err != nil {
			return err
		}
	}
	return nil
}

// dropReturning gives up an account that was returning.
func (tx *Tx) dropReturning(acct AccountID) error {
	if err := tx.exec(`DELETE FROM returning_account WHERE account_id = $1`, acct); err != nil {
		return err
	}
	return tx.s.DeleteAccountState(tx, acct)
}

// dropReturningBoxes gives up mailboxes of an account that were returning from another backup, or whose names were taken
// meanwhile: what is in them is removed by Housekeep.
func (tx *Tx) dropReturningBoxes(acct AccountID, but string) error {
	const these = `returning_mailbox AS r WHERE r.account_id = $1 AND (r.source <> $2 OR EXISTS
		(SELECT 1 FROM mailbox AS m WHERE m.account_id = r.account_id AND m.name = r.name))`
	for _, q := range []string{
		`INSERT INTO dead_mailbox (account_id, mailbox_id) SELECT r.account_id, r.mailbox_id FROM ` + these,
		`DELETE FROM ` + these,
	} {
		if err := tx.exec(q, acct, but); err != nil {
			return err
		}
	}
	return nil
}

// Returning lists the mailboxes of an account that return from a backup. Those of another one, and those whose names were taken
// meanwhile, are given up.
func (s *Store) Returning(ctx context.Context, acct AccountID, source string) (list []ReturningMailbox, err error) {
	err = s.Write(ctx, func(tx *Tx) error {
		if err := tx.dropReturningBoxes(acct, source); err != nil {
			return err
		}
		list, err = tx.returningBoxes(acct)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: returning mailboxes of account %d: %w", acct, err)
	}
	return list, nil
}

// returningBoxes reads the mailboxes that return, by name: those above others come first.
func (tx *Tx) returningBoxes(acct AccountID) ([]ReturningMailbox, error) {
	rows, err := tx.Query(`SELECT r.mailbox_id, r.name, r.role, r.subscribed, r.uid_validity, r.uid_next,
		COALESCE((SELECT MAX(uid) FROM entry AS e WHERE e.account_id = r.account_id AND e.mailbox_id = r.mailbox_id), 0)
		FROM returning_mailbox AS r WHERE r.account_id = $1 ORDER BY r.name`, acct)
	if err != nil {
		return nil, err
	}
	var list []ReturningMailbox
	for rows.Next() {
		var r ReturningMailbox
		if err := rows.Scan(&r.ID, &r.Name, &r.Role, &r.Subscribed, &r.UIDValidity, &r.UIDNext, &r.Last); err != nil {
			return nil, errors.Join(err, rows.Close())
		}
		list = append(list, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, tx.failed(err)
	}
	for i := range list {
		if list[i].Keywords, err = tx.keywordsOf(acct, list[i].ID); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// ReturnMailbox finds a mailbox that returns, or begins it. ErrExists when the account has one of that name, or one of
// the name returns with another UIDVALIDITY.
func (s *Store) ReturnMailbox(ctx context.Context, right ReturnRight, source string, m ReturningMailbox) (out ReturningMailbox, err error) {
	if m.Name, err = CleanName(m.Name); err == nil && (m.UIDValidity == 0 || m.UIDNext == 0 || len(m.Keywords) > maxKeywords) {
		err = ErrLimit
	}
	if err == nil {
		err = s.Write(ctx, func(tx *Tx) error {
			w, err := tx.returning(right)
			if err != nil {
				return err
			}
			if _, taken := w.tree.byName[m.Name]; taken {
				return ErrExists
			}
			out, err = w.returnMailbox(tx, source, m)
			return err
		})
	}
	if err != nil {
		return out, fmt.Errorf("store: return of mailbox %.60q of account %d: %w", m.Name, right.Account, err)
	}
	return out, nil
}

func (w *work) returnMailbox(tx *Tx, source string, m ReturningMailbox) (ReturningMailbox, error) {
	known, err := tx.returningBoxes(w.id)
	if err != nil {
		return m, err
	}
	if i := slices.IndexFunc(known, func(k ReturningMailbox) bool { return k.Name == m.Name }); i >= 0 {
		if known[i].UIDValidity != m.UIDValidity {
			return m, ErrExists
		}
		return known[i], nil
	}
	m.ID, m.Last = w.counters.nextMailbox, 0
	w.counters.nextMailbox++
	w.tick(tx)
	err = tx.exec(`INSERT INTO returning_mailbox (account_id, mailbox_id, source, name, role, subscribed, uid_validity, uid_next, touched)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, w.id, m.ID, source, m.Name, m.Role, bit(m.Subscribed), m.UIDValidity, m.UIDNext, tx.now.Unix())
	for n, name := range m.Keywords {
		if err == nil && name != "" {
			err = tx.exec(`INSERT INTO keyword (account_id, mailbox_id, number, name) VALUES ($1, $2, $3, $4)`, w.id, m.ID, n, name)
		}
	}
	return m, err
}

// Return adds messages of a backup to a mailbox, all or none. Into one that returns they come with their UIDs, which ascend;
// those that are in already are left out. Into one that is there they come under new UIDs, and without \Deleted: nobody is to
// lose them a moment later. Quotas don't bound it: it is an administrator's act. It tells what came.
func (s *Store) Return(ctx context.Context, right ReturnRight, mbox MailboxID, msgs []ReturningMessage) (out []Placed, err error) {
	contents := make([]*settled, 0, len(msgs))
	summaries := make([][]byte, len(msgs))
	for i := range msgs {
		t, err := s.settle(ctx, shardOf(right.Account), msgs[i].Content, true)
		if err == nil {
			contents = append(contents, t)
			if t.sum != msgs[i].Sum {
				err = fmt.Errorf("%w: its SHA-256 is another one", ErrCorrupt)
			}
		}
		if err != nil {
			s.settleAll(contents, err)
			return nil, fmt.Errorf("store: return of UID %d to mailbox %d of account %d: %w", msgs[i].UID, mbox, right.Account, err)
		}
		summaries[i] = appendSummary(nil, &msgs[i].Summary)
	}
	err = s.withContents(ctx, contents, func(tx *Tx) error {
		out = out[:0]
		w, err := tx.returning(right)
		if err != nil {
			return err
		}
		b, last, unseen, err := w.returnTo(tx, mbox)
		if err != nil {
			return err
		}
		if err := tx.touchReturning(right.Account); err != nil {
			return err
		}
		for i := range msgs {
			m := msgs[i]
			if unseen && m.UID <= last {
				continue
			}
			p, err := w.returnMessage(tx, b, unseen, &m, contents[i], summaries[i])
			if err != nil {
				return fmt.Errorf("UID %d: %w", m.UID, err)
			}
			last = m.UID
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: return to mailbox %d of account %d: %w", mbox, right.Account, err)
	}
	return out, nil
}

// returnTo is the mailbox that messages return to; unseen when it returns itself, with the highest UID that is in.
func (w *work) returnTo(tx *Tx, mbox MailboxID) (b *workBox, last UID, unseen bool, err error) {
	b, err = w.box(mbox)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return b, 0, false, err
	}
	list, lerr := tx.returningBoxes(w.id)
	if lerr != nil {
		return nil, 0, false, lerr
	}
	for i := range list {
		if r := &list[i]; r.ID == mbox {
			b := &workBox{box: box{info: Mailbox{ID: r.ID, UIDValidity: r.UIDValidity, UIDNext: r.UIDNext}, keywords: r.Keywords}}
			return b, r.Last, true, nil
		}
	}
	return nil, 0, false, err
}

func (w *work) returnMessage(tx *Tx, b *workBox, unseen bool, m *ReturningMessage, content *settled, summary []byte) (Placed, error) {
	keywords, err := w.keywordSet(tx, b, m.Keywords, nil)
	if errors.Is(err, ErrLimit) || errors.Is(err, ErrName) {
		keywords, err = 0, nil // the message matters more than its keywords
	}
	if err != nil {
		return Placed{}, err
	}
	blobID, err := tx.blobRow(content, 1)
	if err != nil {
		return Placed{}, err
	}
	id, err := w.insertMessage(tx, blobID, m.Content.Size(), &m.Summary, summary, m.UIDL)
	if err != nil {
		return Placed{}, err
	}
	row := entryRow{uid: m.UID, message: id, flags: m.Flags & allFlags, keywords: keywords, size: uint32(m.Content.Size()), date: m.InternalDate.Unix()}
	if unseen {
		err = w.insertUnseen(tx, b, row)
	} else {
		row.flags &^= Deleted
		row.uid, err = w.insertEntry(tx, b, row)
	}
	return Placed{Mailbox: b.info.ID, Message: id, UID: row.uid, UIDValidity: b.info.UIDValidity}, err
}

// insertUnseen puts a message into a mailbox that returns. It counts when the mailbox shows itself.
func (w *work) insertUnseen(tx *Tx, b *workBox, e entryRow) error {
	if e.uid == 0 || e.uid >= b.info.UIDNext {
		return fmt.Errorf("it is not below %d: %w", b.info.UIDNext, ErrLimit)
	}
	return tx.exec(`INSERT INTO entry (account_id, mailbox_id, uid, message_id, flags, keywords, modseq, size, internal_date, saved_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		w.id, b.info.ID, e.uid, e.message, e.flags, int64(e.keywords), w.tick(tx), e.size, e.date, tx.now.Unix())
}

// ReturnedMailbox is a mailbox that is back.
type ReturnedMailbox struct {
	Mailbox
	Was string // the name that it had, which another has now; "" when it has it again
}

// FinishReturn shows the mailboxes of an account that returned, and gives the right back.
func (s *Store) FinishReturn(ctx context.Context, right ReturnRight) (out []ReturnedMailbox, err error) {
	err = s.Write(ctx, func(tx *Tx) (err error) {
		_, out, err = tx.finishReturn(right)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store: end of return to account %d: %w", right.Account, err)
	}
	return out, nil
}

func (tx *Tx) finishReturn(right ReturnRight) (w *work, out []ReturnedMailbox, err error) {
	if w, err = tx.returning(right); err != nil {
		return nil, nil, err
	}
	if out, err = w.showReturned(tx); err != nil {
		return nil, nil, err
	}
	return w, out, tx.exec(`DELETE FROM returning_right WHERE account_id = $1`, right.Account)
}

// showReturned makes the mailboxes that return ordinary ones. Behind it the horizon says that what vanished is not known:
// who knew one of them must compare all UIDs.
func (w *work) showReturned(tx *Tx) (out []ReturnedMailbox, err error) {
	list, err := tx.returningBoxes(w.id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	for i := range list {
		r, err := w.showMailbox(tx, &list[i])
		if err != nil {
			return nil, fmt.Errorf("mailbox %.60q: %w", list[i].Name, err)
		}
		out = append(out, r)
	}
	if err := tx.exec(`DELETE FROM returning_mailbox WHERE account_id = $1`, w.id); err != nil {
		return nil, err
	}
	return out, tx.exec(`UPDATE mail_account SET horizon = $2 WHERE account_id = $1`, w.id, w.counters.modseq)
}

func (w *work) showMailbox(tx *Tx, r *ReturningMailbox) (out ReturnedMailbox, err error) {
	name := r.Name
	for n := 1; ; n++ { // one of the name was made meanwhile
		if _, taken := w.tree.byName[name]; !taken {
			break
		}
		out.Was = r.Name
		name = fmt.Sprintf("%s (%d)", r.Name, n)
	}
	if err := w.createAbove(tx, name); err != nil {
		return out, err
	}
	role := r.Role
	if _, taken := w.tree.byRole[role]; taken {
		role = ""
	}
	b := &workBox{box: box{info: Mailbox{ID: r.ID, Name: name, Role: role, UIDValidity: r.UIDValidity, UIDNext: r.UIDNext}, keywords: r.Keywords}}
	d, err := tx.countEntries(w.id, r.ID)
	if err != nil {
		return out, err
	}
	t := w.change(tx)
	modseq := w.tick(tx, b)
	w.count(b, d)
	w.counters.lastValidity = max(w.counters.lastValidity, r.UIDValidity)
	m := &b.info
	err = tx.exec(`INSERT INTO mailbox (account_id, mailbox_id, name, role, uid_validity, uid_next, first_recent, modseq, messages, unseen, deleted, octets)
		VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $8, $9, $10, $11)`, w.id, r.ID, name, role, m.UIDValidity, m.UIDNext, modseq, m.Messages, m.Unseen, m.Deleted, m.Size)
	if err != nil {
		return out, err
	}
	t.byName[name] = r.ID
	if role != "" {
		t.byRole[role] = r.ID
	}
	w.boxes[r.ID] = b
	w.structure = true
	if r.Subscribed {
		err = w.subscribe(tx, name, true)
	}
	out.Mailbox = w.tree.decorate(b.info)
	return out, err
}

// countEntries counts the entries of a mailbox.
func (tx *Tx) countEntries(acct AccountID, box MailboxID) (d countDelta, err error) {
	err = tx.QueryRow(fmt.Sprintf(`SELECT COUNT(*), COALESCE(SUM(CASE WHEN flags & %d = 0 THEN 1 ELSE 0 END), 0),
		COALESCE(SUM(CASE WHEN flags & %d <> 0 THEN 1 ELSE 0 END), 0), COALESCE(SUM(size), 0)
		FROM entry WHERE account_id = $1 AND mailbox_id = $2`, Seen, Deleted), acct, box).Scan(&d.messages, &d.unseen, &d.deleted, &d.octets)
	return d, err
}

// dropStaleReturns gives up what nobody goes on with.
func (s *Store) dropStaleReturns(ctx context.Context) error {
	before := s.clock().Add(-ReturningTime).Unix()
	for _, stale := range []struct {
		query string
		drop  func(tx *Tx, acct AccountID) error
	}{
		{`SELECT account_id FROM returning_account WHERE touched < $1`, func(tx *Tx, acct AccountID) error { return tx.dropReturning(acct) }},
		{`SELECT DISTINCT account_id FROM returning_mailbox WHERE touched < $1`, func(tx *Tx, acct AccountID) error { return tx.dropReturningBoxes(acct, "") }},
		{`SELECT account_id FROM returning_right WHERE touched < $1`, func(tx *Tx, acct AccountID) error {
			return tx.exec(`DELETE FROM returning_right WHERE account_id = $1`, acct)
		}},
	} {
		var list []AccountID
		err := s.reads.each(ctx, func(rows *sql.Rows) error {
			var id AccountID
			err := rows.Scan(&id)
			list = append(list, id)
			return err
		}, stale.query, before)
		for _, id := range list {
			if err == nil {
				s.log.Warn("store: a return from a backup was never finished and is given up", "account", id)
				err = s.Write(ctx, func(tx *Tx) error { return stale.drop(tx, id) })
			}
		}
		if err != nil {
			return fmt.Errorf("store: unfinished returns: %w", err)
		}
	}
	return nil
}

// Holding is an entry with what tells its message from others.
type Holding struct {
	UID          UID
	InternalDate time.Time
	Sum          blob.ID
}

// Holdings lists the entries of a mailbox behind a UID, in order of UID.
func (s *Store) Holdings(ctx context.Context, acct AccountID, mbox MailboxID, after UID, limit int) (list []Holding, err error) {
	err = s.reads.each(ctx, func(rows *sql.Rows) error {
		var h Holding
		var date int64
		var hash []byte
		if err := rows.Scan(&h.UID, &date, &hash); err != nil {
			return err
		}
		h.InternalDate = time.Unix(date, 0).UTC()
		copy(h.Sum[:], hash)
		list = append(list, h)
		return nil
	}, `SELECT e.uid, e.internal_date, b.hash FROM entry AS e JOIN message AS m ON m.message_id = e.message_id AND m.account_id = e.account_id
		JOIN blob AS b ON b.blob_id = m.blob_id WHERE e.account_id = $1 AND e.mailbox_id = $2 AND e.uid > $3 ORDER BY e.uid LIMIT $4`,
		acct, mbox, after, limit)
	if err != nil {
		return nil, fmt.Errorf("store: holdings of mailbox %d of account %d: %w", mbox, acct, err)
	}
	return list, nil
}
