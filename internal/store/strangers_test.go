package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
)

func at(seconds int64) time.Time { return time.Unix(1_800_000_000+seconds, 0) }

func TestGreylistRowsOfSeveralNodesAreOne(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx, stale := t.Context(), at(-1000)
		save := func(r ...store.GreyRow) {
			t.Helper()
			if err := s.SaveGreyRows(ctx, r, stale); err != nil {
				t.Fatal(err)
			}
		}
		save(store.GreyRow{Key: "a", First: at(10), Last: at(10)}, store.GreyRow{Key: "b", First: at(1), Last: at(1)})
		save(store.GreyRow{Key: "a", First: at(5), Last: at(20), Passed: at(20)})
		save(store.GreyRow{Key: "a", First: at(30), Last: at(15)})
		got, err := s.GreyRows(ctx, "a", "none", "b")
		want := []store.GreyRow{{Key: "a", First: at(5), Last: at(20), Passed: at(20)}, {Key: "b", First: at(1), Last: at(1)}}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%+v, %v\nwant %+v", got, err, want)
		}
		// What waits for too long begins anew; what has passed doesn't.
		stale = at(100)
		save(store.GreyRow{Key: "a", First: at(200), Last: at(200)}, store.GreyRow{Key: "b", First: at(200), Last: at(200)})
		got, err = s.GreyRows(ctx, "a", "b")
		if err != nil || !got[0].First.Equal(at(5)) || !got[1].First.Equal(at(200)) {
			t.Fatalf("%+v, %v", got, err)
		}
		left, err := s.ExpireGreyRows(ctx, at(300), at(10))
		if err != nil || left != 1 {
			t.Fatalf("%d rows left, %v", left, err)
		}
		if left, err = s.ExpireGreyRows(ctx, at(300), at(21)); err != nil || left != 0 {
			t.Fatalf("%d rows left, %v", left, err)
		}
	})
}

// accounts makes a domain with accounts.
func accounts(t *testing.T, s *store.Store, names ...string) []store.AccountID {
	t.Helper()
	e := store.DirectoryEdit{Base: -1, Actor: "test", At: at(0), AddDomains: []store.DirectoryDomain{{Name: "example.test", Created: at(0)}}}
	for _, n := range names {
		e.AddAccounts = append(e.AddAccounts, store.NewDirectoryAccount{
			DirectoryAccount: store.DirectoryAccount{Key: n + "@example.test", Local: n, Domain: "example.test", Language: "en", Created: at(0)},
			Mailboxes:        store.DefaultMailboxes,
		})
	}
	_, ids, err := s.EditDirectory(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func TestContactsAreKeptByAccountAndExpire(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx, ids := t.Context(), accounts(t, s, "li", "ann")
		err := s.SaveContacts(ctx, []store.Contact{
			{Account: ids[0], Key: "a@far.test", Wrote: at(1)},
			{Account: ids[0], Key: "b@far.test", Wrote: at(2)},
			{Account: ids[0], Key: "c@far.test", Wrote: at(3)},
			{Account: ids[1], Key: "a@far.test", Wrote: at(4)},
			{Account: 999, Key: "z@far.test", Wrote: at(4)}, // of an account that is gone
		})
		if err != nil {
			t.Fatal(err)
		}
		check := func(acct store.AccountID, key string, want time.Time) {
			t.Helper()
			if got, err := s.Wrote(ctx, acct, key); err != nil || !got.Equal(want) {
				t.Errorf("account %d wrote to %s at %v, %v; want %v", acct, key, got, err, want)
			}
		}
		check(0, "a@far.test", at(4))
		check(ids[0], "a@far.test", at(1))
		check(ids[1], "b@far.test", time.Time{})
		check(0, "z@far.test", time.Time{})
		if err := s.ExpireContacts(ctx, at(2), 1); err != nil {
			t.Fatal(err)
		}
		check(ids[0], "a@far.test", time.Time{}) // too old
		check(ids[0], "b@far.test", time.Time{}) // too many
		check(ids[0], "c@far.test", at(3))
		check(ids[1], "a@far.test", at(4))
		if _, _, err := s.EditDirectory(ctx, store.DirectoryEdit{Base: -1, Actor: "test", At: at(9), RemoveAccounts: ids[:1]}); err != nil {
			t.Fatal(err)
		}
		check(0, "c@far.test", time.Time{})
	})
}

func TestSurgeRowsKeepTheAccountsChoice(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx, ids := t.Context(), accounts(t, s, "li")
		if got, err := s.SurgeRow(ctx, ids[0]); err != nil || got.Action != "" || !got.Told.IsZero() {
			t.Fatalf("%+v, %v", got, err)
		}
		for _, err := range []error{
			s.SetSurgeAction(ctx, ids[0], "defer"), s.SaveSurges(ctx, []store.SurgeRow{{Account: ids[0], Usual: []byte("usual"), Saved: at(5)}, {Account: 999}}),
			s.SurgeTold(ctx, ids[0], at(6)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.SurgeRow(ctx, ids[0])
		if err != nil || got.Action != "defer" || string(got.Usual) != "usual" || !got.Saved.Equal(at(5)) || !got.Told.Equal(at(6)) {
			t.Errorf("%+v, %v", got, err)
		}
		if err := s.SetSurgeAction(ctx, 999, "off"); err == nil {
			t.Error("an account that isn't there has a choice")
		}
	})
}

func TestAFolderForSurplusIsMadeUnderItsNameAndFoundByItsRole(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, s *store.Store) {
		ctx, ids := t.Context(), accounts(t, s, "li")
		deliver := func(name string) store.Placed {
			t.Helper()
			done, err := s.Deliver(ctx, store.Delivery{
				Content: strings.NewReader("Subject: x\r\n\r\n"), Local: []store.NewEntry{{Account: ids[0], Role: store.RoleSurge, Name: name}},
			})
			if err != nil {
				t.Fatal(err)
			}
			return done.Local[0]
		}
		first := deliver("突发邮件")
		box, err := s.Mailbox(ctx, ids[0], "突发邮件")
		if err != nil || box.ID != first.Mailbox || box.Role != store.RoleSurge || !box.Subscribed {
			t.Fatalf("%+v, %v", box, err)
		}
		if again := deliver("Surge"); again.Mailbox != first.Mailbox {
			t.Error("a second folder was made")
		}
	})
}
