package contacts_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/guard"
	"waxwing/internal/guard/contacts"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// rows is a store in memory.
type rows struct {
	list  []store.Contact
	fails error
}

func (r *rows) SaveContacts(_ context.Context, list []store.Contact) error {
	if r.fails == nil {
		r.list = append(r.list, list...)
	}
	return r.fails
}

func (r *rows) Wrote(_ context.Context, acct store.AccountID, key string) (time.Time, error) {
	for _, c := range r.list {
		if c.Key == key && (acct == 0 || acct == c.Account) {
			return c.Wrote, r.fails
		}
	}
	return time.Time{}, r.fails
}

func (r *rows) ExpireContacts(context.Context, time.Time, int) error { return r.fails }

func TestWhomUsersWriteToIsKnown(t *testing.T) {
	t.Parallel()
	st, now := &rows{}, time.Unix(1_800_000_000, 0)
	b := contacts.New(contacts.Options{Store: st, Clock: func() time.Time { return now }})
	g := guard.New(guard.Options{}, b.Check())
	friend := address.Address{Local: "Friend", Domain: "far.test"}
	other := address.Address{Local: "other", Domain: "far.test"}
	tell := func(v guard.Visitor) { g.Ask(t.Context(), guard.Recipient, &v) }
	tell(guard.Visitor{Account: 1, To: friend, Trusted: true})
	tell(guard.Visitor{Account: 1, To: other, Outcome: smtp.Errorf(550, "5.1.1", "no")})
	tell(guard.Visitor{To: other}) // a stranger
	look := func(when string) {
		t.Helper()
		for _, row := range []struct {
			account store.AccountID
			who     address.Address
			want    bool
		}{{0, friend, true}, {1, friend, true}, {2, friend, false}, {0, other, false}, {0, address.Address{}, false}} {
			got := b.Any(t.Context(), row.who)
			if row.account != 0 {
				got = b.Of(t.Context(), row.account, row.who)
			}
			if got != row.want {
				t.Errorf("%s: account %d and %v: %v", when, row.account, row.who, got)
			}
		}
	}
	look("in memory")
	st.fails = errors.New("broken")
	if err := b.Flush(t.Context()); !errors.Is(err, st.fails) {
		t.Error(err)
	}
	look("while the store fails")
	st.fails = nil
	if err := b.Flush(t.Context()); err != nil || len(st.list) != 1 {
		t.Errorf("%v, %+v", err, st.list)
	}
	look("in the store")
	// Writing again and again costs one row a week.
	for range 3 {
		tell(guard.Visitor{Account: 1, To: friend})
	}
	if err := b.Flush(t.Context()); err != nil || len(st.list) != 1 {
		t.Errorf("%v, %+v", err, st.list)
	}
	now = now.Add(8 * 24 * time.Hour)
	tell(guard.Visitor{Account: 1, To: friend})
	if err := b.Flush(t.Context()); err != nil || len(st.list) != 2 {
		t.Errorf("%v, %+v", err, st.list)
	}
}
