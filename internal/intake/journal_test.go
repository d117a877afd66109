package intake

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"waxwing/internal/mailrule"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

func (h *house) journal(t *testing.T, j mailrule.Journal) {
	t.Helper()
	must(t, h.dir.SaveJournal(context.Background(), j, false))
}

func TestJournalGetsACopyOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.journal(t, mailrule.Journal{Name: "out", Of: "example.test", Flow: "sent", To: "carol@example.test"})
	h.journal(t, mailrule.Journal{Name: "team", Of: "bo@example.test", Flow: "received", To: "archive@far.test"})
	raw := "From: anna@example.test\r\nBcc: y@remote.test\r\n\r\nx\r\n"
	got, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), raw, "team@example.test", "bo@example.test", "x@remote.test", "y@remote.test")
	must(t, err)
	var local []store.AccountID
	for _, l := range got.Local {
		local = append(local, l.Account)
	}
	if len(local) != 3 || local[2] != h.ids["carol"] {
		t.Errorf("in the mailboxes of %v", local)
	}
	if len(got.More) != 1 {
		t.Fatalf("%d more rows", len(got.More))
	}
	if q := got.More[0]; q.From != "" || len(q.Recipients) != 1 || q.Recipients[0].To != "archive@far.test" || q.Recipients[0].Notify == 0 {
		t.Errorf("the copy for elsewhere: %+v", q)
	}
	// A stranger who writes our domain as sender hasn't sent anything of ours.
	if got, err = h.send(t, stranger(), from(t, "anna@example.test"), plain, "anna@example.test"); err != nil || len(got.Local) != 1 {
		t.Errorf("%d copies, %v", len(got.Local), err)
	}
	// Mail for the journal itself is not copied to it again.
	if got, err = h.send(t, h.user("anna"), from(t, "anna@example.test"), raw, "carol@example.test"); err != nil || len(got.Local) != 1 || got.Queue != nil {
		t.Errorf("%+v, %v", got.Delivery, err)
	}
}

func TestJournalReportTellsTheEnvelope(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.journal(t, mailrule.Journal{Name: "law", Of: "*", To: "archive@far.test", Form: "report"})
	raw := "Received: from a by b; Sat, 21 Nov 2026 11:59:59 +0000\r\nFrom: anna@example.test\r\nSubject: Grüße\r\nBcc: hidden@remote.test\r\n\r\nhällo\r\n"
	got, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), raw, "bo@example.test", "hidden@remote.test")
	must(t, err)
	if len(got.Also) != 1 {
		t.Fatalf("%d reports", len(got.Also))
	}
	d := got.Also[0]
	text, err := io.ReadAll(io.NewSectionReader(d.Content, 0, d.Content.Size()))
	must(t, err)
	for _, want := range []string{"Sender: <anna@example.test>\r\n", "Recipient: <bo@example.test>\r\n", "Recipient: <hidden@remote.test>\r\n", "hällo\r\n", "Received: from a by b"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	part, err := message.Parse(d.Content, d.Content.Size(), message.DefaultLimits)
	must(t, err)
	if len(part.Parts) != 2 || part.Parts[1].Message == nil || part.Defects != 0 {
		t.Errorf("%+v", part)
	}
	attached, err := io.ReadAll(io.NewSectionReader(d.Content, part.Parts[1].BodyOffset, part.Parts[1].Size()))
	must(t, err)
	if string(attached) != got.text {
		t.Errorf("attached is\n%q, not\n%q", attached, got.text)
	}
	if q := d.Queue; q == nil || q.From != "" || q.Body != "8BITMIME" || len(q.Recipients) != 1 || len(d.Local) != 0 {
		t.Errorf("%+v", d)
	}
	if !strings.Contains(got.text, "Subject:") || strings.Contains(got.text, "hidden@remote.test") {
		t.Error("the message itself tells of its blind recipient")
	}
}

func TestATailIsRead(t *testing.T) {
	t.Parallel()
	c := tailed{strings.NewReader("0123456789"), "abc"}
	if err := iotest.TestReader(io.NewSectionReader(c, 0, c.Size()), []byte("0123456789abc")); err != nil {
		t.Error(err)
	}
}

func TestNothingIsAcceptedThatItsJournalCannotGet(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.journal(t, mailrule.Journal{Name: "gone", Of: "*", To: "nobody@example.test"})
	if _, err := h.send(t, stranger(), from(t, "x@remote.test"), plain, "anna@example.test"); code(t, err) != "451 4.3.5" {
		t.Error(err)
	}
}
