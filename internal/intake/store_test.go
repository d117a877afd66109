package intake

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/routing"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// newRealHouse is an intake over a real store, with anna and bo.
func newRealHouse(t testing.TB) (*Intake, *store.Store, map[string]store.AccountID) {
	t.Helper()
	ctx := t.Context()
	st := storetest.New(t)
	dir, err := directory.New(ctx, st, directory.Options{})
	must(t, err)
	_, err = dir.AddDomain(ctx, directory.Domain{Name: "example.test"})
	must(t, err)
	ids := map[string]store.AccountID{}
	for _, name := range []string{"anna", "bo"} {
		a, err := dir.AddAccount(ctx, directory.NewAccount{Address: addr(t, name+"@example.test"), QuotaBytes: 1 << 20})
		must(t, err)
		ids[name] = a.ID
	}
	in, err := New(Options{
		Store: st, Directory: dir, Routing: routing.New(routing.Options{Directory: dir, Keys: st}), Hostname: "mx.example.test", SpoolDir: t.TempDir(),
		Clock: func() time.Time { return noon }, Limits: Limits{Reserve: 1},
	})
	must(t, err)
	return in, st, ids
}

func TestAcceptedMailIsInTheStore(t *testing.T) {
	t.Parallel()
	in, st, ids := newRealHouse(t)
	ctx := t.Context()
	h := &house{Intake: in, ids: ids}
	for _, octets := range []int{1000, memorySpool + 1000} {
		raw := append([]byte("From: anna@example.test\r\nSubject: "+fmt.Sprint(octets)+"\r\n\r\n"), benchMessage(octets)...)
		tx, err := h.envelope(t, h.user("anna"), from(t, "anna@example.test"), "anna@example.test", "bo@example.test", "x@remote.test")
		must(t, err)
		sp, err := tx.Spool()
		must(t, err)
		_, err = sp.ReadFrom(bytes.NewReader(raw))
		must(t, err)
		r, err := tx.Commit(ctx)
		must(t, err)
		if r.Local != 2 || r.Remote != 1 || r.Queue == 0 || len(r.TraceID) != 26 {
			t.Errorf("%+v", r)
		}
		for name, id := range ids {
			box, err := st.Mailbox(ctx, id, "INBOX")
			must(t, err)
			v, err := st.View(ctx, id, box.ID, func() {})
			must(t, err)
			e, ok := v.Entry(v.Len())
			if !ok || !e.InternalDate.Equal(noon) {
				t.Fatalf("%s: %+v, %v", name, e, ok)
			}
			text, err := st.ReadBlob(ctx, id, e.Message, nil)
			must(t, err)
			if int64(len(text)) != e.Size || !bytes.HasSuffix(text, raw[bytes.Index(raw, []byte("\r\n\r\n")):]) || !bytes.HasPrefix(text, []byte("Return-Path: <anna@example.test>\r\n")) {
				t.Errorf("%s: another text of %d octets", name, len(text))
			}
			v.Close()
		}
	}
}

func TestFullMailboxOfTheStoreIsRefusedAtRcpt(t *testing.T) {
	t.Parallel()
	in, _, _ := newRealHouse(t)
	h := &house{Intake: in}
	big := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 1<<20/78+10)
	send := func(size int64) error {
		tx, err := h.envelope(t, stranger(), smtp.Mail{From: addr(t, "x@remote.test"), Size: size}, "anna@example.test")
		if err != nil {
			return err
		}
		sp, err := tx.Spool()
		must(t, err)
		_, err = sp.Write([]byte("\r\n" + big))
		must(t, err)
		_, err = tx.Commit(t.Context())
		return err
	}
	if err := send(int64(len(big))); code(t, err) != "552 5.2.2" {
		t.Errorf("larger than the mailbox: %v", err)
	}
	if err := send(0); err != nil { // nothing declared: what RCPT let in is kept
		t.Errorf("accepted at RCPT and then refused: %v", err)
	}
	if err := send(0); code(t, err) != "452 4.2.2" {
		t.Errorf("full: %v", err)
	}
}

func TestManyTransactionsAtOnce(t *testing.T) {
	t.Parallel()
	in, st, ids := newRealHouse(t)
	raw := benchMessage(2000)
	from, to := from(t, "x@remote.test"), smtp.Rcpt{To: addr(t, "anna@example.test")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				if err := transaction(t.Context(), in, from, to, raw); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	box, err := st.Mailbox(t.Context(), ids["anna"], "INBOX")
	if err != nil || box.Messages != 80 {
		t.Errorf("%d messages, %v", box.Messages, err)
	}
}
