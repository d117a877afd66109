package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// NewMessage is one message for Append.
type NewMessage struct {
	Content      Content
	Summary      Summary
	Flags        Flags
	Keywords     []string
	InternalDate time.Time // the clock's time when zero
	UIDL         string    // POP3 unique id taken over from another server; empty for the store's own
}

// shardOf spreads accounts over the writers of the blob store.
func shardOf(acct AccountID) uint32 { return uint32(acct) ^ uint32(acct>>16) }

// Deliver commits everything that one accepted message changes: an entry in each local mailbox and the rows of the queue.
// It returns when the octets and the rows are on stable storage.
func (s *Store) Deliver(ctx context.Context, d Delivery) (Delivered, error) {
	parts := d.parts()
	if len(parts) == 0 && len(d.Sieve) == 0 && len(d.Trace.Steps) == 0 {
		return Delivered{}, nil
	}
	s.domains.refresh(ctx)
	contents := make([]*settled, 0, len(parts))
	summaries := make([][]byte, len(parts))
	for i, p := range parts {
		content, err := s.settle(ctx, p.shard(), p.Content, p.Content.Size() >= lookFrom)
		if err != nil {
			s.settleAll(contents, err)
			return Delivered{}, fmt.Errorf("store: deliver: %w", err)
		}
		contents = append(contents, content)
		summaries[i] = appendSummary(nil, &p.Summary)
	}
	var out Delivered
	err := s.withContents(ctx, contents, func(tx *Tx) error {
		out = Delivered{}
		if len(parts) == 0 || parts[0] != &d { // the message itself goes nowhere
			if err := tx.told(&d, d.Trace); err != nil {
				return err
			}
		}
		for i, p := range parts {
			done, err := tx.deliver(p, contents[i], summaries[i])
			if err != nil {
				return err
			}
			if p == &d {
				done.Also, out = out.Also, done
			} else {
				out.Also = append(out.Also, done)
			}
		}
		return nil
	})
	if err != nil {
		return Delivered{}, fmt.Errorf("store: deliver: %w", err)
	}
	return out, nil
}

// parts are the messages of a delivery that go anywhere.
func (d *Delivery) parts() []*Delivery {
	list := make([]*Delivery, 0, 1+len(d.Also))
	for i := -1; i < len(d.Also); i++ {
		p := d
		if i >= 0 {
			p = &d.Also[i]
		}
		if len(p.Local) > 0 || p.Queue != nil {
			list = append(list, p)
		}
	}
	return list
}

// shard chooses the writer of the blob store.
func (d *Delivery) shard() uint32 {
	if len(d.Local) > 0 {
		return shardOf(d.Local[0].Account)
	}
	return shardOf(d.Queue.Account)
}

// deliver makes the rows of one message.
func (tx *Tx) deliver(d *Delivery, content *settled, summary []byte) (Delivered, error) {
	out := Delivered{Local: make([]Placed, len(d.Local))}
	if err := tx.admit(d); err != nil {
		return out, err
	}
	refs := int64(len(accountsOf(d.Local)) + len(d.More))
	if d.Queue != nil {
		refs++
	}
	blobID, err := tx.blobRow(content, refs)
	if err != nil {
		return out, err
	}
	if err := tx.deliverLocal(d, summary, blobID, out.Local); err != nil {
		return out, err
	}
	if d.Queue != nil {
		if out.Queue, err = enqueue(tx, d.Queue, blobID); err != nil {
			return out, fmt.Errorf("queue: %w", err)
		}
		for _, m := range d.More {
			if _, err := enqueue(tx, m, blobID); err != nil {
				return out, fmt.Errorf("queue: %w", err)
			}
		}
		tx.NotifyQueue()
	}
	row := d.Trace
	if out.Queue != 0 && row.Queued != nil {
		row.Steps = row.Queued(slices.Clip(row.Steps), out.Queue)
	}
	return out, tx.told(d, row)
}

// told writes what a delivery says beside its message.
func (tx *Tx) told(d *Delivery, row TraceRow) error {
	if err := tx.remember(d.Sieve); err != nil {
		return err
	}
	return tx.trace(row)
}

// accountsOf returns the accounts of some entries, each once and with the number of its entries.
func accountsOf(entries []NewEntry) map[AccountID]int64 {
	m := make(map[AccountID]int64, len(entries))
	for i := range entries {
		m[entries[i].Account]++
	}
	return m
}

// admit checks what can be checked before anything is written: a refusal then costs the others in the group nothing.
func (tx *Tx) admit(d *Delivery) error {
	bounded := make(map[AccountID]int64)
	for i := range d.Local {
		e := &d.Local[i]
		w, err := tx.account(e.Account)
		if err != nil {
			return err
		}
		if e.Mailbox != 0 {
			if _, err := w.box(e.Mailbox); err != nil {
				return err
			}
		}
		if !e.IgnoreQuota {
			bounded[e.Account]++
		}
	}
	for acct, n := range bounded {
		if err := tx.accounts[acct].room(tx, n*d.Content.Size(), n); err != nil {
			return err
		}
	}
	return nil
}

// deliverLocal makes the entries of a delivery. An account gets one message, however many of its mailboxes it goes to.
func (tx *Tx) deliverLocal(d *Delivery, summary []byte, blobID int64, out []Placed) error {
	messages := make(map[AccountID]MessageID, 1)
	for i := range d.Local {
		e := &d.Local[i]
		w, err := tx.account(e.Account)
		if err != nil {
			return err
		}
		b, err := w.target(tx, e)
		if err != nil {
			return err
		}
		id, again := messages[e.Account]
		if again {
			err = w.share(tx, []int64{int64(id)})
		} else {
			id, err = w.insertMessage(tx, blobID, d.Content.Size(), &d.Summary, summary, "")
			messages[e.Account] = id
		}
		if err != nil {
			return err
		}
		if out[i], err = w.file(tx, b, id, d.Content.Size(), e.Flags, e.Keywords, e.InternalDate); err != nil {
			return err
		}
	}
	return nil
}

// target is the mailbox that an entry goes to. One for a role is made when the account lacks it.
func (w *work) target(tx *Tx, e *NewEntry) (*workBox, error) {
	if e.Mailbox != 0 {
		return w.box(e.Mailbox)
	}
	role := e.Role
	if e.Create {
		b, err := w.named(tx, e.Name)
		if err == nil || !errors.Is(err, ErrLimit) {
			return b, err
		}
		role = RoleInbox // mail is not lost for want of a mailbox
	}
	if role == "" {
		role = RoleInbox
	}
	if id, ok := w.tree.byRole[role]; ok {
		return w.box(id)
	}
	name, ok := roleNames[role]
	if !ok {
		return nil, fmt.Errorf("role %q: %w", role, ErrNotFound)
	}
	if e.Name != "" {
		clean, err := CleanName(e.Name)
		if err != nil {
			return nil, err
		}
		name = clean
	}
	if id, ok := w.tree.byName[name]; ok {
		return w.assignRole(tx, id, role)
	}
	b, err := w.create(tx, name, role)
	if err == nil && e.Name != "" { // people are to find it
		err = w.subscribe(tx, name, true)
	}
	return b, err
}

// named is the mailbox of a name, made and subscribed to when the account lacks it.
func (w *work) named(tx *Tx, name string) (*workBox, error) {
	name, err := CleanName(name)
	if err != nil {
		return nil, err
	}
	if id, ok := w.tree.byName[name]; ok {
		return w.box(id)
	}
	b, err := w.create(tx, name, "")
	if err != nil {
		return nil, err
	}
	return b, w.subscribe(tx, name, true)
}

// assignRole gives a role to a mailbox that has its name but none: the user made it with a client that knows no roles. One
// that has another role stays what it is, and takes the mail.
func (w *work) assignRole(tx *Tx, id MailboxID, role Role) (*workBox, error) {
	b, err := w.box(id)
	if err != nil || b.info.Role != "" {
		return b, err
	}
	t := w.change(tx)
	w.tick(tx, b)
	b.info.Role = role
	t.byRole[role] = id
	return b, tx.exec(`UPDATE mailbox SET role = $3 WHERE account_id = $1 AND mailbox_id = $2`, w.id, id, role)
}

// insertMessage makes the row of a message.
func (w *work) insertMessage(tx *Tx, blobID, size int64, m *Summary, summary []byte, uidl string) (MessageID, error) {
	number, err := tx.s.ids.message.take()
	if err != nil {
		return 0, err
	}
	id := MessageID(number)
	thread, err := tx.thread(w.id, id, m)
	if err != nil {
		return 0, err
	}
	var known any
	if uidl != "" {
		known = uidl
	}
	err = tx.exec(`INSERT INTO message (account_id, message_id, blob_id, size, thread_id, uidl, summary) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		w.id, id, blobID, size, thread, known, summary)
	if err != nil {
		return 0, fmt.Errorf("message: %w", err)
	}
	return id, nil
}

// file puts a message into a mailbox.
func (w *work) file(tx *Tx, b *workBox, id MessageID, size int64, flags Flags, keywords []string, date time.Time) (Placed, error) {
	set, err := w.keywordSet(tx, b, keywords, nil)
	if err != nil {
		return Placed{}, err
	}
	if date.IsZero() {
		date = tx.now
	}
	row := entryRow{message: id, flags: flags & allFlags, keywords: set, size: uint32(size), date: date.Unix()}
	uid, err := w.insertEntry(tx, b, row)
	return Placed{Mailbox: b.info.ID, Message: id, UID: uid, UIDValidity: b.info.UIDValidity}, err
}

// Append adds messages to a mailbox, all or none.
func (s *Store) Append(ctx context.Context, acct AccountID, mbox MailboxID, msgs []NewMessage) ([]Placed, error) {
	s.domains.refresh(ctx)
	var contents []*settled
	var summaries [][]byte
	var octets int64
	for i := range msgs {
		t, err := s.settle(ctx, shardOf(acct), msgs[i].Content, true)
		if err != nil {
			s.settleAll(contents, err)
			return nil, fmt.Errorf("store: append to mailbox %d of account %d: %w", mbox, acct, err)
		}
		contents = append(contents, t)
		summaries = append(summaries, appendSummary(nil, &msgs[i].Summary))
		octets += msgs[i].Content.Size()
	}
	var out []Placed
	err := s.withContents(ctx, contents, func(tx *Tx) error {
		out = make([]Placed, 0, len(msgs))
		w, err := tx.account(acct)
		if err != nil {
			return err
		}
		b, err := w.box(mbox)
		if err != nil {
			return err
		}
		if err := w.room(tx, octets, int64(len(msgs))); err != nil {
			return err
		}
		for i := range msgs {
			p, err := w.append(tx, b, &msgs[i], contents[i], summaries[i])
			if err != nil {
				return err
			}
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: append to mailbox %d of account %d: %w", mbox, acct, err)
	}
	return out, nil
}

func (w *work) append(tx *Tx, b *workBox, m *NewMessage, content *settled, summary []byte) (Placed, error) {
	blobID, err := tx.blobRow(content, 1)
	if err != nil {
		return Placed{}, err
	}
	id, err := w.insertMessage(tx, blobID, m.Content.Size(), &m.Summary, summary, m.UIDL)
	if err != nil {
		return Placed{}, err
	}
	return w.file(tx, b, id, m.Content.Size(), m.Flags, m.Keywords, m.InternalDate)
}
