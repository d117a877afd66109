package system

import (
	"bytes"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the rows say where a message is stored

	"waxwing/test/rig"
)

// TestPromise3NumbersAreNeverReused deletes the newest message, restarts, and delivers another: its UID, its UIDL and the
// MODSEQ of the mailbox must all be new.
func TestPromise3NumbersAreNeverReused(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	ctx := t.Context()
	send := func(token string) {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, token))
	}
	send("first")
	send("second")
	c, before := mailbox(t, n, ada, "INBOX")
	uidls := popUIDL(t, n, ada)
	modseq := highestModSeq(t, c)
	if err := changeFlags(c, 2, imap.FlagDeleted); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Expunge().Collect(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	send("third")
	c, after := mailbox(t, n, ada, "INBOX")
	if after.UIDValidity != before.UIDValidity {
		t.Errorf("UIDVALIDITY went from %d to %d", before.UIDValidity, after.UIDValidity)
	}
	messages := fetchAll(t, c)
	if len(messages) != 2 || messages[0].uid != 1 || messages[1].uid <= 2 {
		t.Errorf("UIDs are %d and %d, want 1 and one above 2", messages[0].uid, messages[1].uid)
	}
	if now := highestModSeq(t, c); now <= modseq {
		t.Errorf("HIGHESTMODSEQ went from %d to %d", modseq, now)
	}
	again := popUIDL(t, n, ada)
	if again[0] != uidls[0] {
		t.Errorf("the UIDL of the first message changed from %s to %s", uidls[0], again[0])
	}
	if again[1] == uidls[1] {
		t.Errorf("the UIDL %s of a deleted message is used again", uidls[1])
	}
}

// TestPromise4DamageHarmsOneMessage flips a byte of one stored message: it can't be read any more, and everything else can.
func TestPromise4DamageHarmsOneMessage(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	for _, token := range []string{"sound-1", "to-be-damaged", "sound-2"} {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, token))
	}
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	flipByte(t, n.Dir, 2)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, _ := mailbox(t, n, ada, "INBOX")
	section := &imap.FetchItemBodySection{Peek: true}
	for seq, sound := range []bool{true, false, true} {
		got, err := c.Fetch(imap.SeqSetNum(uint32(seq+1)), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{section}}).Collect()
		readable := err == nil && len(got) == 1 && len(got[0].FindBodySection(section)) > 0
		if readable != sound {
			t.Errorf("message %d: readable %v, want %v (%v)", seq+1, readable, sound, err)
		}
	}
	if err := changeFlags(c, 2, imap.FlagSeen); err != nil {
		t.Errorf("the flags of the damaged message can't be changed: %v", err)
	}
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "later"))
	if got := waitForMail(t, n, bob, "INBOX", 0); len(got) != 0 {
		t.Errorf("bob has %d messages", len(got))
	}
	if !strings.Contains(n.Log(), "damaged") && !strings.Contains(n.Log(), "corrupt") {
		t.Error("the log does not report the damage")
	}
}

// TestPromise4AFlippedByteInTheDatabaseHarmsNothing kills the server, and flips a byte of the database and one of the log that the
// kill left: all mail is there, the log tells of it, and verify is content.
func TestPromise4AFlippedByteInTheDatabaseHarmsNothing(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	for _, token := range []string{"first", "second", "third"} {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, token))
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	const afterTheHeaders = 32 + 24
	flipAt(t, filepath.Join(n.Dir, "data", "waxwing.db"), 20) // says how much of a page is free
	flipAt(t, filepath.Join(n.Dir, "data", "waxwing.db-wal"), afterTheHeaders+100)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, _ := mailbox(t, n, ada, "INBOX")
	if got := fetchAll(t, c); len(got) != 3 {
		t.Errorf("%d messages are there, want 3", len(got))
	}
	if out, err := n.Command(t.Context(), nil, "store", "verify", "--dir", n.Dir); err != nil {
		t.Errorf("verify: %v: %s", err, out)
	}
	if !strings.Contains(n.Log(), "put one wrong octet right") {
		t.Error("the log does not tell of it")
	}
}

func flipAt(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// flipByte changes one bit within the stored octets of the n-th content that a stopped server took.
func flipByte(t *testing.T, dir string, n int) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "data", "waxwing.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var segment, place, stored int64
	row := db.QueryRowContext(t.Context(), `SELECT segment, place, stored FROM blob ORDER BY blob_id LIMIT 1 OFFSET $1`, n-1)
	if err := row.Scan(&segment, &place, &stored); err != nil {
		t.Fatal(err)
	}
	flipAt(t, filepath.Join(dir, "data", "packs", "packs", fmt.Sprintf("%08x.blob", segment)), place+stored/2)
}

// TestPromise5FullDiskMeansTryLater fills the file system of the data directory: mail is refused with 4xx, reading goes on,
// and when there is room again mail is taken without a restart.
func TestPromise5FullDiskMeansTryLater(t *testing.T) {
	disk := smallDisk(t, "256m")
	n := node(t, rig.WaxwingOptions{Dir: disk, Edit: func(toml string) string {
		return toml + "\n[spool]\ndisk_reserve = \"16MiB\"\n"
	}})
	body := letter("sender@far.test", ada.Address, "before")
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, body)

	filler := filepath.Join(disk, "filler")
	fillDisk(t, filler)
	code, text := trySend(t, n.SMTP, "sender@far.test", ada.Address, body)
	if code/100 != 4 {
		t.Errorf("on a full disk the server says %d %s, want 4xx", code, text)
	}
	c, _ := mailbox(t, n, ada, "INBOX")
	if got := fetchAll(t, c); len(got) != 1 {
		t.Errorf("on a full disk %d messages can be read, want 1", len(got))
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail is taken again", func() bool {
		code, _ := trySend(t, n.SMTP, "sender@far.test", ada.Address, letter("sender@far.test", ada.Address, "after"))
		return code == 250
	})
	waitForMail(t, n, ada, "INBOX", 2)
}

// smallDisk mounts a file system that is soon full.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mounting a small file system needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return disk
}

func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); err != nil {
			return // no space left: what is wanted
		}
	}
}

// trySend sends one message in plain SMTP and returns the first reply that is not the expected one, or the last.
func trySend(t *testing.T, address, from, to string, body []byte) (code int, text string) {
	t.Helper()
	c := dialText(t, address)
	defer c.Close()
	steps := []struct {
		line string
		want int
	}{
		{"", 220},
		{"EHLO client.test", 250},
		{fmt.Sprintf("MAIL FROM:<%s>", from), 250},
		{fmt.Sprintf("RCPT TO:<%s>", to), 250},
		{"DATA", 354},
		{string(body) + ".", 250},
	}
	for _, s := range steps {
		if s.line != "" {
			c.PrintfLine("%s", s.line)
		}
		var err error
		if code, text, err = c.ReadResponse(0); err != nil && code == 0 {
			return 421, err.Error() // a clean close counts as "try later"
		}
		if code != s.want {
			return code, text
		}
	}
	return code, text
}

// TestPromise5NoFileDescriptors takes all of the server's file descriptors away: sessions go on, and when some are free
// again new ones are served.
func TestPromise5NoFileDescriptors(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	c, _ := mailbox(t, n, ada, "INBOX")
	pid := n.PIDs()[0]
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open)), Max: before.Max}, nil); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		nc := dialText(t, n.SMTP)
		defer nc.Close()
	}
	if err := c.Noop().Wait(); err != nil {
		t.Errorf("a session of before the shortage: %v", err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "mail is taken again", func() bool {
		code, _ := trySend(t, n.SMTP, "sender@far.test", ada.Address, letter("sender@far.test", ada.Address, "after"))
		return code == 250
	})
}

// TestPromise7NoPasswordIsStored looks for the passwords in every file that the server keeps.
func TestPromise7NoPasswordIsStored(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	mailbox(t, n, ada, "INBOX")
	if err := submit(t, n, ada, []string{bob.Address}, letter(ada.Address, bob.Address, "x")); err != nil {
		t.Fatal(err)
	}
	popAll(t, n, ada)
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(n.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(ada.Password)) {
			t.Errorf("%s holds a password in plaintext", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(n.Log(), ada.Password) {
		t.Error("the log holds a password")
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
