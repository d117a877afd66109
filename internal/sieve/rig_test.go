package sieve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// world is a Host of maps.
type world struct {
	mailboxes map[string]string // ids by name
	uses      map[string]string // names by use
	seen      map[string]bool
	err       error
}

func (w *world) MailboxExists(_ context.Context, name string) (bool, error) {
	_, ok := w.mailboxes[name]
	return ok, w.err
}

func (w *world) SpecialUse(_ context.Context, name, use string) (bool, error) {
	have, ok := w.uses[strings.ToLower(use)]
	return ok && (name == "" || name == have), w.err
}

func (w *world) Seen(_ context.Context, key string) (bool, error) { return w.seen[key], w.err }

const letter = "Return-Path: <bo@remote.test>\r\n" +
	"Received: from a.remote.test by mx.example.test; Sat, 21 Nov 2026 23:30:00 -0200\r\n" +
	"Received: from b.remote.test by a.remote.test; Sat, 21 Nov 2026 23:29:00 -0200\r\n" +
	"From: Bo =?utf-8?q?M=C3=BCller?= <bo+news@remote.test>\r\n" +
	"To: Anna <anna@example.test>, Team: c@example.test, d@example.test;\r\n" +
	"Subject: [urgent] =?utf-8?q?Gr=C3=BC=C3=9Fe?= 2026\r\n" +
	"X-Count: 7\r\nX-Count: 12\r\n" +
	"Message-ID: <one@remote.test>\r\n" +
	"Date: Sat, 21 Nov 2026 12:34:56 +0100\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n\r\n" +
	"preamble\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n" +
	"SGVsbG8gQW5uYSwgdGhlIGludm9pY2UgaXMgaGVyZS4=\r\n" +
	"--b\r\nContent-Type: text/html\r\n\r\n<p>Click <b>now</b></p>\r\n" +
	"--b\r\nContent-Type: application/x-zip; name=a.zip\r\nContent-Disposition: attachment; filename=\"a.zip\"\r\n\r\nPK\r\n--b--\r\n"

func mustAddress(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// input is the message as it comes to Anna.
func input(t testing.TB, raw string) Input {
	t.Helper()
	in := Input{
		Message: message.ParseBytes([]byte(raw)), Content: bytes.NewReader([]byte(raw)), Size: int64(len(raw)),
		From: mustAddress(t, "bo@remote.test"), To: mustAddress(t, "anna+lists@example.test"),
		Mine: []address.Address{mustAddress(t, "anna@example.test")}, Separator: "+",
		Now:         time.Date(2026, 11, 22, 5, 6, 7, 0, time.UTC),
		Environment: map[string]string{"name": "Waxwing", "phase": "during"}, Spam: -1,
		Host: &world{mailboxes: map[string]string{"INBOX": "F1", "Lists": "F2"}, uses: map[string]string{`\junk`: "Junk"}, seen: map[string]bool{}},
	}
	return in
}

// shown writes actions in one line.
func shown(list []Action) string {
	var out []string
	for _, a := range list {
		switch a := a.(type) {
		case Keep:
			out = append(out, strings.TrimSpace("keep "+strings.Join(a.Flags, " ")))
		case FileInto:
			s := "file " + a.Mailbox
			if a.Use != "" {
				s += " " + a.Use
			}
			if a.Create {
				s += " create"
			}
			out = append(out, strings.TrimSpace(s+" "+strings.Join(a.Flags, " ")))
		case Redirect:
			out = append(out, "redirect "+a.To.String())
		case Reject:
			out = append(out, "reject "+a.Reason)
		case Vacation:
			out = append(out, fmt.Sprintf("vacation %s %q %v", a.To, a.Subject, a.Every))
		case Notify:
			out = append(out, fmt.Sprintf("notify %v %q %q", a.To, a.Subject, a.Body))
		}
	}
	return strings.Join(out, "; ")
}

// do compiles and runs a script over the letter.
func do(t testing.TB, script string, change func(*Input)) Result {
	t.Helper()
	s, err := Compile([]byte(script), Options{})
	if err != nil {
		t.Fatalf("%s\n%v", script, err)
	}
	in := input(t, letter)
	if change != nil {
		change(&in)
	}
	return Run(t.Context(), []*Script{s}, in)
}

// all requires every extension, so that the tables need no require of their own.
func all() string {
	return `require ["` + strings.Join(slices.DeleteFunc(Extensions(), func(s string) bool { return s == "ihave" }), `","`) + `"];` + "\n"
}

var errWorld = errors.New("the world is away")
