package message

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds for any bytes what the property tests hold for their own: offsets, the same result from memory and
// through the window, well formed IMAP text, readers that end.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/mail/*.eml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := ParseBytes(raw)
		checkTree(t, p, 0, int64(len(raw)), raw)
		q, err := Parse(bytes.NewReader(raw), int64(len(raw)), DefaultLimits)
		if err != nil || structure(p) != structure(q) {
			t.Fatalf("%v\n%s%s", err, structure(p), structure(q))
		}
		checkWire(t, AppendEnvelope(nil, p.Header))
		checkWire(t, AppendBodyStructure(nil, p, true))
		checkWire(t, AppendBodyStructure(nil, p, false))
		r := bytes.NewReader(raw)
		p.Walk(func(c *Part) bool {
			text, err := io.ReadAll(c.Text(r))
			if err != nil || c.Type == "text" && !utf8.Valid(text) {
				t.Fatalf("text of [%d %d]: %v %q", c.Offset, c.End, err, text)
			}
			c.FileNames()
			return true
		})
		if s := Preview(p, r); utf8.RuneCountInString(s) > previewChars || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("preview %q", s)
		}
		checkLimits(t, raw)
		checkRewrite(t, raw)
	})
}

// checkLimits parses with limits so small that most messages meet them.
func checkLimits(t *testing.T, raw []byte) {
	lim := Limits{Depth: 3, Parts: 4, Fields: 6, HeaderBytes: 100, TotalHeaderBytes: 200}
	p, err := Parse(bytes.NewReader(raw), int64(len(raw)), lim)
	if err != nil {
		t.Fatal(err)
	}
	checkTree(t, p, 0, int64(len(raw)), raw)
}

func checkRewrite(t *testing.T, raw []byte) {
	p := ParseBytes(raw)
	before := raw[p.BodyOffset:]
	s, err := p.Rewrite(bytes.NewReader(raw), int64(len(raw)), []byte("Received: x\r\n"), "Bcc")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil || !bytes.Equal(got[p.BodyOffset:], before) {
		t.Fatalf("%v: %q became %q", err, raw, got)
	}
	if again := ParseBytes(got); again.BodyOffset != p.BodyOffset || again.Header.Has("Bcc") || p.Header.Has("Bcc") {
		t.Fatalf("%q became %q: body at %d, said to be at %d", raw, got, again.BodyOffset, p.BodyOffset)
	}
}

func FuzzAddressList(f *testing.F) {
	for _, s := range []string{
		"a@b.test", `"Smith, Ann" <a@b.test>, G: c@d.test;`, "<@a,@b:c@d>", `"a b"@c (x(y)) <`, "=?utf-8?Q?a,b?= <a@[1.2.3.4]>", "(((", `"\"`, "a:b:c;,;",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, a := range ParseAddressList(raw, 1000) {
			if strings.ContainsAny(a.Name+a.Local+a.Domain+a.Group, "\r\n\x00") || !utf8.ValidString(a.Name+a.Local+a.Domain+a.Group) {
				t.Fatalf("%+q", a)
			}
		}
		checkWire(t, AppendEnvelope(nil, Header{{Name: "To", Value: raw}, {Name: "From", Value: raw}, {Name: "Subject", Value: raw}}))
		MessageIDs(raw)
	})
}

func FuzzDecodeHeader(f *testing.F) {
	for _, s := range []string{
		"=?utf-8?B?5L0=?= =?utf-8?Q?=A0?=", "=?gbk?b?xA?= =?gbk?b?46", "=?a?q?=?a?q?", "\xc4\xe3\xa6\xd9\xff", "=?iso-2022-jp?B?GyRCRnw=?= =?iso-2022-jp?B?fA==?=",
		"a\x00\r\n b", "=?utf-16?B?//8=?=", "=?hz-gb-2312?Q?~{~?=",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := DecodeHeader(raw)
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00") {
			t.Fatalf("%q became %q", raw, s)
		}
		base := BaseSubject(s)
		if again := BaseSubject(base); len(again) > len(base) {
			t.Fatalf("base subject %q of %q grew to %q", base, s, again)
		}
		line, err := AppendTextField(nil, "Subject", s)
		if err != nil {
			t.Fatal(err)
		}
		if back := DecodeHeader(line[len("Subject:"):]); strings.TrimSpace(back) != strings.TrimSpace(s) {
			t.Fatalf("%q was written %q and read %q", s, line, back)
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, s := range []string{
		"Fri, 21 Nov 1997 09:55:06 -0600", "21-Nov-97 9.55 PM EST (x", "1997-11-21T09:55:06.5+01:00", "Fri Nov 21 09:55:06 GMT+0800 1997",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		at, ok := ParseDate(raw)
		if !ok {
			return
		}
		if y := at.Year(); y < 1900 || y > 9999 {
			t.Fatalf("%q is the year %d", raw, y)
		}
		again, ok := ParseDate([]byte(FormatDate(at)))
		if _, off := at.Zone(); off%60 == 0 && (!ok || !again.Equal(at)) {
			t.Fatalf("%q is %v, and read back %v", raw, at, again)
		}
	})
}

func FuzzHTMLText(f *testing.F) {
	for _, s := range []string{"<p>a<br>b", "<style>x", "<pre>\n\n\n</pre>", "<img alt=x>", "&#0;&#xFFFF;<![CDATA[", "<svg><svg>x</svg>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := HTMLText(bytes.NewReader(raw), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(s, "\x00") || strings.Contains(s, "\n\n\n") || strings.TrimSpace(s) != s {
			t.Fatalf("%q became %q", raw, s)
		}
	})
}

func FuzzParams(f *testing.F) {
	for _, s := range []string{
		`text/plain; name*0*=gb2312''%C4%E3; name*1="x"; name=y`, `a/b; c="d;e" f=g (h) ;i*=x'y'z`, `multipart; boundary==_a b`, `a/b;x="y"z;="`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _, ps, _ := parseMediaType(raw)
		seen := map[string]bool{}
		for _, p := range ps {
			if seen[p.Name] || !utf8.ValidString(p.Value) || strings.ContainsAny(p.Value, "\r\n\x00") {
				t.Fatalf("%q has %q=%q", raw, p.Name, p.Value)
			}
			seen[p.Name] = true
		}
		checkWire(t, append(appendParams([]byte("("), ps), ')'))
	})
}

func FuzzDecodeTransfer(f *testing.F) {
	f.Add([]byte("aGk=\r\n"), []byte("a=3D= \r\n=\r"))
	f.Fuzz(func(t *testing.T, b64, qp []byte) {
		got, err := io.ReadAll(decodeTransfer(bytes.NewReader(b64), "base64"))
		if err != nil || len(got) > len(b64) {
			t.Fatalf("%v, %d octets of %d", err, len(got), len(b64))
		}
		if whole := appendBase64(nil, b64); !bytes.Equal(whole, got) {
			t.Fatalf("%q: as a stream %q, at once %q", b64, got, whole)
		}
		if got, err = io.ReadAll(decodeTransfer(bytes.NewReader(qp), "quoted-printable")); err != nil || len(got) > len(qp) {
			t.Fatalf("%v, %d octets of %d", err, len(got), len(qp))
		}
		text := withCRLF(qp)
		back, err := io.ReadAll(decodeTransfer(bytes.NewReader(quotedPrintable(text)), "quoted-printable"))
		if err != nil || !bytes.Equal(back, text) {
			t.Fatalf("%q was encoded %q and read %q", text, quotedPrintable(text), back)
		}
	})
}
