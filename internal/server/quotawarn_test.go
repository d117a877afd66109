package server

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

func parsed(t *testing.T, text string) address.Address {
	t.Helper()
	a, err := address.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestPeopleAreToldOnceThatTheirQuotaIsUsedUp fills mailboxes and reads what the warner puts into them.
func TestPeopleAreToldOnceThatTheirQuotaIsUsedUp(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := storetest.New(t)
	dir, err := directory.New(ctx, s, directory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.AddDomain(ctx, directory.Domain{Name: "example.test"}); err != nil {
		t.Fatal(err)
	}
	made, err := dir.AddAccounts(ctx, []directory.NewAccount{
		{Address: parsed(t, "li@example.test"), Name: "李伟", Language: "zh", QuotaBytes: -1, QuotaMessages: 10},
		{Address: parsed(t, "ann@example.test"), Language: "en", QuotaBytes: 1000, Admin: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	var levels []int64
	w := &quotaWarner{notices: notices{store: s, dir: dir, hostname: "mx.example.test", clock: time.Now}, log: discard, told: func(l int64) { levels = append(levels, l) }}
	fill := func(a directory.Account, n, size int) {
		t.Helper()
		in, err := s.Mailbox(ctx, a.ID, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if _, err := s.Append(ctx, a.ID, in.ID, []store.NewMessage{{Content: bytes.NewReader(bytes.Repeat([]byte("x"), size))}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := func(a directory.Account) string {
		t.Helper()
		in, err := s.Mailbox(ctx, a.ID, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.View(ctx, a.ID, in.ID, nil, store.Peek())
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		e, _ := v.Entry(v.Len())
		b, err := s.ReadBlob(ctx, a.ID, e.Message, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	look := func() {
		t.Helper()
		if err := w.look(ctx); err != nil {
			t.Fatal(err)
		}
	}
	fill(made[0], 8, 10)
	fill(made[1], 1, 960)
	look()
	look()
	if len(levels) != 2 {
		t.Fatalf("told of %v", levels)
	}
	chinese, english := last(made[0]), last(made[1])
	if !strings.Contains(chinese, "Content-Language: zh") || !strings.Contains(chinese, "Auto-Submitted: auto-generated") {
		t.Error("not the message for a Chinese reader:", chinese)
	}
	if !strings.Contains(english, "Your mailbox is 95 % full") || !strings.Contains(english, "To: ann@example.test") {
		t.Error("not the message for an English reader:", english)
	}
	if err := s.SetDomainPolicy(ctx, store.DomainPolicy{Domain: "example.test", QuotaMessages: 13, TrashDays: -1, JunkDays: -1}); err != nil {
		t.Fatal(err)
	}
	look()
	if text := last(made[1]); !strings.Contains(text, "The mailboxes of your domain are 80 % full together") {
		t.Error("the postmaster is not told of the domain:", text, levels)
	}
}
