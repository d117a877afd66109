package digest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"waxwing/internal/store/search"
)

// picked is the document of a message.
func picked(t *testing.T, raw string) *search.Document {
	t.Helper()
	var d search.Document
	if err := new(TextPicker).Pick(&d, strings.NewReader(raw), int64(len(raw))); err != nil {
		t.Fatal(err)
	}
	return &d
}

// has tells whether a search for the needle in the field would take the message for a candidate.
func has(d *search.Document, f search.Field, needle string) bool {
	have := strings.Fields(string(d.AppendTerms(nil)))
	asked := search.Grams(f, search.AppendFold(nil, []byte(needle)))
	return !slices.ContainsFunc(asked, func(q search.Term) bool {
		return !slices.ContainsFunc(have, func(h string) bool { return h == q.Text || q.Prefix && strings.HasPrefix(h, q.Text) })
	})
}

func hasWord(d *search.Document, f search.Field, word string) bool {
	have := strings.Fields(string(d.AppendTerms(nil)))
	return !slices.ContainsFunc(search.Analyzer{}.Query(f, word), func(q search.Term) bool { return !slices.Contains(have, q.Text) })
}

const searchMail = "From: =?gb2312?B?1cXI/Q==?= <zhang@example.test>\r\nTo: Anna <anna@example.test>\r\nCC : carol@example.test\r\n" +
	"Subject: Quarterly\r\n report\r\nX-Mailer: Pigeon\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
	"preamble\r\n--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p class=\"x\">Visi<b>ble</b> caf&eacute;</p><script>hidden()</script>\r\n" +
	"--b\r\nContent-Type: text/plain; charset=gb18030\r\nContent-Transfer-Encoding: base64\r\n\r\nt6LGsQ==\r\n" +
	"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner subject\r\n\r\ninner text\r\n" +
	"--b\r\nContent-Type: application/pdf; name=\"offer.pdf\"\r\nContent-Disposition: attachment; filename=\"=?utf-8?B?5oql5Lu3?=.pdf\"\r\n\r\nbinary\r\n--b--\r\n"

func TestPickerTakesTheTextWhereSearchLooks(t *testing.T) {
	t.Parallel()
	d := picked(t, searchMail)
	for _, c := range []struct {
		f      search.Field
		needle string
		want   bool
	}{
		{search.Subject, "quarterly report", true},
		{search.Subject, "inner", false},
		{search.Subject, "subject", false},
		{search.From, "张三", true},
		{search.From, "zhang@", true},
		{search.From, "anna", false},
		{search.To, "anna", true},
		{search.Cc, "carol", true},
		{search.Cc, "anna", false},
		{search.Header, "subject: quarterly", true},
		{search.Header, "pigeon", true},
		{search.Header, "张三", true},
		{search.Header, "inner", false},
		{search.Body, "发票", true},
		{search.Body, "inner subject", true},
		{search.Body, "inner text", true},
		{search.Body, "class=", true},
		{search.Body, "visible", false},
		{search.Body, "quarterly", false},
		{search.Body, "binary", false},
		{search.Body, "offer", false},
	} {
		if got := has(d, c.f, c.needle); got != c.want {
			t.Errorf("field %d, %q: %v", c.f, c.needle, got)
		}
	}
}

func TestPickerTakesWordsAsAReaderSeesThem(t *testing.T) {
	t.Parallel()
	d := picked(t, searchMail)
	for _, c := range []struct {
		f    search.Field
		word string
		want bool
	}{
		{search.Body, "visible", true},
		{search.Body, "café", true},
		{search.Body, "发票", true},
		{search.Body, "class", false},
		{search.Body, "hidden", false},
		{search.Subject, "report", true},
		{search.From, "zhang@example.test", true},
		{search.From, "张三", true},
		{search.Attachment, "报价", true},
		{search.Attachment, "offer", false},
	} {
		if got := hasWord(d, c.f, c.word); got != c.want {
			t.Errorf("field %d, %q: %v", c.f, c.word, got)
		}
	}
}

func TestPickerReadsOctetsOfADoubtfulCharsetBothWays(t *testing.T) {
	t.Parallel()
	// GBK octets under a false label: the second octet of a character may be a letter.
	d := picked(t, "Content-Type: text/plain; charset=us-ascii\r\n\r\nplain words, then \xb7\xa2\xc6\xb1\x81abc\x81\x41\x81\x42 and more words to guess by \xd6\xd0\xce\xc4\xd3\xca\xbc\xfe\r\n")
	for _, needle := range []string{"plain words", "abc", "发票", "中文邮件"} {
		if !has(d, search.Body, needle) {
			t.Errorf("%q is not there", needle)
		}
	}
}

func TestPickerTellsWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	d := picked(t, "Subject: long\r\nX-Long: "+strings.Repeat("0123456789", 150_000)+"\r\n\r\nbody\r\n")
	if !d.Incomplete() {
		t.Error("a header of 1.5 MB passes for complete")
	}
	if d := picked(t, "Subject: short\r\n\r\nbody\r\n"); d.Incomplete() {
		t.Error("a small message passes for incomplete")
	}
}

// failing is a message that the disk gives up on.
type failing struct{ io.ReaderAt }

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off > 400 {
		return 0, io.ErrUnexpectedEOF
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestPickerTellsWhenAMessageCannotBeRead(t *testing.T) {
	t.Parallel()
	raw := searchMail + strings.Repeat("\r\n", 1<<16)
	var d search.Document
	err := new(TextPicker).Pick(&d, failing{strings.NewReader(raw)}, int64(len(raw)))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

func FuzzTextPicker(f *testing.F) {
	f.Add([]byte(searchMail))
	files, err := filepath.Glob("../message/testdata/*/*.eml")
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
		var d search.Document
		if err := new(TextPicker).Pick(&d, bytes.NewReader(raw), int64(len(raw))); err != nil {
			t.Fatal(err)
		}
		if n := len(d.AppendTerms(nil)); n > 40*len(raw)+1000 {
			t.Fatalf("%d octets of terms from %d octets", n, len(raw))
		}
	})
}

func BenchmarkTextPicker(b *testing.B) {
	raw := []byte(strings.Replace(searchMail, "inner text", strings.Repeat("The invoice no. 4711 is due; 您的电子发票已开具.\r\n", 150), 1))
	var d search.Document
	var p TextPicker
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		d.Reset()
		if err := p.Pick(&d, bytes.NewReader(raw), int64(len(raw))); err != nil {
			b.Fatal(err)
		}
	}
}
