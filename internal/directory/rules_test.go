package directory_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
)

func n64(n int64) *int64 { return &n }

func TestRulesAreVersionsLikeSettings(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	repo := directorytest.NewMemory()
	d, err := directory.New(ctx, repo, directory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := d.SetAccess(ctx, directory.AccessRule{Subject: "sender:LI@Spam.Example", Action: directory.Deny, Note: "asked to stop"})
	if err != nil || made.Subject != "sender:li@spam.example" {
		t.Fatalf("%+v, %v", made, err)
	}
	first := d.Settings().Version
	if _, err := d.SetAccess(ctx, directory.AccessRule{Subject: "::ffff:192.0.2.0/120", Action: directory.Trust}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.SetSending(ctx, directory.SendingLimit{For: "Example.TEST", MessagesPerDay: n64(7)}); err != nil {
		t.Fatal(err)
	}
	want := directory.Rules{
		Access:  []directory.AccessRule{{Subject: "192.0.2.0/24", Action: directory.Trust}, made},
		Sending: []directory.SendingLimit{{For: "example.test", MessagesPerDay: n64(7)}},
	}
	if got := d.Settings().Rules; got == nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}

	// Another node, or a start, reads the same.
	other, err := directory.New(ctx, repo, directory.Options{})
	if err != nil || !reflect.DeepEqual(*other.Settings().Rules, want) || other.Settings().Version != d.Settings().Version {
		t.Errorf("read again: %+v, %v", other.Settings().Rules, err)
	}
	// A document has them, also one of the past, and an older one can be applied.
	doc, err := d.DocumentAt(ctx, first)
	if err != nil || !reflect.DeepEqual(doc.Access, []directory.AccessRule{made}) || len(doc.Sending) != 0 {
		t.Fatalf("%+v, %v", doc, err)
	}
	plan, err := d.Plan(ctx, doc)
	if err != nil || len(plan.Changes) != 2 || plan.Changes[0].Act != directory.Remove {
		t.Fatalf("%+v, %v", plan.Changes, err)
	}
	if _, err := d.Apply(ctx, plan, false); err != nil {
		t.Fatal(err)
	}
	if got := d.Settings().Rules; len(got.Access) != 1 || len(got.Sending) != 0 {
		t.Errorf("after going back: %+v", got)
	}
	// A document that says nothing of them leaves them.
	plan, err = d.Plan(ctx, directory.Document{})
	if err != nil || len(plan.Changes) != 0 {
		t.Errorf("%+v, %v", plan.Changes, err)
	}
	if err := d.RemoveAccess(ctx, directory.AccessRule{Subject: "sender:li@spam.example"}); err != nil {
		t.Error(err)
	}
	if err := d.RemoveAccess(ctx, directory.AccessRule{Subject: "sender:li@spam.example"}); !errors.Is(err, directory.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if d.Settings().Rules != nil {
		t.Error("rules are left")
	}
}

func TestWrongRulesAreRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d, err := directory.New(ctx, directorytest.NewMemory(), directory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []directory.AccessRule{
		{Subject: "192.0.2.1/24", Action: directory.Deny},
		{Subject: "192.0.2.0/33", Action: directory.Deny},
		{Subject: "fe80::1%eth0", Action: directory.Deny},
		{Subject: "example.test", Action: directory.Deny},
		{Subject: "sender:", Action: directory.Deny},
		{Subject: "helo:a b", Action: directory.Deny},
		{Subject: "192.0.2.1", Action: "maybe"},
		{Subject: "192.0.2.1", Action: directory.Deny, Listener: "smtp"},
		{Subject: "192.0.2.1", Action: directory.Deny, For: "@"},
		{Subject: "192.0.2.1", Action: directory.Deny, Note: "two\nlines"},
		{Subject: "192.0.2.1", Action: directory.Trust, For: "example.test"},
		{Subject: "sender:example.test", Action: directory.Trust},
		{Subject: "sender:example.test", Action: directory.Deny, For: "li@example.test"},
	} {
		var bad *directory.FieldError
		if _, err := d.SetAccess(ctx, r); !errors.As(err, &bad) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, l := range []directory.SendingLimit{{}, {For: "example.test"}, {For: "example.test", MessagesPerDay: n64(-1)}, {MessagesPerDay: n64(1)}} {
		var bad *directory.FieldError
		if _, err := d.SetSending(ctx, l); !errors.As(err, &bad) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
