package control_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/store"
)

func TestDeletedMailIsListedRestoredAndPurged(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		a := b.Account(t, "li@example.test")
		work, err := b.Store.CreateMailbox(ctx, a.ID, "Work", "")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			m := store.NewMessage{Content: strings.NewReader(fmt.Sprintf("Subject: %d\r\n\r\n", i)), Summary: store.Summary{BaseSubject: fmt.Sprint("subject ", i)}}
			if _, err := b.Store.Append(ctx, a.ID, work.ID, []store.NewMessage{m}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Store.Expunge(ctx, a.ID, work.ID, []store.UID{1}, false); err != nil {
			t.Fatal(err)
		}
		if err := b.Store.DeleteMailbox(ctx, a.ID, work.ID); err != nil {
			t.Fatal(err)
		}
		sel := control.DeletedSelection{Address: "li@example.test"}
		var all control.Deleted
		req := control.DeletedPage{DeletedSelection: sel, Limit: 2}
		for {
			page, err := control.AccountDeleted.Call(ctx, c, req)
			if err != nil {
				t.Fatal(err)
			}
			all.Messages, all.Mailboxes = append(all.Messages, page.Messages...), append(all.Mailboxes, page.Mailboxes...)
			if req.After = page.Next; req.After == "" {
				break
			}
		}
		if len(all.Messages) != 3 || len(all.Mailboxes) != 1 || all.Messages[0].Subject != "subject 0" || all.Messages[0].By != "owner" || all.Messages[0].Mailbox != "Work" {
			t.Fatalf("deleted: %+v", all)
		}
		dry, err := control.AccountRestore.Call(ctx, c, control.Restore{DeletedSelection: sel, DryRun: true})
		if err != nil || dry.Messages != 3 || !dry.DryRun || len(dry.Mailboxes) != 1 {
			t.Errorf("dry run: %+v, %v", dry, err)
		}
		if _, err := b.Store.Mailbox(ctx, a.ID, "Work"); err == nil {
			t.Error("a dry run made the mailbox")
		}
		sel.Messages = []string{all.Messages[1].ID}
		one, err := control.AccountRestore.Call(ctx, c, control.Restore{DeletedSelection: sel})
		if err != nil || one.Messages != 1 {
			t.Errorf("restore one: %+v, %v", one, err)
		}
		_, err = control.AccountRestore.Call(ctx, c, control.Restore{DeletedSelection: sel})
		wantKind(t, "restore twice", err, control.NotFound)
		_, err = control.AccountPurge.Call(ctx, c, control.Purge{DeletedSelection: control.DeletedSelection{Address: "li@example.test"}})
		wantKind(t, "purge without a word", err, control.Invalid)
		gone, err := control.AccountPurge.Call(ctx, c, control.Purge{
			DeletedSelection: control.DeletedSelection{Address: "li@example.test", Messages: []string{all.Messages[0].ID}}, Confirm: "li@example.test",
		})
		if err != nil || gone.Messages != 1 {
			t.Errorf("purge: %+v, %v", gone, err)
		}
		rest, err := control.AccountRestore.Call(ctx, c, control.Restore{DeletedSelection: control.DeletedSelection{Address: "li@example.test", Mailbox: "Work"}})
		if err != nil || rest.Messages != 1 {
			t.Errorf("restore the rest: %+v, %v", rest, err)
		}
		box, err := b.Store.Mailbox(ctx, a.ID, "Work")
		if err != nil || box.Messages != 2 {
			t.Errorf("the mailbox: %+v, %v", box, err)
		}
	})
}

func TestAHoldRefusesDeletionAndPurge(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		a := b.Account(t, "li@example.test")
		in, err := b.Store.Mailbox(ctx, a.ID, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Store.Append(ctx, a.ID, in.ID, []store.NewMessage{{Content: bytes.NewReader([]byte("x"))}}); err != nil {
			t.Fatal(err)
		}
		_, err = control.AccountHold.Call(ctx, c, control.HoldChange{Address: "li@example.test", On: true, Reason: " "})
		wantKind(t, "a hold without a reason", err, control.Invalid)
		h, err := control.AccountHold.Call(ctx, c, control.HoldChange{Address: "li@example.test", On: true, Reason: "case 7"})
		if err != nil || !h.Held || len(h.Holds) != 1 || h.Holds[0].By == "" || h.Holds[0].By == "owner" {
			t.Fatalf("hold: %+v, %v", h, err)
		}
		if _, err := b.Store.Expunge(ctx, a.ID, in.ID, []store.UID{1}, false); err != nil {
			t.Fatal(err)
		}
		_, err = control.AccountPurge.Call(ctx, c, control.Purge{DeletedSelection: control.DeletedSelection{Address: "li@example.test"}, Confirm: "li@example.test"})
		wantKind(t, "purge of a held account", err, control.Conflict)
		_, err = control.AccountDelete.Call(ctx, c, control.AccountRef{Address: "li@example.test"})
		wantKind(t, "deletion of a held account", err, control.Conflict)
		shown, err := control.AccountShow.Call(ctx, c, control.AccountRef{Address: "li@example.test"})
		if err != nil || !shown.Held {
			t.Errorf("shown: %+v, %v", shown, err)
		}
		h, err = control.AccountHold.Call(ctx, c, control.HoldChange{Address: "li@example.test", Reason: "over"})
		if err != nil || h.Held || h.Holds[0].EndedReason != "over" {
			t.Errorf("end: %+v, %v", h, err)
		}
		if _, err = control.AccountDelete.Call(ctx, c, control.AccountRef{Address: "li@example.test"}); err != nil {
			t.Error(err)
		}
	})
}

func TestAPolicyOfADomainIsSetFieldByField(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, c control.Carrier, _ *controltest.Bench) {
		ctx := t.Context()
		days, octets, bad := int64(30), int64(1<<30), int64(-2)
		if _, err := control.DomainPolicySet.Call(ctx, c, control.DomainPolicyChange{Domain: "example.test", TrashDays: &days}); err != nil {
			t.Fatal(err)
		}
		p, err := control.DomainPolicySet.Call(ctx, c, control.DomainPolicyChange{Domain: "EXAMPLE.test", QuotaBytes: &octets})
		if err != nil || p.TrashDays != 30 || p.JunkDays != -1 || p.QuotaBytes != 1<<30 || p.Usage == nil {
			t.Errorf("policy: %+v, %v", p, err)
		}
		_, err = control.DomainPolicySet.Call(ctx, c, control.DomainPolicyChange{Domain: "example.test", JunkDays: &bad})
		wantKind(t, "days out of range", err, control.Invalid)
		_, err = control.DomainPolicyShow.Call(ctx, c, control.DomainRef{Name: "foreign.test"})
		wantKind(t, "no domain of ours", err, control.NotFound)
	})
}
