package imapserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"waxwing/internal/message"
	"waxwing/internal/store"
)

// textSearch looks into messages; each worker of a SEARCH has its own.
type textSearch struct {
	s      *session
	body   bodyReader
	header []byte // the header of the present message, nil when not read
	room   []byte // for folded text
	value  []byte // for one unfolded field
}

func newTextSearch(s *session, ctx context.Context) *textSearch {
	t := &textSearch{s: s}
	t.body.open(s, ctx)
	return t
}

func (t *textSearch) close() { t.body.close() }

// message decides the whole program for one message. One that is damaged or gone does not match.
func (t *textSearch) message(k *searchKey, e *fetchEntry) (bool, error) {
	t.body.reset(e.Message, e.Size)
	t.header = nil
	hit, err := t.decide(k, e)
	if err == nil || !skippable(err) {
		return hit, err
	}
	if errors.Is(err, store.ErrCorrupt) {
		t.s.log.Error("message is damaged", "mailbox", t.s.mbox, "uid", e.UID, "message", e.Message, "error", err)
	}
	return false, nil
}

// decide evaluates a key; cheap kids stand first.
func (t *textSearch) decide(k *searchKey, e *fetchEntry) (bool, error) {
	if k.cost == costIndex {
		return k.holds(t.s, e.seq, &e.Entry), nil
	}
	switch k.op {
	case keyAnd, keyOr:
		for i := range k.kids {
			hit, err := t.decide(&k.kids[i], e)
			if err != nil || hit == (k.op == keyOr) {
				return hit, err
			}
		}
		return k.op == keyAnd, nil
	case keyNot:
		hit, err := t.decide(&k.kids[0], e)
		return !hit, err
	case keyHeader, keyBody, keyText:
		if k.hits.Excludes(int64(e.Message)) {
			return false, nil
		}
	}
	switch k.op {
	case keyHeader:
		return t.inField(k.text, k.needle)
	case keyBefore, keyOn, keySince:
		return t.sentHolds(k)
	case keyBody:
		return t.inBody(k.needle)
	case keyText:
		hit, err := t.inHeader(k.needle)
		if hit || err != nil {
			return hit, err
		}
		return t.inBody(k.needle)
	}
	return false, nil
}

// readHeader reads the message's header.
func (t *textSearch) readHeader() (err error) {
	if t.header == nil {
		t.header, err = t.body.wholeHeader()
	}
	return err
}

// headerWith gives a header that has all fields of one name: what is remembered of the message suffices for most names.
func (t *textSearch) headerWith(name string) ([]byte, error) {
	if isListField(name) && !t.body.inMemory() {
		return t.body.listHeader()
	}
	err := t.readHeader()
	return t.header, err
}

// fields calls fn with each field of a header until fn returns true.
func fields(header []byte, fn func(name, value []byte) bool) bool {
	for len(header) > 0 {
		end := fieldEnd(header)
		field := header[:end]
		header = header[end:]
		if field[0] == '\r' || field[0] == '\n' {
			return false
		}
		colon := bytes.IndexByte(field, ':')
		if colon < 0 {
			continue
		}
		if fn(bytes.TrimRight(field[:colon], " \t"), field[colon+1:]) {
			return true
		}
	}
	return false
}

// inField looks into the fields of one name. An empty needle asks whether the field is there (RFC 3501, section 6.4.4).
func (t *textSearch) inField(name string, n *needle) (bool, error) {
	header, err := t.headerWith(name)
	if err != nil {
		return false, err
	}
	return fields(header, func(found, value []byte) bool {
		return len(found) == len(name) && equalFold(found, name) && t.inValue(value, n)
	}), nil
}

// inValue looks into one field's value, unfolded and with its encoded words decoded.
func (t *textSearch) inValue(value []byte, n *needle) (hit bool) {
	if len(n.folded) == 0 {
		return true
	}
	t.value = unfold(t.value[:0], value)
	if isASCII(t.value) && !bytes.Contains(t.value, []byte("=?")) {
		return n.ascii && n.inASCII(t.value)
	}
	hit, t.room = n.in([]byte(message.DecodeHeader(t.value)), t.room)
	return hit
}

// unfold takes the line ends out of a field.
func unfold(dst, value []byte) []byte {
	for {
		i := bytes.IndexByte(value, '\n')
		if i < 0 {
			return append(dst, value...)
		}
		dst = append(dst, bytes.TrimSuffix(value[:i], []byte{'\r'})...)
		value = value[i+1:]
	}
}

// sentHolds decides SENTBEFORE, SENTON and SENTSINCE. A message without a readable Date has no sent date.
func (t *textSearch) sentHolds(k *searchKey) (hit bool, err error) {
	header, err := t.headerWith("date")
	if err != nil {
		return false, err
	}
	fields(header, func(name, value []byte) bool {
		if len(name) != len("date") || !equalFold(name, "date") {
			return false
		}
		t.value = unfold(t.value[:0], value)
		if date, valid := message.ParseDate(t.value); valid {
			hit = k.dateHolds(dayNumber(date))
		}
		return true
	})
	return hit, nil
}

// inHeader looks into the whole header.
func (t *textSearch) inHeader(n *needle) (bool, error) {
	if err := t.readHeader(); err != nil {
		return false, err
	}
	return t.inHeaderText(t.header, n), nil
}

func (t *textSearch) inHeaderText(header []byte, n *needle) bool {
	if len(n.folded) == 0 {
		return true
	}
	return fields(header, func(name, value []byte) bool {
		t.value = append(append(t.value[:0], name...), ':')
		t.value = unfold(t.value, value)
		if isASCII(t.value) && !bytes.Contains(t.value, []byte("=?")) {
			return n.ascii && n.inASCII(t.value)
		}
		var hit bool
		hit, t.room = n.in([]byte(message.DecodeHeader(t.value)), t.room)
		return hit
	})
}

// inBody looks into all text of the message behind its header: text parts decoded to UTF-8, and the headers of messages
// inside.
func (t *textSearch) inBody(n *needle) (bool, error) {
	if len(n.folded) == 0 {
		return true, nil
	}
	root, err := t.body.parse()
	if err != nil {
		return false, err
	}
	hit := false
	root.Walk(func(p *message.Part) bool {
		if p.Message != nil {
			hit, err = t.inRange(p.Message.Offset, p.Message.BodyOffset, n)
		} else if p.Type == "text" {
			hit, err = t.inPart(p, n)
		}
		if err == nil {
			err = t.body.ctx.Err()
		}
		return !hit && err == nil
	})
	return hit, err
}

// inRange looks into the header of a message inside.
func (t *textSearch) inRange(from, to int64, n *needle) (bool, error) {
	header, err := t.body.headerBetween(from, to)
	if err != nil {
		return false, err
	}
	return t.inHeaderText(header, n), nil
}

// inPart looks into one text part. Octets that are ASCII are text as they stand, when neither the transfer encoding
// nor the charset gives them another meaning.
func (t *textSearch) inPart(p *message.Part, n *needle) (bool, error) {
	var from io.ReaderAt = t.body.blob
	if t.body.held {
		from = bytes.NewReader(t.body.raw)
		if identity(p.Encoding) && keepsASCII(p.Params.Get("charset")) {
			text := t.body.raw[p.BodyOffset:p.End]
			if n.ascii && n.inASCII(text) {
				return true, nil
			}
			if isASCII(text) {
				return false, nil
			}
		}
	}
	hit, room, err := n.inReader(p.Text(from), t.room)
	t.room = room
	return hit, err
}

func identity(encoding string) bool {
	return encoding == "" || encoding == "7bit" || encoding == "8bit" || encoding == "binary"
}

// keepsASCII tells the charsets in which an octet below 128 is always the ASCII character.
func keepsASCII(charset string) bool {
	c := strings.ToLower(charset)
	return c == "" || c == "us-ascii" || c == "utf-8" ||
		strings.HasPrefix(c, "iso-8859-") || strings.HasPrefix(c, "windows-125")
}
