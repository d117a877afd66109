package system

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"

	"waxwing/internal/backup"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/test/rig"
)

// backedFolder is what a client sees of a folder.
type backedFolder struct {
	Validity uint32
	Next     imap.UID
	Messages map[imap.UID]seenMessage
}

type seenMessage struct {
	Flags string
	Date  time.Time
	Body  string
}

// look reads everything of an account.
func look(t *testing.T, n *rig.Node, a rig.Account) map[string]backedFolder {
	t.Helper()
	c, _ := mailbox(t, n, a, "INBOX")
	defer c.Close()
	list, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]backedFolder{}
	for _, l := range list {
		data, err := c.Select(l.Mailbox, &imap.SelectOptions{ReadOnly: true}).Wait()
		if err != nil {
			t.Fatal(err)
		}
		s := backedFolder{data.UIDValidity, data.UIDNext, map[imap.UID]seenMessage{}}
		if data.NumMessages > 0 {
			section := &imap.FetchItemBodySection{Peek: true}
			got, err := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{
				UID: true, Flags: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{section},
			}).Collect()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range got {
				s.Messages[m.UID] = seenMessage{fmt.Sprint(m.Flags), m.InternalDate, string(m.FindBodySection(section))}
			}
		}
		out[l.Mailbox] = s
	}
	return out
}

// realMail is a letter of one of the kinds that there are: short, long, with an attachment, in other scripts.
func realMail(r *rand.Rand, i int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: =?UTF-8?B?5p2O5piO?= <sender%d@far.test>\r\nTo: <%s>\r\nMessage-ID: <backup-%d@far.test>\r\nSubject: letter %d\r\nMIME-Version: 1.0\r\n", i%7, ada.Address, i, i)
	switch i % 4 {
	case 0:
		fmt.Fprintf(&b, "\r\nshort %d\r\n", i)
	case 1:
		fmt.Fprintf(&b, "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s\r\n", strings.Repeat("会议在三点开始。\r\n", r.IntN(400)))
	case 2:
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nsee attachment\r\n--x\r\nContent-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\n")
		for range r.IntN(2000) {
			fmt.Fprintf(&b, "%064x\r\n", r.Uint64())
		}
		b.WriteString("--x--\r\n")
	default:
		b.WriteString("In-Reply-To: <backup-0@far.test>\r\n\r\nthe same for all\r\n")
	}
	return b.Bytes()
}

// fill gives ada mail in several folders, with flags and holes, and bob a share of it.
func fill(t *testing.T, n *rig.Node, count int) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	for i := range count {
		to := []string{ada.Address}
		if i%5 == 0 {
			to = append(to, bob.Address)
		}
		sendPlain(t, n.SMTP, "sender@far.test", to, realMail(r, i))
	}
	waitForMail(t, n, ada, "INBOX", count)
	c, _ := mailbox(t, n, ada, "INBOX")
	defer c.Close()
	for _, name := range []string{"Projects", "Projects/项目"} {
		if err := c.Create(name, nil).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Copy(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 4}}, "Projects/项目").Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Move(imap.SeqSet{imap.SeqRange{Start: 3, Stop: 5}}, "Projects").Wait(); err != nil {
		t.Fatal(err)
	}
	for seq, flag := range map[imap.UID]imap.Flag{1: imap.FlagSeen, 2: imap.FlagFlagged, 3: "$Label1", 4: "mine"} {
		if err := changeFlags(c, seq, flag); err != nil {
			t.Fatal(err)
		}
	}
	deleteFirst(t, c)
}

// command runs a subcommand of the server's own binary and reads its JSON.
func command(t *testing.T, n *rig.Node, v any, args ...string) {
	t.Helper()
	out, err := n.Command(t.Context(), nil, append(args, "--json", "--dir", n.Dir)...)
	if err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("waxwing %v printed %s: %v", args, out, err)
	}
}

// backedUp makes a key, and a server's plan to back up to a target.
func backedUp(t *testing.T, n *rig.Node, target string, more ...string) (key string) {
	t.Helper()
	key = filepath.Join(t.TempDir(), "backup.key")
	var made struct{ Recipient string }
	command(t, n, &made, "backup", "key", "--out", key)
	command(t, n, nil, append([]string{"backup", "schedule", "--target", target, "--recipient", made.Recipient}, more...)...)
	return key
}

// elsewhere makes an empty server and restores the newest backup of a target into it.
func elsewhere(t *testing.T, o rig.WaxwingOptions, key, target string, more ...string) *rig.Node {
	t.Helper()
	o.Binary, o.Domain, o.Empty = binary, domain, true
	n, err := rig.NewNode(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	restore := append([]string{"backup", "restore", "--all", "--identity-file", key, "--target", target}, more...)
	command(t, n, nil, append(restore, "--dry-run")...)
	command(t, n, nil, restore...)
	if out, err := n.Command(t.Context(), nil, append(restore, "--dir", n.Dir)...); err == nil || !strings.Contains(err.Error(), "nothing is restored over it") {
		t.Fatalf("a second restore over the first: %s, %v", out, err)
	}
	command(t, n, nil, "store", "verify") // problems are a failure
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("the end of the restored server: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the restored server:\n%s", tail(n.Log(), 8<<10))
		}
	})
	return n
}

// TestAServerComesBackFromItsBackup backs a server up while mail comes in, destroys it, and restores it elsewhere: a client
// finds no difference, and no number that it ever saw comes back with another meaning.
func TestAServerComesBackFromItsBackup(t *testing.T) {
	t.Run("sqlite and packs to a directory", func(t *testing.T) {
		target := t.TempDir()
		comesBack(t, rig.WaxwingOptions{}, rig.WaxwingOptions{}, target)
	})
	t.Run("postgresql and a bucket to a bucket", func(t *testing.T) {
		cluster, err := pgtest.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer cluster.Close()
		service, err := s3test.Start()
		if err != nil {
			t.Fatal(err)
		}
		defer service.Close()
		options := func(name string) rig.WaxwingOptions {
			cluster.Schema(t, name)
			bucket := service.Bucket(t, name, "")
			return rig.WaxwingOptions{Empty: true, Edit: inCluster(t, cluster.DSN(name), bucket.Endpoint, name, credentials(t, bucket.AccessKey, bucket.SecretKey))}
		}
		b := service.Bucket(t, "backups", "")
		t.Run("moved", func(t *testing.T) {
			comesBack(t, options("first"), options("second"), "http://"+b.Endpoint+"/backups/mx?region=us-east-1", "--credentials-file", credentials(t, b.AccessKey, b.SecretKey))
		})
	})
}

func credentials(t *testing.T, access, secret string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte(access+"\n"+secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// inCluster edits a configuration so that rows are in PostgreSQL and contents in a bucket.
func inCluster(t *testing.T, dsn, endpoint, bucket, credentials string) func(string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(toml string) string {
		lines := strings.Split(toml, "\n")
		var out []string
		for i := 0; i < len(lines); i++ {
			if strings.TrimSpace(lines[i]) == "[store]" { // replaced below
				for i+1 < len(lines) && !strings.HasPrefix(strings.TrimSpace(lines[i+1]), "[") {
					i++
				}
				continue
			}
			out = append(out, lines[i])
		}
		return strings.Join(out, "\n") + fmt.Sprintf("\n[store]\ndriver = \"postgres\"\ndsn_file = %q\n[store.s3]\nendpoint = %q\nbucket = %q\nregion = \"us-east-1\"\ncredentials_file = %q\nplain = true\n",
			file, endpoint, bucket, credentials)
	}
}

func comesBack(t *testing.T, from, to rig.WaxwingOptions, target string, access ...string) {
	from.Relay, to.Relay = "127.0.0.1:1", "127.0.0.1:1" // nobody takes what goes out
	n := node(t, from)
	key := backedUp(t, n, target, append([]string{"--keep-daily", "0", "--keep-weekly", "0", "--keep-monthly", "0"}, access...)...)
	fill(t, n, 40)
	if err := submit(t, n, ada, []string{"far@else.test"}, letter(ada.Address, "far@else.test", "queued")); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				sendPlain(t, n.SMTP, "sender@far.test", []string{bob.Address}, letter("sender@far.test", bob.Address, fmt.Sprint("load ", i)))
			}
		}
	})
	var under, last backup.Record
	command(t, n, &under, "backup", "now")
	close(stop)
	load.Wait()
	command(t, n, &last, "backup", "now")
	if last.Sent == 0 || last.Counts.Messages < under.Counts.Messages || last.Counts.Accounts != 2 {
		t.Errorf("the second backup: %+v after %+v", last, under)
	}
	wantAda, wantBob := look(t, n, ada), look(t, n, bob)
	// What comes after the backup is lost with the server; its numbers must stay lost.
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "too late"))
	late := look(t, n, ada)["INBOX"].Next
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.Dir, "data")); err != nil {
		t.Fatal(err)
	}

	m := elsewhere(t, to, key, target, access...)
	for _, x := range []struct {
		who  rig.Account
		want map[string]backedFolder
	}{{ada, wantAda}, {bob, wantBob}} {
		got := look(t, m, x.who)
		for name, folder := range x.want {
			now := got[name]
			if now.Validity != folder.Validity || !reflect.DeepEqual(now.Messages, folder.Messages) {
				t.Errorf("%s of %s: %d messages under UIDVALIDITY %d, not %d under %d", name, x.who.Address, len(now.Messages), now.Validity, len(folder.Messages), folder.Validity)
			}
			if now.Next < folder.Next+backup.JumpUIDs {
				t.Errorf("%s of %s: the next UID is %d, it was %d", name, x.who.Address, now.Next, folder.Next)
			}
		}
		if len(got) != len(x.want) {
			t.Errorf("%s has %d folders, not %d", x.who.Address, len(got), len(x.want))
		}
	}
	afterwards(t, m, late)
	first := elsewhere(t, rig.WaxwingOptions{}, key, target, append([]string{"--backup", under.ID}, access...)...)
	if got := look(t, first, ada)["INBOX"]; !reflect.DeepEqual(got.Messages, wantAda["INBOX"].Messages) {
		t.Errorf("the backup that was made under load has %d messages for ada", len(got.Messages))
	}
}

// afterwards looks at what a restored server does next.
func afterwards(t *testing.T, m *rig.Node, late imap.UID) {
	t.Helper()
	var queued struct {
		Messages []json.RawMessage
	}
	out, err := m.Command(t.Context(), nil, "queue", "list", "--json", "--dir", m.Dir)
	if err != nil || !strings.Contains(out, `"held"`) || strings.Contains(out, `"waiting"`) {
		t.Errorf("queued mail is not held: %s, %v, %v", out, err, queued)
	}
	sendPlain(t, m.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "after the restore"))
	waitFor(t, "the first message after the restore", func() bool {
		for uid, x := range look(t, m, ada)["INBOX"].Messages {
			if strings.Contains(x.Body, "after the restore") {
				if uid <= late {
					t.Errorf("it has UID %d, and %d was given before", uid, late)
				}
				return true
			}
		}
		return false
	})
	var st struct{ Schedule string }
	command(t, m, &st, "backup", "schedule")
	if st.Schedule != "" {
		t.Errorf("the restored server backs up by itself: %q", st.Schedule)
	}
}

// TestBackupsAreMadeAndTestedByThemselves has a schedule, and a key for tests.
func TestBackupsAreMadeAndTestedByThemselves(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	target := t.TempDir()
	own := filepath.Join(t.TempDir(), "test.key")
	command(t, n, nil, "backup", "key", "--out", own)
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "kept"))
	backedUp(t, n, target, "--every", "6h", "--test-key-file", own)
	var st struct {
		LastGood *backup.Record     `json:"last_good"`
		TestGood *backup.TestRecord `json:"test_good"`
		Last     *backup.Record
		Test     *backup.TestRecord
		Late     bool
	}
	waitFor(t, "a backup and its test", func() bool {
		command(t, n, &st, "backup", "schedule")
		return st.LastGood != nil && st.Test != nil
	})
	if !st.Test.Good() || st.Test.Kind != backup.TestRestore || st.Test.Contents != 1 {
		t.Errorf("the test: %+v", st.Test)
	}
	// The target loses a bundle: the test says so, the next backup mends it.
	bundles, err := filepath.Glob(filepath.Join(target, "bundles", "*"))
	if err != nil || len(bundles) == 0 {
		t.Fatal(bundles, err)
	}
	b, err := os.ReadFile(bundles[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(bundles[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := n.Command(t.Context(), nil, "backup", "test", "--dir", n.Dir); err == nil {
		t.Errorf("a damaged backup passed: %s", out)
	}
	out, err := n.Command(t.Context(), nil, "doctor", "--dir", n.Dir)
	if err == nil || !strings.Contains(err.Error(), "the last test of a backup failed") {
		t.Errorf("doctor says %s, %v", out, err)
	}
	command(t, n, nil, "backup", "now")
	command(t, n, nil, "backup", "test")
}

// TestAWholeRestoreThatIsKilledGoesOn kills a restore at many moments: what it leaves serves nobody, and the same command
// goes on to the end.
func TestAWholeRestoreThatIsKilledGoesOn(t *testing.T) {
	n := node(t, rig.WaxwingOptions{Relay: "127.0.0.1:1"})
	target := t.TempDir()
	key := backedUp(t, n, target)
	fill(t, n, 24)
	if err := submit(t, n, ada, []string{"far@else.test"}, letter(ada.Address, "far@else.test", "queued")); err != nil {
		t.Fatal(err)
	}
	command(t, n, nil, "backup", "now")
	want := look(t, n, ada)
	m, err := rig.NewNode(t.Context(), t.TempDir(), rig.WaxwingOptions{Binary: binary, Domain: domain, Empty: true})
	if err != nil {
		t.Fatal(err)
	}
	restore := []string{"backup", "restore", "--all", "--queue", "drop", "--identity-file", key, "--target", target, "--dir", m.Dir}
	kills, midway := 0, 0
	for delay := 60 * time.Millisecond; ; delay += 15 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), delay)
		out, err := m.Command(ctx, nil, restore...) // its end is SIGKILL
		killed := ctx.Err() != nil
		cancel()
		if err == nil || kills > 0 && strings.Contains(err.Error(), "holds a server already") { // the last kill came when all was done
			break
		}
		if !killed {
			t.Fatalf("after %d kills: %s, %v", kills, out, err)
		}
		kills++
		if _, err := os.Stat(filepath.Join(m.Dir, "data", "restore.json")); err == nil {
			midway++
			if err := m.Start(t.Context()); err == nil || !strings.Contains(m.Log(), "it goes on") {
				t.Fatalf("half a server: %v\n%s", err, m.Log())
			}
			if out, err := m.Command(t.Context(), nil, append(slices.Clone(restore), "--queue", "hold")...); err == nil || !strings.Contains(err.Error(), "begun with --queue drop") {
				t.Fatalf("another fate of the queue: %s, %v", out, err)
			}
		}
	}
	t.Logf("%d kills, %d of them midway", kills, midway)
	command(t, m, nil, "store", "verify")
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	got := look(t, m, ada)
	for name := range want {
		if !reflect.DeepEqual(got[name].Messages, want[name].Messages) {
			t.Errorf("%s has %d messages, not %d", name, len(got[name].Messages), len(want[name].Messages))
		}
	}
	var queued []json.RawMessage
	if command(t, m, &queued, "queue", "list"); len(queued) > 0 {
		t.Errorf("queued mail was not dropped: %s", queued)
	}
}

// TestAFullTargetHarmsNothing has the disk of the target fill up: the command says so, mail goes on, nothing is listed that is
// not whole, and the next backup uses what was sent.
func TestAFullTargetHarmsNothing(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	target := smallDisk(t, "300k")
	key := backedUp(t, n, target)
	fill(t, n, 12)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 8 {
		b := bytes.NewBuffer(letter("sender@far.test", bob.Address, fmt.Sprint("large ", i)))
		for range 2000 {
			fmt.Fprintf(b, "%016x%016x\r\n", r.Uint64(), r.Uint64())
		}
		sendPlain(t, n.SMTP, "sender@far.test", []string{bob.Address}, b.Bytes())
	}
	out, err := n.Command(t.Context(), nil, "backup", "now", "--dir", n.Dir)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("a backup to a full disk: %s, %v", out, err)
	}
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "meanwhile"))
	var list struct {
		Backups  []json.RawMessage
		Problems []string
	}
	command(t, n, &list, "backup", "list")
	if len(list.Backups) > 0 || len(list.Problems) > 0 {
		t.Errorf("listed: %+v", list)
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	command(t, n, nil, "backup", "now")
	command(t, n, nil, "backup", "verify", "--identity-file", key)
}
