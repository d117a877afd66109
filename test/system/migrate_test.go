package system

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"

	"waxwing/test/rig"
)

// bulk is how many messages a migration of this test has to move beside some special ones: more than one transaction takes.
const bulk = 400

// TestAServerMovesToPostgresAndS3AndBack moves a server with mail to PostgreSQL and S3 while kill -9 ends the command again and
// again, and then back to one machine. Mail programs notice nothing: UIDVALIDITY, UIDs, flags and octets are the same.
func TestAServerMovesToPostgresAndS3AndBack(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	large := append(letter("a@far.test", ada.Address, "large"), []byte(strings.Repeat("a line of a large message\r\n", 100_000))...)
	sendPlain(t, n.SMTP, "a@far.test", []string{ada.Address}, large)
	for i := range 8 {
		sendPlain(t, n.SMTP, "a@far.test", []string{ada.Address, bob.Address}, letter("a@far.test", ada.Address, fmt.Sprint("number ", i)))
	}
	importBulk(t, n)
	waitForMail(t, n, ada, "INBOX", 9)
	c, _ := mailbox(t, n, ada, "INBOX")
	flags := imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagSeen, "$Forwarded"}}
	if err := c.Store(imap.SeqSetNum(3, 4), &flags, nil).Close(); err != nil {
		t.Fatal(err)
	}
	deleteFirst(t, c)
	want := seen(t, n)
	stop(t, n)

	machine := n.Dir
	cloud := filepath.Join(t.TempDir(), "cloud")
	_, edit := onPostgresAndS3(t)
	copyNode(t, machine, cloud, edit)
	kills := 0
	for _, phase := range []string{"contents", "contents", "rows", "rows", "proving"} {
		if killMigration(t, machine, cloud, phase) {
			kills++
		}
		if phase != "rows" {
			continue
		}
		if _, err := n.Command(t.Context(), nil, "serve", "--dir", cloud); err == nil || !strings.Contains(err.Error(), "is not finished") {
			t.Fatalf("a store that is half loaded: %v", err)
		}
	}
	t.Logf("%d kills", kills)
	if kills < 3 {
		t.Errorf("only %d kills came in time", kills)
	}
	if r := migrate(t, n, machine, cloud); !r.Resumed || r.Contents < bulk || r.Lost != 0 {
		t.Errorf("%+v", r)
	}
	n.Dir = cloud
	begin(t, n)
	sameBoxes(t, want, seen(t, n))
	sendPlain(t, n.SMTP, "a@far.test", []string{ada.Address}, letter("a@far.test", ada.Address, "in the cloud"))
	got := waitForMail(t, n, ada, "INBOX", 9)
	if last := got[len(got)-1]; last.uid != 10 || !strings.Contains(string(last.body), "in the cloud") {
		t.Errorf("the next message has UID %d", last.uid)
	}
	want = seen(t, n)
	stop(t, n)

	back := filepath.Join(t.TempDir(), "back")
	copyNode(t, machine, back, func(toml string) string { return toml })
	if r := migrate(t, n, cloud, back); r.Resumed || r.Contents < bulk {
		t.Errorf("%+v", r)
	}
	n.Dir = back
	begin(t, n)
	sameBoxes(t, want, seen(t, n))
}

func importBulk(t *testing.T, n *rig.Node) {
	t.Helper()
	dir := t.TempDir()
	var mbox strings.Builder
	for i := range bulk {
		fmt.Fprintf(&mbox, "From a@far.test Mon Jan  5 10:00:00 2026\nFrom: a@far.test\nSubject: bulk %d\nMessage-ID: <bulk%d@far.test>\n\ntext %d\n\n", i, i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "Bulk.mbox"), []byte(mbox.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Command(t.Context(), nil, "import", ada.Address, dir, "--dir", n.Dir); err != nil {
		t.Fatal(err)
	}
}

// box is what a mail program sees of a mailbox.
type box struct {
	validity uint32
	next     imap.UID
	messages []fetched
}

func seen(t *testing.T, n *rig.Node) map[string]box {
	t.Helper()
	out := map[string]box{}
	for _, x := range []struct {
		who  rig.Account
		name string
	}{{ada, "INBOX"}, {ada, "Bulk"}, {bob, "INBOX"}} {
		c, data := mailbox(t, n, x.who, x.name)
		out[x.who.Address+" "+x.name] = box{data.UIDValidity, data.UIDNext, withoutRecent(fetchAll(t, c))}
		if err := c.Logout().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// withoutRecent takes \Recent away: it is a matter of the session.
func withoutRecent(all []fetched) []fetched {
	for i := range all {
		all[i].flags = slices.DeleteFunc(all[i].flags, func(f imap.Flag) bool { return f == "\\Recent" })
	}
	return all
}

func sameBoxes(t *testing.T, want, got map[string]box) {
	t.Helper()
	for name, w := range want {
		g := got[name]
		if g.validity != w.validity || g.next != w.next || len(g.messages) != len(w.messages) {
			t.Errorf("%s: UIDVALIDITY %d, UIDNEXT %d, %d messages; want %d, %d, %d", name, g.validity, g.next, len(g.messages), w.validity, w.next, len(w.messages))
			continue
		}
		for i := range w.messages {
			a, b := w.messages[i], g.messages[i]
			if a.uid != b.uid || a.size != b.size || fmt.Sprint(a.flags) != fmt.Sprint(b.flags) || !bytes.Equal(a.body, b.body) {
				t.Errorf("%s: message %d was UID %d, %v, %d octets; it is UID %d, %v, %d octets", name, i+1, a.uid, a.flags, a.size, b.uid, b.flags, b.size)
			}
		}
	}
}

func begin(t *testing.T, n *rig.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, n *rig.Node) {
	t.Helper()
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
}

// copyNode makes the directory of a second server out of the configuration of a first one.
func copyNode(t *testing.T, from, to string, edit func(toml string) string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(from, "waxwing.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "waxwing.toml"), []byte(edit(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// killMigration begins a migration, or goes on with it, and kills it a moment after it says that it is in a phase. It is
// false when the command was through before.
func killMigration(t *testing.T, from, to, phase string) bool {
	t.Helper()
	cmd := exec.Command(binary, "store", "migrate", "--dir", from, "--to", to, "--json")
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), `"phase":"`+phase+`"`) {
			continue
		}
		kill := time.AfterFunc(time.Duration(rand.Int64N(int64(30*time.Millisecond))), func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		break
	}
	if _, err := io.Copy(io.Discard, pipe); err != nil {
		t.Log(err)
	}
	return cmd.Wait() != nil
}

// moved is the outcome of a migration.
type moved struct {
	Contents, Lost int64
	Resumed        bool
}

func migrate(t *testing.T, n *rig.Node, from, to string) (r moved) {
	t.Helper()
	out, err := n.Command(t.Context(), nil, "store", "migrate", "--dir", from, "--to", to, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}
