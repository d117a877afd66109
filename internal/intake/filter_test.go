package intake

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"waxwing/internal/sieve"
	"waxwing/internal/store"
)

// shelf is the scripts of accounts, and mailboxes that all have.
type shelf struct {
	scripts map[store.AccountID]string
	seen    map[string]bool
	reads   int
	err     error
}

func (s *shelf) SieveVersion(_ context.Context, id store.AccountID) (int64, error) {
	return int64(len(s.scripts[id])), s.err
}

func (s *shelf) SieveActive(_ context.Context, id store.AccountID) (string, []byte, error) {
	s.reads++
	return "active", []byte(s.scripts[id]), nil
}

func (s *shelf) SieveText(context.Context, store.AccountID, string) ([]byte, error) {
	return nil, store.ErrNotFound
}

func (s *shelf) SieveSeen(_ context.Context, _ store.AccountID, key string) (bool, error) {
	return s.seen[key], nil
}

func (s *shelf) Mailbox(_ context.Context, _ store.AccountID, name string) (store.Mailbox, error) {
	if name == "Lists" {
		return store.Mailbox{ID: 12, Name: name}, nil
	}
	return store.Mailbox{}, store.ErrNotFound
}

func (s *shelf) Mailboxes(context.Context, store.AccountID) ([]store.Mailbox, error) {
	return []store.Mailbox{{ID: 13, Name: "Junk", Role: store.RoleJunk}}, nil
}

// filterHouse is a house in which anna has a script.
func filterHouse(t *testing.T, script string) (*house, *shelf) {
	t.Helper()
	s := &shelf{scripts: map[store.AccountID]string{}, seen: map[string]bool{}}
	h := newHouse(t, func(o *Options) { o.Scripts = s })
	if _, err := sieve.Compile([]byte(script), sieve.Options{}); err != nil {
		t.Fatal(err)
	}
	s.scripts[h.ids["anna"]] = script
	return h, s
}

const toAnna = "From: x@remote.test\r\nTo: anna@example.test\r\nSubject: hello\r\nMessage-ID: <1@remote.test>\r\n\r\nbody\r\n"

// bring has the stranger send the letter.
func bring(t *testing.T, h *house, raw string, to ...string) (*filed, error) {
	t.Helper()
	h.ledger.got = nil
	got, err := h.send(t, stranger(), from(t, "x@remote.test"), raw, to...)
	return &got, err
}

func TestScriptsDecideWhereMailGoes(t *testing.T) {
	t.Parallel()
	h, s := filterHouse(t, `require ["fileinto", "mailbox", "special-use", "imap4flags", "copy"];
		addflag "\\Seen"; fileinto "Lists"; fileinto :create :flags "$x" "New/Box"; fileinto :specialuse "\\Junk" "None"; fileinto "None"; redirect :copy "y@other.test";`)
	got, err := bring(t, h, toAnna, "anna@example.test", "bo@example.test")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Local) != 5 {
		t.Fatalf("%+v", got.Local)
	}
	a := got.Local
	if a[0].Mailbox != 12 || a[0].Flags != store.Seen || !a[1].Create || a[1].Name != "New/Box" || a[1].Keywords[0] != "$x" ||
		a[2].Mailbox != 13 || a[3].Role != store.RoleInbox || a[3].Account != h.ids["anna"] || a[4].Account != h.ids["bo"] || a[4].Flags != 0 {
		t.Errorf("%+v", a)
	}
	q := got.Queue
	if q == nil || q.From != "anna@example.test" || q.Recipients[0].To != "y@other.test" || !strings.Contains(string(q.Prefix), redirectedField+": anna@example.test") {
		t.Errorf("%+v", q)
	}
	if _, err := bring(t, h, toAnna, "anna@example.test"); err != nil || s.reads != 1 {
		t.Errorf("the script was read %d times: %v", s.reads, err)
	}
	back, err := bring(t, h, redirectedField+": anna@example.test\r\n"+toAnna, "anna@example.test")
	if err != nil || back.Queue != nil {
		t.Errorf("a message goes round: %+v, %v", back.Queue, err)
	}
}

func TestDiscardedMailIsAcceptedAndGoesNowhere(t *testing.T) {
	t.Parallel()
	h, _ := filterHouse(t, `require "duplicate"; if not duplicate { discard; }`)
	got, err := bring(t, h, toAnna, "anna@example.test")
	if err != nil || len(got.Local) != 0 || got.Queue != nil || len(got.Sieve) != 1 || got.Sieve[0].Account != h.ids["anna"] {
		t.Errorf("%+v, %v", got.Delivery, err)
	}
}

func TestAScriptThatFailsKeepsTheMail(t *testing.T) {
	t.Parallel()
	h, s := filterHouse(t, `discard; redirect "a@x.test"; redirect "b@x.test"; redirect "c@x.test"; redirect "d@x.test"; redirect "e@x.test";`)
	got, err := bring(t, h, toAnna, "anna@example.test")
	if err != nil || len(got.Local) != 1 || got.Queue != nil || got.Local[0].Role != store.RoleInbox {
		t.Errorf("%+v, %v", got.Delivery, err)
	}
	s.err = store.ErrClosed
	if _, err := bring(t, h, toAnna, "anna@example.test"); !strings.HasPrefix(code(t, err), "451") {
		t.Errorf("scripts that can't be read: %v", err)
	}
}

func TestRejectRefusesInTheSession(t *testing.T) {
	t.Parallel()
	h, _ := filterHouse(t, "require \"reject\"; reject \"not\r\nwanted ü\";")
	_, err := bring(t, h, toAnna, "anna@example.test")
	if !strings.HasPrefix(code(t, err), "550") || !strings.Contains(err.Error(), "not wanted ?") || len(h.ledger.got) != 0 {
		t.Errorf("%v", err)
	}
	got, err := bring(t, h, toAnna, "anna@example.test", "bo@example.test")
	if err != nil || len(got.Local) != 1 || got.Local[0].Account != h.ids["bo"] || len(got.Also) != 1 {
		t.Fatalf("%+v, %v", got.Delivery, err)
	}
	if q := got.Also[0].Queue; q.From != "" || q.Recipients[0].To != "x@remote.test" {
		t.Errorf("%+v", q)
	}
}

func TestVacationAnswersOnce(t *testing.T) {
	t.Parallel()
	h, s := filterHouse(t, `require "vacation"; vacation :days 2 :subject "Fort" "Ich bin fort.";`)
	got, err := bring(t, h, toAnna, "anna@example.test")
	if err != nil || len(got.Local) != 1 || len(got.Also) != 1 || len(got.Sieve) != 1 {
		t.Fatalf("%+v, %v", got.Delivery, err)
	}
	q := got.Also[0].Queue
	buf := make([]byte, got.Also[0].Content.Size())
	if _, err := got.Also[0].Content.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	text := string(buf)
	for _, want := range []string{"Auto-Submitted: auto-replied", "From: anna@example.test", "To: x@remote.test", "In-Reply-To: <1@remote.test>", "Subject: Fort", "Ich bin fort."} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if q.From != "" || q.Recipients[0].Domain != "remote.test" || got.Sieve[0].Expires.Sub(noon).Hours() != 48 {
		t.Errorf("%+v, %+v", q, got.Sieve)
	}
	s.seen[got.Sieve[0].Key] = true
	if got, err = bring(t, h, toAnna, "anna@example.test"); err != nil || len(got.Also) != 0 {
		t.Errorf("a second answer: %+v, %v", got.Also, err)
	}
}

func TestEditedHeadersAreMessagesOfTheirOwn(t *testing.T) {
	t.Parallel()
	h, _ := filterHouse(t, `require "editheader"; addheader "X-Mark" "yes"; deleteheader "subject";`)
	got, err := bring(t, h, toAnna, "anna@example.test", "bo@example.test")
	if err != nil || len(got.Local) != 1 || len(got.Also) != 1 || got.Also[0].Local[0].Account != h.ids["anna"] {
		t.Fatalf("%+v, %v", got.Delivery, err)
	}
	buf := make([]byte, got.Also[0].Content.Size())
	if _, err := got.Also[0].Content.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if s := string(buf); !strings.HasPrefix(s, "X-Mark: yes\r\n") || strings.Contains(s, "Subject:") || !strings.HasSuffix(s, "\r\n\r\nbody\r\n") {
		t.Errorf("%s", s)
	}
	if strings.Contains(got.text, "X-Mark") || got.Also[0].Summary.HeaderSize != int64(strings.Index(string(buf), "\r\n\r\n")+4) {
		t.Errorf("%s", got.text)
	}
}

// TestAdministratorsScriptsStandAround holds the order of the three scripts.
func TestAdministratorsScriptsStandAround(t *testing.T) {
	t.Parallel()
	h, _ := filterHouse(t, `require "imap4flags"; addflag "\\Seen";`)
	_, err := h.dir.ChangeSettings(t.Context(), -1, "test", map[string]json.RawMessage{
		"sieve.before": json.RawMessage(`"if header \"subject\" \"bad\" { discard; }"`),
		"sieve.after":  json.RawMessage(`"require [\"fileinto\", \"imap4flags\"]; if hasflag \"\\\\Seen\" { fileinto \"Lists\"; }"`),
	})
	must(t, err)
	got, err := bring(t, h, toAnna, "anna@example.test", "bo@example.test")
	if err != nil || len(got.Local) != 2 || got.Local[0].Mailbox != 12 || got.Local[1].Role != store.RoleInbox {
		t.Fatalf("%+v, %v", got.Local, err)
	}
	bad, err := bring(t, h, strings.Replace(toAnna, "hello", "bad", 1), "anna@example.test")
	if err != nil || len(bad.Local) != 0 {
		t.Errorf("%+v, %v", bad.Local, err)
	}
}
