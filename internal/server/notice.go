package server

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/digest"
	"waxwing/internal/directory"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

// notices writes messages of this server into people's INBOX.
type notices struct {
	store    *store.Store
	dir      *directory.Directory
	hostname string
	clock    func() time.Time
}

// notice is a message of this server in the language of its reader.
type notice struct {
	language, from, subject, text string
}

// compose writes a notice as a message.
func (n notices) compose(to directory.Account, what notice) ([]byte, error) {
	b := message.NewBuilder()
	b.Addresses("From", message.Address{Name: what.from, Local: "postmaster", Domain: to.Address.Domain})
	b.Addresses("To", message.Address{Name: to.Name, Local: to.Address.Local, Domain: to.Address.Domain})
	b.Text("Subject", what.subject)
	b.Date(n.clock())
	b.MessageID(n.hostname)
	b.Raw("Auto-Submitted", "auto-generated") // RFC 3834, section 5
	b.Raw("Content-Language", what.language)
	b.Body(message.PlainText(what.text))
	return b.Bytes()
}

// deliver puts a notice into the INBOX of its reader, also of one that is full.
func (n notices) deliver(ctx context.Context, to directory.Account, what notice) error {
	raw, err := n.compose(to, what)
	if err != nil {
		return err
	}
	content := bytes.NewReader(raw)
	part, err := message.Parse(content, content.Size(), message.DefaultLimits)
	if err != nil {
		return err
	}
	_, err = n.store.Deliver(ctx, store.Delivery{
		Content: content, Summary: digest.Make(part, content, content.Size()),
		Local: []store.NewEntry{{Account: to.ID, Role: store.RoleInbox, InternalDate: n.clock(), IgnoreQuota: true}},
	})
	return err
}

// postmaster is who reads the mail for the postmaster of a domain; directory.ErrNotFound when nobody here does.
func (n notices) postmaster(ctx context.Context, domain string) (directory.Account, error) {
	to, err := address.Parse("postmaster@" + domain)
	if err != nil {
		return directory.Account{}, err
	}
	res, err := n.dir.Resolve(ctx, to)
	if err != nil {
		return directory.Account{}, err
	}
	for _, r := range res.Recipients {
		if r.Account != nil {
			return *r.Account, nil
		}
	}
	return directory.Account{}, fmt.Errorf("postmaster of %s: %w", domain, directory.ErrNotFound)
}
