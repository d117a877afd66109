package message

import (
	"bytes"
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// DecodeHeader turns the raw value of an unstructured field or a display name into UTF-8: unfolded, encoded words
// decoded (RFC 2047), 8-bit octets by guess, control characters replaced by spaces. It takes what real mail has:
// characters split between encoded words, padding that is missing, spaces inside, words in quoted strings or glued
// together, labels that are wrong.
func DecodeHeader(raw []byte) string { return DecodeHeaderAs(raw, "") }

// DecodeHeaderAs is DecodeHeader with the charset to assume for 8-bit octets that are neither UTF-8 nor GB 18030.
func DecodeHeaderAs(raw []byte, fallback string) string {
	raw = unfold(raw)
	if !bytes.Contains(raw, []byte("=?")) {
		if isPlainASCII(raw) {
			return string(raw)
		}
		return cleanText(guessHeader(raw, fallback))
	}
	d := wordDecoder{fallback: fallback}
	pos := 0
	for pos < len(raw) {
		i := bytes.Index(raw[pos:], []byte("=?"))
		if i < 0 {
			break
		}
		w, n, ok := cutEncodedWord(raw[pos+i:])
		if !ok {
			d.text(raw[pos : pos+i+2])
			pos += i + 2
			continue
		}
		d.text(raw[pos : pos+i])
		d.word(w)
		pos += i + n
	}
	d.text(raw[pos:])
	d.flush()
	return cleanText(d.out.String())
}

// encodedWord is one word cut into its fields.
type encodedWord struct {
	charset []byte
	base64  bool
	text    []byte
}

// maxCharsetLabel bounds the search for the second question mark.
const maxCharsetLabel = 64

// cutEncodedWord reads =?charset?encoding?text?= at the front of b. A Q text may hold bare question marks, which some
// programs leave in it. A word whose end is missing is none.
func cutEncodedWord(b []byte) (w encodedWord, n int, ok bool) {
	i := bytes.IndexByte(b[2:min(len(b), 2+maxCharsetLabel)], '?')
	if i <= 0 {
		return w, 0, false
	}
	w.charset = b[2 : 2+i]
	rest := b[2+i+1:]
	if len(rest) < 2 || rest[1] != '?' {
		return w, 0, false
	}
	switch rest[0] {
	case 'b', 'B':
		w.base64 = true
	case 'q', 'Q':
	default:
		return w, 0, false
	}
	text := rest[2:]
	// The text holds no question mark, so the first one ends it: a search that stays linear.
	end := bytes.IndexByte(text, '?')
	for end >= 0 && !w.base64 && end+1 < len(text) && text[end+1] != '=' && end < maxQText {
		j := bytes.IndexByte(text[end+1:min(len(text), maxQText)], '?')
		if j < 0 {
			return w, 0, false
		}
		end += 1 + j
	}
	if end < 0 || end+1 >= len(text) || text[end+1] != '=' {
		return w, 0, false
	}
	w.text = text[:end]
	return w, 2 + i + 1 + 2 + end + 2, true
}

// maxQText bounds how far the end of a Q word with raw question marks is looked for.
const maxQText = 300

// wordDecoder joins neighbouring encoded words of one charset as octets before they are converted.
type wordDecoder struct {
	out      strings.Builder
	fallback string
	charset  []byte
	pending  []byte // octets of the words read so far
	b64      []byte // base64 text whose last group may go on in the next word
	open     bool
}

// text takes what stands between encoded words. White space between two of them is dropped (RFC 2047, section 6.2).
func (d *wordDecoder) text(b []byte) {
	if len(b) == 0 || d.open && len(trimSpace(b)) == 0 {
		return
	}
	d.flush()
	if isASCII(b) {
		d.out.Write(b)
		return
	}
	d.out.WriteString(guessHeader(b, d.fallback))
}

func (d *wordDecoder) word(w encodedWord) {
	if d.open && !bytes.EqualFold(d.charset, w.charset) {
		d.flush()
	}
	d.open = true
	d.charset = w.charset
	if !w.base64 {
		d.flushBase64()
		d.pending = appendQ(d.pending, w.text)
		return
	}
	if len(w.text) == 0 {
		return
	}
	d.b64 = append(d.b64, w.text...)
	if endsGroup(d.b64) {
		d.flushBase64()
	}
}

// endsGroup tells whether base64 text is whole: by its length, by padding, or by bits left over that are zero, which
// shows that only the padding is missing. Else the last group goes on in the next word.
func endsGroup(b []byte) bool {
	last := base64Values[b[len(b)-1]]
	switch len(b) % 4 {
	case 0:
		return true
	case 1:
		return last == 64
	case 2:
		return last == 64 || last&15 == 0
	}
	return last == 64 || last&3 == 0
}

func (d *wordDecoder) flushBase64() {
	if len(d.b64) > 0 {
		d.pending = appendBase64(d.pending, d.b64)
		d.b64 = d.b64[:0]
	}
}

func (d *wordDecoder) flush() {
	if !d.open {
		return
	}
	d.flushBase64()
	d.out.WriteString(decodeCharset(string(d.charset), d.pending))
	d.pending = d.pending[:0]
	d.open = false
}

// appendBase64 decodes leniently.
func appendBase64(dst, src []byte) []byte {
	if need := len(src)/4*3 + 6; cap(dst)-len(dst) < need {
		dst = append(make([]byte, 0, len(dst)*2+need), dst...)
	}
	var s base64State
	dst, _ = s.append(dst, src)
	return s.flush(dst)
}

// appendQ decodes the Q encoding (RFC 2047, section 4.2).
func appendQ(dst, src []byte) []byte {
	for i := 0; i < len(src); i++ {
		c := src[i]
		if c == '=' && i+2 < len(src) {
			if hi, lo := unhex(src[i+1]), unhex(src[i+2]); hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		if c == '_' {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

// cleanText replaces control characters by spaces, so that a decoded value can't break a line, and drops NUL.
func cleanText(s string) string {
	clean := func(r rune) bool {
		return r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) && r != 0x2028 && r != 0x2029
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !clean(r) }) && utf8.ValidString(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == 0:
			return -1
		case !clean(r):
			return ' '
		}
		return r
	}, s)
}

// wordLimit is the longest encoded word (RFC 2047, section 2).
const wordLimit = 75

// wordOverhead is "=?utf-8?B?" and "?=".
const wordOverhead = 12

// appendEncodedWords writes s as base64 encoded words in UTF-8 that end at character borders, sep between them. The
// first word is kept within room columns when that leaves space for a character.
func appendEncodedWords(dst []byte, s, sep string, room int) []byte {
	for first := true; first || s != ""; first = false {
		if !first {
			dst = append(dst, sep...)
			room = wordLimit
		}
		n := takeChars(s, (min(room, wordLimit)-wordOverhead)/4*3)
		dst = append(dst, "=?utf-8?B?"...)
		dst = base64.StdEncoding.AppendEncode(dst, []byte(s[:n]))
		dst = append(dst, "?="...)
		s = s[n:]
	}
	return dst
}

// takeChars is the length of the longest run of whole characters within limit octets, of at least one.
func takeChars(s string, limit int) int {
	if len(s) <= limit {
		return len(s)
	}
	n := max(limit, 0)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	if n == 0 {
		_, n = utf8.DecodeRuneInString(s)
	}
	return n
}
