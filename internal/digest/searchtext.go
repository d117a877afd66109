package digest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"waxwing/internal/message"
	"waxwing/internal/store/search"
)

// Bounds of what is read for the index of one message.
const (
	maxSearchHeader = 1 << 20   // octets of one header; a longer one makes the document incomplete
	maxSearchRaw    = 1 << 20   // octets of a part that is looked at as it stands
	maxSearchWords  = 256 << 10 // octets of text of a part of which the words are taken
)

// TextPicker picks out of messages what they are searched by. One goroutine uses it; it keeps its memory from message to
// message.
type TextPicker struct {
	raw, value []byte
}

// Pick fills the document with the message that r holds, size octets. What IMAP's SEARCH looks at goes in as text: for BODY
// the text parts decoded, tags of HTML and all, and the headers of messages inside; for the fields of the header their
// decoded values; for TEXT both. What a person would look for goes in as words: the same without the tags, and the names of
// attachments. The only errors are those of r.
func (t *TextPicker) Pick(d *search.Document, r io.ReaderAt, size int64) error {
	root, err := message.Parse(r, size, message.DefaultLimits)
	if err == nil {
		err = t.header(d, r, 0, min(root.BodyOffset, size), search.Header)
	}
	if err != nil {
		return fmt.Errorf("digest: text of a message: %w", err)
	}
	root.Walk(func(p *message.Part) bool {
		switch {
		case p.Message != nil:
			err = t.header(d, r, p.Message.Offset, p.Message.BodyOffset, search.Body)
		case p.Type == "text":
			err = t.part(d, r, p)
		}
		if name := p.FileName(); name != "" {
			d.Words(search.Attachment, name)
		}
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("digest: text of a message: %w", err)
	}
	return nil
}

// read reads octets into the picker's memory.
func (t *TextPicker) read(r io.ReaderAt, from, to int64) ([]byte, error) {
	n := int(to - from)
	if cap(t.raw) < n {
		t.raw = make([]byte, n)
	}
	got, err := r.ReadAt(t.raw[:n], from)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return t.raw[:got], err
}

// header adds the fields of a header to the text of field f: the message's own to Header and to the fields of their names.
func (t *TextPicker) header(d *search.Document, r io.ReaderAt, from, to int64, f search.Field) error {
	if to-from > maxSearchHeader {
		d.SetIncomplete()
		to = from + maxSearchHeader
	}
	raw, err := t.read(r, from, to)
	if err != nil {
		return err
	}
	for len(raw) > 0 && raw[0] != '\r' && raw[0] != '\n' {
		end := fieldEnd(raw)
		t.field(d, raw[:end], f)
		raw = raw[end:]
	}
	return nil
}

// fieldEnd is where the next field begins.
func fieldEnd(header []byte) int {
	for n := 0; ; {
		i := bytes.IndexByte(header[n:], '\n')
		if i < 0 {
			return len(header)
		}
		n += i + 1
		if n >= len(header) || header[n] != ' ' && header[n] != '\t' {
			return n
		}
	}
}

// field adds one field. A line without a colon is none.
func (t *TextPicker) field(d *search.Document, field []byte, f search.Field) {
	colon := bytes.IndexByte(field, ':')
	if colon < 0 {
		return
	}
	name := bytes.TrimRight(field[:colon], " \t")
	t.value = append(append(t.value[:0], name...), ':')
	start := len(t.value)
	t.value = appendUnfolded(t.value, field[colon+1:])
	value := t.value[start:]
	plain := isPlain(t.value)
	d.Text(f, decoded(t.value, plain))
	if f == search.Body {
		return
	}
	own, special := searchFields[strings.ToLower(string(name))]
	switch {
	case special:
		text := decoded(value, plain)
		d.Text(own, text)
		d.Words(own, string(text))
	case !plain:
		d.Text(f, decoded(value, plain)) // a guess of the charset may come out otherwise without the name
	}
}

// searchFields are the fields that SEARCH has keys of their own for, and that have terms of their own.
var searchFields = map[string]search.Field{
	"subject": search.Subject, "from": search.From, "to": search.To, "cc": search.Cc,
}

// appendUnfolded takes the line ends out of a value.
func appendUnfolded(dst, value []byte) []byte {
	for {
		line, rest, more := bytes.Cut(value, []byte{'\n'})
		if !more {
			return append(dst, line...)
		}
		dst = append(dst, bytes.TrimSuffix(line, []byte{'\r'})...)
		value = rest
	}
}

// isPlain tells a value that means what its octets say.
func isPlain(value []byte) bool { return isASCII(value) && !bytes.Contains(value, []byte("=?")) }

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func decoded(value []byte, plain bool) []byte {
	if plain {
		return value
	}
	return []byte(message.DecodeHeader(value))
}

// part adds a text part.
func (t *TextPicker) part(d *search.Document, r io.ReaderAt, p *message.Part) error {
	asItStands, alsoDecoded := false, true
	var raw []byte
	if p.Size() <= maxSearchRaw && keepsASCII(p) {
		var err error
		if raw, err = t.read(r, p.BodyOffset, p.End); err != nil {
			return err
		}
		asItStands, alsoDecoded = readings(raw, p.Subtype == "html")
	}
	if asItStands {
		d.Text(search.Body, raw)
	}
	if alsoDecoded {
		if err := d.TextFrom(search.Body, p.Text(r)); err != nil {
			return err
		}
	}
	return t.words(d, r, p)
}

// keepsASCII tells a part whose ASCII octets SEARCH takes as they stand.
func keepsASCII(p *message.Part) bool {
	switch p.Encoding {
	case "", "7bit", "8bit", "binary":
	default:
		return false
	}
	c := strings.ToLower(p.Params.Get("charset"))
	return c == "" || c == "us-ascii" || c == "utf-8" || strings.HasPrefix(c, "iso-8859-") || strings.HasPrefix(c, "windows-125")
}

// readings tells how the octets of such a part can be read: SEARCH finds ASCII in them as they stand, and everything in
// what a decoder makes of them, which may be something else when the charset is guessed or switched by escapes.
func readings(raw []byte, html bool) (asItStands, decoded bool) {
	odd := bytes.IndexByte(raw, 0x1b) >= 0 || html && bytes.Contains(bytes.ToLower(raw), []byte("charset"))
	if isASCII(raw) {
		return true, odd
	}
	return odd || !utf8.Valid(raw), true
}

// words adds the words of a text part as a reader sees it.
func (t *TextPicker) words(d *search.Document, r io.ReaderAt, p *message.Part) error {
	var text string
	var err error
	if p.Subtype == "html" {
		text, err = message.HTMLText(p.Text(r), maxSearchWords)
	} else {
		var b []byte
		b, err = io.ReadAll(io.LimitReader(p.Text(r), maxSearchWords))
		text = string(b)
	}
	if err != nil {
		return err
	}
	d.Words(search.Body, strings.ToValidUTF8(text, " "))
	return nil
}
