package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	gomessage "github.com/emersion/go-message"
	"pgregory.net/rapid"
)

// countingReader counts what is read, and gives it in the sizes that are asked for.
type countingReader struct {
	raw   []byte
	reads int64
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(c.raw)) {
		return 0, io.EOF
	}
	n := copy(b, c.raw[off:])
	c.reads += int64(n)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// checkTree verifies what always holds: offsets ascend and stay inside, children lie inside their parents in order.
func checkTree(t interface {
	Fatalf(format string, args ...any)
}, p *Part, lo, hi int64, raw []byte,
) {
	if p.Offset < lo || p.BodyOffset < p.Offset || p.End < p.BodyOffset || p.End > hi {
		t.Fatalf("part [%d %d %d] outside [%d %d]", p.Offset, p.BodyOffset, p.End, lo, hi)
	}
	if n := int64(bytes.Count(raw[p.BodyOffset:p.End], []byte{'\n'})); n != p.Lines {
		t.Fatalf("part [%d %d %d] has %d line ends, Lines is %d", p.Offset, p.BodyOffset, p.End, n, p.Lines)
	}
	for _, f := range p.Header {
		if !bytes.Equal(raw[f.Offset:f.Offset+int64(len(f.Raw))], f.Raw) {
			t.Fatalf("field %q is not what stands at %d", f.Raw, f.Offset)
		}
	}
	at := p.BodyOffset
	for _, c := range p.Parts {
		checkTree(t, c, at, p.End, raw)
		at = c.End
	}
	if p.Type == "multipart" && len(p.Parts) == 0 || p.isMessage() && p.Message == nil {
		t.Fatalf("%s [%d %d %d] has nothing inside", p.MediaType(), p.Offset, p.BodyOffset, p.End)
	}
	if p.Message != nil {
		checkTree(t, p.Message, p.BodyOffset, p.End, raw)
		if p.Message.Offset != p.BodyOffset || p.Message.End != p.End {
			t.Fatalf("message [%d %d] in body [%d %d]", p.Message.Offset, p.Message.End, p.BodyOffset, p.End)
		}
	}
}

// parseBoth parses through the window and from memory, and requires the same result.
func parseBoth(t *rapid.T, raw []byte) *Part {
	p := ParseBytes(raw)
	q, err := Parse(bytes.NewReader(raw), int64(len(raw)), DefaultLimits)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	checkTree(t, p, 0, int64(len(raw)), raw)
	if a, b := describe(raw), structure(q); structure(p) != b {
		t.Fatalf("from memory\n%s\nthrough the window\n%s", a, b)
	}
	return p
}

func structure(p *Part) string {
	var b strings.Builder
	p.Walk(func(c *Part) bool {
		fmt.Fprintln(&b, c.Offset, c.BodyOffset, c.End, c.Lines, c.MediaType(), c.Encoding, c.Params, c.Disposition, len(c.Header), c.Defects)
		return true
	})
	return b.String()
}

// hostileLines are lines from which messages are put together at random.
var hostileLines = []string{
	"", "", "--a", "--b", "--a--", "--b--", "--ab", "-- ", "--", "--a junk", "Content-Type: multipart/mixed; boundary=a",
	"Content-Type: multipart/mixed; boundary=b", "Content-Type: multipart/digest; boundary=\"ab\"",
	"Content-Type: message/rfc822", "Content-Type: text/html", "Content-Transfer-Encoding: base64", "From: x@y.test",
	" folded", "\t", "no field at all", "From x Mon", ": empty", "text", "=?utf-8?B?5L0=?=", "\x00\xff\r", "Subject: \xc4\xe3",
}

func genHostile() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		var b []byte
		for range rapid.IntRange(0, 40).Draw(t, "lines") {
			b = append(b, rapid.SampledFrom(hostileLines).Draw(t, "line")...)
			b = append(b, rapid.SampledFrom([]string{"\r\n", "\r\n", "\r\n", "\n", ""}).Draw(t, "end")...)
		}
		return b
	})
}

func TestOffsetsAlwaysLieInsideTheMessage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) { parseBoth(t, genHostile().Draw(t, "message")) })
}

// entitySpec is a well formed message that both parsers must see alike.
type entitySpec struct {
	typ      string
	body     string
	children []*entitySpec
}

func genEntity(depth int) *rapid.Generator[*entitySpec] {
	return rapid.Custom(func(t *rapid.T) *entitySpec {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if depth > 4 || kind > 1 {
			lines := rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,40}`), 0, 5).Draw(t, "lines")
			for i, l := range lines {
				if strings.HasPrefix(l, "--") {
					lines[i] = "x" + l
				}
			}
			return &entitySpec{typ: rapid.SampledFrom([]string{"text/plain", "text/html", "image/png"}).Draw(t, "type"), body: strings.Join(lines, "\r\n")}
		}
		typ := rapid.SampledFrom([]string{"multipart/mixed", "multipart/alternative"}).Draw(t, "multi")
		return &entitySpec{typ: typ, children: rapid.SliceOfN(genEntity(depth+1), 1, 4).Draw(t, "children")}
	})
}

func (e *entitySpec) write(b *strings.Builder, number string) {
	boundary := "=_" + strings.ReplaceAll(number, ".", "_") + "_"
	fmt.Fprintf(b, "X-Number: %s\r\nContent-Type: %s", number, e.typ)
	if e.children == nil {
		fmt.Fprintf(b, "; name=\"a b\"\r\n\r\n%s", e.body)
		return
	}
	fmt.Fprintf(b, ";\r\n boundary=\"%s\"\r\n\r\npreamble\r\n", boundary)
	for i, c := range e.children {
		fmt.Fprintf(b, "--%s\r\n", boundary)
		c.write(b, fmt.Sprintf("%s.%d", number, i+1))
		b.WriteString("\r\n")
	}
	fmt.Fprintf(b, "--%s--\r\n", boundary)
}

// compare walks both trees.
func compare(t *rapid.T, raw []byte, p *Part, e *gomessage.Entity) {
	mediaType, params, err := e.Header.ContentType()
	if err != nil || mediaType != p.MediaType() || params["name"] != p.Params.Get("name") {
		t.Fatalf("type %q %v against %q %v", p.MediaType(), p.Params, mediaType, params)
	}
	if got := string(p.Header.Get("X-Number")); got != e.Header.Get("X-Number") {
		t.Fatalf("part %q against %q", got, e.Header.Get("X-Number"))
	}
	mr := e.MultipartReader()
	if mr == nil {
		want, err := io.ReadAll(e.Body)
		if err != nil {
			t.Fatalf("oracle: %v", err)
		}
		if got := raw[p.BodyOffset:p.End]; !bytes.Equal(got, want) {
			t.Fatalf("body %q against %q", got, want)
		}
		return
	}
	for i := 0; ; i++ {
		c, err := mr.NextPart()
		if err == io.EOF {
			if i != len(p.Parts) {
				t.Fatalf("%d parts against %d", len(p.Parts), i)
			}
			return
		}
		if err != nil || i >= len(p.Parts) {
			t.Fatalf("part %d of %d: %v", i, len(p.Parts), err)
		}
		compare(t, raw, p.Parts[i], c)
	}
}

func TestWellFormedMailReadsAsInGoMessage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		genEntity(0).Draw(t, "entity").write(&b, "1")
		raw := []byte(b.String())
		p := parseBoth(t, raw)
		if d := p.AllDefects(); d != 0 {
			t.Fatalf("defects %s in %q", d, raw)
		}
		e, err := gomessage.Read(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("oracle: %v", err)
		}
		compare(t, raw, p, e)
	})
}

// glue puts a message together again from its parts and what lies between them.
func glue(raw []byte, p *Part, from int64, out *bytes.Buffer) int64 {
	out.Write(raw[from:p.BodyOffset])
	at := p.BodyOffset
	for _, c := range p.Parts {
		at = glue(raw, c, at, out)
	}
	if p.Message != nil {
		at = glue(raw, p.Message, at, out)
	}
	out.Write(raw[at:p.End])
	return p.End
}

func TestBodiesThatABoundaryCutsShort(t *testing.T) {
	t.Parallel()
	const outer = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
	for name, raw := range map[string]string{
		"blank line, then boundary":       outer + "A: b\r\n\r\n--b--\r\n",
		"no blank line":                   outer + "A: b\r\n--b--\r\n",
		"nothing at all":                  outer + "--b--\r\n",
		"inner part without body":         outer + "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\nA: b\r\n\r\n--b--\r\n",
		"inner part without blank line":   outer + "Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\nA: b\r\n--b--\r\n",
		"message without body":            outer + "Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\n--b--\r\n",
		"message without header":          outer + "Content-Type: message/rfc822\r\n\r\n--b--\r\n",
		"message type, no blank line":     outer + "Content-Type: message/rfc822\r\n--b--\r\n",
		"message in a message, cut short": outer + "Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n--b--\r\n",
	} {
		p := ParseBytes([]byte(raw))
		checkTree(t, p, 0, int64(len(raw)), []byte(raw))
		if len(p.Parts) != 1 || p.Parts[0].Message != nil && p.Parts[0].Message.Size() > 0 {
			t.Errorf("%s: %s", name, structure(p))
		}
	}
}

func TestPartsMakeUpTheMessage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw := genHostile().Draw(t, "message")
		var out bytes.Buffer
		glue(raw, ParseBytes(raw), 0, &out)
		if !bytes.Equal(out.Bytes(), raw) {
			t.Fatalf("%q became %q", raw, out.Bytes())
		}
	})
}

func TestEveryWindowPositionReadsTheSame(t *testing.T) {
	t.Parallel()
	const tail = "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\nA: 1\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n"
	for shift := -60; shift < 60; shift++ {
		// The fields before tail move its boundaries over the end of the first window.
		raw := []byte(strings.Repeat("X: "+strings.Repeat("y", 995)+"\r\n", 65))
		raw = append(raw, "Y: "+strings.Repeat("z", window-len(raw)-len(tail)+shift)+"\r\n"+tail...)
		p, err := Parse(bytes.NewReader(raw), int64(len(raw)), DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		checkTree(t, p, 0, int64(len(raw)), raw)
		if len(p.Parts) != 2 || string(raw[p.Parts[0].BodyOffset:p.Parts[0].End]) != "one" ||
			string(raw[p.Parts[1].BodyOffset:p.Parts[1].End]) != "two" || p.AllDefects() != 0 {
			t.Fatalf("shift %d: %s", shift, structure(p))
		}
	}
}

func TestLinesLongerThanTheWindow(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*window+17)
	for name, raw := range map[string]string{
		"in the header":    "A: " + long + "\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n",
		"in the preamble":  "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + long + "--b\r\n--b\r\n\r\none\r\n--b--\r\n",
		"before a part":    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b" + long + "\r\n\r\none\r\n--b--\r\n",
		"as a near miss":   "Content-Type: multipart/mixed; boundary=b\r\n\r\n--" + long + "\r\n--b\r\n\r\none\r\n--b--\r\n",
		"after the header": "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n" + long,
	} {
		p, err := Parse(strings.NewReader(raw), int64(len(raw)), DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		checkTree(t, p, 0, int64(len(raw)), []byte(raw))
		if len(p.Parts) != 1 || raw[p.Parts[0].BodyOffset:p.Parts[0].End] != "one" {
			t.Errorf("%s: %s", name, structure(p))
		}
	}
}

func TestParseReturnsOnlyErrorsOfTheReader(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk is gone")
	if _, err := Parse(failingAt{broken}, 100, DefaultLimits); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, err := Parse(strings.NewReader("A: b\r\n"), 100, DefaultLimits); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a message that ends early: %v", err)
	}
}

type failingAt struct{ err error }

func (f failingAt) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestLimitsLeaveTheRestOpaque(t *testing.T) {
	t.Parallel()
	var deep strings.Builder
	for i := range 500 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%03d\r\n\r\n--b%03d\r\n", i, i)
	}
	nested := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 500) + "x"
	many := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n", 50_000)
	digest := "Content-Type: multipart/digest; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nA: b\r\n\r\n", 20_000)
	bigHeader := "From: a@b.test\r\n" + strings.Repeat("X-Padding: "+strings.Repeat("y", 90)+"\r\n", 20_000) + "Content-Type: multipart/mixed; boundary=b\r\n\r\nbody"
	manyFields := strings.Repeat("To: a@b.test\r\n", 74_000) + "\r\nbody"
	tinyFields := strings.Repeat("a:\n", 300_000) + "\nbody"
	manyHeaders := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nX: "+strings.Repeat("y", 9000)+"\r\n\r\n", 1000)
	for _, c := range []struct {
		name, raw string
		defect    Defects
		parts     int
	}{
		{"depth of multiparts", deep.String(), DefectDepthLimit, 101},
		{"depth of messages", nested, DefectDepthLimit, 101},
		{"number of parts", many, DefectPartLimit, 10_000},
		{"number of messages", digest, DefectPartLimit, 10_001},
		{"octets of one header", bigHeader, DefectHeaderLimit, 1},
		{"octets that fit", manyFields, 0, 1},
		{"number of fields", tinyFields, DefectHeaderLimit, 1},
		{"octets of all headers", manyHeaders, DefectHeaderLimit, 1001},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &countingReader{raw: []byte(c.raw)}
			p, err := Parse(r, int64(len(c.raw)), DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			checkTree(t, p, 0, int64(len(c.raw)), r.raw)
			n, kept := 0, int64(0)
			p.Walk(func(q *Part) bool {
				n++
				for _, f := range q.Header {
					kept += int64(len(f.Raw))
				}
				return true
			})
			if n != c.parts || p.AllDefects()&c.defect != c.defect {
				t.Errorf("%d parts with defects %s, want %d with %s", n, p.AllDefects(), c.parts, c.defect)
			}
			if kept > DefaultLimits.TotalHeaderBytes || r.reads > int64(len(c.raw)+len(c.raw)/100+4*window) {
				t.Errorf("kept %d octets of headers, read %d of %d", kept, r.reads, len(c.raw))
			}
		})
	}
}

func TestHeadersBeyondTheLimitLoseNoBodyOffset(t *testing.T) {
	t.Parallel()
	raw := strings.Repeat("X-Padding: "+strings.Repeat("y", 90)+"\r\n", 20_000) + "\r\nbody"
	p := ParseBytes([]byte(raw))
	if raw[p.BodyOffset:p.End] != "body" {
		t.Errorf("body begins at %d of %d", p.BodyOffset, len(raw))
	}
}

func TestSection(t *testing.T) {
	t.Parallel()
	// The example of RFC 3501, section 6.4.5.
	leaf := "\r\n\r\nx\r\n"
	raw := []byte("Content-Type: multipart/mixed; boundary=m\r\n\r\n" +
		"--m\r\nContent-Type: text/plain" + leaf +
		"--m\r\nContent-Type: application/octet-stream" + leaf +
		"--m\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=n\r\n\r\n" +
		"--n\r\nContent-Type: text/plain" + leaf +
		"--n\r\nContent-Type: application/octet-stream" + leaf + "--n--\r\n" +
		"--m\r\nContent-Type: multipart/mixed; boundary=o\r\n\r\n" +
		"--o\r\nContent-Type: image/gif" + leaf +
		"--o\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=p\r\n\r\n" +
		"--p\r\nContent-Type: text/plain" + leaf +
		"--p\r\nContent-Type: multipart/alternative; boundary=q\r\n\r\n" +
		"--q\r\nContent-Type: text/plain" + leaf + "--q\r\nContent-Type: text/richtext" + leaf + "--q--\r\n" +
		"--p--\r\n--o--\r\n--m--\r\n")
	p := ParseBytes(raw)
	for _, c := range []struct {
		path []int
		want string
	}{
		{nil, "multipart/mixed"},
		{[]int{1}, "text/plain"},
		{[]int{2}, "application/octet-stream"},
		{[]int{3}, "message/rfc822"},
		{[]int{3, 1}, "text/plain"},
		{[]int{3, 2}, "application/octet-stream"},
		{[]int{4}, "multipart/mixed"},
		{[]int{4, 1}, "image/gif"},
		{[]int{4, 2}, "message/rfc822"},
		{[]int{4, 2, 1}, "text/plain"},
		{[]int{4, 2, 2}, "multipart/alternative"},
		{[]int{4, 2, 2, 1}, "text/plain"},
		{[]int{4, 2, 2, 2}, "text/richtext"},
		{[]int{5}, ""},
		{[]int{0}, ""},
		{[]int{-1}, ""},
		{[]int{1, 1}, ""},
		{[]int{3, 3}, ""},
		{[]int{4, 2, 2, 2, 1}, ""},
	} {
		got := p.Section(c.path...)
		if c.want == "" && got != nil || c.want != "" && (got == nil || got.MediaType() != c.want) {
			t.Errorf("section %v: %v, want %q", c.path, got, c.want)
		}
	}
	single := ParseBytes([]byte("A: b\r\n\r\nbody"))
	if single.Section(1) != single || single.Section(2) != nil || single.Section(1, 1) != nil {
		t.Error("part 1 of a message that is no multipart is its body")
	}
	forward := ParseBytes([]byte("Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nbody"))
	if forward.Section(1) != forward || forward.Section(1, 1) != forward.Message {
		t.Error("part 1.1 of a message that is a message is the body of the inner one")
	}
}

// work is a measure of what parsing costs that does not depend on the clock: octets read and allocated.
func work(raw []byte) (read int64, allocs float64) {
	r := &countingReader{raw: raw}
	allocs = testing.AllocsPerRun(1, func() {
		r.reads = 0
		p, err := Parse(r, int64(len(raw)), DefaultLimits)
		if err != nil {
			panic(err)
		}
		AppendEnvelope(nil, p.Header)
		AppendBodyStructure(nil, p, true)
	})
	return r.reads, allocs
}

// The sizes are such that work in the square of the input, which neither reads nor allocates, would take minutes.
func TestDoublingHostileMailAtMostDoublesTheWork(t *testing.T) {
	repeat := func(head, piece, tail string) func(int) []byte {
		return func(n int) []byte { return []byte(head + strings.Repeat(piece, n) + tail) }
	}
	numbered := func(head, format string) func(int) []byte {
		return func(n int) []byte {
			b := []byte(head)
			for i := range n {
				b = fmt.Appendf(b, format, i)
			}
			return append(b, "\r\n\r\n"...)
		}
	}
	const multi = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	for name, c := range map[string]struct {
		make func(int) []byte
		n    int
	}{
		"address headers":     {repeat("", "To: \"a\" <a@b.test>\r\n", "\r\n"), 20_000},
		"addresses":           {repeat("To: ", "a@b.test,", "\r\n\r\n"), 50_000},
		"groups":              {repeat("To: ", "g:;", "\r\n\r\n"), 100_000},
		"open angles":         {repeat("To: ", "<", "\r\n\r\n"), 300_000},
		"open quotes":         {repeat("To: ", "\\\"", "\r\n\r\n"), 200_000},
		"open comments":       {repeat("To: ", "(", "\r\n\r\n"), 400_000},
		"open literals":       {repeat("To: ", "[", "\r\n\r\n"), 400_000},
		"colons":              {repeat("To: a@b", " :", "\r\n\r\n"), 200_000},
		"encoded word starts": {repeat("Subject: \xff", "=?a?q?", "\r\n\r\n"), 80_000},
		"encoded words":       {repeat("Subject: \xff", "=?utf-8?q?=c3?= ", "\r\n\r\n"), 25_000},
		"pieces of one value": {numbered("Content-Type: text/plain", "; name*%d=x"), 30_000},
		"parameters":          {numbered("Content-Type: text/plain", "; x%d=y"), 30_000},
		"comments in params":  {repeat("Content-Type: text/plain", ";(", "\r\n\r\n"), 200_000},
		"open quotes, params": {repeat("Content-Type: text/plain", ";a=\"\\\"", "\r\n\r\n"), 100_000},
		"dashes":              {repeat(multi, "--\r\n", ""), 500_000},
		"near misses":         {repeat(multi, "--a\r\n", ""), 500_000},
		"boundaries":          {repeat(multi, "--b\r\n", ""), 500_000},
		"closing boundaries":  {repeat(multi, "--b--\r\n", ""), 500_000},
		"folded field":        {repeat("Subject: x\r\n", " y\r\n", "\r\n"), 200_000},
		"languages":           {repeat("Content-Language: ", "a,", "\r\n\r\n"), 300_000},
		"languages, comments": {repeat("Content-Language: ", "(", "\r\n\r\n"), 300_000},
	} {
		t.Run(name, func(t *testing.T) {
			read1, allocs1 := work(c.make(c.n))
			read2, allocs2 := work(c.make(2 * c.n))
			if read2 > 2*read1+2*window || allocs2 > 2.1*allocs1+200 {
				t.Errorf("twice the input: read %d then %d, allocations %.0f then %.0f", read1, read2, allocs1, allocs2)
			}
		})
	}
}

func TestManyOpenBoundariesCostOnePassALine(t *testing.T) {
	t.Parallel()
	// Boundaries that are each other's beginning are the worst to compare: all are alike as far as they go.
	var bs boundaries
	for i := 1; i <= 100; i++ {
		bs.push(strings.Repeat("x", i*10), i)
	}
	line := []byte("--" + strings.Repeat("x", 555) + "\r\n")
	if i, closing, junk := bs.match(line); i != 54 || closing || !junk {
		t.Errorf("matched %d, %v, %v: the longest counts", i, closing, junk)
	}
	for range 46 {
		bs.pop()
	}
	if i, _, _ := bs.match(line); i != 53 {
		t.Errorf("matched %d after the longer ones were closed", i)
	}
	bs.push(strings.Repeat("x", 540), 99)
	if i, _, _ := bs.match(line); i != 54 {
		t.Errorf("matched %d: of equal ones the innermost counts", i)
	}
	bs.pop()
	if i, _, _ := bs.match(line); i != 53 {
		t.Errorf("matched %d: the hidden one comes back", i)
	}
	if i, closing, junk := bs.match([]byte("--" + strings.Repeat("x", 540) + "-- \t\r\n")); i != 53 || !closing || junk {
		t.Errorf("closing line: %d %v %v", i, closing, junk)
	}
}

func TestDecodedAcceptsReadersOfAnySize(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 10_000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	text := "Größe = \t \r\n" + strings.Repeat("x y ", 300) + "\r\n.\r\nFrom me\r\nend \t"
	for name, c := range map[string]struct{ enc, want string }{
		"base64":           {"base64", string(data)},
		"quoted-printable": {"quoted-printable", text},
	} {
		var body []byte
		if c.enc == "base64" {
			body = wrapBase64(data)
		} else {
			body = quotedPrintable([]byte(text))
		}
		raw := append([]byte("Content-Transfer-Encoding: "+c.enc+"\r\n\r\n"), body...)
		p := ParseBytes(raw)
		if err := iotest.TestReader(p.Decoded(bytes.NewReader(raw)), []byte(c.want)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := io.ReadAll(iotest.OneByteReader(p.Decoded(bytes.NewReader(raw))))
		if err != nil || string(got) != c.want {
			t.Errorf("%s octet by octet: %v, %d octets", name, err, len(got))
		}
	}
}
