package sieve

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// Action is one thing to be done: Keep, FileInto, Redirect, Reject, Vacation or Notify. Where an action has a Header that is
// not nil, that is the header of the message as the script edited it (RFC 5293).
type Action any

// Keep files the message where it goes without a script.
type Keep struct {
	Flags  []string // IMAP flags and keywords
	Header message.Header
}

// FileInto files the message into a mailbox; where that can't be, it is kept.
type FileInto struct {
	Mailbox string
	Use     string // RFC 8579: before the name
	Create  bool   // RFC 5490
	Flags   []string
	Header  message.Header
}

// Redirect sends the message on.
type Redirect struct {
	To     address.Address
	Header message.Header
}

// Reject refuses the message (RFC 5429).
type Reject struct {
	Reason string
}

// Vacation answers the sender (RFC 5230). The run has seen to it that the message is one to be answered.
type Vacation struct {
	To      address.Address // the return path
	From    string          // field value; "": the user's address
	Subject string          // "": made from the message's
	Reason  string          // UTF-8, or a MIME entity
	MIME    bool
	Key     string        // one answer for each
	Every   time.Duration // within this time; 0: each message
}

// Notify sends a notification by mail (RFC 5435, 5436).
type Notify struct {
	To         []address.Address
	From       string // field value; "": the user's address
	Importance string // "1" high, "2" normal, "3" low
	Subject    string // "": made from the message's
	Body       string
}

// act adds an action that doesn't leave the message where it was.
func (r *run) act(a Action) error {
	if r.refused {
		return errors.New("reject can't be combined with other actions")
	}
	if len(r.actions) >= r.lim.Actions {
		return fmt.Errorf("more than %d actions", r.lim.Actions)
	}
	r.actions = append(r.actions, a)
	return nil
}

// flagged is the flags that an action gets: its own, or those that the script has set.
func (r *run) flagged(own []*text, given bool) []string {
	if given {
		return splitFlags(values(r, own))
	}
	return r.flags
}

var flagsTag = tag{name: "flags", ext: "imap4flags", kind: kindList}

func compileKeep(c *compiler, k *call) (stmt, error) {
	flags, err := c.texts(k.tags["flags"])
	return func(r *run) error {
		if r.refused {
			return errors.New("reject can't be combined with other actions")
		}
		r.cancelled = true
		r.kept = &Keep{Flags: r.flagged(flags, k.has("flags")), Header: r.now()}
		return nil
	}, err
}

func compileDiscard(*compiler, *call) (stmt, error) {
	return func(r *run) error { r.cancelled = true; return nil }, nil
}

func compileStop(*compiler, *call) (stmt, error) {
	return func(*run) error { return errStop }, nil
}

func compileFileInto(c *compiler, k *call) (stmt, error) {
	var parts [2]*text
	for i, a := range []*arg{k.pos[0], k.tags["specialuse"]} {
		var err error
		if parts[i], err = c.one(a); err != nil {
			return nil, err
		}
	}
	if use := parts[1]; use != nil && use.parts == nil && !strings.HasPrefix(use.lit, "\\") {
		return nil, faultAt(k.tags["specialuse"].pos, "expected a special use such as \"\\\\Junk\"")
	}
	flags, err := c.texts(k.tags["flags"])
	return func(r *run) error {
		f := FileInto{
			Mailbox: parts[0].value(r), Use: parts[1].value(r), Create: k.has("create"),
			Flags: r.flagged(flags, k.has("flags")), Header: r.now(),
		}
		r.cancelled = r.cancelled || !k.has("copy")
		for _, have := range r.actions { // the same place once (RFC 5228, section 2.10.3)
			if h, ok := have.(FileInto); ok && h.Mailbox == f.Mailbox && h.Use == f.Use {
				return nil
			}
		}
		return r.act(f)
	}, err
}

func compileRedirect(c *compiler, k *call) (stmt, error) {
	to, err := c.one(k.pos[0])
	if err != nil {
		return nil, err
	}
	if to.parts == nil {
		if _, err := address.Parse(strings.TrimSpace(to.lit)); err != nil {
			return nil, faultAt(k.pos[0].pos, "\"", to.lit, "\" is no address to redirect to")
		}
	}
	return func(r *run) error {
		a, err := address.Parse(strings.TrimSpace(to.value(r)))
		if err != nil {
			return fmt.Errorf("redirect: %w", err)
		}
		r.cancelled = r.cancelled || !k.has("copy")
		for _, have := range r.actions {
			if h, ok := have.(Redirect); ok && h.To.Key() == a.Key() {
				return nil
			}
		}
		if r.redirects++; r.redirects > r.lim.Redirects {
			return fmt.Errorf("more than %d redirects", r.lim.Redirects)
		}
		return r.act(Redirect{To: a, Header: r.now()})
	}, nil
}

// maxReason bounds the text of a refusal, in octets: it stands in an SMTP reply.
const maxReason = 2000

func compileReject(c *compiler, k *call) (stmt, error) {
	reason, err := c.one(k.pos[0])
	return func(r *run) error {
		if len(r.actions) > 0 || r.kept != nil || r.refused {
			return errors.New("reject can't be combined with other actions")
		}
		r.cancelled = true
		if err := r.act(Reject{Reason: cut(reason.value(r), maxReason)}); err != nil {
			return err
		}
		r.refused = true
		return nil
	}, err
}

// compileRequire enables extensions (RFC 5228, section 3.2).
func compileRequire(c *compiler, k *call) (stmt, error) {
	if c.begun {
		return nil, faultAt(k.node.pos, "\"require\" must stand before all other commands")
	}
	for _, t := range k.pos[0].strings {
		if !c.offers(t.text) {
			return nil, faultAt(t.pos, "the extension \"", t.text, "\" is not there")
		}
		c.enable(t.text)
	}
	return nil, nil
}

func (c *compiler) enable(ext string) {
	c.enabled[ext] = true
	for _, more := range implied[ext] {
		c.enabled[more] = true
	}
}

func compileError(c *compiler, k *call) (stmt, error) {
	why, err := c.one(k.pos[0])
	return func(r *run) error { return errors.New(cut(why.value(r), maxReason)) }, err
}
