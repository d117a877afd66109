package directory_test

import (
	"errors"
	"fmt"
	"testing"

	"waxwing/internal/directory"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

func init() {
	repositories["sqlite"] = func(t testing.TB) directory.Repository { return storetest.New(t) }
}

func TestAccountsHaveTheirMailboxesAndQuota(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	st := storetest.New(t)
	d := open(t, st)
	_, err := d.AddDomain(ctx, directory.Domain{Name: "example.test"})
	must(t, err)
	_, err = d.ChangeSettings(ctx, 1, "t", changes{"folder.sent": []byte(`"已发送"`)})
	must(t, err)
	a, err := d.AddAccount(ctx, directory.NewAccount{Address: addr(t, "anna@example.test"), QuotaBytes: 5000, QuotaMessages: 7})
	must(t, err)
	u, err := st.Usage(ctx, a.ID)
	if err != nil || u.QuotaBytes != 5000 || u.QuotaMessages != 7 {
		t.Errorf("usage %+v, %v", u, err)
	}
	boxes, err := st.Mailboxes(ctx, a.ID)
	must(t, err)
	roles := map[store.Role]string{}
	for _, b := range boxes {
		roles[b.Role] = b.Name
		if !b.Subscribed {
			t.Errorf("%s isn't subscribed", b.Name)
		}
	}
	want := map[store.Role]string{"inbox": "INBOX", "drafts": "Drafts", "sent": "已发送", "trash": "Trash", "junk": "Junk", "archive": "Archive"}
	if fmt.Sprint(roles) != fmt.Sprint(want) {
		t.Errorf("mailboxes %v", roles)
	}
	a.QuotaBytes = 6000
	must(t, d.SetAccount(ctx, a))
	if u, err = st.Usage(ctx, a.ID); err != nil || u.QuotaBytes != 6000 {
		t.Errorf("after SetAccount: %+v, %v", u, err)
	}
	must(t, d.RemoveAccount(ctx, a.ID))
	if _, err := st.Mailboxes(ctx, a.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the mail of a removed account: %v", err)
	}
	b, err := d.AddAccount(ctx, directory.NewAccount{Address: addr(t, "anna@example.test")})
	must(t, err)
	if u, err := st.Usage(ctx, b.ID); err != nil || u.Messages != 0 || b.ID == a.ID {
		t.Errorf("the next of that name: %d, %+v, %v", b.ID, u, err)
	}
}

func TestNothingIsLeftOfARefusedBatch(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	st := storetest.New(t)
	d := house(t, st)
	var batch []directory.NewAccount
	for _, a := range []string{"one@example.test", "two@example.test", "bo@example.test"} {
		batch = append(batch, directory.NewAccount{Address: addr(t, a)})
	}
	var be *directory.BatchError
	if _, err := d.AddAccounts(ctx, batch); !errors.As(err, &be) || be.Index != 2 || !errors.Is(err, directory.ErrExists) {
		t.Errorf("%v: want the third entry", err)
	}
	if res, err := d.Resolve(ctx, addr(t, "one@example.test")); err != nil || res.Status != directory.NoMailbox {
		t.Errorf("the first entry: %v, %v", res.Status, err)
	}
	made, err := d.AddAccounts(ctx, batch[:2])
	must(t, err)
	if _, err := st.Mailboxes(ctx, made[1].ID); err != nil {
		t.Error(err)
	}
}

func TestFailureOfTheStoreIsNotNoSuchUser(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	d := house(t, st)
	must(t, st.Close())
	if res, err := d.Resolve(t.Context(), addr(t, "bo@example.test")); err == nil || errors.Is(err, directory.ErrNotFound) {
		t.Errorf("with a store that is closed: %v, %v", res.Status, err)
	}
}

func BenchmarkAddAccounts(b *testing.B) {
	d := open(b, storetest.New(b))
	ctx := b.Context()
	_, err := d.AddDomain(ctx, directory.Domain{Name: "example.test"})
	must(b, err)
	n := 0
	for b.Loop() {
		batch := make([]directory.NewAccount, 1000)
		for i := range batch {
			n++
			batch[i] = directory.NewAccount{Address: addr(b, fmt.Sprintf("u%d@example.test", n)), PasswordHash: phc}
		}
		if _, err := d.AddAccounts(ctx, batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolveUncached(b *testing.B) {
	d := house(b, storetest.New(b))
	ctx := b.Context()
	to := addr(b, "anna@example.test")
	b.ReportAllocs()
	for b.Loop() {
		must(b, d.Refresh(ctx))
		if _, err := d.Resolve(ctx, to); err != nil {
			b.Fatal(err)
		}
	}
}
