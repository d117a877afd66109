package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/auth"
	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeServer stands for the running server.
type fakeServer struct {
	reloads int
	lists   []dnslist.Status
}

func (f *fakeServer) Status() control.Status {
	return control.Status{Version: "test", Hostname: "mx.example.test", Well: true}
}

func (f *fakeServer) SurgeChanged(store.AccountID) {}
func (f *fakeServer) DNSLists() []dnslist.Status   { return f.lists }
func (f *fakeServer) Reload(context.Context) error { f.reloads++; return nil }

// overBoth runs a test over both carriers: what one does the other must do.
func overBoth(t *testing.T, test func(t *testing.T, c control.Carrier, b *controltest.Bench)) {
	t.Helper()
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		b := controltest.New(t, nil)
		test(t, control.Direct(b.Service), b)
	})
	t.Run("socket", func(t *testing.T) {
		t.Parallel()
		b := controltest.New(t, &fakeServer{})
		// Deeper than a socket's address can say.
		dir := filepath.Join(b.Dir, strings.Repeat("deep/", 30))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		test(t, dial(t, b, dir), b)
	})
}

func dial(t *testing.T, b *controltest.Bench, dir string) *control.Client {
	t.Helper()
	if _, err := control.Dial(t.Context(), dir); !errors.Is(err, control.ErrNoServer) {
		t.Errorf("Dial without a server: %v", err)
	}
	l, err := control.ListenSocket(dir)
	if err != nil {
		t.Fatal(err)
	}
	serving := b.Service.Serve(l)
	c, err := control.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), serving.Close(context.Background()), control.RemoveSocket(dir)); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func wantKind(t *testing.T, what string, err error, kind control.Kind) {
	t.Helper()
	if err == nil || control.KindOf(err) != kind {
		t.Errorf("%s: %v is of kind %s, want %s", what, err, control.KindOf(err), kind)
	}
}

func TestAccountsAreMadeShownChangedAndDeleted(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, _ *controltest.Bench) {
		ctx := t.Context()
		hash, err := auth.HashPassword([]byte("correct horse battery"))
		if err != nil {
			t.Fatal(err)
		}
		made, err := control.AccountAdd.Call(ctx, c, control.NewAccounts{Accounts: []control.NewAccount{
			{Address: "Li@Example.test", Name: "李", PasswordHash: hash, QuotaBytes: -1, Admin: true}, {Address: "b@example.test"},
		}})
		if err != nil || len(made.Accounts) != 2 {
			t.Fatalf("add: %+v, %v", made, err)
		}
		_, err = control.AccountAdd.Call(ctx, c, control.NewAccounts{Accounts: []control.NewAccount{{Address: "c@example.test"}, {Address: "b@example.test"}}})
		wantKind(t, "an address twice", err, control.Conflict)
		var e *control.Error
		if !errors.As(err, &e) || e.Index == nil || *e.Index != 1 {
			t.Errorf("the entry to blame is not named: %+v", e)
		}
		_, err = control.AccountShow.Call(ctx, c, control.AccountRef{Address: "c@example.test"})
		wantKind(t, "nothing of a refused batch is made", err, control.NotFound)
		_, err = control.AccountAdd.Call(ctx, c, control.NewAccounts{Accounts: []control.NewAccount{{Address: "not an address"}}})
		wantKind(t, "no address", err, control.Invalid)
		_, err = control.AccountAdd.Call(ctx, c, control.NewAccounts{Accounts: []control.NewAccount{{Address: "x@foreign.test"}}})
		wantKind(t, "a foreign domain", err, control.Invalid)

		name, quota := "Li Wei", int64(1<<30)
		if _, err := control.AccountSet.Call(ctx, c, control.AccountChange{Address: "li@example.test", Name: &name, QuotaBytes: &quota}); err != nil {
			t.Fatal(err)
		}
		if _, err := control.AccountSuspend.Call(ctx, c, control.Suspension{Address: "li@example.test", Suspended: true}); err != nil {
			t.Fatal(err)
		}
		got, err := control.AccountShow.Call(ctx, c, control.AccountRef{Address: "li@example.test"})
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != name || got.QuotaBytes != quota || !got.Suspended || !got.Admin || got.Password == nil || !*got.Password || len(got.Mailboxes) < 6 || got.Usage == nil {
			t.Errorf("shown: %+v", got)
		}
		if _, err := control.AccountHash.Call(ctx, c, control.PasswordChange{Address: "b@example.test", PasswordHash: "plaintext"}); control.KindOf(err) != control.Invalid {
			t.Errorf("a plaintext password is taken: %v", err)
		}
		if _, err := control.AccountDelete.Call(ctx, c, control.AccountRef{Address: "li@example.test"}); err != nil {
			t.Fatal(err)
		}
		list, err := control.AccountList.Call(ctx, c, control.Listing{})
		if err != nil || len(list.Accounts) != 1 || list.Accounts[0].Address != "b@example.test" || list.Next != "" {
			t.Errorf("list: %+v, %v", list, err)
		}
	})
}

func TestAccountsArePaged(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		for i := range 5 {
			b.Account(t, fmt.Sprintf("u%d@example.test", i))
		}
		var all []string
		req := control.Listing{Limit: 2, Domain: "EXAMPLE.test"}
		for {
			page, err := control.AccountList.Call(t.Context(), c, req)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page.Accounts {
				all = append(all, a.Address)
			}
			if req.After = page.Next; req.After == "" {
				break
			}
		}
		if want := []string{"u0@example.test", "u1@example.test", "u2@example.test", "u3@example.test", "u4@example.test"}; !reflect.DeepEqual(all, want) {
			t.Errorf("got %v", all)
		}
	})
}

func TestDomainsAndAliases(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		b.Account(t, "a@example.test")
		if _, err := control.DomainAdd.Call(ctx, c, control.Domain{Name: "Bücher.test"}); err != nil {
			t.Fatal(err)
		}
		_, err := control.DomainAdd.Call(ctx, c, control.Domain{Name: "xn--bcher-kva.test"})
		wantKind(t, "a domain twice", err, control.Conflict)
		_, err = control.DomainAdd.Call(ctx, c, control.Domain{Name: "no domain"})
		wantKind(t, "no domain", err, control.Invalid)
		d, err := control.DomainSet.Call(ctx, c, control.Domain{Name: "bücher.test", CatchAll: "a@example.test"})
		if err != nil || d.CatchAll != "a@example.test" {
			t.Errorf("set: %+v, %v", d, err)
		}
		if _, err := control.AliasAdd.Call(ctx, c, control.Alias{Address: "team@bücher.test", Targets: []string{"a@example.test", "out@foreign.test"}}); err != nil {
			t.Fatal(err)
		}
		_, err = control.AliasAdd.Call(ctx, c, control.Alias{Address: "team@bücher.test", Targets: []string{"a@example.test"}})
		wantKind(t, "an alias twice", err, control.Conflict)
		_, err = control.DomainRemove.Call(ctx, c, control.DomainRef{Name: "bücher.test"})
		wantKind(t, "a domain with an alias", err, control.Conflict)
		list, err := control.AliasList.Call(ctx, c, control.Listing{})
		if err != nil || len(list.Aliases) != 1 || list.Aliases[0].Address != "team@bücher.test" || len(list.Aliases[0].Targets) != 2 {
			t.Errorf("list: %+v, %v", list, err)
		}
		if _, err := control.AliasRemove.Call(ctx, c, control.AliasRef{Address: "team@bücher.test"}); err != nil {
			t.Fatal(err)
		}
		_, err = control.AliasRemove.Call(ctx, c, control.AliasRef{Address: "team@bücher.test"})
		wantKind(t, "no such alias", err, control.NotFound)
		if _, err := control.DomainRemove.Call(ctx, c, control.DomainRef{Name: "bücher.test"}); err != nil {
			t.Fatal(err)
		}
		all, err := control.DomainList.Call(ctx, c, control.Done{})
		if err != nil || len(all.Domains) != 1 {
			t.Errorf("domains: %+v, %v", all, err)
		}
	})
}

func TestSettingsAreChangedWithHistoryAndRolledBack(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, _ *controltest.Bench) {
		ctx := t.Context()
		value := func(set control.Settings, name string) string {
			for _, s := range set.Settings {
				if s.Name == name {
					return string(s.Value)
				}
			}
			return ""
		}
		show := func(version *int64) control.Settings {
			t.Helper()
			set, err := control.SettingsShow.Call(ctx, c, control.SettingsAt{Version: version})
			if err != nil {
				t.Fatal(err)
			}
			return set
		}
		change := func(base int64, name, raw string) error {
			doc := control.Document{Settings: map[string]json.RawMessage{}}
			if raw != "" {
				doc.Settings[name] = json.RawMessage(raw)
			}
			_, err := control.DocumentApply.Call(ctx, c, control.Application{Base: base, Document: doc})
			return err
		}
		first := show(nil).Version
		if err := change(first, "message.recipients", "500"); err != nil || value(show(nil), "message.recipients") != "500" {
			t.Fatalf("change: %v", err)
		}
		wantKind(t, "based on an old version", change(first, "message.recipients", "600"), control.Conflict)
		wantKind(t, "out of range", change(-1, "message.recipients", "5"), control.Invalid)
		wantKind(t, "no such setting", change(-1, "no.such", "5"), control.Invalid)
		if err := change(first+1, "", ""); err != nil || value(show(nil), "message.recipients") != "1000" {
			t.Fatalf("back to the default: %v", err)
		}
		back, err := control.DocumentRollback.Call(ctx, c, control.Rollback{Version: first + 1, Base: -1})
		if err != nil || back.Version != first+3 || value(show(nil), "message.recipients") != "500" {
			t.Fatalf("rollback: %+v, %v", back, err)
		}
		h, err := control.SettingsHistory.Call(ctx, c, control.HistoryPage{Limit: 3})
		if err != nil || len(h.Changes) != 3 || h.Changes[0].Version != first+3 || h.Changes[0].Actor == "" || string(h.Changes[1].Value) != "null" {
			t.Errorf("history: %+v, %v", h, err)
		}
		old := first + 2
		if at := value(show(&old), "message.recipients"); at != "1000" {
			t.Errorf("settings at %d: %v", old, at)
		}
	})
}

// A command that is killed leaves an append behind: who comes next sees what became of it.
func TestEnsureWaitsForTheAppendThatIsUnderWay(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		b.Account(t, "a@example.test")
		ref := control.MailboxRef{Account: "a@example.test", Name: "INBOX"}
		box, err := control.MailboxEnsure.Call(ctx, c, ref)
		if err != nil {
			t.Fatal(err)
		}
		text := "Subject: x\r\n\r\n"
		begun, rest := io.Pipe()
		appended := make(chan error, 1)
		go func() {
			req := control.Append{Account: ref.Account, Mailbox: box.ID, Messages: []control.NewMessage{{Size: int64(len(text))}}}
			_, err := control.MessageAppend.Call(ctx, c, req, begun)
			appended <- err
		}()
		if _, err := rest.Write([]byte(text[:5])); err != nil {
			t.Fatal(err)
		}
		for !control.Appending(b.Service) {
			runtime.Gosched() // until the operation has begun
		}
		soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		if _, err := control.MailboxEnsure.Call(soon, c, ref); err == nil {
			t.Error("it did not wait")
		}
		seen := make(chan uint32, 1)
		go func() {
			now, err := control.MailboxEnsure.Call(ctx, c, ref)
			if err != nil {
				t.Error(err)
			}
			seen <- now.UIDNext
		}()
		if _, err := rest.Write([]byte(text[5:])); err != nil {
			t.Fatal(err)
		}
		if err := rest.Close(); err != nil {
			t.Fatal(err)
		}
		if next := <-seen; next != box.UIDNext+1 {
			t.Errorf("UIDNEXT %d, want %d", next, box.UIDNext+1)
		}
		if err := <-appended; err != nil {
			t.Error(err)
		}
	})
}

func TestMailIsAppendedListedAndRead(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		b.Account(t, "a@example.test")
		box, err := control.MailboxEnsure.Call(ctx, c, control.MailboxRef{Account: "a@example.test", Name: "归档/2024"})
		if err != nil {
			t.Fatal(err)
		}
		again, err := control.MailboxEnsure.Call(ctx, c, control.MailboxRef{Account: "a@example.test", Name: "归档/2024"})
		if err != nil || again.ID != box.ID {
			t.Errorf("ensured twice: %+v, %v", again, err)
		}
		date := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
		small := "Subject: small\r\n\r\nx\r\n"
		large := "Subject: large\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 40_000)
		req := control.Append{Account: "a@example.test", Mailbox: box.ID, Messages: []control.NewMessage{
			{Size: int64(len(small)), Seen: true, Flagged: true, Keywords: []string{"$Work"}, InternalDate: date},
			{Size: int64(len(large))},
		}}
		placed, err := control.MessageAppend.Call(ctx, c, req, strings.NewReader(small+large))
		if err != nil || len(placed.UIDs) != 2 {
			t.Fatalf("append: %+v, %v", placed, err)
		}
		_, err = control.MessageAppend.Call(ctx, c, req, strings.NewReader(small+large[:1000]))
		wantKind(t, "a body that ends early", err, control.Invalid)
		page, err := control.MessageList.Call(ctx, c, control.MessagePage{Account: "a@example.test", Mailbox: box.ID})
		if err != nil || len(page.Messages) != 2 {
			t.Fatalf("list: %+v, %v", page, err)
		}
		m := page.Messages[0]
		if !m.Seen || !m.Flagged || m.Draft || !reflect.DeepEqual(m.Keywords, []string{"$Work"}) || !m.InternalDate.Equal(date) || m.Size != int64(len(small)) {
			t.Errorf("first message: %+v", m)
		}
		for i, want := range []string{small, large} {
			r, err := control.MessageRead.Call(ctx, c, control.MessageRef{Account: "a@example.test", ID: page.Messages[i].ID})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != want {
				t.Errorf("message %d: %d octets, %v", i, len(got), err)
			}
			r.Close()
		}
		_, err = control.MessageRead.Call(ctx, c, control.MessageRef{Account: "a@example.test", ID: 999})
		wantKind(t, "no such message", err, control.NotFound)
		after, err := control.MessageList.Call(ctx, c, control.MessagePage{Account: "a@example.test", Mailbox: box.ID, After: page.Messages[1].UID})
		if err != nil || len(after.Messages) != 0 {
			t.Errorf("after the last: %+v, %v", after, err)
		}
		sample, err := control.StoreSample.Call(ctx, c, control.SampleRequest{Messages: 5})
		if err != nil || sample.Checked != 5 || len(sample.Damaged) != 0 {
			t.Errorf("sample: %+v, %v", sample, err)
		}
	})
}

func TestQueueIsListedAndChanged(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		raw := "Subject: out\r\n\r\nx\r\n"
		for i := range 3 {
			_, err := b.Store.Deliver(ctx, store.Delivery{Content: bytes.NewReader([]byte(raw)), Queue: &store.QueueMessage{
				TraceID: fmt.Sprint(i), From: "a@example.test", Size: int64(len(raw)), Description: "out",
				Recipients: []store.QueueRecipient{{To: fmt.Sprintf("r%d@remote.test", i), Domain: "remote.test"}},
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		list, err := control.QueueList.Call(ctx, c, control.QueuePage{Limit: 2})
		if err != nil || len(list.Messages) != 2 || list.Next == 0 {
			t.Fatalf("list: %+v, %v", list, err)
		}
		m, err := control.QueueShow.Call(ctx, c, control.QueueRef{ID: list.Messages[0].ID})
		if err != nil || m.From != "a@example.test" || len(m.Recipients) != 1 || m.Recipients[0].State != "waiting" {
			t.Errorf("show: %+v, %v", m, err)
		}
		_, err = control.QueueShow.Call(ctx, c, control.QueueRef{ID: 9999})
		wantKind(t, "no such message", err, control.NotFound)
		_, err = control.QueueChange.Call(ctx, c, control.QueueRequest{Act: control.QueueDrop})
		wantKind(t, "an empty selection", err, control.Invalid)
		_, err = control.QueueChange.Call(ctx, c, control.QueueRequest{Act: "burn", All: true})
		wantKind(t, "no such act", err, control.Invalid)
		_, err = control.QueueChange.Call(ctx, c, control.QueueRequest{Act: control.QueueHold, Selection: control.Selection{State: "lost"}})
		wantKind(t, "no such state", err, control.Invalid)
		held, err := control.QueueChange.Call(ctx, c, control.QueueRequest{Act: control.QueueHold, Selection: control.Selection{IDs: []int64{m.ID}}})
		if err != nil || held.Recipients != 1 {
			t.Errorf("hold: %+v, %v", held, err)
		}
		counts, err := control.QueueCount.Call(ctx, c, control.Done{})
		if err != nil || counts.Held != 1 || counts.Waiting != 2 || counts.Messages != 3 || counts.Oldest.IsZero() {
			t.Errorf("counts: %+v, %v", counts, err)
		}
		released, err := control.QueueChange.Call(ctx, c, control.QueueRequest{Act: control.QueueRelease, All: true})
		if err != nil || released.Recipients != 1 {
			t.Errorf("release: %+v, %v", released, err)
		}
		dropped, err := control.QueueChange.Call(ctx, c, control.QueueRequest{Act: control.QueueDrop, All: true})
		if err != nil || dropped.Recipients != 3 {
			t.Errorf("drop: %+v, %v", dropped, err)
		}
		if counts, err = control.QueueCount.Call(ctx, c, control.Done{}); err != nil || counts.Messages != 0 {
			t.Errorf("counts after the drop: %+v, %v", counts, err)
		}
	})
}

func TestServerOperationsNeedARunningServer(t *testing.T) {
	t.Parallel()
	b := controltest.New(t, nil)
	_, err := control.ServerStatus.Call(t.Context(), control.Direct(b.Service), control.Done{})
	wantKind(t, "status of a stopped server", err, control.Unavailable)
	server := &fakeServer{}
	running := controltest.New(t, server)
	c := dial(t, running, running.Dir)
	if st, err := control.ServerStatus.Call(t.Context(), c, control.Done{}); err != nil || st.Version != "test" {
		t.Errorf("status: %+v, %v", st, err)
	}
	if _, err := control.ServerReload.Call(t.Context(), c, control.Done{}); err != nil || server.reloads != 1 {
		t.Errorf("reload: %d, %v", server.reloads, err)
	}
}

// A socket that a killed server left behind is no server, and the next one takes its place.
func TestSocketOfADeadServerIsReplaced(t *testing.T) {
	t.Parallel()
	b := controltest.New(t, nil)
	l, err := control.ListenSocket(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(b.Dir, control.SocketName)); err != nil {
		t.Fatalf("the name of the socket is gone with its listener: %v", err)
	}
	c := dial(t, b, b.Dir)
	if _, err := control.DomainList.Call(t.Context(), c, control.Done{}); err != nil {
		t.Error(err)
	}
	fi, err := os.Stat(filepath.Join(b.Dir, control.SocketName))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestSocketRefusesWhatItDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	b := controltest.New(t, nil)
	dial(t, b, b.Dir)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(b.Dir, control.SocketName))
		},
	}}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"another method", "GET", "/v1/domain.list", "", 400},
		{"no such operation", "POST", "/v1/domain.burn", "{}", 404},
		{"another path", "POST", "/domain.list", "{}", 404},
		{"no JSON", "POST", "/v1/domain.list", "hello", 400},
		{"nothing", "POST", "/v1/domain.list", "", 400},
		{"two values", "POST", "/v1/domain.list", "{} {}", 400},
		{"an unknown field", "POST", "/v1/domain.add", `{"name":"x.test","flavour":1}`, 400},
		{"too much", "POST", "/v1/domain.add", `{"name":"` + strings.Repeat("x", 17<<20) + `"}`, 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://control"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			if c.name == "too much" {
				continue // refused while it was still being sent
			}
			t.Fatalf("%s: %v", c.name, err)
		}
		var e control.Error
		if resp.StatusCode != c.status || json.NewDecoder(resp.Body).Decode(&e) != nil || e.Text == "" {
			t.Errorf("%s: status %d, %+v", c.name, resp.StatusCode, e)
		}
		resp.Body.Close()
	}
}

func FuzzSocketRequest(f *testing.F) {
	b := controltest.New(f, nil)
	f.Add("account.add", []byte(`{"accounts":[{"address":"x@example.test"}]}`))
	f.Add("message.append", []byte("{\"account\":\"a@example.test\",\"mailbox\":1,\"messages\":[{\"size\":3}]}\nabc"))
	f.Add("message.read", []byte(`{"account":"a@example.test","id":1}`))
	f.Add("queue.change", []byte(`{"act":"drop","all":true}`))
	b.Account(f, "a@example.test")
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		status, text := control.Exchange(b.Service, name, body)
		if status != http.StatusOK && !json.Valid(text) {
			t.Errorf("%s: status %d without a reason: %q", name, status, text)
		}
	})
}
