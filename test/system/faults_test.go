package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/test/rig"
)

// TestPromise5DiskFillsUpUnderLoad fills the file system of the data directory under a mixed load, to another brim each time,
// and makes room again: the server refuses, goes on by itself, and has all that it answered for.
func TestPromise5DiskFillsUpUnderLoad(t *testing.T) {
	o, j, disk := ordeal.Begin(t), newJournal(), smallDisk(t, "256m")
	sink := j.sink(t, o)
	n := node(t, rig.WaxwingOptions{Relay: sink.Address, Dir: disk, Edit: func(toml string) string {
		return quickRetries(toml) + "\n[spool]\ndisk_reserve = \"16MiB\"\n"
	}})
	_, stop := j.load(t, n, rotateWork)
	defer stop()
	filler := filepath.Join(disk, "filler")
	brims := []int64{0, 12 << 10, 200 << 10, 15 << 20}
	for _, free := range brims {
		j.awaitWork(t)
		fillDisk(t, filler)
		fi, err := os.Stat(filler)
		if err == nil {
			err = os.Truncate(filler, max(0, fi.Size()-free))
		}
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, fmt.Sprintf("mail is refused with %d octets left", free), func() bool {
			code, text := trySend(t, n.SMTP, "sender@far.test", bob.Address, letter("sender@far.test", bob.Address, "full"))
			if code/100 == 5 {
				t.Errorf("on a full disk the server says %d %s", code, text)
			}
			return code != 250
		})
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		o.Fault(1)
	}
	j.awaitChanges(t)
	stop()
	j.check(t, o, n, len(brims))
}

// TestPromise5DatabaseGoesAwayUnderLoad stops PostgreSQL under a mixed load, has it crash, and starts it again: nothing that was
// answered is lost, and the server goes on by itself. Then its index in the database finds Chinese words of two characters.
func TestPromise5DatabaseGoesAwayUnderLoad(t *testing.T) {
	cluster, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	dsn := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(cluster.DSN("")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, j := ordeal.Begin(t), newJournal()
	sink := j.sink(t, o)
	n := node(t, rig.WaxwingOptions{Relay: sink.Address, Accounts: []rig.Account{}, Edit: func(toml string) string {
		return quickRetries(toml) + fmt.Sprintf("\n[store]\ndriver = \"postgres\"\ndsn_file = %q\n", dsn)
	}})
	people(t, n) // those of init are in the other store
	_, stop := j.load(t, n, rotateWork)
	defer stop()
	ends := []func() error{cluster.Stop, cluster.Crash}
	for _, end := range ends {
		j.awaitWork(t)
		if err := end(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "mail is refused", func() bool {
			code, text := trySend(t, n.SMTP, "sender@far.test", bob.Address, letter("sender@far.test", bob.Address, "away"))
			if code/100 == 5 {
				t.Errorf("without its database the server says %d %s", code, text)
			}
			return code != 250
		})
		if err := cluster.Run(); err != nil {
			t.Fatal(err)
		}
		o.Fault(1)
	}
	j.awaitChanges(t)
	stop()
	j.check(t, o, n, len(ends))
	findsChinese(t, n)
}

// awaitChanges returns when, after something of each kind was answered, mail has been marked, moved and expunged too.
func (j *journal) awaitChanges(t *testing.T) {
	t.Helper()
	j.awaitWork(t)
	waitFor(t, "mail is marked, moved and expunged", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		flagged, moved, gone := 0, 0, 0
		for _, k := range j.kept {
			flagged += count(k.flagged)
			moved += count(k.box == "Trash")
			gone += count(k.gone)
		}
		return flagged > 0 && moved > 0 && gone > 0
	})
}

// people adds the domain and the accounts to a server that runs.
func people(t *testing.T, n *rig.Node) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "accounts.csv")
	lines := fmt.Sprintf("%s,%s,,\n%s,%s,,\n", ada.Address, ada.Password, bob.Address, bob.Password)
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"domain", "add", domain}, {"account", "import", file}} {
		if _, err := n.Command(t.Context(), nil, append(args, "--dir", n.Dir)...); err != nil {
			t.Fatal(err)
		}
	}
}

// findsChinese delivers enough mail for SEARCH to ask the index, and looks for two characters in it.
func findsChinese(t *testing.T, n *rig.Node) {
	t.Helper()
	const messages = 40
	for i := range messages {
		text := fmt.Sprintf("letter %d", i)
		if i == 7 {
			text = "您的电子发票已开具"
		}
		sendPlain(t, n.SMTP, "sender@far.test", []string{bob.Address}, letter("sender@far.test", bob.Address, text))
	}
	c, _ := mailbox(t, n, bob, "INBOX")
	found := func(needle string) int {
		data, err := c.Search(&imap.SearchCriteria{Text: []string{needle}}, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		return len(data.AllSeqNums())
	}
	if got := found("发票"); got != 1 {
		t.Errorf("%d messages are found, want 1", got)
	}
	if got := found("会议"); got != 0 {
		t.Errorf("%d messages are found that are not there", got)
	}
	waitFor(t, "store verify is content with the index", func() bool {
		out, err := n.Command(t.Context(), nil, "store", "verify", "--dir", n.Dir)
		return err == nil && !strings.Contains(out, "search")
	})
}
