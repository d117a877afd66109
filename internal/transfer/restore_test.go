package transfer_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"waxwing/internal/backup"
	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/durable"
	"waxwing/internal/store"
	"waxwing/internal/transfer"
)

// backed is a service with li's mail, and a backup of it.
type backed struct {
	*controltest.Bench
	carrier control.Carrier
	target  string
	id      age.Identity
	was     []letter
}

const li = "li@example.test"

func newBacked(t *testing.T) *backed {
	t.Helper()
	b := &backed{Bench: controltest.New(t, nil), target: t.TempDir()}
	b.carrier = control.Direct(b.Service)
	b.Account(t, li)
	var letters []letter
	for i := range 14 {
		l := letter{Mailbox: []string{"INBOX", "Projects/项目"}[i%2], Text: fmt.Sprintf("Subject: letter %d\r\n\r\nbody %d\r\n", i, i), Date: time.Unix(int64(1_700_000_000+i), 0).UTC()}
		l.Seen, l.Flagged = i%3 == 0, i%4 == 1
		if i == 5 {
			l.Keywords = []string{"$Label1", "发票"}
		}
		letters = append(letters, l)
	}
	letters = append(letters, letters[3], letters[3]) // three that are alike
	put(t, b.carrier, li, letters)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	target, err := backup.OpenDir(durable.OS, b.target)
	if err != nil {
		t.Fatal(err)
	}
	_, err = backup.Run(t.Context(), backup.Options{
		Snapshot: func(ctx context.Context) (backup.Snapshot, error) { return b.Store.Snapshot(ctx) }, Target: target,
		Recipients: []string{id.Recipient().String()}, Dir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.id, b.was = id, holdings(t, b.carrier, li)
	return b
}

func (b *backed) reader(t *testing.T) *backup.Reader {
	t.Helper()
	target, err := backup.OpenDir(durable.OS, b.target)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := backup.Open(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	found, err := repo.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	rd, err := repo.Read(t.Context(), found, []age.Identity{b.id}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	})
	return rd
}

func (b *backed) options(t *testing.T) transfer.RestoreOptions {
	t.Helper()
	return transfer.RestoreOptions{
		Carrier: b.carrier, Reader: b.reader(t), Account: li, Progress: func(string, int64, int64) {}, Batch: 2,
	}
}

func (b *backed) restore(t *testing.T, o transfer.RestoreOptions) transfer.RestoreResult {
	t.Helper()
	out, err := transfer.Restore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// killed restores, and breaks it off after one, two, and more batches, until it comes to its end.
func (b *backed) killed(t *testing.T, o transfer.RestoreOptions, between func()) {
	t.Helper()
	for stops := 1; stops < 50; stops++ {
		ctx, cancel := context.WithCancel(t.Context())
		batches := 0
		o.Progress = func(string, int64, int64) {
			if batches++; batches == stops {
				cancel()
			}
		}
		_, err := transfer.Restore(ctx, o)
		cancel()
		if err == nil {
			return
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		between()
	}
	t.Fatal("it never ends")
}

func (b *backed) same(t *testing.T, got []letter) {
	t.Helper()
	sorted := func(list []letter) []letter {
		return slices.SortedFunc(slices.Values(list), func(x, y letter) int { return strings.Compare(x.Mailbox+x.Text, y.Mailbox+y.Text) })
	}
	if got, want := sorted(got), sorted(b.was); !reflect.DeepEqual(got, want) {
		t.Errorf("there is\n%v\nnot\n%v", got, want)
	}
	_, err := b.Store.Verify(t.Context(), store.VerifyOptions{Found: func(p store.Problem) { t.Errorf("problem %+v", p) }})
	if err != nil {
		t.Fatal(err)
	}
}

func TestARestoreThatIsBrokenOffGoesOn(t *testing.T) {
	t.Parallel()
	b := newBacked(t)
	a := b.account(t)
	box, err := b.Store.Mailbox(t.Context(), a, "Projects/项目")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Store.DeleteMailbox(t.Context(), a, box.ID); err != nil {
		t.Fatal(err)
	}
	in, err := b.Store.Mailbox(t.Context(), a, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Store.Expunge(t.Context(), a, in.ID, []store.UID{2, 3, 4, 5, 6}, false); err != nil {
		t.Fatal(err)
	}
	b.killed(t, b.options(t), func() {})
	b.same(t, holdings(t, b.carrier, li))
	again, err := b.Store.Mailbox(t.Context(), a, "Projects/项目")
	if err != nil || again.UIDValidity != box.UIDValidity || again.UIDNext != box.UIDNext+backup.JumpUIDs {
		t.Errorf("the folder is %+v, it was %+v, %v", again, box, err)
	}
	if out := b.restore(t, b.options(t)); out.Messages != 0 || out.There != int64(len(b.was)) {
		t.Errorf("once more: %+v", out)
	}
}

func (b *backed) account(t *testing.T) store.AccountID {
	t.Helper()
	a, err := control.AccountShow.Call(t.Context(), b.carrier, control.AccountRef{Address: li})
	if err != nil {
		t.Fatal(err)
	}
	return store.AccountID(a.ID)
}

func TestAnAccountThatReturnsIsSeenWhole(t *testing.T) {
	t.Parallel()
	b := newBacked(t)
	was := b.account(t)
	uidls := b.uidls(t, was)
	if err := b.Directory.RemoveAccount(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	broken := 0
	b.killed(t, b.options(t), func() {
		broken++
		if _, err := control.AccountShow.Call(t.Context(), b.carrier, control.AccountRef{Address: li}); control.KindOf(err) != control.NotFound {
			t.Fatalf("half of it is there: %v", err)
		}
		if err := b.Store.Housekeep(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if broken < 3 {
		t.Errorf("it was broken off %d times", broken)
	}
	b.same(t, holdings(t, b.carrier, li))
	now := b.account(t)
	if got := b.uidls(t, now); now == was || !reflect.DeepEqual(got, uidls) {
		t.Errorf("POP3 knows the messages as %v, it knew %v", got, uidls)
	}
}

// uidls are the ids by which POP3 knows the messages of INBOX.
func (b *backed) uidls(t *testing.T, acct store.AccountID) (out []string) {
	t.Helper()
	in, err := b.Store.Mailbox(t.Context(), acct, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	own, err := b.Store.UIDLs(t.Context(), acct)
	if err != nil {
		t.Fatal(err)
	}
	v, err := b.Store.View(t.Context(), acct, in.ID, nil, store.Peek())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		id := own[e.Message]
		if id == "" {
			id = b.Store.GUID(acct, e.Message)
		}
		out = append(out, id)
		return true
	})
	return out
}

func TestWhatWasMovedIsStillThere(t *testing.T) {
	t.Parallel()
	b := newBacked(t)
	a := b.account(t)
	in, err := b.Store.Mailbox(t.Context(), a, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	archive, err := b.Store.Mailbox(t.Context(), a, "Archive")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := b.Store.Move(t.Context(), a, in.ID, []store.UID{1, 2}, archive.ID); err != nil {
		t.Fatal(err)
	}
	if out := b.restore(t, b.options(t)); out.Messages != 0 {
		t.Errorf("of the whole account came %+v", out)
	}
	o := b.options(t)
	o.Folder = "INBOX"
	if out := b.restore(t, o); out.Messages != 2 {
		t.Errorf("of the folder came %+v", out)
	}
}

func TestTheLastWhoBeginsBringsBack(t *testing.T) {
	t.Parallel()
	b := newBacked(t)
	to := control.ReturnTo{Address: li, Backup: "one"}
	first, err := control.ReturnBegin.Call(t.Context(), b.carrier, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.ReturnBegin.Call(t.Context(), b.carrier, to); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("x"))
	_, err = control.ReturnMessages.Call(t.Context(), b.carrier, control.Returns{
		ReturnRef: control.ReturnRef{ID: first.ID, Token: first.Token, Backup: "one"}, Mailbox: first.Mailboxes[0].ID,
		Messages: []control.ReturnedMessage{{NewMessage: control.NewMessage{Size: 1}, SHA256: hex.EncodeToString(sum[:])}},
	}, strings.NewReader("x"))
	if control.KindOf(err) != control.Conflict {
		t.Errorf("the first goes on: %v", err)
	}
	_, err = control.ReturnBegin.Call(t.Context(), b.carrier, control.ReturnTo{Address: "li@foreign.test", Backup: "one"})
	if control.KindOf(err) != control.NotFound {
		t.Errorf("an account of a domain that is not here: %v", err)
	}
	if _, err := control.AliasAdd.Call(t.Context(), b.carrier, control.Alias{Address: "was@example.test", Targets: []string{li}}); err != nil {
		t.Fatal(err)
	}
	_, err = control.ReturnBegin.Call(t.Context(), b.carrier, control.ReturnTo{Address: "was@example.test", Backup: "one"})
	if control.KindOf(err) != control.Conflict {
		t.Errorf("an account whose address is an alias now: %v", err)
	}
}

func TestADamagedPartOfABackupHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	b := newBacked(t)
	if err := b.Directory.RemoveAccount(t.Context(), b.account(t)); err != nil {
		t.Fatal(err)
	}
	o := b.options(t)
	var mail string
	for _, p := range o.Reader.Manifest.Bundles {
		if p.Kind == backup.Mail {
			mail = filepath.Join(b.target, filepath.FromSlash(p.Name))
		}
	}
	raw, err := os.ReadFile(mail)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/3] ^= 1 // in the payload, which is one chunk of age
	if err := os.WriteFile(mail, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	out := b.restore(t, o)
	if len(out.Damaged) != len(b.was) || len(out.Accounts) != 1 || !out.Accounts[0].Made {
		t.Errorf("%d damaged of %d: %+v", len(out.Damaged), len(b.was), out)
	}
	if got := holdings(t, b.carrier, li); len(got) != 0 {
		t.Errorf("%d messages came", len(got))
	}
}
