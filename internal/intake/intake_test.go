package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// ledger is a store that keeps deliveries in memory.
type ledger struct {
	mu    sync.Mutex
	got   []filed
	usage map[store.AccountID]store.Usage
	err   error
}

// SRSKeys implements routing.Keys.
func (l *ledger) SRSKeys(context.Context) ([]store.SRSKey, error) {
	return []store.SRSKey{{ID: 1, Secret: bytes.Repeat([]byte("k"), 32)}}, l.err
}

type filed struct {
	store.Delivery
	text string
}

func (l *ledger) Deliver(_ context.Context, d store.Delivery) (store.Delivered, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return store.Delivered{}, l.err
	}
	text, err := io.ReadAll(io.NewSectionReader(d.Content, 0, d.Content.Size()))
	if err != nil {
		return store.Delivered{}, err
	}
	for i := range d.Also { // the spool ends with the transaction
		c := d.Also[i].Content
		also, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
		if err != nil {
			return store.Delivered{}, err
		}
		d.Also[i].Content = bytes.NewReader(also)
	}
	l.got = append(l.got, filed{d, string(text)})
	done := store.Delivered{Local: make([]store.Placed, len(d.Local))}
	if d.Queue != nil {
		done.Queue = store.QueueID(len(l.got))
	}
	return done, nil
}

func (l *ledger) Usage(_ context.Context, id store.AccountID) (store.Usage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.usage[id], l.err
}

// house is an intake for example.test with anna, bo and the suspended sue, and some aliases.
type house struct {
	*Intake
	dir    *directory.Directory
	repo   *directorytest.Memory
	ledger *ledger
	ids    map[string]store.AccountID
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.FixedZone("", 8*3600))

func newHouse(t testing.TB, change ...func(*Options)) *house {
	t.Helper()
	ctx := context.Background()
	h := &house{repo: directorytest.NewMemory(), ledger: &ledger{usage: map[store.AccountID]store.Usage{}}, ids: map[string]store.AccountID{}}
	dir, err := directory.New(ctx, h.repo, directory.Options{})
	must(t, err)
	h.dir = dir
	_, err = dir.AddDomain(ctx, directory.Domain{Name: "example.test"})
	must(t, err)
	for _, name := range []string{"anna", "bo", "sue", "carol"} {
		a, err := dir.AddAccount(ctx, directory.NewAccount{Address: addr(t, name+"@example.test")})
		must(t, err)
		h.ids[name] = a.ID
	}
	must(t, dir.Suspend(ctx, h.ids["sue"], true))
	for alias, targets := range map[string][]string{
		"info": {"anna@example.test"}, "team": {"anna@example.test", "bo@example.test"},
		"away": {"anna@remote.test"}, "mixed": {"bo@example.test", "x@remote.test", "y@other.test"},
	} {
		al := directory.Alias{Address: addr(t, alias+"@example.test")}
		for _, s := range targets {
			al.Targets = append(al.Targets, addr(t, s))
		}
		must(t, dir.AddAlias(ctx, al))
	}
	opts := Options{
		Store: h.ledger, Directory: dir, Routing: routing.New(routing.Options{Directory: dir, Keys: h.ledger}), Hostname: "mx.example.test", SpoolDir: t.TempDir(),
		Clock: func() time.Time { return noon }, IDs: func() string { return "TRACE" },
		Free: func() (int64, error) { return 1 << 40, nil },
	}
	for _, fn := range change {
		fn(&opts)
	}
	h.Intake, err = New(opts)
	must(t, err)
	t.Cleanup(func() {
		if m, s := h.inMemory.Load(), h.spooled.Load(); m != 0 || s != 0 {
			t.Errorf("%d octets of memory and %d of spool are still held", m, s)
		}
	})
	return h
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	if s == "" {
		return address.Address{}
	}
	a, err := address.Parse(s)
	must(t, err)
	return a
}

func stranger() Peer {
	return Peer{Remote: netip.MustParseAddrPort("192.0.2.7:4567"), HELO: "client.remote.test", ESMTP: true}
}

func (h *house) user(name string) Peer {
	return Peer{
		Remote: netip.MustParseAddrPort("[2001:db8::7]:4567"), HELO: "annas-laptop", ESMTP: true, Submission: true,
		Identity: &auth.Identity{Account: h.ids[name], Mechanism: "PLAIN"},
	}
}

// envelope gives an open transaction with its recipients, or the first refusal.
func (h *house) envelope(t testing.TB, p Peer, m smtp.Mail, rcpts ...string) (*Transaction, error) {
	t.Helper()
	tx := h.Begin(p)
	t.Cleanup(tx.Abort)
	if err := tx.Mail(t.Context(), m); err != nil {
		return tx, err
	}
	for _, r := range rcpts {
		if err := tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, r)}); err != nil {
			return tx, err
		}
	}
	return tx, nil
}

// send runs a whole transaction and gives what was filed.
func (h *house) send(t testing.TB, p Peer, m smtp.Mail, raw string, rcpts ...string) (filed, error) {
	t.Helper()
	tx, err := h.envelope(t, p, m, rcpts...)
	if err != nil {
		return filed{}, err
	}
	sp, err := tx.Spool()
	if err != nil {
		return filed{}, err
	}
	_, _ = io.Copy(sp, strings.NewReader(raw))
	before := len(h.ledger.got)
	r, err := tx.Commit(t.Context())
	if err != nil {
		if len(h.ledger.got) != before {
			t.Errorf("refused with %v, and yet filed", err)
		}
		return filed{}, err
	}
	if r.TraceID != "TRACE" || len(h.ledger.got) != before+1 {
		t.Fatalf("receipt %+v, %d filed", r, len(h.ledger.got)-before)
	}
	return h.ledger.got[before], nil
}

// code is "250" or the code of a refusal with its enhanced code.
func code(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return "250"
	}
	var r *smtp.Reply
	if !errors.As(err, &r) {
		t.Fatalf("%v is no reply", err)
	}
	return fmt.Sprintf("%d %v", r.Code, r.Enhanced)
}

func from(t testing.TB, s string) smtp.Mail { return smtp.Mail{From: addr(t, s)} }

const plain = "From: x@remote.test\r\nSubject: hello\r\n\r\nbody\r\n"

func TestStrangersReachOnlyMailboxesHere(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for to, want := range map[string]string{
		"anna@example.test": "250", "ANNA@EXAMPLE.TEST": "250", "anna+tag@example.test": "250", "team@example.test": "250",
		"postmaster@example.test": "250", "Abuse@example.test": "250", "info@example.test": "250", "away@example.test": "250",
		"sue@example.test": "550 5.2.1", "nobody@example.test": "550 5.1.1", "an.na@example.test": "550 5.1.1",
		// No relaying, in any notation.
		"victim@remote.test": "550 5.7.1", "VICTIM@REMOTE.TEST": "550 5.7.1", "postmaster@remote.test": "550 5.7.1",
		"anna@sub.example.test": "550 5.7.1", "anna@example.test.remote.test": "550 5.7.1", "anna@xexample.test": "550 5.7.1",
		"victim%remote.test@example.test": "550 5.7.1", "victim%remote.test%example.test@example.test": "550 5.7.1",
		"remote.test!victim@example.test": "550 5.7.1", "a!b!victim@example.test": "550 5.7.1",
		`"victim@remote.test"@example.test`: "550 5.7.1", `"@remote.test:victim@x.test"@example.test`: "550 5.7.1",
		`"victim%remote.test"@example.test`: "550 5.7.1", `"anna@remote.test"@[192.0.2.1]`: "550 5.7.1",
		`"victim"@remote.test`: "550 5.7.1", "victim@[192.0.2.1]": "550 5.7.1", "anna@[127.0.0.1]": "550 5.7.1",
		"anna@[IPv6:2001:db8::1]": "550 5.7.1", "victim%remote.test@[127.0.0.1]": "550 5.7.1",
		"anna@ехample.test":   "550 5.7.1", // Cyrillic е and х
		"anna@exаmple.test":   "550 5.7.1", // Cyrillic а
		"аnna@example.test":   "550 5.1.1", // Cyrillic а
		"anna@example.test.x": "550 5.7.1", "anna@localhost": "550 5.7.1",
	} {
		_, err := h.envelope(t, stranger(), from(t, "x@remote.test"), to)
		if got := code(t, err); got != want {
			t.Errorf("RCPT TO:<%s>: %s, want %s (%v)", to, got, want, err)
		}
	}
}

func TestNoSenderOpensTheRelay(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, sender := range []string{"", "anna@example.test", "postmaster@example.test", "anna@[192.0.2.1]", "victim@remote.test", "mx@mx.example.test"} {
		_, err := h.envelope(t, stranger(), from(t, sender), "victim@remote.test")
		if got := code(t, err); got != "550 5.7.1" {
			t.Errorf("MAIL FROM:<%s>: %s", sender, got)
		}
	}
	p := stranger()
	p.Submission = true
	if _, err := h.envelope(t, p, from(t, "anna@example.test")); code(t, err) != "530 5.7.0" {
		t.Errorf("submission without signing in: %v", err)
	}
	p = stranger()
	p.Remote = netip.MustParseAddrPort("127.0.0.1:25")
	if _, err := h.envelope(t, p, from(t, "anna@example.test"), "victim@remote.test"); code(t, err) != "550 5.7.1" {
		t.Errorf("a client on this machine is trusted: %v", err)
	}
}

func TestSourceRoutesAreNotFollowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, arg := range []string{
		" TO:<@example.test:victim@remote.test>", " TO:<@mx.example.test,@example.test:victim@remote.test>",
		" TO:<@example.test:victim%remote.test@example.test>", " TO:<victim@remote.test@example.test>",
		" TO:<victim@remote.test> NOTIFY=NEVER", " TO:<victim@remote.test.>", " TO:<anna@example.test@remote.test>",
	} {
		r, refusal := smtp.ParseRcpt([]byte(arg))
		if refusal != nil {
			continue // the session answers it
		}
		tx := h.Begin(stranger())
		must(t, tx.Mail(t.Context(), from(t, "x@remote.test")))
		if err := tx.Rcpt(t.Context(), r); code(t, err) != "550 5.7.1" {
			t.Errorf("RCPT%s: %v", arg, err)
		}
		tx.Abort()
	}
}

func TestBarePostmasterIsTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for to, want := range map[string]string{"postmaster": "250", "PostMaster": "250", "anna": "550 5.1.1", "root": "550 5.1.1"} {
		tx := h.Begin(stranger())
		must(t, tx.Mail(t.Context(), smtp.Mail{}))
		if err := tx.Rcpt(t.Context(), smtp.Rcpt{To: address.Address{Local: to}}); code(t, err) != want {
			t.Errorf("RCPT TO:<%s>: %v", to, err)
		}
		tx.Abort()
	}
}

func TestUsersSendOnlyAsThemselves(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for sender, want := range map[string]string{
		"anna@example.test": "250", "Anna@Example.Test": "250", "anna+x@example.test": "250", "info@example.test": "250",
		"team@example.test": "250", "": "250",
		"bo@example.test": "553 5.7.1", "away@example.test": "553 5.7.1", "anna@remote.test": "553 5.7.1",
		"nobody@example.test": "553 5.7.1", `"anna@example.test"@remote.test`: "553 5.7.1", "anna%example.test@remote.test": "553 5.7.1",
	} {
		_, err := h.envelope(t, h.user("anna"), from(t, sender), "x@remote.test")
		if got := code(t, err); got != want {
			t.Errorf("MAIL FROM:<%s>: %s, want %s", sender, got, want)
		}
	}
	if _, err := h.envelope(t, h.user("sue"), from(t, "sue@example.test")); code(t, err) != "553 5.7.1" {
		t.Errorf("a session that outlives its account's suspension: %v", err)
	}
	for header, want := range map[string]string{
		"From: anna@example.test\r\n": "250", "From: Anna <ANNA@example.test>, info@example.test\r\nSender: anna@example.test\r\n": "250",
		"From: =?utf-8?q?Anna?= <anna+x@example.test>\r\n": "250", "FROM : anna@example.test\r\n": "250",
		"From: bo@example.test\r\n": "550 5.7.1", "From: \"anna@example.test\" <bo@example.test>\r\n": "550 5.7.1",
		"From: anna@example.test, bo@example.test\r\n":                        "550 5.7.1",
		"From: Team: anna@example.test, boss@remote.test;\r\n":                "550 5.7.1",
		"From: boss@remote.test (anna@example.test)\r\n":                      "550 5.7.1",
		"From: anna@example.test\r\nFrom: bo@example.test\r\n":                "550 5.6.0",
		"From: anna@example.test\r\nfrom : bo@example.test\r\n":               "550 5.6.0",
		"From: anna@example.test\r\nSender: bo@example.test\r\n":              "550 5.7.1",
		"From: anna@example.test\r\nSender: a@x.test\r\nSender: b@x.test\r\n": "550 5.6.0",
		"Subject: no author\r\n":                                              "550 5.6.0", "From:\r\n": "550 5.6.0", "From: undisclosed:;\r\n": "550 5.6.0",
		"From: anna\r\n": "550 5.6.0",
		// Programs differ in which address of these they show.
		"From: <anna@example.test> <boss@remote.test>\r\n":                              "550 5.7.1",
		"From: boss@remote.test <anna@example.test>\r\n":                                "550 5.7.1",
		"From: anna@example.test <anna@example.test>\r\n":                               "250",
		"From: \"boss@remote.test\" <anna@example.test>\r\n":                            "250",
		"From: \"bo\"@example.test <anna@example.test>\r\n":                             "550 5.7.1",
		"From: <anna@example.test> bo (x) @ example.test\r\n":                           "550 5.7.1",
		"From: J@ne <anna@example.test> (boss@remote.test)\r\n":                         "250",
		"From: =?utf-8?q?boss@remote.test?= <anna@example.test>\r\n":                    "250",
		"From: <@far.test,@near.test:anna@example.test>\r\n":                            "250",
		"From: <anna@example.test> (open boss@remote.test\r\n":                          "250",
		"From: <anna@example.test> \"open boss@remote.test\r\n":                         "250",
		"From: <anna@example.test>\r\n\tboss@remote.test\r\n":                           "550 5.7.1",
		"From: " + strings.Repeat("anna@example.test, ", 200) + "anna@example.test\r\n": "550 5.6.0",
	} {
		_, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), header+"Subject: s\r\n\r\nx\r\n", "bo@example.test")
		if got := code(t, err); got != want {
			t.Errorf("%.70q: %s, want %s (%v)", header, got, want, err)
		}
	}
}

func TestUsersSendTheNullPathOnlyWithReports(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	report := "From: anna@example.test\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\nread\r\n--b--\r\n"
	if _, err := h.send(t, h.user("anna"), smtp.Mail{}, report, "x@remote.test"); err != nil {
		t.Errorf("a read receipt: %v", err)
	}
	if _, err := h.send(t, h.user("anna"), smtp.Mail{}, strings.Replace(report, "anna", "bo", 1), "x@remote.test"); code(t, err) != "550 5.7.1" {
		t.Errorf("a read receipt as another: %v", err)
	}
	if _, err := h.send(t, h.user("anna"), smtp.Mail{}, "From: anna@example.test\r\n\r\nx\r\n", "x@remote.test"); code(t, err) != "550 5.7.1" {
		t.Errorf("ordinary mail: %v", err)
	}
}

func TestServersMayBringOddHeaders(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for header, want := range map[string]string{
		"From: a@x.test\r\n": "250", "Subject: no author\r\n": "250", "From: a@x.test, b@y.test\r\n": "250", "": "250",
		"From: anna@example.test\r\n": "250", "From: \xc4\xe3\xba\xc3 <a@x.test>\r\n": "250", "Subject: \x00\r\n": "250",
		"From: a@x.test\r\nFrom: b@y.test\r\n": "550 5.6.0",
	} {
		if _, err := h.send(t, stranger(), from(t, "a@x.test"), header+"\r\nx\r\n", "anna@example.test"); code(t, err) != want {
			t.Errorf("%q: %v, want %s", header, err, want)
		}
	}
}

func TestOneCopyForEachAccountInOneDelivery(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	got, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), "From: anna@example.test\r\n\r\nx\r\n",
		"anna@example.test", "team@example.test", "anna+x@example.test", "bo@example.test", "mixed@example.test", "z@remote.test", "BO@example.test")
	must(t, err)
	var accounts []store.AccountID
	for _, l := range got.Local {
		accounts = append(accounts, l.Account)
		if l.Role != store.RoleInbox || !l.IgnoreQuota || !l.InternalDate.Equal(noon) {
			t.Errorf("%+v", l)
		}
	}
	if fmt.Sprint(accounts) != fmt.Sprint([]store.AccountID{h.ids["anna"], h.ids["bo"]}) {
		t.Errorf("local copies for %v", accounts)
	}
	var remote []string
	for _, r := range slices.Concat(got.Queue.Recipients, got.More[0].Recipients) {
		remote = append(remote, r.To+" "+r.Domain+" "+r.ORcpt+" "+string(r.State))
	}
	want := "x@remote.test remote.test rfc822;mixed@example.test waiting,y@other.test other.test rfc822;mixed@example.test waiting,z@remote.test remote.test  waiting"
	if strings.Join(remote, ",") != want {
		t.Errorf("remote recipients %q", remote)
	}
	if q := got.Queue; q.Account != h.ids["anna"] || q.From != "anna@example.test" || q.TraceID != "TRACE" || q.Size != int64(len(got.text)) || len(got.More) != 1 || len(got.More[0].Prefix) != 0 {
		t.Errorf("queued as %+v", q)
	}
}

func TestManyNamesOfOneAddressDoNotMultiplyItsMail(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var rcpts []string
	for i := range 200 {
		rcpts = append(rcpts, fmt.Sprintf("away+%d@example.test", i), fmt.Sprintf("mixed+%d@example.test", i))
	}
	got, err := h.send(t, stranger(), from(t, "x@remote.test"), plain, rcpts...)
	if err != nil || len(got.Queue.Recipients) != 1 || len(got.More) != 1 || len(got.More[0].Recipients) != 2 || len(got.Local) != 1 {
		t.Errorf("%v: %+v", err, got.Queue)
	}
}

func TestOrderOfCommands(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := t.Context()
	tx := h.Begin(stranger())
	defer tx.Abort()
	anna := smtp.Rcpt{To: addr(t, "anna@example.test")}
	if err := tx.Rcpt(ctx, anna); code(t, err) != "503 5.5.1" {
		t.Errorf("RCPT first: %v", err)
	}
	if _, err := tx.Spool(); code(t, err) != "503 5.5.1" {
		t.Errorf("DATA first: %v", err)
	}
	if _, err := tx.Commit(ctx); code(t, err) != "503 5.5.1" {
		t.Errorf("Commit first: %v", err)
	}
	must(t, tx.Mail(ctx, from(t, "x@remote.test")))
	if err := tx.Mail(ctx, from(t, "x@remote.test")); code(t, err) != "503 5.5.1" {
		t.Errorf("MAIL twice: %v", err)
	}
	if _, err := tx.Spool(); code(t, err) != "554 5.5.1" {
		t.Errorf("DATA without recipients: %v", err)
	}
	must(t, tx.Rcpt(ctx, anna))
	sp, err := tx.Spool()
	must(t, err)
	if again, err := tx.Spool(); again != sp || err != nil {
		t.Errorf("a second chunk goes elsewhere: %v", err)
	}
	if err := tx.Rcpt(ctx, anna); code(t, err) != "503 5.5.1" {
		t.Errorf("RCPT after DATA: %v", err)
	}
	tx.Abort()
	tx.Abort()
	if _, err := tx.Commit(ctx); code(t, err) != "503 5.5.1" {
		t.Errorf("Commit after Abort: %v", err)
	}
	if _, err := sp.Write([]byte("late")); err == nil {
		t.Error("the spool takes octets after Abort")
	}
}

func TestFailuresAreTemporary(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"full":      {fmt.Errorf("deliver: %w", store.ErrFull), "452 4.3.1"},
		"read-only": {store.ErrReadOnly, "451 4.3.0"},
		"quota":     {store.ErrOverQuota, "452 4.2.2"},
		"closed":    {store.ErrClosed, "451 4.3.0"},
		"other":     {errors.New("disk on fire"), "451 4.3.0"},
		"cancelled": {context.Canceled, "451 4.3.0"},
	} {
		h := newHouse(t)
		tx, err := h.envelope(t, stranger(), from(t, "x@remote.test"), "anna@example.test")
		must(t, err)
		sp, err := tx.Spool()
		must(t, err)
		_, err = io.WriteString(sp, plain)
		must(t, err)
		h.ledger.err = tt.err
		if _, err := tx.Commit(t.Context()); code(t, err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if name != "other" {
			continue
		}
		if _, err := h.envelope(t, stranger(), from(t, "x@remote.test"), "bo@example.test"); code(t, err) != "451 4.3.0" {
			t.Errorf("RCPT while the store fails: %v", err)
		}
	}
	h := newHouse(t)
	h.repo.Fail(errors.New("directory down"))
	for _, to := range []string{"anna@example.test", "nobody@example.test"} {
		if _, err := h.envelope(t, stranger(), from(t, "x@remote.test"), to); code(t, err) != "451 4.3.0" {
			t.Errorf("%s while the directory fails: %v", to, err)
		}
	}
	if _, err := h.envelope(t, h.user("anna"), from(t, "anna@example.test")); code(t, err) != "451 4.3.0" {
		t.Errorf("MAIL while the directory fails: %v", err)
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.ledger.usage[h.ids["anna"]] = store.Usage{Bytes: 900, QuotaBytes: 1000, Messages: 3, QuotaMessages: 10}
	h.ledger.usage[h.ids["bo"]] = store.Usage{Bytes: 10, QuotaBytes: 1000, Messages: 10, QuotaMessages: 10}
	full := store.DomainUsage{Domain: "example.test", Bytes: 5000, QuotaBytes: 5100, Messages: 7, QuotaMessages: 8}
	h.ledger.usage[h.ids["carol"]] = store.Usage{Domain: full}
	for _, tt := range []struct {
		to   string
		size int64
		want string
	}{
		{"carol@example.test", 100, "250"},
		{"carol@example.test", 101, "452 4.2.2"},
		{"anna@example.test", 0, "250"},
		{"anna@example.test", 100, "250"},
		{"anna@example.test", 101, "452 4.2.2"},
		{"anna@example.test", 1001, "552 5.2.2"},
		{"bo@example.test", 1, "452 4.2.2"},
		{"team@example.test", 101, "250"},
		{"team@example.test", 1101, "452 4.2.2"},
		{"team@example.test", 2001, "552 5.2.2"},
	} {
		_, err := h.envelope(t, stranger(), smtp.Mail{From: addr(t, "x@remote.test"), Size: tt.size}, tt.to)
		if got := code(t, err); got != tt.want {
			t.Errorf("%d octets to %s: %s, want %s", tt.size, tt.to, got, tt.want)
		}
	}
}

func TestLimitsOfTheEnvelope(t *testing.T) {
	t.Parallel()
	free := int64(1 << 30)
	clock := noon
	h := newHouse(t, func(o *Options) {
		o.Free = func() (int64, error) { return free, nil }
		o.Clock = func() time.Time { return clock }
		o.Limits.Reserve = 1 << 20
		o.Limits.Targets = 500
	})
	if _, err := h.envelope(t, stranger(), smtp.Mail{Size: h.MaxSize() + 1}); code(t, err) != "552 5.3.4" {
		t.Errorf("too large by declaration: %v", err)
	}
	tx, err := h.envelope(t, stranger(), smtp.Mail{})
	must(t, err)
	for i := range h.MaxRecipients() {
		must(t, tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, fmt.Sprintf("anna+%d@example.test", i))}))
	}
	if err := tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, "bo@example.test")}); code(t, err) != "452 4.5.3" {
		t.Errorf("one recipient too many: %v", err)
	}
	tx, err = h.envelope(t, h.user("anna"), from(t, "anna@example.test"))
	must(t, err)
	for i := range 500 {
		must(t, tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, fmt.Sprintf("r%d@remote.test", i))}))
	}
	if err := tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, "bo@example.test")}); code(t, err) != "452 4.5.3" {
		t.Errorf("one target too many: %v", err)
	}
	free = 1 << 20
	clock = clock.Add(2 * time.Second)
	if _, err := h.envelope(t, stranger(), smtp.Mail{Size: 1}); code(t, err) != "452 4.3.1" {
		t.Errorf("no room: %v", err)
	}
	free = 1 << 30
	clock = clock.Add(2 * time.Second)
	if _, err := h.envelope(t, stranger(), smtp.Mail{Size: 1}); err != nil {
		t.Errorf("room again: %v", err)
	}
}

func TestUTF8Addresses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	raw := "From: anna@example.test\r\nSubject: 你好\r\n\r\nx\r\n"
	send := func(m smtp.Mail, to string) (filed, error) { return h.send(t, h.user("anna"), m, raw, to) }
	got, err := send(from(t, "anna@example.test"), "李@remote.test")
	if err != nil || !got.Queue.UTF8 || got.Queue.Body != "8BITMIME" {
		t.Errorf("a mail program that forgets SMTPUTF8: %+v, %v", got.Queue, err)
	}
	if got, err = send(from(t, "anna@example.test"), "li@remote.test"); err != nil || got.Queue.UTF8 || got.Queue.Body != "8BITMIME" {
		t.Errorf("an 8-bit header without the parameter: %+v, %v", got.Queue, err)
	}
	m := from(t, "anna@example.test")
	m.UTF8 = true
	if got, err = send(m, "li@remote.test"); err != nil || !got.Queue.UTF8 {
		t.Errorf("an 8-bit header with it: %+v, %v", got.Queue, err)
	}
	raw = "From: anna@example.test\r\nSubject: ascii\r\n\r\nx\r\n"
	m.Body = smtp.Body8Bit
	if got, err = send(m, "li@remote.test"); err != nil || got.Queue.UTF8 || got.Queue.Body != "" {
		t.Errorf("what needs neither goes everywhere: %+v, %v", got.Queue, err)
	}
}
