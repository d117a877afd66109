package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// zeros is a source of randomness for tests that need the same bytes each time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

func build(t interface {
	Fatalf(format string, args ...any)
}, b *Builder,
) []byte {
	raw, err := b.Bytes()
	if err != nil {
		t.Fatalf("%v", err)
	}
	checkCanonical(t, raw)
	return raw
}

// checkCanonical requires CRLF line ends only, no line beyond the limit, and no header line beyond 78 octets that has
// a place to fold.
func checkCanonical(t interface {
	Fatalf(format string, args ...any)
}, raw []byte,
) {
	if bytes.Contains(bytes.ReplaceAll(raw, []byte("\r\n"), nil), []byte("\r")) ||
		bytes.Count(raw, []byte("\n")) != bytes.Count(raw, []byte("\r\n")) {
		t.Fatalf("bare CR or LF in %q", raw)
	}
	_, n := ParseHeader(raw)
	for line := range bytes.Lines(raw[:n]) {
		line = chomp(line)
		if len(line) > foldAt && bytes.ContainsAny(bytes.TrimLeft(line[bytes.IndexByte(line, ':')+1:], " \t"), " \t") {
			t.Fatalf("header line of %d octets: %q", len(line), line)
		}
		if len(line) > 0 && len(trimSpace(line)) == 0 {
			t.Fatalf("header line of white space in %q", raw)
		}
	}
	for line := range bytes.Lines(raw) {
		if len(line) > maxLine+2 {
			t.Fatalf("line of %d octets", len(line))
		}
	}
}

func body(t interface {
	Fatalf(format string, args ...any)
}, p *Part, raw []byte,
) string {
	got, err := io.ReadAll(p.Text(bytes.NewReader(raw)))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(got)
}

func TestBuiltMessageReadsBack(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("很长的附件名称 ", 12) + "报告.pdf"
	data := bytes.Repeat([]byte{0, 1, 2, 255, '\r', '\n', '.'}, 100)
	b := NewBuilder()
	b.Addresses("From", Address{Name: "张三", Local: "zhang", Domain: "example.test"})
	b.Addresses("To", Address{Name: "Smith, Ann", Local: "ann", Domain: "example.test"}, Address{Local: "a b", Domain: "example.test"})
	b.Text("Subject", strings.Repeat("会议通知，", 30))
	b.Date(time.Date(2026, 11, 21, 10, 0, 0, 0, time.FixedZone("", 8*3600)))
	id := b.MessageID("mx.example.test")
	b.Raw("References", "<a@b> <c@d>")
	b.Body(Multipart("mixed",
		Multipart("alternative", PlainText("你好\nDot:\n.\nFrom here\n"), HTML("<p>你好</p>")),
		Attachment(name, "application/pdf", data)))
	raw := build(t, b)
	if !isASCII(raw) {
		t.Error("a message without UTF-8 addresses is not ASCII")
	}
	p := ParseBytes(raw)
	if d := p.AllDefects(); d != 0 {
		t.Errorf("defects %s", d)
	}
	if got := addressString(ParseAddressList(p.Header.Get("From"), 9)) + addressString(ParseAddressList(p.Header.Get("To"), 9)); got !=
		"[张三|zhang|example.test|][Smith, Ann|ann|example.test|][|a b|example.test|]" {
		t.Errorf("addresses are %s", got)
	}
	if got := p.Header.Text("Subject"); got != strings.Repeat("会议通知，", 30) {
		t.Errorf("subject is %q", got)
	}
	if ids := MessageIDs(p.Header.Get("Message-ID")); len(ids) != 1 || ids[0] != id {
		t.Errorf("message id is %v", ids)
	}
	if at, ok := ParseDate(p.Header.Get("Date")); !ok || at.Format(time.RFC3339) != "2026-11-21T10:00:00+08:00" {
		t.Errorf("date is %v", at)
	}
	if got := body(t, p.Section(1, 1), raw); got != "你好\r\nDot:\r\n.\r\nFrom here\r\n" {
		t.Errorf("plain text is %q", got)
	}
	if got := body(t, p.Section(1, 2), raw); got != "<p>你好</p>" {
		t.Errorf("HTML is %q", got)
	}
	file := p.Section(2)
	if file.FileName() != name || file.Params.Get("name") != name || body(t, file, raw) != string(data) {
		t.Errorf("file is %q, %q", file.FileName(), body(t, file, raw))
	}
}

func TestBuilderRefusesInjection(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"a\r\nBcc: x@y.test", "a\nb", "a\rb", "a\x00b"} {
		for what, b := range map[string]*Builder{
			"subject":      NewBuilder().Text("Subject", bad),
			"raw":          NewBuilder().Raw("X", bad),
			"display name": NewBuilder().Addresses("To", Address{Name: bad, Local: "a", Domain: "b"}),
			"local part":   NewBuilder().Addresses("To", Address{Local: bad, Domain: "b"}),
			"domain":       NewBuilder().Addresses("To", Address{Local: "a", Domain: bad}),
			"file name":    NewBuilder().Body(Attachment(bad, "a/b", nil)),
			"description":  NewBuilder().Body(&Entity{Type: "a/b", Description: bad}),
			"content id":   NewBuilder().Body(&Entity{Type: "a/b", ContentID: bad}),
			"language":     NewBuilder().Body(&Entity{Type: "a/b", Language: bad}),
			"parameter":    NewBuilder().Body(&Entity{Type: "a/b", Params: []Param{{Name: "x", Value: bad}}}),
		} {
			if raw, err := b.Bytes(); !errors.Is(err, ErrInjection) || raw != nil {
				t.Errorf("%s %q: %v, %q", what, bad, err, raw)
			}
		}
		for what, b := range map[string]*Builder{
			"field name":     NewBuilder().Text(bad, "x"),
			"type":           NewBuilder().Body(&Entity{Type: "a/b" + bad}),
			"disposition":    NewBuilder().Body(&Entity{Type: "a/b", Disposition: bad}),
			"parameter name": NewBuilder().Body(&Entity{Type: "a/b", Params: []Param{{Name: bad, Value: "x"}}}),
			"id host":        func() *Builder { b := NewBuilder(); b.MessageID(bad); return b }(),
		} {
			if raw, err := b.Bytes(); err == nil || raw != nil {
				t.Errorf("%s %q: %v, %q", what, bad, err, raw)
			}
		}
		if _, err := DeliveryStatus(true, StatusFields{{"Diagnostic-Code", bad}}); !errors.Is(err, ErrInjection) {
			t.Errorf("delivery status %q: %v", bad, err)
		}
	}
}

func TestBuilderRefusesWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	deep := PlainText("x")
	for range 100 {
		deep = Multipart("mixed", deep)
	}
	for what, b := range map[string]*Builder{
		"no media type":      NewBuilder().Body(&Entity{}),
		"multipart of none":  NewBuilder().Body(Multipart("mixed")),
		"text with parts":    NewBuilder().Body(&Entity{Type: "text/plain", Parts: []*Entity{PlainText("x")}}),
		"too deep":           NewBuilder().Body(deep),
		"no local part":      NewBuilder().Addresses("To", Address{Domain: "b"}),
		"two addresses":      NewBuilder().Addresses("To", Address{Local: "a", Domain: "b>,<c@d"}),
		"long word":          NewBuilder().Raw("X", strings.Repeat("x", 2000)),
		"long name of field": NewBuilder().Raw(strings.Repeat("x", 100), "y"),
		"no randomness":      {Rand: strings.NewReader(""), body: Multipart("mixed", PlainText("x"))},
	} {
		if _, err := b.Bytes(); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestBuiltTextAlwaysReadsBack(t *testing.T) {
	t.Parallel()
	text := rapid.StringOf(rapid.RuneFrom([]rune("ab =?_.,;:\"\\()<>@-%\t你好é€😀FromX")))
	rapid.Check(t, func(t *rapid.T) {
		subject, content, file := text.Draw(t, "subject"), rapid.String().Draw(t, "content"), text.Draw(t, "file")
		name := strings.Trim(text.Draw(t, "name"), " \t")
		b := NewBuilder()
		b.Text("Subject", subject)
		b.Addresses("From", Address{Name: name, Local: "a", Domain: "b.test"})
		b.Body(Multipart("mixed", PlainText(content), Attachment(file, "application/octet-stream", []byte(content))))
		raw := build(t, b)
		p := ParseBytes(raw)
		if got := p.Header.Text("Subject"); got != strings.Trim(clean(subject), " ") && got != clean(subject) {
			t.Fatalf("subject %q became %q in %q", subject, got, raw)
		}
		got := ParseAddressList(p.Header.Get("From"), 2)
		if len(got) != 1 || got[0].Addr() != "a@b.test" || got[0].Name != strings.Trim(clean(name), " ") {
			t.Fatalf("name %q became %q in %q", name, got, raw)
		}
		want := string(bytes.ReplaceAll(withCRLF([]byte(content)), []byte{0}, nil))
		if s := body(t, p.Section(1), raw); s != strings.TrimPrefix(want, "\uFEFF") {
			t.Fatalf("text %q became %q", want, s)
		}
		if s := body(t, p.Section(2), raw); s != content {
			t.Fatalf("data %q became %q", content, s)
		}
		if s := p.Section(2).FileName(); file != "" && s != clean(file) && s != strings.Trim(clean(file), " ") {
			t.Fatalf("file name %q became %q in %q", file, s, raw)
		}
	})
}

// clean is what a header value can hold: tabs become spaces.
func clean(s string) string { return strings.ReplaceAll(s, "\t", " ") }

func TestEncodedWordsEndAtCharacters(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("你好é😀x", 50)
	for room := -5; room < 90; room++ {
		words := strings.Split(string(appendEncodedWords(nil, text, " ", room)), " ")
		var all strings.Builder
		for i, w := range words {
			part := DecodeHeader([]byte(w))
			if len(w) > wordLimit || !utf8.ValidString(part) || strings.Contains(part, "\uFFFD") || i == 0 && room > 20 && len(w) > room {
				t.Fatalf("room %d: word %q", room, w)
			}
			all.WriteString(part)
		}
		if all.String() != text {
			t.Fatalf("room %d: %q", room, all.String())
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	original := []byte("From: a@b.test\r\nSubject: é\r\n\r\nbody\r\n")
	status, err := DeliveryStatus(false, StatusFields{{"Reporting-MTA", "dns; mx.example.test"}},
		StatusFields{{"Final-Recipient", "rfc822; x@y.test"}, {"Action", "failed"}, {"Status", "5.1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	b := NewBuilder()
	b.Rand = zeros{}
	b.Text("Subject", "Undelivered")
	b.Body(Report("delivery-status", PlainText("Es ging nicht.\n"), status, Embedded("message/rfc822", original)))
	raw := build(t, b)
	p := ParseBytes(raw)
	if d := p.AllDefects(); d != 0 || p.MediaType() != "multipart/report" || p.Params.Get("report-type") != "delivery-status" {
		t.Errorf("%s %v, defects %s", p.MediaType(), p.Params, d)
	}
	if got := p.Section(2); got.MediaType() != "message/delivery-status" || string(raw[got.BodyOffset:got.End]) !=
		"Reporting-MTA: dns; mx.example.test\r\n\r\nFinal-Recipient: rfc822; x@y.test\r\nAction: failed\r\nStatus: 5.1.1\r\n" {
		t.Errorf("status is %q", raw[got.BodyOffset:got.End])
	}
	got := p.Section(3)
	if got.Message == nil || got.Encoding != "8bit" || !bytes.Equal(raw[got.BodyOffset:got.End], original) {
		t.Errorf("original is %s %q", got.Encoding, raw[got.BodyOffset:got.End])
	}
	if _, err := DeliveryStatus(false, StatusFields{{"Final-Recipient", "utf-8; é@y.test"}}); err == nil {
		t.Error("UTF-8 in message/delivery-status")
	}
	if e, err := DeliveryStatus(true, StatusFields{{"Final-Recipient", "utf-8; é@y.test"}}); err != nil || e.Type != "message/global-delivery-status" {
		t.Errorf("global status: %v", err)
	}
}

func TestRemoveFields(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"one", "A: 1\r\nBcc: x\r\nB: 2\r\n\r\n", "A: 1\r\nB: 2\r\n\r\n"},
		{"folded", "A: 1\r\nBCC: x,\r\n y\r\n\tz\r\nB: 2\r\n\r\n", "A: 1\r\nB: 2\r\n\r\n"},
		{"all of them", "bcc: x\r\nBcc : y\r\nBcc:\r\n\r\n", "\r\n"},
		{"at the end, no blank line", "A: 1\r\nBcc: x", "A: 1\r\n"},
		{"bare LF", "A: 1\nBcc: x\n y\nB: 2\n\n", "A: 1\nB: 2\n\n"},
		{"not in other names", "X-Bcc: 1\r\nBccc: 2\r\n\r\n", "X-Bcc: 1\r\nBccc: 2\r\n\r\n"},
		{"not in junk", "Bcc x\r\nA: 1\r\n\r\n", "Bcc x\r\nA: 1\r\n\r\n"},
		{"octets stay", "A:\t\xff  \r\n  1\r\n\r\nBcc: body\r\n", "A:\t\xff  \r\n  1\r\n\r\nBcc: body\r\n"},
		{"nothing", "", ""},
	} {
		if got := string(RemoveFields([]byte(c.in), "Bcc")); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestRewriteDescribesTheResult(t *testing.T) {
	t.Parallel()
	mixed := "Content-Type: multipart/mixed; boundary=b\r\nBcc: x@y.test\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nA: b\r\n\r\ntwo\r\n--b--\r\n"
	for name, raw := range map[string]string{
		"ordinary": "A: 1\r\nBcc: x\r\nB: 2\r\n\r\nbody\r\n", "parts": mixed, "no blank line": "A: 1\r\nBcc: x\r\n",
		"no line end": "A: 1", "no header": "\r\nbody", "missing blank line": "A: 1\r\nbody\r\nmore body\r\n",
		"body alone": "hello\r\nthere\r\n", "empty": "", "only Bcc": "Bcc: x\r\n\r\nbody", "mbox": "From x Mon\r\nA: 1\r\n\r\nbody",
		"bare LF": "A: 1\nBcc: x\n\nbody\n", "junk": "A: 1\r\njunk\r\nB: 2\r\n\r\nbody", "leading fold": " x\r\nA: 1\r\n\r\nbody",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := ParseBytes([]byte(raw))
			before := raw[p.BodyOffset:]
			s, err := p.Rewrite(strings.NewReader(raw), int64(len(raw)), []byte("Received: by x;\r\n now\r\n"), "Bcc", "Return-Path")
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
			if err != nil {
				t.Fatal(err)
			}
			if string(got[p.BodyOffset:]) != before {
				t.Errorf("body %q became %q", before, got[p.BodyOffset:])
			}
			want := ParseBytes(got)
			checkTree(t, p, 0, s.Size(), got)
			p.Walk(func(q *Part) bool { q.Defects = 0; return true })
			want.Walk(func(q *Part) bool { q.Defects = 0; return true })
			if structure(p) != structure(want) {
				t.Errorf("%q\n describes\n%sand is\n%s", got, structure(p), structure(want))
			}
			if p.Header[0].Name != "Received" || p.Header.Has("Bcc") || bytes.Contains(got[:p.BodyOffset], []byte("Bcc")) {
				t.Errorf("header is %q", got[:p.BodyOffset])
			}
		})
	}
}

func TestRewriteRefuses(t *testing.T) {
	t.Parallel()
	raw := "A: 1\r\n\r\nbody"
	for _, c := range []struct{ prepend, remove string }{
		{"", "Content-Type"}, {"B: 1", "x"}, {"B: 1\r\n\r\n", "x"}, {"junk\r\n", "x"}, {"B: 1\n", "x"}, {" fold\r\n", "x"},
	} {
		p := ParseBytes([]byte(raw))
		if _, err := p.Rewrite(strings.NewReader(raw), int64(len(raw)), []byte(c.prepend), c.remove); err == nil {
			t.Errorf("%q, %q: no error", c.prepend, c.remove)
		}
	}
	p := ParseBytes([]byte(raw))
	if _, err := p.Rewrite(failingAt{io.ErrClosedPipe}, int64(len(raw)), nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

func TestSplicedReadsAtAnyOffset(t *testing.T) {
	t.Parallel()
	s := Splice([]byte("HEAD"), strings.NewReader("old body"), 3, 8)
	const want = "HEAD body"
	if s.Size() != int64(len(want)) {
		t.Fatalf("size %d", s.Size())
	}
	for off := range len(want) + 2 {
		for n := range len(want) + 2 {
			b := make([]byte, n)
			got, err := s.ReadAt(b, int64(off))
			rest := want[min(off, len(want)):]
			if string(b[:got]) != rest[:min(n, len(rest))] || (err == io.EOF) != (off >= len(want) || n > len(rest)) || err != nil && err != io.EOF {
				t.Errorf("%d octets at %d: %q, %v", n, off, b[:got], err)
			}
		}
	}
	if _, err := s.ReadAt(nil, -1); err == nil {
		t.Error("negative offset")
	}
	short := Splice(nil, strings.NewReader("abc"), 0, 9)
	if _, err := io.ReadAll(io.NewSectionReader(short, 0, 9)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a body that ends early: %v", err)
	}
}

func ExampleBuilder() {
	b := NewBuilder()
	b.Addresses("From", Address{Name: "张三", Local: "zhang", Domain: "example.test"})
	b.Text("Subject", "Grüße")
	b.Body(PlainText("Hello\n"))
	raw, err := b.Bytes()
	fmt.Println(strings.ReplaceAll(string(raw), "\r", ""), err)
	// Output:
	// From: =?utf-8?B?5byg5LiJ?= <zhang@example.test>
	// Subject: =?utf-8?B?R3LDvMOfZQ==?=
	// MIME-Version: 1.0
	// Content-Type: text/plain; charset=utf-8
	// Content-Transfer-Encoding: 7bit
	//
	// Hello
	//  <nil>
}
