package imapserver

import (
	"context"
	"errors"
	"strings"

	"waxwing/internal/store"
)

// maxName bounds a mailbox name on the wire: the store's 1,000 octets may take more in modified UTF-7.
const maxName = 4 << 10

// mailbox reads a mailbox name.
func (p *parser) mailbox() string { return canonicalName(p.astring(maxName)) }

// createRequest is CREATE, RFC 3501, section 6.3.3, with the USE attribute of RFC 6154, section 3.
type createRequest struct {
	name string
	use  []string
}

func (r *createRequest) parse(p *parser) {
	p.space()
	r.name = p.mailbox()
	if p.ok() && p.take(' ') {
		p.need('(')
		if p.word("USE") != "USE" {
			p.fail("expected USE")
		}
		p.space()
		p.list(8, func() {
			p.need('\\')
			r.use = append(r.use, p.word("a special use"))
		})
		p.need(')')
	}
	p.end()
}

func (r *createRequest) run(ctx context.Context, s *session) (reply, error) {
	// A trailing separator only says that children will follow; they may always.
	name := strings.TrimSuffix(r.name, "/")
	if name == "INBOX" {
		return reply{}, no("ALREADYEXISTS", "INBOX always exists")
	}
	var role store.Role
	for _, u := range r.use {
		found, known := roleByUse(u)
		if !known || role != "" {
			return reply{}, no("USEATTR", "Special use not supported")
		}
		role = found
	}
	if role != "" {
		boxes, err := s.srv.opt.Store.Mailboxes(ctx, s.acct)
		if err != nil {
			return reply{}, err
		}
		for _, m := range boxes {
			if m.Role == role {
				return reply{}, no("USEATTR", "Another mailbox has this special use")
			}
		}
	}
	_, err := s.srv.opt.Store.CreateMailbox(ctx, s.acct, name, role)
	return reply{}, err
}

// deleteRequest is DELETE, RFC 3501, section 6.3.4.
type deleteRequest struct{ name string }

func (r *deleteRequest) parse(p *parser) {
	p.space()
	r.name = p.mailbox()
	p.end()
}

func (r *deleteRequest) run(ctx context.Context, s *session) (reply, error) {
	if r.name == "INBOX" {
		return reply{}, no("CANNOT", "INBOX stays")
	}
	m, err := s.srv.opt.Store.Mailbox(ctx, s.acct, r.name)
	if err != nil {
		return reply{}, err
	}
	boxes, err := s.srv.opt.Store.Mailboxes(ctx, s.acct)
	if err != nil {
		return reply{}, err
	}
	if hasChildren(boxes, m.Name) {
		return reply{}, no("HASCHILDREN", "Mailbox has children")
	}
	if s.view != nil && s.mbox == m.ID {
		// The session leaves the mailbox first, so that its deletion is no surprise to itself.
		s.closeView()
		s.state = authenticated
	}
	return reply{}, s.srv.opt.Store.DeleteMailbox(ctx, s.acct, m.ID)
}

// hasChildren tells whether a mailbox lies below name.
func hasChildren(boxes []store.Mailbox, name string) bool {
	for i := range boxes {
		if n := boxes[i].Name; len(n) > len(name) && n[len(name)] == separator && n[:len(name)] == name {
			return true
		}
	}
	return false
}

// renameRequest is RENAME, RFC 3501, section 6.3.5.
type renameRequest struct{ from, to string }

func (r *renameRequest) parse(p *parser) {
	p.space()
	r.from = p.mailbox()
	p.space()
	r.to = p.mailbox()
	p.end()
}

func (r *renameRequest) run(ctx context.Context, s *session) (reply, error) {
	m, err := s.srv.opt.Store.Mailbox(ctx, s.acct, r.from)
	if err != nil {
		return reply{}, err
	}
	return reply{}, s.srv.opt.Store.RenameMailbox(ctx, s.acct, m.ID, strings.TrimSuffix(r.to, "/"))
}

// subscribeRequest is SUBSCRIBE and UNSUBSCRIBE, RFC 3501, sections 6.3.6 and 6.3.7.
type subscribeRequest struct {
	on   bool
	name string
}

func (r *subscribeRequest) parse(p *parser) {
	p.space()
	r.name = p.mailbox()
	p.end()
}

func (r *subscribeRequest) run(ctx context.Context, s *session) (reply, error) {
	err := s.srv.opt.Store.Subscribe(ctx, s.acct, strings.TrimSuffix(r.name, "/"), r.on)
	if !r.on && errors.Is(err, store.ErrNotFound) {
		return reply{}, nil // what it asks for holds
	}
	return reply{}, err
}

// specialUses are the attributes of RFC 6154, section 2, by role. INBOX has its name for it.
var specialUses = []struct {
	role store.Role
	attr string
}{
	{store.RoleArchive, `\Archive`},
	{store.RoleDrafts, `\Drafts`},
	{store.RoleJunk, `\Junk`},
	{store.RoleSent, `\Sent`},
	{store.RoleTrash, `\Trash`},
}

// roleByUse finds the role of an upper-case attribute without its backslash.
func roleByUse(use string) (store.Role, bool) {
	for _, u := range specialUses {
		if strings.EqualFold(u.attr[1:], use) {
			return u.role, true
		}
	}
	return "", false
}

func useOf(role store.Role) string {
	for _, u := range specialUses {
		if u.role == role {
			return u.attr
		}
	}
	return ""
}

// statusItems are what STATUS may be asked.
type statusItems uint8

const (
	statusMessages statusItems = 1 << iota
	statusRecent
	statusUIDNext
	statusUIDValidity
	statusUnseen
	statusHighestModSeq
	statusSize
	statusDeleted
)

// statusNames are the items in the order in which they are written.
var statusNames = []struct {
	item statusItems
	name string
}{
	{statusMessages, "MESSAGES"},
	{statusRecent, "RECENT"},
	{statusUIDNext, "UIDNEXT"},
	{statusUIDValidity, "UIDVALIDITY"},
	{statusUnseen, "UNSEEN"},
	{statusHighestModSeq, "HIGHESTMODSEQ"},
	{statusSize, "SIZE"},
	{statusDeleted, "DELETED"},
}

// statusItems reads a parenthesised list of STATUS items.
func (p *parser) statusItems() (items statusItems) {
	p.list(32, func() {
		name := p.word("a STATUS item")
		for _, n := range statusNames {
			if n.name == name {
				items |= n.item
				return
			}
		}
		p.fail("unknown STATUS item before this")
	})
	if p.ok() && items == 0 {
		p.fail("expected a STATUS item")
	}
	return items
}

// statusRequest is STATUS, RFC 3501, section 6.3.10; SIZE and DELETED are of RFC 8438 and RFC 9051.
type statusRequest struct {
	name  string
	items statusItems
}

func (r *statusRequest) parse(p *parser) {
	p.space()
	r.name = p.mailbox()
	p.space()
	r.items = p.statusItems()
	p.end()
}

func (r *statusRequest) run(ctx context.Context, s *session) (reply, error) {
	m, err := s.srv.opt.Store.Mailbox(ctx, s.acct, r.name)
	if err != nil {
		return reply{}, err
	}
	if r.items&statusHighestModSeq != 0 {
		s.enableCondstore()
	}
	return reply{}, s.sendStatus(ctx, &m, r.items)
}

// sendStatus writes one STATUS response.
func (s *session) sendStatus(ctx context.Context, m *store.Mailbox, items statusItems) error {
	recent := 0
	if items&statusRecent != 0 {
		// A view that only looks leaves \Recent to the session that selects the mailbox.
		v, err := s.srv.opt.Store.View(ctx, s.acct, m.ID, func() {}, store.Peek())
		if err != nil {
			return err
		}
		recent = v.RecentCount()
		v.Close()
	}
	values := [...]uint64{
		uint64(m.Messages), uint64(recent), uint64(m.UIDNext), uint64(m.UIDValidity), uint64(m.Unseen),
		uint64(max(m.HighestModSeq, 1)), uint64(m.Size), uint64(m.Deleted),
	}
	b := append(s.scratch(), "* STATUS "...)
	b = appendMailbox(b, m.Name)
	b = append(b, " ("...)
	first := true
	for i, n := range statusNames {
		if items&n.item == 0 {
			continue
		}
		if !first {
			b = append(b, ' ')
		}
		first = false
		b = append(append(b, n.name...), ' ')
		b = appendUint(b, values[i])
	}
	s.write(append(b, ")\r\n"...))
	return nil
}
