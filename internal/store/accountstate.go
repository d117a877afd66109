package store

import (
	"context"
	"fmt"
)

// Usage is what an account uses and may use; a quota of 0 is none. A message counts once for each mailbox that it is in.
type Usage struct {
	Bytes, Messages, QuotaBytes, QuotaMessages int64

	Domain DomainUsage // of the account's domain, when that has a quota
}

// CreateAccountState makes the mail state of a new account. The directory calls it in the transaction that makes the
// account. Ids of accounts must not come back: ErrExists.
func (s *Store) CreateAccountState(tx *Tx, acct AccountID, mailboxes []MailboxSpec) error {
	if _, ok := tx.accounts[acct]; ok {
		return fmt.Errorf("mail state of account %d: %w", acct, ErrExists)
	}
	w := &work{id: acct, tree: newTree(), ownTree: true, boxes: make(map[MailboxID]*workBox)}
	w.counters.nextMailbox = 1
	err := tx.exec(`INSERT INTO mail_account (account_id, modseq, next_mailbox, last_validity, used_octets, used_messages,
		quota_octets, quota_messages) VALUES ($1, 0, 1, 0, 0, 0, 0, 0)`, acct)
	if IsUnique(err) {
		return fmt.Errorf("mail state of account %d: %w", acct, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("store: account %d: %w", acct, err)
	}
	tx.accounts[acct] = w
	if err := w.createAll(tx, mailboxes); err != nil {
		return fmt.Errorf("store: account %d: %w", acct, err)
	}
	return nil
}

func (w *work) createAll(tx *Tx, mailboxes []MailboxSpec) error {
	if _, err := w.create(tx, inbox, RoleInbox); err != nil {
		return err
	}
	for _, m := range mailboxes {
		name, err := CleanName(m.Name)
		if err != nil {
			return err
		}
		if name != inbox {
			if _, err := w.create(tx, name, m.Role); err != nil {
				return err
			}
		}
		if m.Subscribed {
			if err := w.subscribe(tx, name, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteAccountState removes the mail state of an account. It is gone with the transaction; entries and messages are
// removed by Housekeep, those that could be restored too. An account under a legal hold can't be deleted: ErrHeld.
func (s *Store) DeleteAccountState(tx *Tx, acct AccountID) error {
	w, err := tx.account(acct)
	if err != nil {
		return err
	}
	if w.counters.held {
		return fmt.Errorf("store: account %d: %w", acct, ErrHeld)
	}
	for _, id := range w.ids() {
		b, err := w.box(id)
		if err != nil {
			return err
		}
		if err := w.bury(tx, b, owner); err != nil {
			return fmt.Errorf("store: account %d: %w", acct, err)
		}
	}
	if err := tx.dropReturningBoxes(acct, ""); err != nil {
		return fmt.Errorf("store: account %d: %w", acct, err)
	}
	for _, q := range []string{
		`DELETE FROM mail_account WHERE account_id = $1`,
		`DELETE FROM subscription WHERE account_id = $1`,
		`DELETE FROM mailbox_tombstone WHERE account_id = $1`,
		`DELETE FROM deleted_mailbox WHERE account_id = $1`,
		`DELETE FROM modseq_mark WHERE account_id = $1`,
		`DELETE FROM returning_right WHERE account_id = $1`,
		`DELETE FROM contact WHERE account_id = $1`,
		`DELETE FROM surge WHERE account_id = $1`,
		`DELETE FROM sieve_script WHERE account_id = $1`,
		`DELETE FROM sieve_memory WHERE account_id = $1`,
	} {
		if err := tx.exec(q, acct); err != nil {
			return fmt.Errorf("store: account %d: %w", acct, err)
		}
	}
	w.deleted = true
	return nil
}

// SetQuota sets what an account may use; 0 is no bound. What is there already stays.
func (s *Store) SetQuota(tx *Tx, acct AccountID, octets, messages int64) error {
	w, err := tx.account(acct)
	if err != nil {
		return err
	}
	tx.wrote, w.dirty = true, true
	w.counters.quotaOctets, w.counters.quotaMessages = max(octets, 0), max(messages, 0)
	return nil
}

// Usage returns what an account uses.
func (s *Store) Usage(ctx context.Context, acct AccountID) (Usage, error) {
	var u Usage
	s.domains.refresh(ctx)
	err := s.with(ctx, acct, func(a *account) error {
		c := &a.counters
		u = Usage{Bytes: c.usedOctets, Messages: c.usedMessages, QuotaBytes: c.quotaOctets, QuotaMessages: c.quotaMessages}
		u.Domain = s.domains.usage(c.domain)
		return nil
	})
	return u, err
}
