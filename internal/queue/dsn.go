package queue

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

// Kind is what a notification tells.
type Kind uint8

const (
	Failed    Kind = iota // not delivered, and given up
	Delayed               // still waiting
	Relayed               // passed on to a server that sends no notifications
	Delivered             // delivered here
)

func (k Kind) String() string {
	return [...]string{"failed", "delayed", "relayed", "delivered"}[k]
}

// NotifiedRecipient is one recipient that a notification is about.
type NotifiedRecipient struct {
	To          string
	ORcpt       string // "type;address", "" when it was not given
	Action      string // "" for that of the notification; "expanded" for a group
	Status      smtp.Enhanced
	Diagnostic  string // a server's reply word for word, or what happened here
	Host        string // of that server, "" for none
	LastAttempt time.Time
	Expired     bool
}

// Notification is a delivery status notification (RFC 3464) before it is written. It goes out with a null reverse-path.
type Notification struct {
	Kind       Kind
	Hostname   string
	To         address.Address // the sender of the original
	Now        time.Time
	TraceID    string
	EnvID      string
	Arrived    time.Time
	Expires    time.Time
	UTF8       bool // the original came with SMTPUTF8: so may the notification be (RFC 6533, section 5)
	Recipients []NotifiedRecipient
	Original   []byte // the original's header, or all of it
	Whole      bool
}

// maxDiagnostic bounds the words of a server in one notification.
const maxDiagnostic = 1000

// Compose writes the notification as a message: a part for people, in English and Chinese, the part for machines, and
// the original or its header (RFC 6522, section 3).
func (n *Notification) Compose() ([]byte, error) {
	if len(n.Recipients) == 0 {
		return nil, errors.New("notification about no recipients")
	}
	global := n.UTF8 && n.international()
	machine, err := message.DeliveryStatus(global, n.fields(global)...)
	if err != nil {
		return nil, err
	}
	human := message.PlainText(n.text())
	var original *message.Entity
	switch {
	case len(n.Original) == 0:
	case n.Whole && global:
		original = message.Embedded("message/global", n.Original)
	case n.Whole:
		original = message.Embedded("message/rfc822", n.Original)
	case global:
		original = message.Embedded("message/global-headers", n.Original)
	default:
		original = message.Embedded("text/rfc822-headers", n.Original)
	}
	b := message.NewBuilder()
	b.Date(n.Now)
	b.Addresses("From", message.Address{Name: "Mail Delivery System", Local: "MAILER-DAEMON", Domain: n.Hostname})
	b.Addresses("To", message.Address{Local: n.To.Local, Domain: n.To.Domain})
	b.Text("Subject", n.subject())
	b.Raw("Message-ID", "<"+n.id()+">")
	b.Raw("Auto-Submitted", "auto-replied") // RFC 3834, section 5
	if id := originalID(n.Original); id != "" {
		b.Raw("In-Reply-To", id)
		b.Raw("References", id)
	}
	b.Body(message.Report("delivery-status", human, machine, original))
	return b.Bytes()
}

// id is the same whenever the same thing is told: a notification that a crash made twice can be recognised.
func (n *Notification) id() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00", n.Kind, n.TraceID, n.To)
	for _, r := range n.Recipients {
		fmt.Fprintf(h, "%s\x00%d\x00", r.To, r.LastAttempt.UnixMilli())
	}
	return "dsn." + hex.EncodeToString(h.Sum(nil)[:16]) + "@" + n.Hostname
}

// originalID finds the Message-ID of the original for In-Reply-To, if it is a sound one.
func originalID(original []byte) string {
	header, _ := message.ParseHeader(original)
	id := string(header.Get("Message-ID"))
	if len(id) < 3 || len(id) > 250 || id[0] != '<' || id[len(id)-1] != '>' {
		return ""
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return id
}

// international tells whether anything that stands in the machine part is not ASCII.
func (n *Notification) international() bool {
	for _, r := range n.Recipients {
		for _, s := range []string{r.To, r.ORcpt, r.Diagnostic} {
			if !isASCII(s) {
				return true
			}
		}
	}
	return false
}

func (n *Notification) fields(global bool) []message.StatusFields {
	about := message.StatusFields{}
	if n.EnvID != "" && isASCII(n.EnvID) { // RFC 3464, section 2.2.1
		about = append(about, [2]string{"Original-Envelope-Id", clean(n.EnvID, 100, false)})
	}
	about = append(about, [2]string{"Reporting-MTA", "dns; " + n.Hostname})
	if !n.Arrived.IsZero() {
		about = append(about, [2]string{"Arrival-Date", message.FormatDate(n.Arrived)})
	}
	groups := []message.StatusFields{about}
	for _, r := range n.Recipients {
		groups = append(groups, n.recipientFields(r, global))
	}
	return groups
}

// recipientFields writes the fields of one recipient, RFC 3464, section 2.3.
func (n *Notification) recipientFields(r NotifiedRecipient, global bool) message.StatusFields {
	var f message.StatusFields
	if r.ORcpt != "" {
		if v := typed(r.ORcpt, global); v != "" {
			f = append(f, [2]string{"Original-Recipient", v})
		}
	}
	kind := "rfc822;"
	if !isASCII(r.To) {
		kind = "utf-8;"
	}
	action := n.Kind.String()
	if r.Action != "" {
		action = r.Action
	}
	f = append(f,
		[2]string{"Final-Recipient", typed(kind+r.To, global)},
		[2]string{"Action", action},
		[2]string{"Status", r.Status.String()})
	if name, _, _ := strings.Cut(r.Host, " "); name != "" {
		f = append(f, [2]string{"Remote-MTA", "dns; " + clean(name, 255, false)})
	}
	if r.Diagnostic != "" && n.Kind != Delivered {
		kind := "X-Waxwing; "
		if isReply(r.Diagnostic) {
			kind = "smtp; "
		}
		f = append(f, [2]string{"Diagnostic-Code", kind + clean(r.Diagnostic, maxDiagnostic, global)})
	}
	if !r.LastAttempt.IsZero() {
		f = append(f, [2]string{"Last-Attempt-Date", message.FormatDate(r.LastAttempt)})
	}
	if n.Kind == Delayed && !n.Expires.IsZero() {
		f = append(f, [2]string{"Will-Retry-Until", message.FormatDate(n.Expires)})
	}
	return f
}

// typed writes "type;address" as a field's value. Where the field must be ASCII, an address of type utf-8 is escaped as
// utf-8-addr-xtext (RFC 6533, section 3), and another that is not ASCII can't be written.
func typed(s string, global bool) string {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok {
		return ""
	}
	if !isASCII(addr) && !global {
		if !strings.EqualFold(kind, "utf-8") {
			return ""
		}
		var b strings.Builder
		for _, r := range addr {
			if r >= 0x80 || r == '\\' {
				fmt.Fprintf(&b, `\x{%X}`, r)
			} else {
				b.WriteRune(r)
			}
		}
		addr = b.String()
	}
	return clean(kind, 40, false) + "; " + clean(addr, 500, global)
}

// clean makes s fit for one header value: line ends become spaces, other controls "?", and without utf8 so does what is
// not ASCII.
func clean(s string, limit int, utf8 bool) string {
	out := strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\r', r == '\t':
			return ' '
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r >= 0xa0 && !utf8:
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	out = strings.Join(strings.Fields(out), " ")
	if len(out) > limit {
		cut := limit
		for cut > 0 && out[cut]&0xC0 == 0x80 {
			cut--
		}
		out = out[:cut] + "..."
	}
	return out
}

// isReply tells a server's reply from words of our own: it begins with three digits.
func isReply(s string) bool {
	return len(s) >= 3 && s[0] >= '2' && s[0] <= '5' && s[1] >= '0' && s[1] <= '9' && s[2] >= '0' && s[2] <= '9' &&
		(len(s) == 3 || s[3] == ' ' || s[3] == '-')
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// cutHeader returns the header at the start of b without its blank line. With cut, b may end anywhere, and a header
// without an end is cut after its last whole line.
func cutHeader(b []byte, cut bool) []byte {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return b[:i+2]
	}
	if cut {
		end := bytes.LastIndex(b, []byte("\r\n"))
		if end < 0 {
			return nil
		}
		return b[:end+2]
	}
	return b
}
