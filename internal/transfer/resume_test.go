package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/transfer"
)

// counts is how often each text is in an account.
func counts(t *testing.T, c control.Carrier, account string) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, l := range holdings(t, c, account) {
		out[l.Text]++
	}
	return out
}

// A server or a command that is killed after a batch is committed and before the state is written: what the state says
// then is what it said before the batch.
func TestImportKilledBeforeItsStateIsWrittenPutsNothingInTwice(t *testing.T) {
	t.Parallel()
	for _, format := range []transfer.Format{transfer.Mbox, transfer.Maildir} {
		for batch := 1; batch <= 3; batch++ {
			t.Run(fmt.Sprint(format, batch), func(t *testing.T) {
				t.Parallel()
				b := controltest.New(t, nil)
				b.Account(t, "a@example.test")
				b.Account(t, "b@example.test")
				c := control.Direct(b.Service)
				letters := many(450)
				for _, twin := range []int{1, 201, 401} { // the same message twice in one batch is two messages
					letters[twin].Text, letters[twin].Date = letters[twin-1].Text, letters[twin-1].Date
				}
				put(t, c, "a@example.test", letters)
				dir, state := filepath.Join(t.TempDir(), "export"), filepath.Join(t.TempDir(), "state")
				if _, err := transfer.Export(t.Context(), transfer.ExportOptions{Carrier: c, Account: "a@example.test", Format: format, Dir: dir, Progress: quiet}); err != nil {
					t.Fatal(err)
				}
				opts := transfer.ImportOptions{Carrier: c, Account: "b@example.test", Source: dir, State: state}
				var before []byte
				done := 0
				ctx, kill := context.WithCancel(t.Context())
				opts.Progress = func(e transfer.Event) {
					if e.Folder != "INBOX" || e.Done == 0 {
						return
					}
					if done++; done == batch {
						var err error
						if before, err = os.ReadFile(state); err != nil {
							t.Error(err)
						}
						kill()
					}
				}
				if _, err := transfer.Import(ctx, opts); batch < 3 && !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
				if err := os.WriteFile(state, before, 0o600); err != nil {
					t.Fatal(err)
				}
				// Mail of somebody else comes meanwhile, one of them a message of the batch to the letter, another day.
				late := letters[(batch-1)*200]
				late.Date = late.Date.Add(48 * time.Hour)
				put(t, c, "b@example.test", []letter{late, {Mailbox: "INBOX", Text: "Subject: other\r\n\r\n", Date: late.Date}})
				opts.Progress = quiet
				if _, err := transfer.Import(t.Context(), opts); err != nil {
					t.Fatal(err)
				}
				want := counts(t, c, "a@example.test")
				want[late.Text]++
				want["Subject: other\r\n\r\n"]++
				got := counts(t, c, "b@example.test")
				for text, n := range want {
					if got[text] != n {
						t.Errorf("%.20q is there %d times, want %d", text, got[text], n)
					}
				}
			})
		}
	}
}

// What is wrong with one message or folder is told, and the others are taken.
func TestHostileSourcesHarmOnlyThemselves(t *testing.T) {
	t.Parallel()
	b := controltest.New(t, nil)
	b.Account(t, "a@example.test")
	c := control.Direct(b.Service)
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(secret, []byte("From x\nSubject: SECRET\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	one := "From a@far.test Thu Jan  1 00:00:00 2026\nSubject: one\n\ntext\n"
	var words strings.Builder
	for i := range 70 {
		fmt.Fprintf(&words, "From a Thu Jan  1 00:00:00 2026\nX-Keywords: word%d\nSubject: %d\n\n\n", i, i)
	}
	write("good.mbox", one)
	write("words.mbox", words.String())
	write("text.mbox", "this is no mbox\n")
	write("%2e%2e/%2e%2e/etc.mbox", one)
	write("%00%0A.mbox", one)
	write(strings.Repeat("a/", 60)+"deep.mbox", one)
	write("long.mbox", "From a\n"+strings.Repeat("h", 3<<20)+"\n\n"+strings.Repeat("b", 3<<20))
	if err := os.Symlink(secret, filepath.Join(dir, "link.mbox")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(secret), filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	result, err := transfer.Import(t.Context(), transfer.ImportOptions{Carrier: c, Account: "a@example.test", Source: dir, State: filepath.Join(t.TempDir(), "s"), Progress: quiet})
	if err != nil {
		t.Fatal(err)
	}
	left := strings.Join(result.Problems, "\n")
	for _, want := range []string{"text.mbox", "%00%0A.mbox", "deep.mbox"} {
		if !strings.Contains(left, want) {
			t.Errorf("nothing is said of %s:\n%s", want, left)
		}
	}
	got := map[string]int{}
	for _, l := range holdings(t, c, "a@example.test") {
		got[l.Mailbox]++
		if strings.Contains(l.Text, "SECRET") {
			t.Errorf("a link was followed into %s", l.Mailbox)
		}
	}
	if got["good"] != 1 || got["words"] != 70 || got["long"] != 1 || got["../../etc"] != 1 {
		t.Errorf("%v", got)
	}
	// The name that looks like a way out of the directory stays inside when it is exported again.
	out := filepath.Join(t.TempDir(), "deeper", "out")
	for _, format := range []transfer.Format{transfer.Mbox, transfer.Maildir} {
		root := filepath.Join(out, string(format))
		if r, err := transfer.Export(t.Context(), transfer.ExportOptions{Carrier: c, Account: "a@example.test", Format: format, Dir: root, Progress: quiet}); err != nil || r.Messages != 73 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if list, err := os.ReadDir(out); err != nil || len(list) != 2 {
		t.Errorf("beside the exports stand %v, %v", list, err)
	}
}
