package server

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/guard/surge"
	"waxwing/internal/message"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// inboxOf gives the subjects of an account's INBOX, and the text of the last message.
func inboxOf(t *testing.T, s *store.Store, a directory.Account) (all []string, last string) {
	t.Helper()
	in, err := s.Mailbox(t.Context(), a.ID, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.View(t.Context(), a.ID, in.ID, nil, store.Peek())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for i := 1; i <= v.Len(); i++ {
		e, _ := v.Entry(i)
		b, err := s.ReadBlob(t.Context(), a.ID, e.Message, nil)
		if err != nil {
			t.Fatal(err)
		}
		part, err := message.Parse(bytes.NewReader(b), int64(len(b)), message.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(part.Text(bytes.NewReader(b)))
		if err != nil {
			t.Fatal(err)
		}
		all, last = append(all, part.Header.Text("Subject")), string(text)
	}
	return all, last
}

func TestPeopleAreToldOnceOfAMailBomb(t *testing.T) {
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
		{Address: parsed(t, "li@example.test"), Name: "李伟", Language: "zh"}, {Address: parsed(t, "ann@example.test"), Language: "en", Admin: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	li, ann := made[0], made[1]
	now, counted := time.Now(), map[string]int{}
	w := &surgeTeller{
		notices: notices{store: s, dir: dir, hostname: "mx.example.test", clock: func() time.Time { return now }}, log: discard,
		count: func(kind string) { counted[kind]++ },
	}
	event := surge.Event{Account: li.ID, Kind: surge.Lists, Begins: true, Count: 77, Action: surge.Folder}
	w.happened(ctx, event)
	row, err := s.SurgeRow(ctx, li.ID)
	if err != nil || row.Told.IsZero() {
		t.Fatalf("%+v, %v", row, err)
	}
	event.Told = row.Told
	w.happened(ctx, event) // again
	w.happened(ctx, surge.Event{Account: li.ID, Kind: surge.Lists, Aside: 12})
	w.happened(ctx, surge.Event{Account: 999, Begins: true})
	all, text := inboxOf(t, s, li)
	if len(all) != 1 || !strings.Contains(all[0], "轰炸") || !strings.Contains(text, "77") || !strings.Contains(text, "突发邮件") {
		t.Errorf("li reads %q\n%s", all, text)
	}
	all, text = inboxOf(t, s, ann)
	if len(all) != 1 || !strings.Contains(all[0], "li@example.test") || !strings.Contains(text, "77 newsletters") {
		t.Errorf("the postmaster reads %q\n%s", all, text)
	}
	if counted["lists"] != 2 {
		t.Errorf("counted %v", counted)
	}
	// A postmaster under a bomb is told once, as its user.
	w.happened(ctx, surge.Event{Account: ann.ID, Kind: surge.Bounces, Begins: true, Count: 50, Action: surge.Defer})
	all, text = inboxOf(t, s, ann)
	if len(all) != 2 || all[1] != "Your mailbox is being flooded with mail" || !strings.Contains(text, "asked to come again") {
		t.Errorf("the postmaster reads %q\n%s", all, text)
	}
}
