package intake

import (
	"strings"
	"testing"
	"time"

	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

func TestTermsOfMail(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, tc := range []struct {
		name string
		user bool
		mail smtp.Mail
		want string
	}{
		{"held for a day", true, smtp.Mail{HoldFor: 24 * time.Hour}, "250"},
		{"held until tomorrow", true, smtp.Mail{HoldUntil: noon.Add(24 * time.Hour)}, "250"},
		{"held for too long", true, smtp.Mail{HoldFor: 31 * 24 * time.Hour}, "501 5.5.4"},
		{"held until too late", true, smtp.Mail{HoldUntil: noon.Add(31 * 24 * time.Hour)}, "501 5.5.4"},
		{"held until yesterday", true, smtp.Mail{HoldUntil: noon.Add(-24 * time.Hour)}, "501 5.5.4"},
		{"held for a stranger", false, smtp.Mail{HoldFor: time.Hour}, "555 5.5.4"},
		{"in an hour or back", false, smtp.Mail{By: smtp.DeliverBy{Seconds: 3600, Mode: smtp.ByReturn}}, "250"},
		{"in a minute or back", false, smtp.Mail{By: smtp.DeliverBy{Seconds: 60, Mode: smtp.ByReturn}}, "250"},
		{"at once or back", false, smtp.Mail{By: smtp.DeliverBy{Seconds: 59, Mode: smtp.ByReturn}}, "555 5.5.4"},
		{"late already", false, smtp.Mail{By: smtp.DeliverBy{Seconds: -59, Mode: smtp.ByNotify}}, "250"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			peer := stranger()
			tc.mail.From = addr(t, "x@remote.test")
			if tc.user {
				peer = h.user("anna")
				tc.mail.From = addr(t, "anna@example.test")
			}
			_, err := h.envelope(t, peer, tc.mail)
			if got := code(t, err); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

const annas = "From: anna@example.test\r\nSubject: hello\r\n\r\nbody\r\n"

func TestHeldMessageWaitsInTheQueueForAll(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	m := smtp.Mail{
		From: addr(t, "anna@example.test"), HoldFor: time.Hour, By: smtp.DeliverBy{Seconds: 600, Mode: smtp.ByReturn, Trace: true},
	}
	got, err := h.send(t, h.user("anna"), m, annas, "bo@example.test", "team@example.test", "x@remote.test")
	must(t, err)
	if len(got.Local) != 0 {
		t.Errorf("%d copies were delivered at once", len(got.Local))
	}
	q := got.Queue
	if q == nil || len(q.Recipients) != 3 {
		t.Fatalf("queue %+v", q)
	}
	if !q.HoldUntil.Equal(noon.Add(time.Hour)) || !q.DeliverBy.Equal(noon.Add(70*time.Minute)) || q.ByMode != "RT" {
		t.Errorf("held until %v, deliver by %v %s", q.HoldUntil, q.DeliverBy, q.ByMode)
	}
	want := []string{"bo@example.test " + store.LocalDestination, "team@example.test " + store.LocalDestination, "x@remote.test remote.test"}
	for i, r := range q.Recipients {
		if s := r.To + " " + r.Domain; s != want[i] {
			t.Errorf("recipient %s, want %s", s, want[i])
		}
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	refused, err := h.Release(t.Context(), from(t, "anna@example.test"),
		[]smtp.Rcpt{{To: addr(t, "team@example.test")}, {To: addr(t, "gone@example.test")}}, strings.NewReader(annas))
	must(t, err)
	if code(t, refused[0]) != "250" || code(t, refused[1]) != "550 5.1.1" {
		t.Errorf("refused %v", refused)
	}
	if len(h.ledger.got) != 1 || len(h.ledger.got[0].Local) != 2 || !strings.HasSuffix(h.ledger.got[0].text, annas[strings.Index(annas, "From"):]) {
		t.Errorf("filed %+v", h.ledger.got)
	}
	refused, err = h.Release(t.Context(), from(t, "anna@example.test"), []smtp.Rcpt{{To: addr(t, "gone@example.test")}}, strings.NewReader(annas))
	if err != nil || code(t, refused[0]) != "550 5.1.1" || len(h.ledger.got) != 1 {
		t.Errorf("nobody is left: %v, %v", refused, err)
	}
}

func TestPriority(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, tc := range []struct {
		name, header string
		asked        int
		has          bool
		want         string
	}{
		{"none", "", 0, false, ""},
		{"asked", "", 2, true, "MT-Priority: 2\r\n"},
		{"too high", "", 9, true, "MT-Priority: 3\r\n"},
		{"low", "", -9, true, "MT-Priority: -9\r\n"},
		{"by the header", "MT-Priority: 9\r\n", 0, false, "MT-Priority: 3\r\n"},
		{"in spite of the header", "MT-Priority: 9\r\n", -1, true, "MT-Priority: -1\r\n"},
		{"a header that says nothing", "MT-Priority: high\r\n", 0, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := smtp.Mail{From: addr(t, "anna@example.test"), Priority: tc.asked, HasPriority: tc.has}
			got, err := h.send(t, h.user("anna"), m, tc.header+annas, "x@remote.test")
			must(t, err)
			var fields string
			for line := range strings.Lines(got.text) {
				if strings.HasPrefix(line, "MT-Priority") {
					fields += line
				}
			}
			if fields != tc.want {
				t.Errorf("field %q, want %q", fields, tc.want)
			}
		})
	}
}

func TestValidSince(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old, fresh := smtp.ValidSince{Since: time.Unix(1_000_000_000, 0)}, smtp.ValidSince{Since: time.Now().Add(time.Hour)}
	for _, tc := range []struct {
		to    string
		since smtp.ValidSince
		want  string
	}{
		{"bo@example.test", fresh, "250"},
		{"bo@example.test", old, "550 5.7.18"},
		{"postmaster@example.test", old, "250"},
	} {
		tx, err := h.envelope(t, stranger(), from(t, "x@remote.test"))
		must(t, err)
		if got := code(t, tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, tc.to), ValidSince: tc.since})); got != tc.want {
			t.Errorf("%s since %v: %s, want %s", tc.to, tc.since, got, tc.want)
		}
	}
	a, err := h.dir.Account(t.Context(), addr(t, "bo@example.test"))
	must(t, err)
	d, err := h.dir.Domain("example.test")
	must(t, err)
	if d.Created.Before(a.Created) {
		tx, err := h.envelope(t, stranger(), from(t, "x@remote.test"))
		must(t, err)
		err = tx.Rcpt(t.Context(), smtp.Rcpt{To: a.Address, ValidSince: smtp.ValidSince{Since: d.Created}})
		if got := code(t, err); got != "550 5.7.17" {
			t.Errorf("since the domain's time: %s", got)
		}
	}
	field := "Require-Recipient-Valid-Since: bo@example.test;\r\n\tSun, 09 Sep 2001 01:46:40 +0000\r\n"
	if _, err := h.send(t, stranger(), from(t, "x@remote.test"), field+plain, "bo@example.test"); code(t, err) != "550 5.7.18" {
		t.Errorf("by the header: %v", err)
	}
	if _, err := h.send(t, stranger(), from(t, "x@remote.test"), field+plain, "anna@example.test"); err != nil {
		t.Errorf("a header about somebody else: %v", err)
	}
	got, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), annas, "x@remote.test")
	must(t, err)
	if got.Queue.Recipients[0].ValidSince != "" {
		t.Errorf("RRVS from nowhere: %+v", got.Queue.Recipients[0])
	}
}
