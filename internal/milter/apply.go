package milter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	protocol "github.com/emersion/go-milter"

	"waxwing/internal/message"
	"waxwing/internal/trace"
)

// Bounds of what milters may add to one message.
const (
	maxFields     = 200
	maxFieldName  = 100
	maxFieldValue = 32 << 10
	maxFieldLine  = 998
	maxRecipients = 100
	maxBody       = 64 << 20
)

// apply does what a milter wants done, and tells it in the trail.
func (r *Run) apply(a *asked, c *Changes, wanted []protocol.ModifyAction) {
	var done []string
	var body []byte
	added := 0
	for i := range wanted {
		w := &wanted[i]
		what := ""
		switch w.Code {
		case protocol.ActAddHeader, protocol.ActInsertHeader, protocol.ActChangeHeader:
			if added++; added <= maxFields {
				what = c.field(w)
			}
		case protocol.ActAddRcpt:
			if len(c.Add) < maxRecipients {
				c.Add = append(c.Add, path(w.Rcpt))
				what = "adds recipient " + path(w.Rcpt)
			}
		case protocol.ActDelRcpt:
			if len(c.Remove) < maxRecipients {
				c.Remove = append(c.Remove, path(w.Rcpt))
				what = "removes recipient " + path(w.Rcpt)
			}
		case protocol.ActChangeFrom:
			from := path(w.From)
			c.From, what = &from, "changes the sender to <"+from+">"
		case protocol.ActQuarantine:
			if c.Hold = sayable(w.Reason); c.Hold == "" {
				c.Hold = "by milter " + a.Name
			}
			what = "holds the message: " + c.Hold
		case protocol.ActReplBody:
			if a.Body && len(body)+len(w.Body) <= maxBody {
				body = append(body, w.Body...)
			}
			if len(body) == len(w.Body) || !a.Body { // told once
				what = map[bool]string{true: "replaces the body", false: "would replace the body, which the settings don't allow"}[a.Body]
			}
		}
		if what != "" && len(done) < 8 {
			done = append(done, what)
		}
	}
	if body != nil {
		c.Body, c.MIME = wholeLines(body), true
	}
	if len(done) > 0 {
		r.note(a, trace.Passed, strings.Join(done, "; "), "")
	}
}

// path is an address of a milter, without the brackets that it may have.
func path(s string) string {
	return strings.Trim(strings.TrimSpace(s), "<>")
}

// wholeLines makes all line ends of a body CRLF, and ends it with one.
func wholeLines(b []byte) []byte {
	b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
}

// field changes the header; it tells what it did, "" for nothing.
func (c *Changes) field(w *protocol.ModifyAction) string {
	name := strings.TrimSpace(w.HeaderName)
	if !isFieldName(name) || len(w.HeaderValue) > maxFieldValue {
		return "would write a field that can't be: " + sayable(name)
	}
	if !c.Edited {
		c.Header, c.Edited = slices.Clone(c.Header), true
	}
	c.MIME = c.MIME || strings.EqualFold(name, "MIME-Version") || len(name) > 8 && strings.EqualFold(name[:8], "Content-")
	fresh := newField(name, w.HeaderValue)
	switch w.Code {
	case protocol.ActInsertHeader:
		at := min(max(0, int(min(w.HeaderIndex, 1<<20))-1), len(c.Header))
		c.Header = slices.Insert(c.Header, at, fresh)
		return "inserts " + name
	case protocol.ActChangeHeader:
		nth := int(max(1, min(w.HeaderIndex, 1<<20)))
		for i := range c.Header {
			if !c.Header[i].Is(name) {
				continue
			}
			if nth--; nth > 0 {
				continue
			}
			if w.HeaderValue == "" {
				c.Header = slices.Delete(c.Header, i, i+1)
				return "removes " + name
			}
			c.Header[i] = fresh
			return "changes " + name
		}
		if w.HeaderValue == "" {
			return ""
		}
	}
	c.Header = append(c.Header, fresh)
	return "adds " + name
}

// isFieldName tells what may stand before the colon, RFC 5322, section 2.2.
func isFieldName(s string) bool {
	if s == "" || len(s) > maxFieldName {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == ':' {
			return false
		}
	}
	return true
}

// newField makes a field of text from a milter: its lines are folded rightly, and none is longer than may be.
func newField(name, value string) message.Field {
	value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\r", "\n")
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", name)
	room := maxFieldLine - len(name) - 1
	for i, line := range strings.Split(strings.TrimLeft(value, " "), "\n") {
		line = strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || r == 0x7f {
				return -1
			}
			return r
		}, strings.TrimRight(line, " \t"))
		if line == "" && i > 0 {
			continue // an empty line would end the header
		}
		if i > 0 {
			b.WriteString("\r\n")
			room = maxFieldLine
			line = "\t" + strings.TrimLeft(line, " \t")
		} else {
			line = " " + line
		}
		for len(line) > room {
			cut := strings.LastIndexByte(line[1:room], ' ') + 1
			if cut <= 1 {
				cut = room
			}
			b.WriteString(line[:cut] + "\r\n")
			line = "\t" + strings.TrimLeft(line[cut:], " ")
			room = maxFieldLine
		}
		b.WriteString(line)
	}
	b.WriteString("\r\n")
	h, _ := message.ParseHeader([]byte(b.String()))
	if len(h) != 1 {
		h, _ = message.ParseHeader([]byte(name + ": \r\n"))
	}
	return h[0]
}
