package imapserver

import (
	"encoding/base64"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/simplifiedchinese"
	"pgregory.net/rapid"

	"waxwing/internal/digest"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/search/fts"
	"waxwing/internal/store/sqlite"
)

// newIndexedStore is newStore with an index of the text of messages. wait returns when all of them are indexed.
func newIndexedStore(t testing.TB) (st *store.Store, wait func()) {
	t.Helper()
	dir := t.TempDir()
	progress := make(chan store.MessageID, 1<<12)
	idx, err := fts.New(fts.Options{
		Path: filepath.Join(dir, "search.db"), Pick: new(digest.TextPicker).Pick,
		Progress: func(_ int, upto store.MessageID) { progress <- upto },
	})
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "mail.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	packs, err := blob.Open(blob.Options{Dir: filepath.Join(dir, "packs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	st, err = store.Open(t.Context(), store.Options{DB: db, Blobs: store.Packs(packs), Search: idx})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	err = st.Write(t.Context(), func(tx *store.Tx) error {
		return st.CreateAccountState(tx, testAccount, store.DefaultMailboxes)
	})
	if err != nil {
		t.Fatal(err)
	}
	return st, func() {
		last, err := st.LastMessage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for upto := store.MessageID(0); upto < last; {
			upto = <-progress
		}
	}
}

// phrases are what the mail of these tests is written with: scripts with and without spaces, marks in and out of order,
// widths, cases that change length, pictures.
var phrases = []string{
	"Your invoice no. 4711 is due", "could you look into it", "Die Straße nach Köln", "GROSSE STRASSE", "Übergrößen",
	"您的电子发票已开具", "发票", "会議のお知らせ", "東京タワー", "ﾊﾝｶｸｶﾅ", "ｆｕｌｌ　ｗｉｄｔｈ", "한국어 메일입니다", "회의", "สวัสดีครับ ประชุม",
	"tiếng Việt có dấu", "cafe\u0301 naïve", "a\u0301\u0323b a\u0323\u0301b", "🎉 party ❤️", "x-y_z c++ a.b", "<b>bold</b> &amp; ﬁne",
	"john.doe@mail.example.com", "http://example.test/path?q=1", "ΣΑΣ σας", "Иван Петров", "עברית", "العربية", "ǅ ﬀ ŉ ß", "İstanbul ısı",
	"qualifié élève", "2026-11-21 10:30", "1,234.56", "~{ $B", "=?no", "A票B", "。、・", "ªº²",
}

// mailGenerator writes mail with the phrases, in all the ways that text is carried.
func mailGenerator() *rapid.Generator[string] {
	text := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(phrases), 1, 4).Draw(t, "phrases"), rapid.SampledFrom([]string{" ", "", ", ", "\r\n"}).Draw(t, "between"))
	})
	return rapid.Custom(func(t *rapid.T) string {
		line := func(name string) string {
			s := strings.NewReplacer("\r\n", "\r\n ").Replace(text.Draw(t, name))
			switch rapid.IntRange(0, 3).Draw(t, "carried") {
			case 0:
				return mime.BEncoding.Encode("utf-8", strings.ReplaceAll(s, "\r\n", ""))
			case 1:
				return mime.QEncoding.Encode("utf-8", strings.ReplaceAll(s, "\r\n", ""))
			case 2:
				b, err := simplifiedchinese.GB18030.NewEncoder().String(s)
				if err == nil {
					return b // raw octets, as old programs send them
				}
			}
			return s
		}
		header := fmt.Sprintf("From: %s <a@example.test>\r\nTo: %s\r\nCc : %s\r\nSubject: %s\r\nX-Other: %s\r\nBcc: %s\r\n",
			line("from"), line("to"), line("cc"), line("subject"), line("other"), line("bcc"))
		return header + entity(t, text, 2)
	})
}

// entity is the header fields and the body of a message or part.
func entity(t *rapid.T, text *rapid.Generator[string], depth int) string {
	kind := rapid.IntRange(0, 8).Draw(t, "kind")
	if depth == 0 {
		kind %= 7
	}
	s := text.Draw(t, "text")
	switch kind {
	case 0:
		return "Content-Type: text/plain; charset=utf-8\r\n\r\n" + s
	case 1:
		return "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(s))
	case 2:
		var b strings.Builder
		w := quotedprintable.NewWriter(&b)
		latin, err := charmap.ISO8859_1.NewEncoder().String(s)
		charset := "iso-8859-1"
		if err != nil {
			latin, charset = s, "utf-8"
		}
		_, _ = w.Write([]byte(latin))
		_ = w.Close()
		return "Content-Type: text/plain; charset=" + charset + "\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + b.String()
	case 3:
		b, err := simplifiedchinese.GB18030.NewEncoder().String(s)
		if err != nil {
			b = s
		}
		charset := rapid.SampledFrom([]string{"gb2312", "us-ascii", "iso-8859-1", "utf-8"}).Draw(t, "charset") // mostly a lie
		return "Content-Type: text/plain; charset=" + charset + "\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + b
	case 4:
		return "Content-Type: text/html; charset=utf-8\r\n\r\n<html><body><p class=\"c\">" + s + "</p></body></html>"
	case 5:
		return "\r\n" + s // no type at all
	case 6:
		return "Content-Type: application/octet-stream; name=\"invoice.bin\"\r\n\r\n" + s
	case 7:
		return "Content-Type: message/rfc822\r\n\r\nSubject: " + strings.ReplaceAll(s, "\r\n", " ") + "\r\n" + entity(t, text, depth-1)
	}
	out := "Content-Type: multipart/mixed; boundary=b" + fmt.Sprint(depth) + "\r\n\r\n"
	for range rapid.IntRange(1, 3).Draw(t, "parts") {
		out += "--b" + fmt.Sprint(depth) + "\r\n" + entity(t, text, depth-1) + "\r\n"
	}
	return out + "--b" + fmt.Sprint(depth) + "--\r\n"
}

// needles are pieces of the phrases, in other widths and cases, and some that stand nowhere.
func needles() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 9).Draw(t, "strange") == 0 {
			return rapid.SampledFrom([]string{"wonderland", "subject:", "ubject: ", "x-other", "\u0301", "not here", "票据", "=?", "utf-8", "<p", "QZX"}).Draw(t, "needle")
		}
		s := []rune(rapid.SampledFrom(phrases).Draw(t, "phrase"))
		from := rapid.IntRange(0, len(s)-1).Draw(t, "from")
		piece := string(s[from : from+rapid.IntRange(1, len(s)-from).Draw(t, "runes")])
		switch rapid.IntRange(0, 3).Draw(t, "case") {
		case 0:
			return strings.ToUpper(piece)
		case 1:
			return strings.ToLower(piece)
		}
		return piece
	})
}

// program is a search program with the key and its needle as a literal.
func program(t *rapid.T, depth int) string {
	key := func() string {
		name := rapid.SampledFrom([]string{"SUBJECT", "FROM", "TO", "CC", "BCC", "BODY", "TEXT", "HEADER X-Other", "HEADER Subject"}).Draw(t, "key")
		needle := needles().Draw(t, "needle")
		return fmt.Sprintf("%s {%d+}\r\n%s", name, len(needle), needle)
	}
	if depth == 0 {
		return key()
	}
	switch rapid.IntRange(0, 4).Draw(t, "program") {
	case 0:
		return "NOT " + program(t, depth-1)
	case 1:
		return "OR " + program(t, depth-1) + " " + program(t, depth-1)
	case 2:
		return "(" + program(t, depth-1) + " " + program(t, depth-1) + ")"
	}
	return key()
}

func TestSearchAnswersTheSameWithTheIndexAndWithout(t *testing.T) {
	t.Parallel()
	mail := make([]string, 150)
	gen := mailGenerator()
	for i := range mail {
		mail[i] = gen.Example(i)
	}
	indexed, wait := newIndexedStore(t)
	with, without := serve(t, indexed), newRig(t)
	with.fill("INBOX", mail...)
	without.fill("INBOX", mail...)
	wait()
	// What came later is not indexed when the searches begin, or it is; both must do.
	late := gen.Example(1000)
	with.fill("INBOX", late)
	without.fill("INBOX", late)
	p, q := with.dial("login"), without.dial("login")
	p.ok("SELECT INBOX")
	q.ok("SELECT INBOX")
	hits, searches := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		search := "SEARCH CHARSET UTF-8 " + program(t, rapid.IntRange(0, 2).Draw(t, "depth"))
		got, want := p.ok(search), q.ok(search)
		searches++
		if !slices.Contains(want, "* SEARCH") {
			hits++
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q\nwith the index    %q\nwithout the index %q", search, got, want)
		}
	})
	t.Logf("%d of %d searches found something", hits, searches)
	if hits < searches/5 {
		t.Errorf("only %d of %d searches found anything: the test says too little", hits, searches)
	}
}
