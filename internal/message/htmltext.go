package message

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// HTMLText extracts the readable text of an HTML document in UTF-8: at most limit octets of it are read. Scripts, styles
// and comments are left out, blocks begin on new lines, list items with "- ", and images are their alternative text. It is
// meant for previews, search and plain alternatives; it says nothing about safety.
func HTMLText(r io.Reader, limit int64) (string, error) {
	return htmlText(r, limit, int(min(limit, 1<<30)))
}

// htmlText stops early when it has maxText octets of text.
func htmlText(r io.Reader, limit int64, maxText int) (string, error) {
	z := html.NewTokenizer(io.LimitReader(r, limit))
	w := textWriter{max: maxText}
	skip := 0 // elements open whose content is not shown
	for w.out.Len() < maxText {
		switch z.Next() {
		case html.ErrorToken:
			if err := z.Err(); err != io.EOF {
				return w.String(), fmt.Errorf("extract text of html: %w", err)
			}
			return w.String(), nil
		case html.TextToken:
			if skip == 0 {
				w.text(z.Text())
			}
		case html.StartTagToken:
			name, attrs := z.TagName()
			tag := atom.Lookup(name)
			if isHidden(tag) {
				skip++
			}
			w.startTag(tag)
			if tag == atom.Img && attrs && skip == 0 {
				w.text(altText(z))
			}
		case html.SelfClosingTagToken:
			name, attrs := z.TagName()
			tag := atom.Lookup(name)
			w.startTag(tag)
			if tag == atom.Img && attrs && skip == 0 {
				w.text(altText(z))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			tag := atom.Lookup(name)
			if isHidden(tag) && skip > 0 {
				skip--
			}
			w.endTag(tag)
		}
	}
	return w.String(), nil
}

// maxAttributes bounds how many attributes of an image are looked at for its text.
const maxAttributes = 50

func altText(z *html.Tokenizer) []byte {
	for range maxAttributes {
		key, val, more := z.TagAttr()
		if string(key) == "alt" {
			return val
		}
		if !more {
			break
		}
	}
	return nil
}

func isHidden(tag atom.Atom) bool {
	switch tag {
	case atom.Script, atom.Style, atom.Title, atom.Template, atom.Noscript, atom.Object, atom.Select, atom.Svg:
		return true
	}
	return false
}

// textWriter lays text out in lines.
type textWriter struct {
	out   strings.Builder
	max   int
	lines int  // line ends owed before the next text
	space bool // a space owed
	pre   int  // <pre> elements open
}

func (w *textWriter) startTag(tag atom.Atom) {
	switch tag {
	case atom.Br:
		w.breakLine(w.lines + 1)
	case atom.Li:
		w.breakLine(1)
		w.text([]byte("- "))
	case atom.Td, atom.Th:
		w.space = true
	case atom.Pre:
		w.pre++
		w.breakLine(1)
	default:
		w.breakLine(blockLines(tag))
	}
}

func (w *textWriter) endTag(tag atom.Atom) {
	if tag == atom.Pre && w.pre > 0 {
		w.pre--
	}
	w.breakLine(blockLines(tag))
}

// blockLines is how many line ends stand around an element.
func blockLines(tag atom.Atom) int {
	switch tag {
	case atom.P, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Blockquote, atom.Table, atom.Ul, atom.Ol, atom.Dl:
		return 2
	case atom.Div, atom.Tr, atom.Section, atom.Article, atom.Header, atom.Footer, atom.Hr, atom.Dt, atom.Dd, atom.Address,
		atom.Center, atom.Form, atom.Pre, atom.Body, atom.Main, atom.Figure, atom.Fieldset:
		return 1
	}
	return 0
}

func (w *textWriter) breakLine(n int) {
	if n > 0 && w.out.Len() > 0 {
		w.lines = max(w.lines, min(n, 2))
	}
}

// text adds text with its white space collapsed, except inside <pre>.
func (w *textWriter) text(b []byte) {
	for len(b) > 0 && w.out.Len() < w.max {
		r, n := utf8.DecodeRune(b)
		b = b[n:]
		switch {
		case r == '\n' && w.pre > 0:
			w.breakLine(w.lines + 1)
		case unicode.IsSpace(r):
			w.space = true
		case isInvisible(r):
		default:
			w.settle()
			w.out.WriteRune(r)
		}
	}
}

// settle writes the line ends or the space that are owed.
func (w *textWriter) settle() {
	switch {
	case w.lines > 0:
		w.out.WriteString("\n\n"[:w.lines])
	case w.space && w.out.Len() > 0:
		w.out.WriteByte(' ')
	}
	w.lines, w.space = 0, false
}

func (w *textWriter) String() string { return strings.TrimSpace(w.out.String()) }

// isInvisible tells the characters that senders put into the beginning of a message to fill previews, and control
// characters.
func isInvisible(r rune) bool {
	switch r {
	case 0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, 0x200B, 0x200C, 0x200E, 0x200F, 0x2060, 0x2061, 0x2062,
		0x2063, 0x2064, 0x2800, 0x3164, 0xFEFF, 0xFFA0:
		return true
	}
	return r < ' ' || r == 0x7F || (r >= 0x202A && r <= 0x202E) || (r >= 0x2066 && r <= 0x2069)
}

// previewChars is the length of a preview in characters (RFC 8970, section 3.1).
const previewChars = 200

// Bounds on the octets that a preview looks at, however little text they hold.
const (
	previewPlain = 16 << 10
	previewHTML  = 256 << 10
)

// Preview is the beginning of the message's text as one line of at most 200 characters (RFC 8970): of the first plain
// text that is no attachment, or when that is empty, of the first HTML. Quoted lines at its front are left out.
func Preview(p *Part, r io.ReaderAt) string {
	plain, rich := previewParts(p)
	if plain != nil {
		if s := plainPreview(plain.Text(r)); s != "" {
			return s
		}
	}
	if rich != nil {
		s, _ := htmlText(rich.Text(r), previewHTML, 4*previewChars)
		return previewText([]byte(s), false)
	}
	return ""
}

// plainPreview reads on only while what it has gives less than a whole preview. What can't be read is left out.
func plainPreview(r io.Reader) string {
	buf := make([]byte, 0, 1<<10)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		s := previewText(buf, true)
		if err != nil || len(buf) >= previewPlain || utf8.RuneCountInString(s) >= previewChars-1 {
			return s
		}
		buf = append(make([]byte, 0, 4*cap(buf)), buf...)
	}
}

// previewParts finds the first plain and the first HTML text; embedded messages are not looked into.
func previewParts(p *Part) (plain, rich *Part) {
	if p.Disposition == "attachment" {
		return nil, nil
	}
	if p.Type == "text" {
		switch p.Subtype {
		case "html":
			return nil, p
		case "plain":
			return p, nil
		}
	}
	for _, c := range p.Parts {
		a, b := previewParts(c)
		if plain == nil {
			plain = a
		}
		if rich == nil {
			rich = b
		}
		if plain != nil && rich != nil {
			break
		}
	}
	return plain, rich
}

// previewText joins lines to one and cuts at the limit. Unless all of it is quoted, lines that begin with ">" are left
// out.
func previewText(b []byte, quotes bool) string {
	if s := collapse(b, quotes); s != "" || !quotes {
		return s
	}
	return collapse(b, false)
}

func collapse(b []byte, dropQuotes bool) string {
	var out strings.Builder
	out.Grow(min(len(b), previewChars+previewChars/2))
	chars := 0
	space := false
	for line := range bytes.Lines(b) {
		if dropQuotes && len(line) > 0 && line[0] == '>' {
			continue
		}
		for len(line) > 0 {
			r, n := utf8.DecodeRune(line)
			line = line[n:]
			switch {
			case unicode.IsSpace(r):
				space = true
				continue
			case isInvisible(r), r == utf8.RuneError && n <= 1:
				continue
			}
			if space && chars > 0 {
				if chars+1 >= previewChars {
					return out.String()
				}
				out.WriteByte(' ')
				chars++
			}
			space = false
			out.WriteRune(r)
			if chars++; chars >= previewChars {
				return out.String()
			}
		}
		space = true
	}
	return out.String()
}
