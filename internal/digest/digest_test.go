package digest

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"waxwing/internal/message"
	"waxwing/internal/store"
)

func digestOf(raw string) store.Summary {
	return Make(message.ParseBytes([]byte(raw)), strings.NewReader(raw), int64(len(raw)))
}

func TestMakeFillsEveryField(t *testing.T) {
	t.Parallel()
	raw := "From: Ann <a@b.test>\r\nSubject: Re: =?gb2312?B?u+HS6Q==?= (fwd)\r\nDate: Sat, 21 Nov 2026 10:00:00 +0800\r\n" +
		"Message-ID: <4@b.test>\r\nReferences: <1@b.test> <2@b.test>\r\nIn-Reply-To: <2@b.test> <3@b.test>\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n\r\n> old\r\n你好\r\n"
	s := digestOf(raw)
	if want := strings.Index(raw, "\r\n\r\n") + 4; s.HeaderSize != int64(want) {
		t.Errorf("HeaderSize is %d, want %d", s.HeaderSize, want)
	}
	if !strings.HasPrefix(string(s.Envelope), `("Sat, 21 Nov 2026 10:00:00 +0800" "Re: =?gb2312?B?u+HS6Q==?= (fwd)" (("Ann" NIL "a" "b.test"))`) {
		t.Errorf("Envelope is %s", s.Envelope)
	}
	if want := `("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 15 2 NIL NIL NIL NIL)`; string(s.BodyStructure) != want {
		t.Errorf("BodyStructure is %s, want %s", s.BodyStructure, want)
	}
	if s.SentAt.Format(time.RFC3339) != "2026-11-21T10:00:00+08:00" || s.MessageID != "4@b.test" || s.BaseSubject != "会议" ||
		s.Preview != "你好" || s.Attachments {
		t.Errorf("%+v", s)
	}
	if !slices.Equal(s.References, []string{"1@b.test", "2@b.test", "3@b.test"}) {
		t.Errorf("References are %q", s.References)
	}
}

func TestMakeTakesWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := digestOf("")
	if !s.SentAt.IsZero() || s.MessageID != "" || len(s.References) != 0 || s.Attachments || len(s.Envelope) == 0 || len(s.BodyStructure) == 0 {
		t.Errorf("%+v", s)
	}
}

func TestMakeIsBounded(t *testing.T) {
	t.Parallel()
	var refs strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&refs, " <%d@b.test>\r\n", i)
	}
	raw := "Subject: " + strings.Repeat("很长", 100_000) + "\r\nReferences:" + refs.String() + "To: " + strings.Repeat("a@b.test,", 30_000) +
		"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("你", 1000)
	s := digestOf(raw)
	if len(s.BaseSubject) > maxSubject || len(s.Preview) > maxPreview || !utf8.ValidString(s.BaseSubject+s.Preview) || s.Preview == "" {
		t.Errorf("subject of %d, preview of %d octets", len(s.BaseSubject), len(s.Preview))
	}
	if n := len(s.References); n != maxReferences || s.References[0] != "0@b.test" {
		t.Errorf("%d references, the first is %s", n, s.References[0])
	}
	if len(s.Envelope) > maxEnvelope {
		t.Errorf("envelope of %d octets", len(s.Envelope))
	}
}

func TestHugeStructuresAreShownAsOnePart(t *testing.T) {
	t.Parallel()
	part := "--b\r\nContent-Type: text/plain; name=\"" + strings.Repeat("x", 380) + "\"; x=\"" + strings.Repeat("\\\"", 200) + "\"\r\n\r\n"
	raw := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat(part, 9000)
	s := digestOf(raw)
	if len(s.BodyStructure) > maxStructure {
		t.Errorf("structure of %d octets", len(s.BodyStructure))
	}
	bomb := "Content-Type: message/rfc822\r\n\r\nTo: " + strings.Repeat("a@b.test,", 100_000) + "\r\n\r\n"
	if s := digestOf(bomb); len(s.BodyStructure) > maxStructure || len(s.Envelope) > maxEnvelope {
		t.Errorf("structure of %d, envelope of %d octets", len(s.BodyStructure), len(s.Envelope))
	}
}

func TestDigestOfARewrittenMessageIsThatOfItsBytes(t *testing.T) {
	t.Parallel()
	raw := "Bcc: x@y.test\r\nFrom: a@b.test\r\nSubject: s\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\n\r\ntext\r\n--b\r\nContent-Disposition: attachment\r\n\r\nfile\r\n--b--\r\n"
	p := message.ParseBytes([]byte(raw))
	content, err := p.Rewrite(strings.NewReader(raw), int64(len(raw)), []byte("Received: by x\r\n"), "Bcc")
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Make(p, content, content.Size()), digestOf(string(bytes)); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestHasAttachments(t *testing.T) {
	t.Parallel()
	multi := func(kind string, parts ...string) string {
		return "Content-Type: multipart/" + kind + "; boundary=b\r\n\r\n--b\r\n" + strings.Join(parts, "\r\n--b\r\n") + "\r\n--b--\r\n"
	}
	const (
		text   = "Content-Type: text/plain\r\n\r\nx"
		html   = "Content-Type: text/html\r\n\r\nx"
		image  = "Content-Type: image/png\r\nContent-ID: <i>\r\n\r\nx"
		inline = "Content-Type: image/png\r\nContent-Disposition: inline; filename=i.png\r\n\r\nx"
		file   = "Content-Type: application/pdf; name=a.pdf\r\n\r\nx"
		named  = "Content-Type: text/plain; name=a.txt\r\n\r\nx"
		text2  = "Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx"
		sig    = "Content-Type: application/pgp-signature; name=s.asc\r\n\r\nx"
		inner  = "Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx"
		ics    = "Content-Type: text/calendar; method=REQUEST\r\n\r\nx"
	)
	for _, c := range []struct {
		name, raw string
		want      bool
	}{
		{"text alone", text, false},
		{"alternatives", multi("alternative", text, html), false},
		{"invitation among alternatives", multi("alternative", text, ics), false},
		{"image of the text", multi("related", html, image), false},
		{"inline image", multi("mixed", text, inline), false},
		{"signature", multi("signed", text, sig), false},
		{"file", multi("mixed", text, file), true},
		{"named text", multi("mixed", text, named), true},
		{"text as a file", multi("mixed", text, text2), true},
		{"forwarded message", multi("mixed", text, inner), true},
		{"image that no text shows", multi("mixed", text, image), true},
		{"file alone", file, true},
	} {
		if got := HasAttachments(message.ParseBytes([]byte(c.raw))); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func BenchmarkMake(b *testing.B) {
	raw := "From: a@b.test\r\nSubject: Hello\r\nDate: Sat, 21 Nov 2026 10:00:00 +0800\r\nMessage-ID: <4@b.test>\r\n\r\n" +
		strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipiscing elit.\r\n", 170)
	r := strings.NewReader(raw)
	p := message.ParseBytes([]byte(raw))
	b.ReportAllocs()
	for b.Loop() {
		Make(p, r, int64(len(raw)))
	}
}
