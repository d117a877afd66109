package imapserver

import (
	"context"
	"slices"
	"strings"

	"waxwing/internal/store"
)

// listRequest is LIST with its extensions (RFC 5258, RFC 5819, RFC 6154), LSUB and XLIST.
type listRequest struct {
	word     string // the response's name
	extended bool

	subscribed, recursive, specialUse bool // selection
	reference                         string
	patterns                          []string
	returnSubscribed                  bool
	status                            statusItems
}

// Bounds of the patterns of one LIST: their number, and their octets together with the reference's.
const (
	maxPatterns      = 64
	maxPatternOctets = 4 << 10
)

func (r *listRequest) parse(p *parser) {
	p.space()
	if r.word == "LIST" && p.peek() == '(' {
		r.extended = true
		p.list(16, func() { r.selection(p) })
		p.space()
		if p.ok() && r.recursive && !r.subscribed {
			p.fail("RECURSIVEMATCH needs another selection option, before this")
		}
	}
	reference := p.astring(maxPatternOctets)
	r.reference, _ = decodeUTF7(reference)
	p.space()
	if r.word == "LIST" && p.peek() == '(' {
		r.extended = true
		p.list(maxPatterns, func() { r.patterns = append(r.patterns, p.listPattern()) })
	} else {
		r.patterns = []string{p.listPattern()}
	}
	octets := 0
	for _, pattern := range r.patterns {
		octets += len(r.reference) + len(pattern)
	}
	if octets > maxPatternOctets {
		p.fail("patterns too long, before this")
	}
	if r.word == "LIST" && p.ok() && p.pos < len(p.line) && p.take(' ') && p.peek() != 0 {
		if p.word("RETURN") != "RETURN" {
			p.fail("expected RETURN")
		}
		r.extended = true
		p.space()
		p.list(16, func() { r.returns(p) })
	}
	p.end()
}

// selection reads one selection option.
func (r *listRequest) selection(p *parser) {
	switch p.word("a selection option") {
	case "SUBSCRIBED":
		r.subscribed = true
	case "RECURSIVEMATCH":
		r.recursive = true
	case "SPECIAL-USE":
		r.specialUse = true
	case "REMOTE": // there are no remote mailboxes
	default:
		p.fail("unknown selection option before this")
	}
}

// returns reads one return option. CHILDREN and SPECIAL-USE are given always.
func (r *listRequest) returns(p *parser) {
	switch p.word("a return option") {
	case "SUBSCRIBED":
		r.returnSubscribed = true
	case "CHILDREN", "SPECIAL-USE":
	case "STATUS":
		p.space()
		r.status = p.statusItems()
	default:
		p.fail("unknown return option before this")
	}
}

// listPattern reads a list-mailbox.
func (p *parser) listPattern() string {
	var raw string
	if c := p.peek(); c == '"' || c == '{' {
		raw = p.str(maxPatternOctets)
	} else {
		a := p.span(classList)
		if len(a) == 0 {
			p.fail("expected a mailbox pattern")
		}
		raw = string(a)
	}
	name, _ := decodeUTF7(raw)
	return name
}

// listed is one line of the answer.
type listed struct {
	name       string
	mailbox    *store.Mailbox // nil for a name without a mailbox
	subscribed bool
	childInfo  bool // stands for children that match the selection (RFC 5258, section 3.5)
	noSelect   bool // LSUB: stands for subscribed children only
}

func (r *listRequest) run(ctx context.Context, s *session) (reply, error) {
	if len(r.patterns) == 1 && r.patterns[0] == "" {
		if !r.extended {
			// The empty pattern asks for the separator (RFC 3501, section 6.3.8).
			s.put("* ", r.word, ` (\Noselect) "/" ""`, "\r\n")
		}
		return reply{}, nil
	}
	boxes, err := s.srv.opt.Store.Mailboxes(ctx, s.acct)
	if err != nil {
		return reply{}, err
	}
	var subscribed map[string]bool
	if r.subscribed || r.returnSubscribed || r.word == "LSUB" {
		names, err := s.srv.opt.Store.Subscriptions(ctx, s.acct)
		if err != nil {
			return reply{}, err
		}
		subscribed = make(map[string]bool, len(names))
		for _, n := range names {
			subscribed[n] = true
		}
	}
	parents := parentsOf(boxes)
	for _, l := range r.selected(boxes, subscribed) {
		if err := ctx.Err(); err != nil {
			return reply{}, err
		}
		s.write(r.appendListed(s.scratch(), &l, parents))
		if l.mailbox != nil && r.status != 0 {
			if err := s.sendStatus(ctx, l.mailbox, r.status); err != nil {
				return reply{}, err
			}
		}
	}
	return reply{}, nil
}

// parentsOf collects the names that have a mailbox below them.
func parentsOf(boxes []store.Mailbox) map[string]bool {
	parents := make(map[string]bool)
	for i := range boxes {
		name := boxes[i].Name
		for {
			cut := strings.LastIndexByte(name, separator)
			if cut < 0 || parents[name[:cut]] {
				break
			}
			name = name[:cut]
			parents[name] = true
		}
	}
	return parents
}

// selected gives the lines of the answer, sorted by name.
func (r *listRequest) selected(boxes []store.Mailbox, subscribed map[string]bool) []listed {
	bySubscription := r.subscribed || r.word == "LSUB"
	lines := make(map[string]*listed)
	line := func(name string) *listed {
		l := lines[name]
		if l == nil {
			l = &listed{name: name, subscribed: subscribed[name]}
			lines[name] = l
		}
		return l
	}
	existing := make(map[string]*store.Mailbox, len(boxes))
	for i := range boxes {
		existing[boxes[i].Name] = &boxes[i]
	}
	consider := func(name string) {
		m := existing[name]
		if r.specialUse && (m == nil || useOf(m.Role) == "") {
			return
		}
		if r.matches(name) {
			line(name)
		}
		if !r.recursive && r.word != "LSUB" {
			return
		}
		// A parent that matches while a selected child lies below it.
		for cut := strings.LastIndexByte(name, separator); cut > 0; cut = strings.LastIndexByte(name[:cut], separator) {
			parent := name[:cut]
			if !r.matches(parent) {
				continue
			}
			if r.recursive {
				line(parent).childInfo = true
			} else if !r.matches(name) && !subscribed[parent] {
				line(parent).noSelect = true // "foo" for "foo/bar" under "%"
			}
		}
	}
	if bySubscription {
		for name := range subscribed {
			consider(name)
		}
	} else {
		for i := range boxes {
			consider(boxes[i].Name)
		}
	}
	out := make([]listed, 0, len(lines))
	for name, l := range lines {
		l.mailbox = existing[name]
		out = append(out, *l)
	}
	slices.SortFunc(out, func(a, b listed) int { return strings.Compare(a.name, b.name) })
	return out
}

// matches tells whether a name matches one of the patterns under the reference.
func (r *listRequest) matches(name string) bool {
	for _, p := range r.patterns {
		if matchInbox(r.reference+p, name) {
			return true
		}
	}
	return false
}

// appendListed writes one line of the answer.
func (r *listRequest) appendListed(b []byte, l *listed, parents map[string]bool) []byte {
	b = append(append(append(b, "* "...), r.word...), " ("...)
	start := len(b)
	attr := func(a string) {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, a...)
	}
	switch {
	case l.mailbox == nil && r.extended:
		attr(`\NonExistent`)
	case l.mailbox == nil || l.noSelect:
		attr(`\Noselect`)
	}
	if r.word != "LSUB" {
		if parents[l.name] {
			attr(`\HasChildren`)
		} else {
			attr(`\HasNoChildren`)
		}
	}
	if l.subscribed && (r.subscribed || r.returnSubscribed) {
		attr(`\Subscribed`)
	}
	if l.mailbox != nil && !l.noSelect {
		if use := useOf(l.mailbox.Role); use != "" {
			attr(use)
		} else if r.word == "XLIST" && l.name == "INBOX" {
			attr(`\Inbox`)
		}
	}
	b = append(b, `) "/" `...)
	b = appendMailbox(b, l.name)
	if l.childInfo {
		b = append(b, ` ("CHILDINFO" ("SUBSCRIBED"))`...)
	}
	return append(b, '\r', '\n')
}
