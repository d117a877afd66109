package imapserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/dialogtest"
)

// failing is an Authenticator with a defect.
type failing struct{ Authenticator }

func (failing) Password(context.Context, auth.Attempt, string, []byte) (*auth.Identity, error) {
	panic("a defect")
}

func TestAPanicEndsOneSessionOnly(t *testing.T) {
	t.Parallel()
	panics := make(chan struct{}, 1)
	r := newRig(t, func(o *Options) {
		o.Auth = failing{o.Auth}
		o.Hooks.Panic = func() { panics <- struct{}{} }
	})
	p := r.dial("tls")
	p.Line()
	p.Send("a LOGIN a b\r\n")
	if _, err := p.R.ReadString('\n'); err == nil {
		t.Error("the session went on")
	}
	<-panics
	p = r.dial("tls")
	p.Line()
	p.ok("NOOP")
}

func TestBeforeLoginEverythingIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct{ name, send, want string }{
		{"a long line", "a NOOP " + strings.Repeat("x", 9000) + "\r\n", "* BYE Command line too long"},
		{"many octets", strings.Repeat("a NOOP\r\n", 9000), "* BYE Too much before login"},
		{"a large literal without waiting", "a LOGIN {60000000+}\r\n", "* BYE Too much before login"},
		{"a literal over the budget", "a LOGIN {9000+}\r\n" + strings.Repeat("x", 9000) + " y\r\nb NOOP\r\n", "a NO [LIMIT] Literal too large"},
		{"many errors", strings.Repeat("GET / HTTP/1.1\r\n", 6), "* BYE Too many errors"},
		{"a bare line feed", "a NOOP\nb NOOP\r\n", "* BYE CR or LF outside of CRLF"},
		{"a huge ID", `a ID (` + strings.Repeat(`"x" "y" `, 900) + ")\r\n", "BAD Too many items"},
		{"deep parentheses", "a SEARCH " + strings.Repeat("(", 8000) + "\r\n", "a BAD Log in first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := r.on(t).dial("plain")
			p.Line()
			go func() { _, _ = io.WriteString(p.Conn, c.send+"z LOGOUT\r\n") }()
			if got := p.Gone(); !strings.Contains(got, c.want) {
				t.Fatalf("got %.300q, want %q", got, c.want)
			}
		})
	}
}

func TestASlowLoginIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Limits.TimeBefore = 100 * time.Millisecond })
	for _, how := range []string{"plain", "tls"} {
		p := r.dial(how)
		if how == "plain" {
			_, _ = io.WriteString(p.Conn, "a LOG") // fails where the server was faster
		}
		p.Gone()
	}
}

func TestPlaintextBehindStartTLSHasNoEffect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, c := range []struct {
		name, injected string
	}{
		{"in the same packet", "b NOOP\r\nc NOOP\r\n"},
		{"a login", "b LOGIN " + testLogin + " \"" + testPassword + "\"\r\nc SELECT INBOX\r\n"},
		{"half a line", "b LOG"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := r.on(t).dial("plain")
			p.Line()
			p.Send("a STARTTLS\r\n" + c.injected)
			if got := p.Line(); got != "a OK Begin TLS negotiation now" {
				t.Fatal(got)
			}
			keys := dialogtest.KeysFor(t, hostname)
			over := tls.Client(p.Conn, keys.Client)
			if err := over.Handshake(); err != nil {
				return // what was not discarded was no handshake: the session has ended, which is as good
			}
			p.Conn = over
			p.R.Reset(over)
			p.Send("d SELECT INBOX\r\n")
			if got := p.Line(); got != "d BAD Log in first" {
				t.Fatalf("the injected commands had an effect: %q", got)
			}
			p.ok("LOGIN " + testLogin + " \"" + testPassword + "\"")
		})
	}
}

func TestRefusedLiteralsNeverBecomeCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.dial("login")
	for _, c := range []struct{ send, want string }{
		{"FETCH {12+}\r\nx LOGOUT\r\nz BODY[]", "BAD Select a mailbox first"},
		{"CREATE {70000+}\r\n" + strings.Repeat("y LOGOUT\r\n", 7000), "NO [LIMIT] Literal too large"},
		{"APPEND Nowhere {10+}\r\nx LOGOUT\r\n", "NO [TRYCREATE] No such mailbox"},
		{"CREATE a {10+}\r\nx LOGOUT\r\n {10+}\r\ny LOGOUT\r\n", "BAD Expected '('"},
		{"AUTHENTICATE PLAIN {10+}\r\nx LOGOUT\r\n", "BAD Already logged in"},
	} {
		_, tagged := p.do(c.send)
		if !strings.HasPrefix(tagged, c.want) {
			t.Fatalf("%.40q: got %q, want %q", c.send, tagged, c.want)
		}
		if got := p.ok("NOOP"); len(got) > 0 {
			t.Fatalf("%.40q: %q", c.send, got)
		}
	}
	p.Send("z CREATE {99999999999+}\r\n")
	if got := p.Gone(); got != "* BYE Refused literal too large\r\n" {
		t.Fatalf("got %q", got)
	}
}

func TestPipelinedCommandsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("INBOX", testMessage(1), testMessage(2))
	p := r.dial("login")
	p.Send("a SELECT INBOX\r\nb FETCH 1 UID\r\nc UID SEARCH ALL\r\nd NOOP\r\n")
	var tagged []string
	for len(tagged) < 4 {
		if line := p.Line(); !strings.HasPrefix(line, "*") {
			tagged = append(tagged, line[:4])
		}
	}
	if got := strings.Join(tagged, ","); got != "a OK,b OK,c OK,d OK" {
		t.Fatal(got)
	}
}

func TestShutdownSaysByeToEverySession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	idle := r.dial("login")
	idle.Send("a IDLE\r\n")
	idle.Line()
	waiting := r.dial("login")
	stranger := r.dial("plain")
	stranger.Line()
	ctx, cancel := context.WithTimeout(t.Context(), dialogtest.Patience)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*peer{idle, waiting, stranger} {
		if got := p.Gone(); !strings.Contains(got, "* BYE [UNAVAILABLE] Server is shutting down") {
			t.Errorf("got %q", got)
		}
	}
}

func TestShutdownCutsASessionThatHangs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.dial("login")
	p.Send("a APPEND INBOX {100+}\r\nhalf")
	p2 := r.dial("login") // the first command has been read when the second session is served
	p2.ok("NOOP")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.server.Shutdown(ctx); err == nil {
		t.Log("the command had not begun")
	}
	p.Gone()
	if m, err := r.store.Mailbox(t.Context(), testAccount, "INBOX"); err != nil || m.Messages != 0 {
		t.Fatalf("half a message was kept: %+v, %v", m, err)
	}
}

func TestTooManySessionsAreRefused(t *testing.T) {
	t.Parallel()
	refused := make(chan string, 1)
	r := newRig(t, func(o *Options) {
		o.Limits.Sessions = 2
		o.Hooks.Refused = func(reason string) { refused <- reason }
	})
	a, b := r.dial("plain"), r.dial("plain")
	a.Line()
	b.Line()
	c := r.dial("plain")
	if got := c.Gone(); got != "* BYE [UNAVAILABLE] Too many connections\r\n" {
		t.Fatalf("got %q", got)
	}
	if got := <-refused; got != "sessions" {
		t.Fatalf("refused for %q", got)
	}
}

func TestAPeerThatLeavesEndsItsCommand(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 8)
	r := newRig(t, func(o *Options) { o.Hooks.SessionClosed = func() { closed <- struct{}{} } })
	body := strings.Repeat("word after word, ", 2000)
	for range 40 {
		r.fill("INBOX", testMessage(1)+body)
	}
	p := r.dial("login")
	p.ok("SELECT INBOX")
	for range 200 {
		p.Send("a FETCH 1:* BODY.PEEK[]\r\n")
	}
	_ = p.Conn.Close()
	select {
	case <-closed:
	case <-time.After(dialogtest.Patience):
		t.Fatal("the session goes on without its peer")
	}
}

func TestLargeMessagesAreSpooledAndStreamed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.dial("login")
	var b strings.Builder
	b.WriteString("Subject: large\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext\r\n--x\r\nContent-Type: application/x\r\n\r\n")
	for i := range 60_000 {
		fmt.Fprintf(&b, "line %d of a message that is not held in memory\r\n", i)
	}
	b.WriteString("--x--\r\n")
	text := b.String()
	p.ok(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(text), text))
	p.ok("SELECT INBOX")
	for item, want := range map[string]string{
		"BODY.PEEK[]":                                  text,
		"BODY.PEEK[]<100000.5000>":                     text[100000:105000],
		"BODY.PEEK[HEADER]":                            text[:strings.Index(text, "--x\r\n")],
		"BODY.PEEK[HEADER.FIELDS (SUBJECT)]":           "Subject: large\r\n\r\n",
		"BODY.PEEK[TEXT]<0.3>":                         "--x",
		"BODY.PEEK[1]":                                 "text",
		"BODY.PEEK[2.MIME]":                            "Content-Type: application/x\r\n\r\n",
		"(BODY.PEEK[2]<0.6> BODY.PEEK[1] RFC822.SIZE)": "line 0",
	} {
		got := p.ok("FETCH 1 " + item)
		if len(got) != 1 || !strings.Contains(got[0], fmt.Sprintf("{%d}\r\n%s", len(want), want)) {
			t.Errorf("%s: got %.200q", item, got)
		}
	}
	if got := p.ok(`SEARCH BODY "TEXT" HEADER Subject LARGE`); got[0] != "* SEARCH 1" {
		t.Errorf("search: %q", got)
	}
}

func TestMessagesThatAreWrongAreServedAsTheyAre(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.dial("login")
	p.ok("SELECT INBOX")
	for i, c := range []struct{ text, header string }{
		{"no header at all", ""},
		{"Subject: x", "Subject: x"},
		{"Subject: x\r\n", "Subject: x\r\n"},
		{"Subject: bare\nFrom: a\n\nbody\n", "Subject: bare\nFrom: a\n\n"},
		{"\r\nbody", "\r\n"},
		{" folded first\r\nSubject: x\r\n\r\nbody", " folded first\r\nSubject: x\r\n\r\n"},
	} {
		p.ok(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(c.text), c.text))
		got := p.ok(fmt.Sprintf("FETCH %d (BODY.PEEK[] BODY.PEEK[HEADER] BODY.PEEK[TEXT] BODY.PEEK[1] RFC822.SIZE ENVELOPE BODYSTRUCTURE)", i+1))
		whole := fmt.Sprintf("BODY[] {%d}\r\n%s BODY[HEADER] {", len(c.text), c.text)
		if len(got) != 1 || !strings.Contains(got[0], whole) {
			t.Fatalf("%q: got %q", c.text, got)
		}
		header := got[0][strings.Index(got[0], "BODY[HEADER] {"):]
		rest := header[strings.Index(header, "\r\n")+2:]
		text := rest[strings.Index(rest, " BODY[TEXT] {"):]
		text = text[strings.Index(text, "\r\n")+2:]
		h, body := rest[:strings.Index(rest, " BODY[TEXT] {")], text[:strings.Index(text, " BODY[1] {")]
		if h+body != c.text {
			t.Errorf("%q: header %q and text %q are not the message", c.text, h, body)
		}
		if c.header != "" && h != c.header {
			t.Errorf("%q: header %q, want %q", c.text, h, c.header)
		}
	}
}

func TestSearchFindsDecodedText(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill("INBOX",
		"Subject: =?GB2312?B?t6LGsQ==?=\r\nFrom: =?UTF-8?Q?Andr=C3=A9?= <a@x.test>\r\n\r\nplain\r\n",
		"Subject: two\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n5oKo55qE55S15a2Q5Y+R56Wo\r\n",
		"Subject: three\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nA caf=E9 in the long l=\r\nine\r\n",
		"Subject: four\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner secret\r\n\r\ninner text\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\nattached needle\r\n--b--\r\n",
		"Subject: folded\r\n over lines\r\n\r\n\xb7\xa2\xc6\xb1 raw GBK\r\n",
	)
	p := r.dial("login")
	p.ok("SELECT INBOX")
	for _, c := range []struct{ search, want string }{
		{`SUBJECT "发票"`, " 1"},
		{`FROM "ANDRÉ"`, " 1"},
		{"CHARSET GB2312 SUBJECT {4+}\r\n\xb7\xa2\xc6\xb1", " 1"},
		{`BODY "电子发票"`, " 2"},
		{`TEXT "CAFÉ IN THE LONG LINE"`, " 3"},
		{`BODY "inner SECRET"`, " 4"},
		{`BODY "inner text"`, " 4"},
		{`BODY "attached needle"`, ""},
		{`SUBJECT "folded over"`, " 5"},
		{`TEXT "raw gbk"`, " 5"},
		{`NOT TEXT "e"`, ""},
		{`OR SUBJECT two SUBJECT three`, " 2 3"},
	} {
		got := p.ok("SEARCH " + c.search)
		if len(got) != 1 || got[0] != "* SEARCH"+c.want {
			t.Errorf("%s: got %q, want %q", c.search, got, c.want)
		}
	}
}

// flip changes one octet of each place in the files below dir where want stands.
func flip(t *testing.T, dir string, want []byte) (places int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		i := bytes.Index(b, want)
		if i < 0 {
			return nil
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		places++
		_, err = f.WriteAt([]byte{^b[i]}, int64(i))
		return errors.Join(err, f.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	return places
}

func TestADamagedMessageHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := serve(t, dialogtest.OpenStore(t, dir, testAccount))
	noise := make([]byte, 6000) // does not shrink, so that it is found on disk as it is
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(1 + random.IntN(255))
	}
	r.fill("INBOX", testMessage(1), "Subject: damaged\r\n\r\n"+string(noise), testMessage(3))
	if n := flip(t, filepath.Join(dir, "packs"), noise[1000:1100]); n != 1 {
		t.Fatalf("found the message in %d files", n)
	}
	p := r.dial("login")
	p.ok("SELECT INBOX")
	got, tagged := p.do("FETCH 1:* (UID BODY.PEEK[])")
	if !strings.HasPrefix(tagged, "NO [CORRUPTION]") || len(got) != 2 ||
		!strings.HasPrefix(got[0], "* 1 FETCH (UID 1 BODY[] ") || !strings.HasPrefix(got[1], "* 3 FETCH (UID 3 BODY[] ") {
		t.Fatalf("got %d responses, %s", len(got), tagged)
	}
	if got := p.ok("FETCH 2 (FLAGS ENVELOPE)"); !strings.Contains(got[0], "damaged") {
		t.Errorf("its envelope: %q", got)
	}
	if got := p.ok(`SEARCH TEXT "body of"`); got[0] != "* SEARCH 1 3" {
		t.Errorf("search: %q", got)
	}
}
