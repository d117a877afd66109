package system

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxwing/test/rig"
)

// scriptConn is one IMAP session of a script, at octet level: nothing between the test and the server is clever.
type scriptConn struct {
	net.Conn
	r   *bufio.Reader
	tag int
}

// dialScript opens a session over TLS, logged in.
func dialScript(t testing.TB, address, caFile string, a rig.Account) *scriptConn {
	t.Helper()
	nc, err := tls.Dial("tcp", address, trust(t, caFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	c := &scriptConn{Conn: nc, r: bufio.NewReaderSize(nc, 64<<10)}
	if _, err := c.response(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.do(fmt.Sprintf("LOGIN %q %q", a.Address, a.Password)); err != nil {
		t.Fatal(err)
	}
	return c
}

// response reads one response with its literals, without the last CRLF.
func (c *scriptConn) response() (string, error) {
	var b strings.Builder
	for {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return "", err
		}
		line, err := c.r.ReadString('\n')
		if err != nil {
			return b.String(), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		b.WriteString(line)
		n, ok := literalAt(line)
		if !ok {
			return b.String(), nil
		}
		b.WriteString("\r\n")
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			return b.String(), err
		}
	}
}

// literalAt tells the size of the literal that a line announces.
func literalAt(line string) (int64, bool) {
	open := strings.LastIndexByte(line, '{')
	if open < 0 || !strings.HasSuffix(line, "}") {
		return 0, false
	}
	n, err := strconv.ParseInt(line[open+1:len(line)-1], 10, 64)
	return n, err == nil
}

// do sends a command, in which "{n}" CRLF announces a literal that waits for its continuation, and returns all responses
// to the tagged one, which comes last without its tag.
func (c *scriptConn) do(command string) ([]string, error) {
	c.tag++
	tag := "s" + strconv.Itoa(c.tag) + " "
	pending := []byte(tag + command + "\r\n")
	var out []string
	for {
		var next []byte
		pending, next = cutLiteral(pending)
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return out, err
		}
		if _, err := c.Write(pending); err != nil {
			return out, err
		}
		pending = next
		for {
			resp, err := c.response()
			if err != nil {
				return append(out, resp), err
			}
			if strings.HasPrefix(resp, "+") && pending != nil {
				break
			}
			if rest, ok := strings.CutPrefix(resp, tag); ok {
				return append(out, rest), nil
			}
			out = append(out, resp)
		}
	}
}

var literalMark = regexp.MustCompile(`\{(\d+)\}\r\n`)

// cutLiteral splits what is to be sent behind the first announcement of a literal.
func cutLiteral(b []byte) (now, later []byte) {
	m := literalMark.FindIndex(b)
	if m == nil {
		return b, nil
	}
	return b[:m[1]], b[m[1]:]
}

// until reads responses until one begins with prefix, which is the last of the result.
func (c *scriptConn) until(prefix string) ([]string, error) {
	var out []string
	for {
		resp, err := c.response()
		out = append(out, resp)
		if err != nil || strings.HasPrefix(resp, prefix) {
			return out, err
		}
	}
}

// sexp reads what stands in responses: atoms, strings in either form, lists.
type sexp struct {
	b   []byte
	pos int
}

// value is an atom or a string, or a list when list is not nil.
type value struct {
	text   string
	quoted bool
	list   []value
}

func (p *sexp) values(end byte) []value {
	out := []value{}
	for p.pos < len(p.b) {
		switch c := p.b[p.pos]; c {
		case ' ', '\r', '\n':
			p.pos++
		case end:
			p.pos++
			return out
		case '(':
			p.pos++
			out = append(out, value{list: p.values(')')})
		case '"':
			out = append(out, value{text: p.quoted(), quoted: true})
		case '{':
			out = append(out, value{text: p.literal(), quoted: true})
		default:
			out = append(out, value{text: p.atom(end)})
		}
	}
	return out
}

func (p *sexp) quoted() string {
	var s []byte
	for p.pos++; p.pos < len(p.b) && p.b[p.pos] != '"'; p.pos++ {
		if p.b[p.pos] == '\\' {
			p.pos++
		}
		s = append(s, p.b[p.pos])
	}
	p.pos++
	return string(s)
}

func (p *sexp) literal() string {
	i := bytes.IndexByte(p.b[p.pos:], '\n')
	n, ok := literalAt(strings.TrimSpace(string(p.b[p.pos : p.pos+i])))
	if !ok {
		p.pos++
		return "{"
	}
	from := p.pos + i + 1
	p.pos = from + int(n)
	return string(p.b[from:p.pos])
}

// atom reads to a space or a parenthesis; BODY[...] with all in its brackets is one.
func (p *sexp) atom(end byte) string {
	start, depth := p.pos, 0
	for ; p.pos < len(p.b); p.pos++ {
		switch c := p.b[p.pos]; {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case depth <= 0 && (c == ' ' || c == '(' || c == end):
			return string(p.b[start:p.pos])
		}
	}
	return string(p.b[start:p.pos])
}

func (v value) String() string {
	switch {
	case v.list != nil:
		parts := make([]string, len(v.list))
		for i, e := range v.list {
			parts[i] = e.String()
		}
		return "(" + strings.Join(parts, " ") + ")"
	case v.quoted:
		return strconv.Quote(v.text)
	}
	return strings.ToUpper(v.text)
}

var (
	validityCode = regexp.MustCompile(`(UIDVALIDITY|APPENDUID|COPYUID) \d+`)
	modSeqValue  = regexp.MustCompile(`(MODSEQ) (\(?)\d+`)
)

// normal writes a response so that what servers are free to choose doesn't show: texts for people, UIDVALIDITY, MODSEQ,
// the order of flags and of FETCH items, strings as quoted or literal.
func normal(resp string) string {
	resp = strings.TrimPrefix(resp, "* ")
	word, rest, _ := strings.Cut(resp, " ")
	switch word {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return strings.TrimSpace(word + " " + normalCode(rest))
	case "CAPABILITY", "ID":
		return word
	}
	p := &sexp{b: []byte(resp)}
	v := p.values(0)
	if len(v) == 3 && v[1].text == "FETCH" {
		return v[0].text + " FETCH " + masked(fetchItems(v[2].list))
	}
	switch word {
	case "FLAGS":
		v[1] = sorted(v[1])
	case "STATUS":
		return "STATUS " + strconv.Quote(v[1].text) + " " + masked(items(v[2].list))
	case "ESEARCH":
		first := 2
		if len(v) > 2 && v[2].text == "UID" {
			first = 3
		}
		return value{list: v[:first]}.String() + " " + masked(items(v[first:]))
	case "LIST", "LSUB", "XLIST":
		v[1] = sorted(v[1])
		v[3].quoted = true
	case "SEARCH":
		for len(v) > 1 && v[len(v)-1].text == "" && v[len(v)-1].list == nil {
			v = v[:len(v)-1]
		}
	}
	line := value{list: v}.String()
	return masked(line[1 : len(line)-1])
}

func masked(s string) string {
	return modSeqValue.ReplaceAllString(validityCode.ReplaceAllString(s, "$1 V"), "$1 ${2}M")
}

// normalCode keeps the response code in front of a text.
func normalCode(text string) string {
	if !strings.HasPrefix(text, "[") {
		return ""
	}
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '[':
			depth++
		case ']':
			if depth--; depth == 0 {
				return masked(text[:i+1])
			}
		}
	}
	return text
}

// items orders the pairs of a response by name.
func items(list []value) string {
	var out []string
	for i := 0; i+1 < len(list); i += 2 {
		out = append(out, strings.ToUpper(list[i].text)+" "+list[i+1].String())
	}
	slices.Sort(out)
	return strings.Join(out, " | ")
}

// fetchItems is items for FETCH, where servers have some liberties:
//   - a part that isn't there is NIL or empty (RFC 3501, section 6.4.5, says neither);
//   - a day below 10 has a space or a zero before it (RFC 3501, section 9: date-day-fixed);
//   - the default charset, us-ascii, may be told where the message doesn't name it.
func fetchItems(list []value) string {
	list = slices.Clone(list)
	for i := 0; i+1 < len(list); i += 2 {
		v := &list[i+1]
		switch name := strings.ToUpper(list[i].text); {
		case name == "FLAGS":
			*v = sorted(*v)
		case name == "INTERNALDATE":
			v.text = strings.Replace(v.text, " ", "0", strings.Count(v.text[:1], " "))
		case name == "BODY" || name == "BODYSTRUCTURE":
			*v = withoutDefaultCharset(*v)
		case strings.HasPrefix(name, "BODY[") && !v.quoted:
			*v = value{quoted: true}
		}
	}
	return items(list)
}

func withoutDefaultCharset(v value) value {
	if v.list == nil {
		return v
	}
	out := value{list: []value{}}
	for i := 0; i < len(v.list); i++ {
		if i+1 < len(v.list) && strings.EqualFold(v.list[i].text, "charset") && strings.EqualFold(v.list[i+1].text, "us-ascii") {
			i++
			continue
		}
		out.list = append(out.list, withoutDefaultCharset(v.list[i]))
	}
	if len(out.list) == 0 {
		return value{text: "NIL"}
	}
	return out
}

func sorted(v value) value {
	out := value{list: slices.Clone(v.list)}
	slices.SortFunc(out.list, func(a, b value) int { return strings.Compare(strings.ToUpper(a.text), strings.ToUpper(b.text)) })
	return out
}
