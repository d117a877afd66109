package transfer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"waxwing/internal/backup"
	"waxwing/internal/control"
	"waxwing/internal/store"
)

// bring sends what comes, and lets it be seen.
func (r *restorer) bring(ctx context.Context, a *backup.Account, home control.Home, folders []*backedFolder) error {
	ref := control.ReturnRef{ID: home.ID, Token: home.Token, Backup: r.Reader.ID}
	unseen := !home.There
	for _, f := range folders {
		to, last := int64(0), uint32(0)
		if f.home != nil {
			to = f.home.ID
		} else {
			unseen = true
			m, err := control.ReturnMailbox.Call(ctx, r.Carrier, control.NewReturning{ReturnRef: ref, Mailbox: control.ReturningMailbox{
				Name: f.Name, Role: f.Role, Subscribed: slices.Contains(a.Subscriptions, f.Name), UIDValidity: f.UIDValidity, UIDNext: f.UIDNext, Keywords: f.Keywords,
			}})
			if err != nil {
				return err
			}
			to, last = m.ID, m.Last
		}
		if err := r.send(ctx, a, ref, f, to, last); err != nil {
			return fmt.Errorf("folder %s: %w", f.Name, err)
		}
	}
	if !unseen {
		return nil
	}
	end := control.ReturnEnd{ReturnRef: ref}
	if !home.There {
		end.Account = backed(a)
		if r.Domain == "" { // first, so that a run which ends between the two is gone on with
			if err := r.aliasesOf(ctx, addressOf(a)); err != nil {
				return err
			}
		}
	}
	done, err := control.ReturnFinish.Call(ctx, r.Carrier, end)
	for _, m := range done.Mailboxes {
		if m.Was != "" {
			r.out.Warnings = append(r.out.Warnings, fmt.Sprintf("%s: the folder %s is back as %s, as another has its name", addressOf(a), m.Was, m.Name))
		}
	}
	if err == nil && !home.There && a.Admin {
		r.out.Warnings = append(r.out.Warnings, fmt.Sprintf("%s was an administrator: this right does not come back by itself", addressOf(a)))
	}
	return err
}

// backed is an account as the server takes it back.
func backed(a *backup.Account) *control.BackedAccount {
	out := &control.BackedAccount{
		Address: addressOf(a), Name: a.Name, Language: a.Language, Suspended: a.Suspended, PasswordHash: a.Password,
		QuotaBytes: a.QuotaBytes, QuotaMessages: a.QuotaMessages, Created: a.Created, Subscriptions: a.Subscriptions,
	}
	for _, h := range a.Holds {
		out.Holds = append(out.Holds, control.Hold{Since: h.Since, By: h.Actor, Reason: h.Reason})
	}
	return out
}

// send sends the messages of a folder behind the last UID that an earlier run sent.
func (r *restorer) send(ctx context.Context, a *backup.Account, ref control.ReturnRef, f *backedFolder, to int64, last uint32) (err error) {
	batch := restoring{r: r, account: a, folder: f, req: control.Returns{ReturnRef: ref, Mailbox: to}}
	defer func() { err = errors.Join(err, batch.close()) }()
	for _, m := range f.comes {
		r.done++
		if m.UID <= last {
			continue
		}
		if err := batch.add(ctx, m); err != nil {
			return err
		}
		if batch.full() {
			if err := batch.send(ctx); err != nil {
				return err
			}
			r.Progress(addressOf(a)+" "+f.Name, r.done, r.all)
		}
	}
	return batch.send(ctx)
}

// restoring is a batch on its way; its messages are open.
type restoring struct {
	r       *restorer
	account *backup.Account
	folder  *backedFolder
	req     control.Returns
	open    []store.Blob
	octets  int64
}

func (b *restoring) full() bool { return len(b.open) >= b.r.Batch || b.octets >= restoreOctets }

// add opens a message; what the backup can't give is left out.
func (b *restoring) add(ctx context.Context, m *backup.Message) error {
	content, err := b.r.Reader.Open(ctx, m.Content)
	if errors.Is(err, store.ErrCorrupt) && ctx.Err() == nil {
		b.r.damaged(b.account, b.folder, m, err)
		return nil
	}
	if err != nil {
		return err
	}
	b.open = append(b.open, content)
	b.octets += content.Size()
	one := control.ReturnedMessage{
		NewMessage: control.NewMessage{
			Size: content.Size(), Seen: m.Flags&store.Seen != 0, Answered: m.Flags&store.Answered != 0, Flagged: m.Flags&store.Flagged != 0,
			Deleted: m.Flags&store.Deleted != 0, Draft: m.Flags&store.Draft != 0, Keywords: b.folder.Named(m.Keywords), InternalDate: m.Date,
		},
		UID: m.UID, SHA256: hex.EncodeToString(m.Content.Sum[:]),
	}
	if b.folder.home == nil {
		one.UIDL, one.WasAccount, one.WasMessage = m.UIDL, b.account.ID, m.ID
	}
	b.req.Messages = append(b.req.Messages, one)
	return nil
}

func (b *restoring) send(ctx context.Context) error {
	if len(b.open) == 0 {
		return nil
	}
	readers := make([]io.Reader, len(b.open))
	for i, c := range b.open {
		readers[i] = io.NewSectionReader(c, 0, c.Size())
	}
	_, err := control.ReturnMessages.Call(ctx, b.r.Carrier, b.req, io.MultiReader(readers...))
	return errors.Join(err, b.close())
}

func (b *restoring) close() error {
	var err error
	for _, c := range b.open {
		err = errors.Join(err, c.Close())
	}
	b.open, b.octets, b.req.Messages = nil, 0, nil
	return err
}
