package message

import (
	"bytes"
	"slices"
	"strings"
)

// maxParams is how many parameters of one field are kept, beside those that say what the part is.
const maxParams = 500

// Param is one parameter of Content-Type or Content-Disposition.
type Param struct {
	Name  string // lower case, without the marks of RFC 2231
	Value string // decoded, UTF-8

	raw      string   // unquoted, as it stands in the message
	extended bool     // it came in the notation of RFC 2231
	others   []string // further values of the same name, which other readers may take
}

// Params are the parameters of a field in their order, each name once.
type Params []Param

// Get returns the decoded value of the parameter, empty when there is none. The name is given in lower case.
func (ps Params) Get(name string) string {
	for i := range ps {
		if ps[i].Name == name {
			return ps[i].Value
		}
	}
	return ""
}

// Has tells whether the parameter is there.
func (ps Params) Has(name string) bool {
	for i := range ps {
		if ps[i].Name == name {
			return true
		}
	}
	return false
}

func (ps Params) raw(name string) string {
	for i := range ps {
		if ps[i].Name == name {
			return ps[i].raw
		}
	}
	return ""
}

// isToken tells the octets of a token (RFC 2045, section 5.1); octets above 127 count too, as raw names hold them.
func isToken(c byte) bool {
	switch c {
	case '(', ')', '<', '>', '@', ',', ';', ':', '\\', '"', '/', '[', ']', '?', '=', 0x7f:
		return false
	}
	return c > ' '
}

// skipComments drops white space and comments at the front. A comment that never ends is left alone.
func skipComments(v []byte) []byte {
	for {
		for len(v) > 0 && isSpace(v[0]) {
			v = v[1:]
		}
		if len(v) == 0 || v[0] != '(' {
			return v
		}
		n := commentLen(v)
		if n == 0 {
			return v
		}
		v = v[n:]
	}
}

// commentLen is the length of the comment that v begins with, 0 when it does not end.
func commentLen(v []byte) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return 0
}

// parseMediaType reads the value of Content-Type. The type is empty when it can't be read; a bare "text" or
// "multipart" is completed.
func parseMediaType(v []byte) (typ, sub string, params Params, d Defects) {
	v = skipComments(v)
	typ, v = takeToken(v)
	v = skipComments(v)
	if len(v) > 0 && v[0] == '/' {
		sub, v = takeToken(skipComments(v[1:]))
	}
	if typ == "" || sub == "" {
		d |= DefectContentType
		switch typ {
		case "text":
			sub = "plain"
		case "multipart":
			sub = "mixed"
		default:
			typ, sub = "", ""
		}
	}
	params, pd := parseParams(v)
	return typ, sub, params, d | pd
}

func parseDisposition(v []byte) (string, Params, Defects) {
	disp, v := takeToken(skipComments(v))
	params, d := parseParams(v)
	if disp == "" {
		// RFC 2183, section 2.8: what is not understood is an attachment.
		disp = "attachment"
		d |= DefectParamSyntax
	}
	return disp, params, d
}

func takeToken(v []byte) (string, []byte) {
	n := 0
	for n < len(v) && isToken(v[n]) {
		n++
	}
	return internLower(v[:n]), v[n:]
}

// segment is one piece of a parameter in the notation of RFC 2231, section 3.
type segment struct {
	index   int
	encoded bool
	value   []byte
}

// paramReader collects the parameters of one field.
type paramReader struct {
	params   Params
	segments map[string][]segment
	order    []string // names of segments by first occurrence
	defects  Defects
	unclosed bool // a comment was seen that never ends: from there on none does, and none is looked for
}

func (r *paramReader) skipComments(v []byte) []byte {
	if r.unclosed {
		return v
	}
	v = skipComments(v)
	r.unclosed = len(v) > 0 && v[0] == '('
	return v
}

// parseParams reads "; name=value" pairs and takes what real mail has: missing semicolons, values with spaces and no
// quotes, quotes that never close, duplicates, and text after a closing quote.
func parseParams(v []byte) (Params, Defects) {
	var r paramReader
	for {
		for len(v) > 0 && (v[0] == ';' || isSpace(v[0])) {
			v = v[1:]
		}
		if w := r.skipComments(v); len(w) != len(v) {
			v = w
			continue
		}
		if len(v) == 0 {
			break
		}
		n := bytes.IndexAny(v, "=;")
		if n < 0 {
			r.defects |= DefectParamSyntax
			break
		}
		name := trimSpace(v[:n])
		if v[n] == ';' {
			r.defects |= DefectParamSyntax
			v = v[n+1:]
			continue
		}
		var value []byte
		value, v = r.takeValue(name, v[n+1:])
		// What stands before the name without a semicolon is junk: the last word is the name.
		if i := bytes.LastIndexAny(name, " \t"); i >= 0 {
			r.defects |= DefectParamSyntax
			name = name[i+1:]
		}
		r.add(name, value)
	}
	return r.finish()
}

// takeValue reads a quoted or bare value.
func (r *paramReader) takeValue(name, v []byte) (value, rest []byte) {
	for len(v) > 0 && isSpace(v[0]) {
		v = v[1:]
	}
	if len(v) > 0 && v[0] == '"' {
		return r.takeQuoted(v)
	}
	n := bytes.IndexByte(v, ';')
	if n < 0 {
		n = len(v)
	}
	value, rest = trimSpace(v[:n]), v[n:]
	if i := nextPair(value); i > 0 && !isNameParam(name) {
		// The semicolon between two parameters is missing.
		r.defects |= DefectParamSyntax
		return trimSpace(value[:i]), v[bytes.Index(v, value)+i:]
	}
	if bytes.ContainsAny(value, " \t(),/:<=>?@[\\]") {
		value = r.cleanBare(name, value)
	}
	return value, rest
}

// nextPair finds the word before an equals sign in a bare value, 0 when there is none.
func nextPair(value []byte) int {
	eq := bytes.IndexByte(value, '=')
	if eq < 0 {
		return 0
	}
	return bytes.LastIndexAny(value[:eq], " \t") + 1
}

// cleanBare removes a comment after a bare value (RFC 2045, section 5.1), but not from file names, where parentheses
// are part of the name.
func (r *paramReader) cleanBare(name, value []byte) []byte {
	if i := bytes.IndexByte(value, '('); i > 0 && isSpace(value[i-1]) && !isNameParam(name) {
		if commentLen(value[i:]) == len(value)-i {
			return trimSpace(value[:i])
		}
	}
	r.defects |= DefectParamSyntax
	return value
}

func isNameParam(name []byte) bool {
	n := bytes.ToLower(name)
	return bytes.HasPrefix(n, []byte("name")) || bytes.HasPrefix(n, []byte("filename"))
}

func (r *paramReader) takeQuoted(v []byte) (value, rest []byte) {
	i := 1
	escaped := false
	for i < len(v) && v[i] != '"' {
		if v[i] == '\\' && i+1 < len(v) {
			escaped = true
			i++
		}
		i++
	}
	if i >= len(v) {
		r.defects |= DefectParamSyntax
		return unescape(v[1:], escaped), nil
	}
	value, rest = unescape(v[1:i], escaped), v[i+1:]
	// Text glued to the closing quote belongs to the value: "a.txt".exe must not hide its end.
	n := 0
	for n < len(rest) && isToken(rest[n]) {
		n++
	}
	if n > 0 {
		r.defects |= DefectParamSyntax
		if after := r.skipComments(rest[n:]); len(after) == 0 || after[0] != '=' {
			value = append(bytes.Clone(value), rest[:n]...)
			rest = rest[n:]
		}
	}
	return value, rest
}

func unescape(v []byte, escaped bool) []byte {
	if !escaped {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			i++
		}
		out = append(out, v[i])
	}
	return out
}

// add files one pair: a plain parameter, or a segment of one in RFC 2231 notation: name*, name*0, name*0*.
func (r *paramReader) add(name, value []byte) {
	star := bytes.IndexByte(name, '*')
	if star < 0 {
		r.addPlain(internLower(name), value)
		return
	}
	base, marks := internLower(name[:star]), name[star+1:]
	seg := segment{index: -1, value: value}
	if n := len(marks); n == 0 {
		seg.encoded = true
	} else {
		if marks[n-1] == '*' {
			seg.encoded = true
			marks = marks[:n-1]
		}
		if seg.index = smallNumber(marks); seg.index < 0 {
			r.defects |= DefectParamSyntax
			return
		}
	}
	if base == "" || (len(r.segments) >= maxParams && r.segments[base] == nil && !isKept(base)) {
		r.defects |= DefectParamLimit
		return
	}
	if r.segments == nil {
		r.segments = make(map[string][]segment)
	}
	if r.segments[base] == nil {
		r.order = append(r.order, base)
	}
	r.segments[base] = append(r.segments[base], seg)
}

func smallNumber(b []byte) int {
	if len(b) == 0 || len(b) > 7 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// isKept names the parameters that say what a part is: no number of others pushes them out.
func isKept(name string) bool {
	switch name {
	case "charset", "boundary", "name", "filename", "type", "protocol", "report-type", "smime-type", "format", "delsp":
		return true
	}
	return false
}

func (r *paramReader) addPlain(name string, value []byte) {
	switch {
	case name == "":
		r.defects |= DefectParamSyntax
		return
	case len(r.params) >= maxParams && !isKept(name):
		r.defects |= DefectParamLimit
		return
	}
	if i := r.index(name); i >= 0 {
		r.defects |= DefectDuplicateParam
		r.params[i].addOther(decodeParam(value))
		return
	}
	r.params = append(r.params, Param{Name: name, Value: decodeParam(value), raw: intern(value)})
}

func (r *paramReader) index(name string) int {
	return slices.IndexFunc(r.params, func(q Param) bool { return q.Name == name })
}

func decodeParam(value []byte) string {
	if isPlainASCII(value) && !bytes.Contains(value, []byte("=?")) {
		return intern(value)
	}
	return DecodeHeader(value)
}

// maxOthers bounds the further values that are kept of one parameter.
const maxOthers = 20

func (p *Param) addOther(v string) {
	if isKept(p.Name) && v != p.Value && len(p.others) < maxOthers && !slices.Contains(p.others, v) {
		p.others = append(p.others, v)
	}
}

func isPlainASCII(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

// finish joins the segments. A name in RFC 2231 notation replaces the plain one, which is a copy for old readers
// (RFC 6266, section 4.3 says the same for HTTP).
func (r *paramReader) finish() (Params, Defects) {
	for _, name := range r.order {
		p, d := joinSegments(name, r.segments[name])
		r.defects |= d
		if i := r.index(name); i >= 0 {
			plain := r.params[i]
			for _, v := range append(plain.others, plain.Value) {
				p.addOther(v)
			}
			r.params[i] = p
		} else {
			r.params = append(r.params, p)
		}
	}
	return r.params, r.defects
}

// joinSegments makes one value of the pieces, in the order of their numbers; the charset stands in the first. Numbers
// that are missing are passed over, so that a gap can't hide the end of a file name.
func joinSegments(name string, segs []segment) (Param, Defects) {
	var d Defects
	byIndex := func(a, b segment) int { return a.index - b.index }
	if !slices.IsSortedFunc(segs, byIndex) {
		slices.SortStableFunc(segs, byIndex)
	}
	if segs[0].index == -1 && len(segs) > 1 {
		// name* beside name*0: the whole one counts.
		segs = segs[:1]
		d |= DefectDuplicateParam
	}
	var charset string
	var joined []byte
	last := -1
	for i, s := range segs {
		if i > 0 && s.index == last {
			d |= DefectDuplicateParam
			continue
		}
		if s.index > last+1 {
			d |= DefectParamSyntax
		}
		last = s.index
		v := s.value
		if i == 0 && s.encoded {
			var ok bool
			if charset, v, ok = cutCharset(v); !ok {
				d |= DefectParamSyntax
			}
		}
		if s.encoded {
			joined = appendPercent(joined, v)
		} else {
			joined = append(joined, v...)
		}
	}
	p := Param{Name: name, raw: string(joined), extended: true}
	switch {
	case charset != "":
		p.Value = cleanText(decodeCharset(charset, joined))
	case bytes.Contains(joined, []byte("=?")):
		p.Value = DecodeHeader(joined)
	default:
		p.Value = cleanText(guessHeader(joined, ""))
	}
	return p, d
}

// cutCharset splits charset'language'text.
func cutCharset(v []byte) (charset string, rest []byte, ok bool) {
	i := bytes.IndexByte(v, '\'')
	if i < 0 {
		return "", v, false
	}
	j := bytes.IndexByte(v[i+1:], '\'')
	if j < 0 {
		return "", v, false
	}
	return strings.ToLower(string(v[:i])), v[i+1+j+1:], true
}

// appendPercent undoes percent encoding; a percent sign without two digits stands for itself.
func appendPercent(dst, v []byte) []byte {
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			hi, lo := unhex(v[i+1]), unhex(v[i+2])
			if hi >= 0 && lo >= 0 {
				dst = append(dst, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		dst = append(dst, v[i])
	}
	return dst
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
