package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet(transfer.Event) {}

// letter is one message of a test.
type letter struct {
	Mailbox, Text                           string
	Seen, Answered, Flagged, Draft, Deleted bool
	Keywords                                []string
	Date                                    time.Time
}

func put(t *testing.T, c control.Carrier, account string, letters []letter) {
	t.Helper()
	for _, l := range letters {
		box, err := control.MailboxEnsure.Call(t.Context(), c, control.MailboxRef{Account: account, Name: l.Mailbox})
		if err != nil {
			t.Fatal(err)
		}
		_, err = control.MessageAppend.Call(t.Context(), c, control.Append{Account: account, Mailbox: box.ID, Messages: []control.NewMessage{{
			Size: int64(len(l.Text)), Seen: l.Seen, Answered: l.Answered, Flagged: l.Flagged, Draft: l.Draft, Deleted: l.Deleted,
			Keywords: l.Keywords, InternalDate: l.Date,
		}}}, strings.NewReader(l.Text))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// holdings is all mail of an account, in order of mailbox and UID.
func holdings(t *testing.T, c control.Carrier, account string) []letter {
	t.Helper()
	boxes, err := control.MailboxList.Call(t.Context(), c, control.AccountRef{Address: account})
	if err != nil {
		t.Fatal(err)
	}
	var out []letter
	for _, box := range boxes.Mailboxes {
		page, err := control.MessageList.Call(t.Context(), c, control.MessagePage{Account: account, Mailbox: box.ID})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			r, err := control.MessageRead.Call(t.Context(), c, control.MessageRef{Account: account, ID: m.ID})
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			words := slices.Sorted(slices.Values(m.Keywords))
			out = append(out, letter{box.Name, string(text), m.Seen, m.Answered, m.Flagged, m.Draft, m.Deleted, words, m.InternalDate})
		}
	}
	slices.SortFunc(out, func(a, b letter) int { return strings.Compare(a.Mailbox, b.Mailbox) })
	return out
}

func sample() []letter {
	date := time.Date(2023, 4, 5, 6, 7, 8, 0, time.UTC)
	return []letter{
		{Mailbox: "INBOX", Text: "Subject: 1\r\n\r\nFrom here\r\n>From there\r\n\r\n\r\n", Seen: true, Date: date},
		{Mailbox: "INBOX", Text: "Subject: 2\r\n\r\n会议\r\n", Answered: true, Flagged: true, Keywords: []string{"$Forwarded", "work"}, Date: date.Add(time.Hour)},
		{Mailbox: "Sent", Text: "Subject: large\r\n\r\n" + strings.Repeat("line\r\n", 100_000), Seen: true, Date: date},
		{Mailbox: "工作/2024.Q1", Text: "Subject: 3\r\n\r\nx\r\n", Draft: true, Deleted: true, Date: date},
		{Mailbox: "a.mbox/b", Text: "Subject: 4\r\n\r\n.\r\n", Date: date},
	}
}

func TestExportedMailIsImportedAgain(t *testing.T) {
	t.Parallel()
	for _, format := range []transfer.Format{transfer.Mbox, transfer.Maildir} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := controltest.New(t, nil)
			b.Account(t, "a@example.test")
			b.Account(t, "b@example.test")
			c := control.Direct(b.Service)
			put(t, c, "a@example.test", sample())
			dir := filepath.Join(t.TempDir(), "export")
			opts := transfer.ExportOptions{Carrier: c, Account: "a@example.test", Format: format, Dir: dir, Progress: quiet}
			result, err := transfer.Export(t.Context(), opts)
			if err != nil || result.Messages != 5 || result.Skipped != 0 || result.Resumed {
				t.Fatalf("export: %+v, %v", result, err)
			}
			again, err := transfer.Export(t.Context(), opts)
			if err != nil || again.Messages != 0 || !again.Resumed {
				t.Fatalf("export again: %+v, %v", again, err)
			}
			in, err := transfer.Import(t.Context(), transfer.ImportOptions{Carrier: c, Account: "b@example.test", Source: dir, Progress: quiet})
			if err != nil || in.Messages != 5 {
				t.Fatalf("import: %+v, %v", in, err)
			}
			want, got := holdings(t, c, "a@example.test"), holdings(t, c, "b@example.test")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %.500v\nwant %.500v", got, want)
			}
			in, err = transfer.Import(t.Context(), transfer.ImportOptions{Carrier: c, Account: "b@example.test", Source: dir, Progress: quiet})
			if err != nil || in.Messages != 0 || !in.Resumed {
				t.Errorf("import again: %+v, %v", in, err)
			}
			below, err := transfer.Import(t.Context(), transfer.ImportOptions{Carrier: c, Account: "b@example.test", Source: dir, Mailbox: "Old", State: filepath.Join(t.TempDir(), "state"), Progress: quiet})
			if err != nil || below.Messages != 5 {
				t.Errorf("import below: %+v, %v", below, err)
			}
			if _, err := control.MailboxList.Call(t.Context(), c, control.AccountRef{Address: "b@example.test"}); err != nil {
				t.Error(err)
			}
		})
	}
}

func many(n int) []letter {
	out := make([]letter, n)
	for i := range out {
		out[i] = letter{Mailbox: "INBOX", Text: fmt.Sprintf("Subject: %d\r\n\r\nbody %d\r\n", i, i), Date: time.Unix(1_700_000_000+int64(i), 0).UTC()}
	}
	return out
}

// A transfer that is broken off at any place and begun again leaves nothing out and puts nothing in twice.
func TestBrokenOffTransfersGoOn(t *testing.T) {
	t.Parallel()
	for _, format := range []transfer.Format{transfer.Mbox, transfer.Maildir} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := controltest.New(t, nil)
			b.Account(t, "a@example.test")
			b.Account(t, "b@example.test")
			c := control.Direct(b.Service)
			put(t, c, "a@example.test", many(450))
			dir := filepath.Join(t.TempDir(), "export")
			runs := brokenOff(t, 150, func(ctx context.Context, progress func(transfer.Event)) (transfer.Result, error) {
				return transfer.Export(ctx, transfer.ExportOptions{Carrier: c, Account: "a@example.test", Format: format, Dir: dir, Progress: progress})
			})
			if runs < 2 {
				t.Errorf("the export was not broken off")
			}
			runs = brokenOff(t, 1, func(ctx context.Context, progress func(transfer.Event)) (transfer.Result, error) {
				return transfer.Import(ctx, transfer.ImportOptions{Carrier: c, Account: "b@example.test", Source: dir, Progress: progress})
			})
			if runs < 2 {
				t.Errorf("the import was not broken off")
			}
			want, got := holdings(t, c, "a@example.test"), holdings(t, c, "b@example.test")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%d messages, want %d", len(got), len(want))
			}
		})
	}
}

// brokenOff runs a transfer again and again, and cancels each run after so many events, until one comes to its end.
func brokenOff(t *testing.T, events int, run func(context.Context, func(transfer.Event)) (transfer.Result, error)) int {
	t.Helper()
	for runs := 1; runs < 50; runs++ {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		_, err := run(ctx, func(transfer.Event) {
			if seen++; seen > events*runs {
				cancel()
			}
		})
		cancel()
		if err == nil {
			return runs
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	t.Fatal("it never came to its end")
	return 0
}

// Promise 4: one damaged message is reported and left out, and all others are written.
func TestExportPassesOverADamagedMessage(t *testing.T) {
	t.Parallel()
	for _, format := range []transfer.Format{transfer.Mbox, transfer.Maildir} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			b := controltest.New(t, nil)
			b.Account(t, "a@example.test")
			b.Account(t, "b@example.test")
			c := control.Direct(b.Service)
			letters := many(20)
			letters[7].Text = "Subject: THE-ONE-TO-DAMAGE\r\n\r\nx\r\n"
			put(t, c, "a@example.test", letters)
			damage(t, b.Dir, "THE-ONE-TO-DAMAGE")
			dir := filepath.Join(t.TempDir(), "export")
			var told []string
			result, err := transfer.Export(t.Context(), transfer.ExportOptions{Carrier: c, Account: "a@example.test", Format: format, Dir: dir, Progress: func(e transfer.Event) {
				if e.Problem != "" {
					told = append(told, e.Problem)
				}
			}})
			if err != nil || result.Messages != 19 || result.Skipped != 1 || len(result.Problems) != 1 || len(told) != 1 {
				t.Fatalf("export: %+v, %v, %v", result, err, told)
			}
			in, err := transfer.Import(t.Context(), transfer.ImportOptions{Carrier: c, Account: "b@example.test", Source: dir, Progress: quiet})
			if err != nil || in.Messages != 19 {
				t.Errorf("import: %+v, %v", in, err)
			}
			sample, err := control.StoreSample.Call(t.Context(), c, control.SampleRequest{Messages: 1000})
			if err != nil || len(sample.Damaged) == 0 || !strings.Contains(sample.Damaged[0], "a@example.test, INBOX, UID 8") {
				t.Errorf("the sample of the doctor finds %+v, %v", sample, err)
			}
		})
	}
}

// damage flips octets of a stored message.
func damage(t *testing.T, dir, text string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(filepath.Join(dir, "packs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		i := strings.Index(string(data), text)
		if i < 0 {
			return nil
		}
		found++
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("the one"), int64(i))
		return errors.Join(err, f.Close())
	})
	if err != nil || found != 1 {
		t.Fatalf("the message stands in %d files, %v", found, err)
	}
}

func TestTransfersRefuseWhatWouldMix(t *testing.T) {
	t.Parallel()
	b := controltest.New(t, nil)
	b.Account(t, "a@example.test")
	c := control.Direct(b.Service)
	dir := t.TempDir()
	export := func(account, dir string, format transfer.Format) error {
		_, err := transfer.Export(t.Context(), transfer.ExportOptions{Carrier: c, Account: account, Format: format, Dir: dir, Progress: quiet})
		return err
	}
	want := func(what string, err error, kind control.Kind) {
		t.Helper()
		if err == nil || control.KindOf(err) != kind {
			t.Errorf("%s: %v is of kind %s, want %s", what, err, control.KindOf(err), kind)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "foreign"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want("a directory with foreign files", export("a@example.test", dir, transfer.Mbox), control.Conflict)
	fresh := filepath.Join(dir, "fresh")
	if err := export("a@example.test", fresh, transfer.Mbox); err != nil {
		t.Fatal(err)
	}
	want("another format into the same directory", export("a@example.test", fresh, transfer.Maildir), control.Conflict)
	want("no such account", export("zz@example.test", filepath.Join(dir, "other"), transfer.Mbox), control.NotFound)
	want("no such format", export("a@example.test", filepath.Join(dir, "x"), "pst"), control.Invalid)
	load := func(account, source, state string) error {
		_, err := transfer.Import(t.Context(), transfer.ImportOptions{Carrier: c, Account: account, Source: source, State: state, Progress: quiet})
		return err
	}
	want("a source that isn't there", load("a@example.test", filepath.Join(dir, "nowhere"), ""), control.NotFound)
	empty := t.TempDir()
	want("a directory without mail", load("a@example.test", empty, ""), control.Invalid)
	state := filepath.Join(dir, "state")
	if err := load("a@example.test", fresh, state); err != nil {
		t.Fatal(err)
	}
	want("the state of another import", load("a@example.test", filepath.Join(dir, "other"), state), control.Conflict)
	b.Account(t, "b@example.test")
	want("the state of another account's import", load("b@example.test", fresh, state), control.Conflict)
}
