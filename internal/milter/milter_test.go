package milter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	protocol "github.com/emersion/go-milter"

	"waxwing/internal/directory"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

// scripted is a milter that answers by the words in what it sees, and notes what that was.
type scripted struct {
	protocol.NoOpMilter
	seen func(format string, args ...any)
	body bytes.Buffer
}

func (m *scripted) Connect(host, family string, port uint16, addr net.IP, _ *protocol.Modifier) (protocol.Response, error) {
	m.seen("connect %s %s %d %s", host, family, port, addr)
	return protocol.RespContinue, nil
}

func (m *scripted) Helo(name string, _ *protocol.Modifier) (protocol.Response, error) {
	m.seen("helo %s", name)
	return protocol.RespContinue, nil
}

func (m *scripted) MailFrom(from string, mod *protocol.Modifier) (protocol.Response, error) {
	m.seen("mail %s i=%s auth=%s", from, mod.Macros["i"], mod.Macros["{auth_authen}"])
	return answer(from), nil
}

func (m *scripted) RcptTo(to string, _ *protocol.Modifier) (protocol.Response, error) {
	m.seen("rcpt %s", to)
	return answer(to), nil
}

func (m *scripted) Header(name, value string, _ *protocol.Modifier) (protocol.Response, error) {
	m.seen("%s=%q", name, value)
	return protocol.RespContinue, nil
}

func (m *scripted) BodyChunk(chunk []byte, _ *protocol.Modifier) (protocol.Response, error) {
	m.body.Write(chunk)
	return protocol.RespContinue, nil
}

func (m *scripted) Body(mod *protocol.Modifier) (protocol.Response, error) {
	text := m.body.String()
	m.seen("body of %d", len(text))
	m.body.Reset()
	for word, do := range map[string]func() error{
		"add-field":   func() error { return mod.AddHeader("X-Added", "one\n two\r\nBcc: x@evil.test\x00") },
		"insert":      func() error { return mod.InsertHeader(1, "X-First", "1") },
		"change":      func() error { return mod.ChangeHeader(1, "Subject", "changed") },
		"delete":      func() error { return mod.ChangeHeader(1, "Subject", "") },
		"bad-field":   func() error { return mod.AddHeader("X Bad:", "x") },
		"add-rcpt":    func() error { return mod.AddRecipient("<more@example.test>") },
		"del-rcpt":    func() error { return mod.DeleteRecipient("<gone@example.test>") },
		"sender":      func() error { return mod.ChangeFrom("<other@example.test>") },
		"quarantine":  func() error { return mod.Quarantine("looks odd") },
		"replace":     func() error { return mod.ReplaceBody([]byte("new\nbody")) },
		"mime-change": func() error { return mod.ChangeHeader(1, "Content-Type", "text/html") },
	} {
		if strings.Contains(text, word) {
			if err := do(); err != nil {
				return nil, err
			}
		}
	}
	return answer(text), nil
}

// answer is what a word asks for.
func answer(text string) protocol.Response {
	switch {
	case strings.Contains(text, "reject-words"):
		return protocol.NewResponseStr('y', "554 5.7.99 no\x01 such\r\n250 thing")
	case strings.Contains(text, "hang-up"):
		return protocol.NewResponseStr('y', "421 4.7.0 go away")
	case strings.Contains(text, "reject"):
		return protocol.RespReject
	case strings.Contains(text, "tempfail"):
		return protocol.RespTempFail
	case strings.Contains(text, "discard"):
		return protocol.RespDiscard
	case strings.Contains(text, "accept"):
		return protocol.RespAccept
	}
	return protocol.RespContinue
}

// serve runs a scripted milter and gives what it saw.
func serve(t *testing.T) (m directory.Milter, seen func() string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "m"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	srv := &protocol.Server{
		NewMilter: func() protocol.Milter {
			return &scripted{seen: func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				lines = append(lines, fmt.Sprintf(format, args...))
			}}
		},
		Actions: actions,
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) }) // it ends with Close
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
	})
	m = directory.DefaultMilter()
	m.Name, m.Address, m.Command, m.Content = "scripted", "unix:"+l.Addr().String(), "30s", "30s"
	return m, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(lines, "\n")
	}
}

func client() Client {
	return Client{ID: "ID1", Remote: netip.MustParseAddrPort("192.0.2.7:4711"), HELO: "mail.remote.test", Login: "anna@example.test", Mechanism: "PLAIN"}
}

const letter = "From: a@remote.test\r\nSubject: hello\r\n there\r\nContent-Type: text/plain\r\n\r\n"

// play runs one message through milters.
func play(t *testing.T, body string, list ...directory.Milter) (Changes, error) {
	t.Helper()
	chain := New(Options{Milters: func() []directory.Milter { return list }, Hostname: "mx.example.test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	run := chain.Begin(client())
	defer func() {
		run.Close()
		if n := chain.open.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	}()
	if err := run.Mail(t.Context(), "a@remote.test", Declared(100, "8BITMIME")); err != nil {
		return Changes{}, err
	}
	if err := run.Rcpt(t.Context(), "b@example.test", nil); err != nil {
		return Changes{}, err
	}
	h, _ := message.ParseHeader([]byte(letter))
	return run.Message(t.Context(), h, strings.NewReader(body))
}

func headerText(h message.Header) string {
	var b strings.Builder
	for i := range h {
		b.Write(h[i].Raw)
	}
	return b.String()
}

func TestAMilterSeesTheWholeMessage(t *testing.T) {
	t.Parallel()
	m, seen := serve(t)
	body := strings.Repeat("0123456789abcdef\r\n", 10_000)
	c, err := play(t, body, m)
	if err != nil || c.Edited || headerText(c.Header) != strings.TrimSuffix(letter, "\r\n") {
		t.Fatalf("%+v, %v", c, err)
	}
	want := "connect [192.0.2.7] tcp4 4711 192.0.2.7\nhelo mail.remote.test\nmail a@remote.test i=ID1 auth=anna@example.test\nrcpt b@example.test\n" +
		`From="a@remote.test"` + "\n" + `Subject="hello\n there"` + "\n" + `Content-Type="text/plain"` + "\n" + fmt.Sprintf("body of %d", len(body))
	if seen() != want {
		t.Errorf("it saw\n%s\nwant\n%s", seen(), want)
	}
}

func TestAnswersBecomeReplies(t *testing.T) {
	t.Parallel()
	m, _ := serve(t)
	for body, want := range map[string]string{
		"x": "", "accept": "", "reject": "550 5.7.1 refused by a content check", "tempfail": "451 4.7.1 not taken now by a content check, try again later",
		"reject-words": "554 5.7.99 no such 250 thing", "hang-up": "451 4.7.0 go away",
	} {
		_, err := play(t, body, m)
		got := ""
		var r *smtp.Reply
		if errors.As(err, &r) {
			got = fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text)
		} else if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
	if c, err := play(t, "discard", m); err != nil || !c.Discard {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestARecipientIsRefusedAlone(t *testing.T) {
	t.Parallel()
	m, _ := serve(t)
	run := New(Options{Milters: func() []directory.Milter { return []directory.Milter{m} }}).Begin(client())
	defer run.Close()
	if err := run.Mail(t.Context(), "a@remote.test", nil); err != nil {
		t.Fatal(err)
	}
	if err := run.Rcpt(t.Context(), "reject@example.test", nil); err == nil {
		t.Error("taken")
	}
	if err := run.Rcpt(t.Context(), "b@example.test", nil); err != nil {
		t.Error(err)
	}
	h, _ := message.ParseHeader([]byte(letter))
	if _, err := run.Message(t.Context(), h, strings.NewReader("x")); err != nil {
		t.Error(err)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	m, _ := serve(t)
	allowed := m
	allowed.Body = true
	for body, want := range map[string]string{
		"add-field": letter[:len(letter)-2] + "X-Added: one\r\n\ttwo\r\n\tBcc: x@evil.test\r\n",
		"insert":    "X-First: 1\r\n" + letter[:len(letter)-2],
		"change":    "From: a@remote.test\r\nSubject: changed\r\nContent-Type: text/plain\r\n",
		"delete":    "From: a@remote.test\r\nContent-Type: text/plain\r\n",
		"bad-field": letter[:len(letter)-2],
	} {
		c, err := play(t, body, m)
		if got := headerText(c.Header); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", body, got, err, want)
		}
	}
	c, err := play(t, "add-rcpt del-rcpt sender quarantine mime-change replace", m)
	if err != nil || fmt.Sprintf("%v %v %s %s %v", c.Add, c.Remove, *c.From, c.Hold, c.MIME) != "[more@example.test] [gone@example.test] other@example.test looks odd true" || c.Body != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = play(t, "replace", allowed); err != nil || string(c.Body) != "new\r\nbody\r\n" {
		t.Errorf("%q, %v", c.Body, err)
	}
}

func TestMiltersComeInOrder(t *testing.T) {
	t.Parallel()
	first, _ := serve(t)
	second, seen := serve(t)
	second.Name = "second"
	if _, err := play(t, "add-field", first, second); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(seen(), `X-Added="one\n\ttwo\n\tBcc: x@evil.test"`) {
		t.Errorf("the second saw\n%s", seen())
	}
}

func TestWhoIsShown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		when               string
		trustedIn          bool
		submission, trusts bool
		shown              bool
	}{
		{"both", false, false, false, true},
		{"mx", false, true, false, false},
		{"mx", false, false, false, true},
		{"submission", false, false, false, false},
		{"submission", false, true, false, true},
		{"both", false, false, true, false},
		{"both", true, false, true, true},
	} {
		m := directory.DefaultMilter()
		m.When, m.TrustedIn = tt.when, tt.trustedIn
		run := New(Options{Milters: func() []directory.Milter { return []directory.Milter{m} }}).Begin(Client{Submission: tt.submission, Trusted: tt.trusts})
		if (run != nil) != tt.shown {
			t.Errorf("%+v", tt)
		}
	}
}

func TestAMilterThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "s")) // it takes connections and never says a word
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for failure, want := range map[string]int{"tempfail": 451, "reject": 550, "accept": 0} {
		for _, address := range []string{"unix:/nonexistent/milter", "unix:" + silent.Addr().String()} {
			m := directory.DefaultMilter()
			m.Name, m.Address, m.Failure, m.Command = "absent", address, failure, "20ms"
			_, err := play(t, "x", m)
			code := 0
			var r *smtp.Reply
			if errors.As(err, &r) {
				code = r.Code
			}
			if code != want || err != nil && r == nil {
				t.Errorf("%s, %s: %v", failure, address, err)
			}
		}
	}
}

func TestAMilterEndsWithItsClient(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	m := directory.DefaultMilter()
	m.Name, m.Address, m.Command = "silent", "unix:"+silent.Addr().String(), "5m"
	run := New(Options{Milters: func() []directory.Milter { return []directory.Milter{m} }}).Begin(client())
	defer run.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := run.Mail(ctx, "a@remote.test", nil); err == nil {
		t.Error("a milter that says nothing has let the message pass")
	}
}

func TestFieldsOfMiltersAreSound(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"", "x", "\r\n", "\n\n\n", "a\r\n\r\nbody", "a\rb", strings.Repeat("x", 5000), strings.Repeat("word ", 3000), "\x00\x01", "ä发", " lead", "a\n\tb\n c\n",
		strings.Repeat(strings.Repeat("y", 1200)+"\n", 5),
	} {
		f := newField("X-Test", value)
		again, n := message.ParseHeader(append(bytes.Clone(f.Raw), "\r\n"...))
		if len(again) != 1 || n != len(f.Raw)+2 || again[0].Name != "X-Test" {
			t.Errorf("%q: %q is %d fields", value, f.Raw, len(again))
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(f.Raw), "\r\n"), "\r\n") {
			if len(line) > 1000 || strings.ContainsAny(line, "\r\n\x00") {
				t.Errorf("%q: line of %d octets: %q", value, len(line), line)
			}
		}
	}
}
