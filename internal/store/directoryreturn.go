package store

import (
	"fmt"
)

// DirectoryReturn is an account that was filled from a backup unseen (BeginReturn) and gets its row now, with all of its
// mailboxes.
type DirectoryReturn struct {
	NewDirectoryAccount          // Mailboxes: those that it lacks are made
	Token               string   // of the ReturnRight
	Subscriptions       []string // names, whether there are mailboxes of them or not
	Holds               []Hold   // legal holds that were in force
}

// returnAccount makes an account that returned an ordinary one.
func (d *directoryEditor) returnAccount(r DirectoryReturn) error {
	if err := d.takeRoom(r.Domain, map[string]int{}); err != nil {
		return err
	}
	n, err := affected(d.tx.Exec(`DELETE FROM returning_account WHERE account_id = $1 AND address_key = $2`, r.ID, r.Key))
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("its return was given up: %w", ErrNotFound)
	}
	if err := d.accountRows(r.ID, &r.NewDirectoryAccount); err != nil {
		return err
	}
	w, _, err := d.tx.finishReturn(ReturnRight{r.ID, r.Token})
	if err != nil {
		return err
	}
	if err := w.fillUp(d.tx, &r); err != nil {
		return err
	}
	w.counters.domain, w.dirty = r.Domain, true
	return d.accountMade(r.ID, &r.NewDirectoryAccount)
}

// fillUp adds what an account has beside its mail.
func (w *work) fillUp(tx *Tx, r *DirectoryReturn) error {
	for _, m := range append([]MailboxSpec{{inbox, RoleInbox, false}}, r.Mailboxes...) {
		_, named := w.tree.byName[m.Name]
		if _, has := w.tree.byRole[m.Role]; named || has {
			continue
		}
		if _, err := w.create(tx, m.Name, m.Role); err != nil {
			return err
		}
	}
	for _, name := range r.Subscriptions {
		if clean, err := CleanName(name); err == nil {
			if err := w.subscribe(tx, clean, true); err != nil {
				return err
			}
		}
	}
	for i, h := range r.Holds {
		err := tx.exec(`INSERT INTO mail_hold (account_id, number, since, actor, reason, ended, ended_by, ended_reason)
			VALUES ($1, $2, $3, $4, $5, 0, '', '')`, w.id, i+1, h.Since.Unix(), h.Actor, h.Reason)
		if err != nil {
			return err
		}
		w.counters.held = true
	}
	return nil
}
