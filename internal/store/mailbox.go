package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// MailboxSpec is a mailbox that CreateAccountState makes.
type MailboxSpec struct {
	Name       string
	Role       Role
	Subscribed bool
}

// DefaultMailboxes are the mailboxes of a new account. INBOX is made whether it is named or not.
var DefaultMailboxes = []MailboxSpec{
	{inbox, RoleInbox, true},
	{"Drafts", RoleDrafts, true},
	{"Sent", RoleSent, true},
	{"Trash", RoleTrash, true},
	{"Junk", RoleJunk, true},
	{"Archive", RoleArchive, true},
}

// roleNames are the names under which a delivery makes a mailbox for a role that the account lacks.
var roleNames = map[Role]string{
	RoleInbox: inbox, RoleDrafts: "Drafts", RoleSent: "Sent", RoleTrash: "Trash", RoleJunk: "Junk", RoleArchive: "Archive",
	RoleSurge: "Surge",
}

// Mailboxes returns the mailboxes of an account, sorted by name.
func (s *Store) Mailboxes(ctx context.Context, acct AccountID) ([]Mailbox, error) {
	var out []Mailbox
	err := s.with(ctx, acct, func(a *account) error {
		out = make([]Mailbox, len(a.order))
		for i, b := range a.order {
			out[i] = a.tree.decorate(b.info)
		}
		return nil
	})
	return out, err
}

// Mailbox returns the mailbox of this name.
func (s *Store) Mailbox(ctx context.Context, acct AccountID, name string) (Mailbox, error) {
	var out Mailbox
	name, err := CleanName(name)
	if err != nil {
		// A name that can't exist does not: whoever asks need not tell the two apart.
		return out, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	err = s.with(ctx, acct, func(a *account) error {
		id, ok := a.tree.byName[name]
		if !ok {
			return fmt.Errorf("mailbox %.60q of account %d: %w", name, acct, ErrNotFound)
		}
		out = a.tree.decorate(a.boxes[id].info)
		return nil
	})
	return out, err
}

// MailboxByID returns a mailbox.
func (s *Store) MailboxByID(ctx context.Context, acct AccountID, id MailboxID) (Mailbox, error) {
	var out Mailbox
	err := s.with(ctx, acct, func(a *account) error {
		b, ok := a.boxes[id]
		if !ok {
			return fmt.Errorf("mailbox %d of account %d: %w", id, acct, ErrNotFound)
		}
		out = a.tree.decorate(b.info)
		return nil
	})
	return out, err
}

// CreateMailbox makes a mailbox and what is missing above it. A role that another mailbox has is ErrExists.
func (s *Store) CreateMailbox(ctx context.Context, acct AccountID, name string, role Role) (Mailbox, error) {
	var out Mailbox
	name, err := CleanName(name)
	if err != nil {
		return out, err
	}
	err = s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.create(tx, name, role)
		if err != nil {
			return err
		}
		out = w.tree.decorate(b.info)
		return nil
	})
	return out, err
}

// create makes a mailbox and what is missing above it.
func (w *work) create(tx *Tx, name string, role Role) (*workBox, error) {
	if _, ok := w.tree.byName[name]; ok {
		return nil, fmt.Errorf("mailbox %.60q: %w", name, ErrExists)
	}
	if _, ok := w.tree.byRole[role]; ok && role != "" {
		return nil, fmt.Errorf("mailbox with the role %q: %w", role, ErrExists)
	}
	if err := w.createAbove(tx, name); err != nil {
		return nil, err
	}
	return w.insert(tx, name, role)
}

// createAbove makes what is missing above a name, the highest first.
func (w *work) createAbove(tx *Tx, name string) error {
	var missing []string
	for p := parentOf(name); p != ""; p = parentOf(p) {
		if _, ok := w.tree.byName[p]; ok {
			break
		}
		missing = append(missing, p)
	}
	if len(w.tree.byName)+len(missing)+1 > tx.s.opts.MaxMailboxes {
		return fmt.Errorf("mailbox %.60q: account %d has %d mailboxes: %w", name, w.id, len(w.tree.byName), ErrLimit)
	}
	for _, p := range slices.Backward(missing) {
		if _, err := w.insert(tx, p, ""); err != nil {
			return err
		}
	}
	return nil
}

// insert makes one mailbox. Its UIDVALIDITY is above all that the account ever had, so that a name which comes back, after
// a deletion or a renaming, never comes back with an old one (RFC 3501, section 2.3.1.1).
func (w *work) insert(tx *Tx, name string, role Role) (*workBox, error) {
	t := w.change(tx)
	w.counters.lastValidity = max(w.counters.lastValidity+1, uint32(tx.now.Unix()))
	id := w.counters.nextMailbox
	w.counters.nextMailbox++
	b := &workBox{box: box{info: Mailbox{ID: id, Name: name, Role: role, UIDValidity: w.counters.lastValidity, UIDNext: 1}}}
	modseq := w.tick(tx, b)
	err := tx.exec(`INSERT INTO mailbox (account_id, mailbox_id, name, role, uid_validity, uid_next, first_recent, modseq,
		messages, unseen, deleted, octets) VALUES ($1, $2, $3, $4, $5, 1, 1, $6, 0, 0, 0, 0)`, w.id, id, name, role, b.info.UIDValidity, modseq)
	if err != nil {
		return nil, fmt.Errorf("mailbox %.60q: %w", name, err)
	}
	t.byName[name] = id
	if role != "" {
		t.byRole[role] = id
	}
	w.boxes[id] = b
	w.structure = true
	return b, nil
}

// RenameMailbox gives a mailbox, and all below it, another name. INBOX stays, empty, and its messages move to a new mailbox
// of that name (RFC 3501, section 6.3.5). Subscriptions stay with the names.
func (s *Store) RenameMailbox(ctx context.Context, acct AccountID, id MailboxID, newName string) error {
	newName, err := CleanName(newName)
	if err != nil {
		return err
	}
	return s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.box(id)
		if err != nil {
			return err
		}
		if b.info.Name == inbox {
			return w.emptyInbox(tx, b, newName)
		}
		return w.rename(tx, b, newName)
	})
}

// emptyInbox moves the messages of INBOX to a new mailbox.
func (w *work) emptyInbox(tx *Tx, from *workBox, newName string) error {
	to, err := w.create(tx, newName, "")
	if err != nil {
		return err
	}
	_, err = w.move(tx, from, allUIDs, to)
	return err
}

// rename changes the names of a mailbox and of those below it.
func (w *work) rename(tx *Tx, b *workBox, newName string) error {
	oldName := b.info.Name
	if newName == oldName {
		return fmt.Errorf("mailbox %.60q: %w", newName, ErrExists)
	}
	if below(newName, oldName) {
		return fmt.Errorf("mailbox %.60q below itself: %w", newName, ErrName)
	}
	names := map[MailboxID]string{b.info.ID: newName}
	for name, id := range w.tree.byName {
		if below(name, oldName) {
			names[id] = newName + name[len(oldName):]
		}
	}
	for _, name := range names {
		if _, ok := w.tree.byName[name]; ok {
			return fmt.Errorf("mailbox %.60q: %w", name, ErrExists)
		}
		if _, err := CleanName(name); err != nil {
			return err
		}
	}
	if err := w.createAbove(tx, newName); err != nil {
		return err
	}
	t := w.change(tx)
	w.structure = true
	for _, id := range slices.Sorted(maps.Keys(names)) {
		c, err := w.box(id)
		if err != nil {
			return err
		}
		w.tick(tx, c)
		if err := tx.exec(`UPDATE mailbox SET name = $3 WHERE account_id = $1 AND mailbox_id = $2`, w.id, id, names[id]); err != nil {
			return fmt.Errorf("mailbox %.60q: %w", names[id], err)
		}
		delete(t.byName, c.info.Name)
		t.byName[names[id]] = id
		c.info.Name = names[id]
	}
	return nil
}

// DeleteMailbox deletes a mailbox with its messages. INBOX can't be deleted (ErrName), nor one with others below it
// (ErrChildren). The mailbox is gone at once; its entries are removed in steps, so that a large one holds up nobody.
// Like those that are expunged they can be restored as long as the Policy says.
func (s *Store) DeleteMailbox(ctx context.Context, acct AccountID, id MailboxID) error {
	actor := actorOf(ctx)
	err := s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.box(id)
		if err != nil {
			return err
		}
		if b.info.Name == inbox {
			return fmt.Errorf("INBOX can't be deleted: %w", ErrName)
		}
		for name := range w.tree.byName {
			if below(name, b.info.Name) {
				return fmt.Errorf("mailbox %.60q: %w", b.info.Name, ErrChildren)
			}
		}
		return w.bury(tx, b, actor)
	})
	if err != nil {
		return err
	}
	if err := s.reap(ctx, acct, id); err != nil {
		// The deletion is committed; Housekeep removes what is left.
		s.log.Warn("store: entries of a deleted mailbox are removed later", "account", acct, "mailbox", id, "err", err)
	}
	return nil
}

// bury removes a mailbox's row and leaves its entries, and the keywords that these have, to reap.
func (w *work) bury(tx *Tx, b *workBox, actor string) error {
	id := b.info.ID
	if w.keeps(tx) {
		if err := w.keepMailbox(tx, b, actor); err != nil {
			return err
		}
	}
	t := w.change(tx)
	modseq := w.tick(tx)
	w.counters.usedMessages -= int64(b.info.Messages)
	w.counters.usedOctets -= b.info.Size
	for _, q := range []string{
		`DELETE FROM mailbox WHERE account_id = $1 AND mailbox_id = $2`,
		`INSERT INTO dead_mailbox (account_id, mailbox_id) VALUES ($1, $2)`,
	} {
		if err := tx.exec(q, w.id, id); err != nil {
			return err
		}
	}
	if err := tx.deleteMap(w.id, id); err != nil {
		return err
	}
	if err := tx.exec(`INSERT INTO mailbox_tombstone (account_id, modseq, mailbox_id) VALUES ($1, $2, $3)`, w.id, modseq, id); err != nil {
		return err
	}
	delete(t.byName, b.info.Name)
	if t.byRole[b.info.Role] == id {
		delete(t.byRole, b.info.Role)
	}
	if w.removed == nil {
		w.removed = make(map[MailboxID]bool)
	}
	w.removed[id] = true
	delete(w.boxes, id)
	w.structure = true
	return nil
}

// Subscribe adds a name to the subscriptions, or takes it out. A mailbox of that name need not exist (RFC 3501, section
// 6.3.6).
func (s *Store) Subscribe(ctx context.Context, acct AccountID, name string, on bool) error {
	name, err := CleanName(name)
	if err != nil {
		return err
	}
	return s.Write(ctx, func(tx *Tx) error {
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		return w.subscribe(tx, name, on)
	})
}

func (w *work) subscribe(tx *Tx, name string, on bool) error {
	_, is := w.tree.subs[name]
	if is == on {
		return nil
	}
	query := `DELETE FROM subscription WHERE account_id = $1 AND name = $2`
	if on {
		if len(w.tree.subs) >= 2*tx.s.opts.MaxMailboxes {
			return fmt.Errorf("account %d has %d subscriptions: %w", w.id, len(w.tree.subs), ErrLimit)
		}
		query = `INSERT INTO subscription (account_id, name) VALUES ($1, $2)`
	}
	t := w.change(tx)
	w.tick(tx)
	if on {
		t.subs[name] = struct{}{}
	} else {
		delete(t.subs, name)
	}
	return tx.exec(query, w.id, name)
}

// Subscriptions returns the subscribed names, sorted, whether they exist or not.
func (s *Store) Subscriptions(ctx context.Context, acct AccountID) ([]string, error) {
	var out []string
	err := s.with(ctx, acct, func(a *account) error {
		out = slices.Sorted(maps.Keys(a.tree.subs))
		return nil
	})
	return out, err
}
