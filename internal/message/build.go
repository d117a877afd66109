package message

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Builder makes new messages: notifications, sample mail, mail from the API. Fields come out in the order in which they
// are set. The first mistake, such as a line end in a value, is kept and returned by Bytes, so that calls can be chained
// without looking at each.
//
//	b := message.NewBuilder()
//	b.Addresses("From", message.Address{Name: "张三", Local: "zhang", Domain: "example.test"})
//	b.Text("Subject", "你好")
//	b.Body(message.PlainText("你好\n"))
//	raw, err := b.Bytes()
type Builder struct {
	// Rand is where boundaries and message ids come from; nil is crypto/rand.
	Rand io.Reader

	head []byte
	body *Entity
	err  error
}

// NewBuilder starts a message.
func NewBuilder() *Builder { return &Builder{} }

func (b *Builder) fail(err error) *Builder {
	if b.err == nil {
		b.err = err
	}
	return b
}

// Text sets an unstructured field such as Subject; what is not ASCII is encoded.
func (b *Builder) Text(name, value string) *Builder {
	return b.set(AppendTextField(b.head, name, value))
}

// Raw sets a field whose value is written as it is, folded at white space.
func (b *Builder) Raw(name, value string) *Builder {
	return b.set(AppendField(b.head, name, value))
}

// Addresses sets a From, To or like field. Without addresses nothing is written.
func (b *Builder) Addresses(name string, list ...Address) *Builder {
	if len(list) == 0 {
		return b
	}
	v, err := FormatAddresses(list...)
	if err != nil {
		return b.fail(fmt.Errorf("field %s: %w", name, err))
	}
	return b.set(AppendField(b.head, name, v))
}

// Date sets the Date field.
func (b *Builder) Date(t time.Time) *Builder {
	return b.set(AppendField(b.head, "Date", FormatDate(t)))
}

// MessageID sets Message-ID to a fresh id at the host, and returns the id without its angles.
func (b *Builder) MessageID(host string) string {
	id, err := NewMessageID(b.Rand, host)
	if err != nil {
		b.fail(err)
		return ""
	}
	b.set(AppendField(b.head, "Message-ID", "<"+id+">"))
	return id
}

func (b *Builder) set(head []byte, err error) *Builder {
	if err != nil {
		return b.fail(err)
	}
	b.head = head
	return b
}

// Body sets what the message holds. Without it the body is empty text.
func (b *Builder) Body(e *Entity) *Builder {
	b.body = e
	return b
}

// Bytes is the whole message, every line ended by CRLF.
func (b *Builder) Bytes() ([]byte, error) {
	if b.err != nil {
		return nil, fmt.Errorf("build message: %w", b.err)
	}
	body := b.body
	if body == nil {
		body = PlainText("")
	}
	w := entityWriter{out: bytes.Clone(b.head), rand: b.Rand}
	w.out = append(w.out, "MIME-Version: 1.0\r\n"...)
	if err := w.entity(body, 0); err != nil {
		return nil, fmt.Errorf("build message: %w", err)
	}
	return w.out, nil
}

// FormatDate writes a time as the Date field has it (RFC 5322, section 3.3).
func FormatDate(t time.Time) string { return t.Format("Mon, 02 Jan 2006 15:04:05 -0700") }

// NewMessageID makes an id without angles from 144 bits of r, nil for crypto/rand.
func NewMessageID(r io.Reader, host string) (string, error) {
	if host == "" || strings.ContainsAny(host, " \t\r\n\x00<>@\"\\") {
		return "", fmt.Errorf("new message id: host %q", host)
	}
	id, err := randomHex(r, 18)
	if err != nil {
		return "", fmt.Errorf("new message id: %w", err)
	}
	return id + "@" + host, nil
}

func randomHex(r io.Reader, n int) (string, error) {
	if r == nil {
		r = rand.Reader
	}
	buf := make([]byte, n)
	if _, err := io.ReadFull(r, buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(buf), nil
}

// Entity is a body or a part of one that is to be built. Use the constructors, and set what they leave open.
type Entity struct {
	Type        string  // media type, such as "text/plain"
	Params      []Param // Name and Value; the charset of text is added
	Disposition string  // "attachment", "inline" or empty
	FileName    string
	ContentID   string // without angles
	Description string
	Language    string

	Content []byte
	Parts   []*Entity

	text bool // Content is UTF-8 text, whose lines are ended by CRLF when it is written
	raw  bool // Content is a message or the header of one: never encoded (RFC 2046, section 5.2.1)
}

// PlainText is a text/plain body. Line ends of any kind become CRLF.
func PlainText(s string) *Entity { return &Entity{Type: "text/plain", Content: []byte(s), text: true} }

// HTML is a text/html body.
func HTML(s string) *Entity { return &Entity{Type: "text/html", Content: []byte(s), text: true} }

// TextOf is text of another type, such as text/calendar or message/delivery-status.
func TextOf(mediaType, s string) *Entity {
	return &Entity{Type: mediaType, Content: []byte(s), text: true}
}

// Attachment is a file.
func Attachment(fileName, mediaType string, data []byte) *Entity {
	return &Entity{Type: mediaType, Disposition: "attachment", FileName: fileName, Content: data}
}

// Embedded is a whole message as message/rfc822, or message/global when that is asked for.
func Embedded(mediaType string, raw []byte) *Entity {
	return &Entity{Type: mediaType, Content: raw, raw: true}
}

// Multipart joins parts: "mixed", "alternative", "related".
func Multipart(subtype string, parts ...*Entity) *Entity {
	return &Entity{Type: "multipart/" + subtype, Parts: parts}
}

// Report is a multipart/report (RFC 6522): a text for people, the report itself, and what it is about, which may be
// nil. The type is "delivery-status" for DSNs.
func Report(reportType string, human, machine, original *Entity) *Entity {
	e := Multipart("report", human, machine)
	if original != nil {
		e.Parts = append(e.Parts, original)
	}
	e.Params = []Param{{Name: "report-type", Value: reportType}}
	return e
}

// StatusFields is one group of fields of a delivery report: pairs of name and value.
type StatusFields [][2]string

// DeliveryStatus is the machine part of a DSN (RFC 3464, section 2): the fields of the message, then those of each
// recipient. With global it is message/global-delivery-status, whose values may be UTF-8 (RFC 6533, section 3).
func DeliveryStatus(global bool, groups ...StatusFields) (*Entity, error) {
	var buf []byte
	var err error
	for i, g := range groups {
		if i > 0 {
			buf = append(buf, "\r\n"...)
		}
		for _, f := range g {
			if !global && !isASCII([]byte(f[1])) {
				return nil, fmt.Errorf("delivery status: field %s is not ASCII", f[0])
			}
			if buf, err = AppendField(buf, f[0], f[1]); err != nil {
				return nil, fmt.Errorf("delivery status: %w", err)
			}
		}
	}
	e := &Entity{Type: "message/delivery-status", Content: buf, raw: true}
	if global {
		e.Type = "message/global-delivery-status"
	}
	return e, nil
}

// maxBuildDepth bounds the nesting of entities.
const maxBuildDepth = 50

type entityWriter struct {
	out  []byte
	rand io.Reader
}

// entity writes the content fields, the blank line and the body.
func (w *entityWriter) entity(e *Entity, depth int) error {
	if depth > maxBuildDepth {
		return errors.New("parts nested too deeply")
	}
	if err := checkMediaType(e.Type); err != nil {
		return err
	}
	params := e.Params
	var boundary string
	multi := strings.HasPrefix(e.Type, "multipart/")
	switch {
	case multi:
		if len(e.Parts) == 0 {
			return fmt.Errorf("%s without parts", e.Type)
		}
		id, err := randomHex(w.rand, 18)
		if err != nil {
			return fmt.Errorf("boundary: %w", err)
		}
		// "=_" occurs in no encoded body (RFC 2045, section 6.7).
		boundary = "=_" + id
		params = append(params[:len(params):len(params)], Param{Name: "boundary", Value: boundary})
	case len(e.Parts) > 0:
		return fmt.Errorf("%s with parts", e.Type)
	}
	content, encoding := e.encode()
	if e.text && !isMessageType(e.Type) {
		params = append([]Param{{Name: "charset", Value: "utf-8"}}, params...)
	}
	if err := w.contentFields(e, params, encoding, multi); err != nil {
		return err
	}
	w.out = append(w.out, "\r\n"...)
	if !multi {
		w.out = append(w.out, content...)
		return nil
	}
	for _, c := range e.Parts {
		w.out = append(w.out, "--"+boundary+"\r\n"...)
		if err := w.entity(c, depth+1); err != nil {
			return err
		}
		w.out = append(w.out, "\r\n"...)
	}
	w.out = append(w.out, "--"+boundary+"--\r\n"...)
	return nil
}

func isMessageType(t string) bool { return strings.HasPrefix(t, "message/") }

func checkMediaType(t string) error {
	typ, sub, ok := strings.Cut(t, "/")
	if !ok || !isTokenString(typ) || !isTokenString(sub) {
		return fmt.Errorf("media type %q", t)
	}
	return nil
}

func isTokenString(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || !isToken(s[i]) {
			return false
		}
	}
	return s != ""
}

func (w *entityWriter) contentFields(e *Entity, params []Param, encoding string, multi bool) error {
	if e.FileName != "" {
		// Old Outlook and Foxmail look for the name here.
		params = append(params[:len(params):len(params)], Param{Name: "name", Value: e.FileName})
	}
	value, err := appendParamList([]byte(e.Type), params, false)
	if err != nil {
		return err
	}
	fields := [][2]string{{"Content-Type", string(value)}}
	if !multi {
		fields = append(fields, [2]string{"Content-Transfer-Encoding", encoding})
	}
	if e.Disposition != "" {
		if !isTokenString(e.Disposition) {
			return fmt.Errorf("disposition %q", e.Disposition)
		}
		var names []Param
		if e.FileName != "" {
			names = []Param{{Name: "filename", Value: e.FileName}}
		}
		if value, err = appendParamList([]byte(e.Disposition), names, true); err != nil {
			return err
		}
		fields = append(fields, [2]string{"Content-Disposition", string(value)})
	}
	if e.ContentID != "" {
		fields = append(fields, [2]string{"Content-ID", "<" + e.ContentID + ">"})
	}
	if e.Language != "" {
		fields = append(fields, [2]string{"Content-Language", e.Language})
	}
	for _, f := range fields {
		if w.out, err = AppendField(w.out, f[0], f[1]); err != nil {
			return err
		}
	}
	if e.Description != "" {
		if w.out, err = AppendTextField(w.out, "Content-Description", e.Description); err != nil {
			return err
		}
	}
	return nil
}

// appendParamList writes "; name=value" pairs. A value that is not ASCII goes out as encoded words in quotes, which RFC
// 2047 forbids and all readers understand, and with extended in the notation of RFC 2231 too.
func appendParamList(dst []byte, params []Param, extended bool) ([]byte, error) {
	for _, p := range params {
		if !isTokenString(p.Name) {
			return nil, fmt.Errorf("parameter name %q", p.Name)
		}
		if err := checkValue(p.Name, p.Value); err != nil {
			return nil, err
		}
		v := strings.ToValidUTF8(p.Value, "\uFFFD")
		dst = append(append(append(dst, "; "...), p.Name...), '=')
		if isPlainASCII([]byte(v)) && len(v) < foldAt-20 {
			if isTokenString(v) {
				dst = append(dst, v...)
			} else {
				dst = append(dst, quoteString(v)...)
			}
			continue
		}
		dst = append(dst, '"')
		dst = appendEncodedWords(dst, v, " ", foldAt-2-len(p.Name))
		dst = append(dst, '"')
		if extended {
			dst = appendExtended(dst, p.Name, v)
		}
	}
	return dst, nil
}

// appendExtended writes a value by RFC 2231, cut into pieces that fit into lines (section 3).
func appendExtended(dst []byte, name, value string) []byte {
	const piece = 50
	text := appendExtValue(nil, value)
	if len(text) <= piece {
		return append(append(append(append(dst, "; "...), name...), "*="...), text...)
	}
	for i := 0; len(text) > 0; i++ {
		n := min(piece, len(text))
		// A coded octet stays in one piece.
		for k := 1; k <= 2 && n < len(text); k++ {
			if text[n-k] == '%' {
				n -= k
				break
			}
		}
		dst = fmt.Appendf(dst, "; %s*%d*=%s", name, i, text[:n])
		text = text[n:]
	}
	return dst
}

// encode gives the body as it is sent, and its transfer encoding.
func (e *Entity) encode() ([]byte, string) {
	switch {
	case e.raw:
		c := withCRLF(e.Content)
		if isASCII(c) {
			return c, "7bit"
		}
		return c, "8bit"
	case !e.text:
		return wrapBase64(e.Content), "base64"
	}
	c := withCRLF([]byte(strings.ToValidUTF8(string(e.Content), "\uFFFD")))
	c = bytes.ReplaceAll(c, []byte{0}, nil)
	high := 0
	for _, b := range c {
		if b >= 0x80 {
			high++
		}
	}
	switch {
	case high == 0 && fitsLines(c):
		return c, "7bit"
	case high*6 < len(c):
		return quotedPrintable(c), "quoted-printable"
	}
	return wrapBase64(c), "base64"
}

// fitsLines tells text that can go out without an encoding: short lines, none of which begins as an mbox separator or
// ends with white space.
func fitsLines(c []byte) bool {
	for line := range bytes.Lines(c) {
		line = chomp(line)
		if len(line) > foldAt || bytes.HasPrefix(line, []byte("From ")) || (len(line) > 0 && isWSP(line[len(line)-1])) {
			return false
		}
	}
	return true
}

// withCRLF makes every line end CRLF: a bare CR, a bare LF, and CRLF.
func withCRLF(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/32+2)
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n':
			i++
			fallthrough
		case b[i] == '\r' || b[i] == '\n':
			out = append(out, '\r', '\n')
		default:
			out = append(out, b[i])
		}
	}
	return out
}

// wrapBase64 encodes in lines of 76 letters.
func wrapBase64(b []byte) []byte {
	const octets = 57
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))+len(b)/octets*2+4)
	for len(b) > 0 {
		n := min(octets, len(b))
		out = base64.StdEncoding.AppendEncode(out, b[:n])
		if b = b[n:]; len(b) > 0 {
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// quotedPrintable encodes text with CRLF line ends in lines of at most 76 octets (RFC 2045, section 6.7). Characters
// are not split between lines, for readers that decode line by line.
func quotedPrintable(b []byte) []byte {
	const hexDigits = "0123456789ABCDEF"
	out := make([]byte, 0, len(b)+len(b)/4)
	col := 0
	for i := 0; i < len(b); {
		if b[i] == '\r' && i+1 < len(b) && b[i+1] == '\n' {
			out = append(out, '\r', '\n')
			col = 0
			i += 2
			continue
		}
		_, n := utf8.DecodeRune(b[i:])
		atEnd := i+1 == len(b) || b[i+1] == '\r' && i+2 < len(b) && b[i+2] == '\n'
		plain := b[i] > ' ' && b[i] < 0x7f && b[i] != '=' || isWSP(b[i]) && !atEnd
		if plain && col == 0 && (b[i] == '.' || bytes.HasPrefix(b[i:], []byte("From "))) {
			plain = false // a lone dot and an mbox separator are safe nowhere
		}
		width := 3 * n
		if plain {
			width = 1
		}
		if col+width > 75 {
			out = append(out, "=\r\n"...)
			col = 0
			if plain && (b[i] == '.' || b[i] == 'F') {
				plain, width = false, 3
			}
		}
		if plain {
			out = append(out, b[i])
		} else {
			for _, c := range b[i : i+n] {
				out = append(out, '=', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		col += width
		i += n
	}
	return out
}
