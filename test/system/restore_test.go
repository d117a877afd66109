package system

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"waxwing/internal/backup"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/internal/transfer"
	"waxwing/test/rig"
)

// TestPartsComeBackIntoARunningServer loses a message, a folder, accounts and a domain, one after the other, and brings each
// back from a backup while the server runs.
func TestPartsComeBackIntoARunningServer(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	p := &parts{n: n, target: t.TempDir()}
	p.key = backedUp(t, n, p.target)
	fill(t, n, 24)
	command(t, n, nil, "alias", "add", "team@example.test", ada.Address, bob.Address)
	command(t, n, nil, "backup", "now")
	p.ada, p.bob = look(t, n, ada), look(t, n, bob)
	p.message(t)
	p.folder(t)
	p.account(t)
	p.domain(t)
	command(t, n, nil, "store", "verify")
}

// TestAnAccountComesBackIntoPostgreSQLAndABucket does it with accounts where the rows are in PostgreSQL, and contents and
// backup in buckets.
func TestAnAccountComesBackIntoPostgreSQLAndABucket(t *testing.T) {
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
	cluster.Schema(t, "parts")
	bucket, b := service.Bucket(t, "parts", ""), service.Bucket(t, "backups", "")
	t.Run("running", func(t *testing.T) {
		n := node(t, rig.WaxwingOptions{Empty: true, Edit: inCluster(t, cluster.DSN("parts"), bucket.Endpoint, "parts", credentials(t, bucket.AccessKey, bucket.SecretKey))})
		p := &parts{n: n, target: "http://" + b.Endpoint + "/backups/mx?region=us-east-1"}
		p.key = backedUp(t, n, p.target, "--credentials-file", credentials(t, b.AccessKey, b.SecretKey))
		fill(t, n, 12)
		command(t, n, nil, "alias", "add", "team@example.test", ada.Address, bob.Address)
		command(t, n, nil, "backup", "now")
		p.ada, p.bob = look(t, n, ada), look(t, n, bob)
		p.account(t)
		p.folder(t)
		command(t, n, nil, "store", "verify")
	})
}

// parts is a server with a backup and what clients saw when it was made.
type parts struct {
	n           *rig.Node
	target, key string
	ada, bob    map[string]backedFolder
}

// restore runs the command, first without doing it: that must change nothing, and say the same.
func (p *parts) restore(t *testing.T, args ...string) (out transfer.RestoreResult) {
	t.Helper()
	args = append([]string{"backup", "restore", "--identity-file", p.key}, args...)
	var dry transfer.RestoreResult
	command(t, p.n, &dry, append(args, "--dry-run")...)
	command(t, p.n, &out, args...)
	if dry.Messages != out.Messages || dry.There != out.There || len(dry.Accounts) != len(out.Accounts) || len(dry.List) != int(dry.Messages) || !reflect.DeepEqual(dry.Aliases, out.Aliases) {
		t.Errorf("a dry run of %v said %+v, what was done is %+v", args, dry, out)
	}
	var again transfer.RestoreResult
	command(t, p.n, &again, args...)
	if again.Messages != 0 || again.There != out.Messages+out.There {
		t.Errorf("done twice, %v brings %+v", args, again)
	}
	return out
}

// bodies are the messages of a folder, whatever their UIDs.
func bodies(f backedFolder) []string {
	var out []string
	for _, m := range f.Messages {
		out = append(out, m.Date.String()+m.Body)
	}
	slices.Sort(out)
	return out
}

func (p *parts) message(t *testing.T) {
	t.Helper()
	c, data := mailbox(t, p.n, ada, "INBOX")
	watcher, _ := mailbox(t, p.n, ada, "INBOX")
	uids := slices.Sorted(maps.Keys(p.ada["INBOX"].Messages))
	stays, lost := uids[1], uids[2]
	if err := expungeUID(c, lost); err != nil {
		t.Fatal(err)
	}
	sum := p.restore(t, "--account", ada.Address, "--folder", "INBOX", "--message", imap.UIDSetNum(stays).String())
	if sum.Messages != 0 || sum.There != 1 {
		t.Errorf("a message that is there: %+v", sum)
	}
	got := p.restore(t, "--account", ada.Address, "--folder", "INBOX", "--message", imap.UIDSetNum(lost).String())
	if got.Messages != 1 {
		t.Fatalf("restored: %+v", got)
	}
	waitFor(t, "another session to see it", func() bool {
		if err := watcher.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
		return watcher.Mailbox().NumMessages == data.NumMessages
	})
	now := look(t, p.n, ada)["INBOX"]
	if _, back := now.Messages[lost]; back || !slices.Equal(bodies(now), bodies(p.ada["INBOX"])) {
		t.Errorf("INBOX has %d messages, UID %d among them: %v", len(now.Messages), lost, back)
	}
	if m := now.Messages[p.ada["INBOX"].Next]; m.Body != p.ada["INBOX"].Messages[lost].Body || m.Flags != p.ada["INBOX"].Messages[lost].Flags {
		t.Errorf("the message under its new UID is %+v", m)
	}
}

func expungeUID(c *imapclient.Client, uid imap.UID) error {
	if err := changeFlags(c, uid, imap.FlagDeleted); err != nil {
		return err
	}
	_, err := c.Expunge().Collect()
	return err
}

func (p *parts) folder(t *testing.T) {
	t.Helper()
	const name = "Projects/项目"
	c, _ := mailbox(t, p.n, ada, "INBOX")
	if err := c.Delete(name).Wait(); err != nil {
		t.Fatal(err)
	}
	got := p.restore(t, "--account", ada.Address, "--folder", name)
	if len(got.Accounts) != 1 || len(got.Accounts[0].Folders) != 1 || !got.Accounts[0].Folders[0].Made {
		t.Errorf("restored: %+v", got)
	}
	p.same(t, name, p.ada[name], look(t, p.n, ada)[name])
}

// same compares a folder with what it was, and looks that its next UID was never given.
func (p *parts) same(t *testing.T, name string, was, now backedFolder) {
	t.Helper()
	if now.Validity != was.Validity || !reflect.DeepEqual(now.Messages, was.Messages) {
		t.Errorf("%s: %d messages under UIDVALIDITY %d, not %d under %d", name, len(now.Messages), now.Validity, len(was.Messages), was.Validity)
	}
	if now.Next < was.Next+backup.JumpUIDs {
		t.Errorf("%s: the next UID is %d, it was %d", name, now.Next, was.Next)
	}
}

func (p *parts) sameAccount(t *testing.T, a rig.Account, was map[string]backedFolder) {
	t.Helper()
	now := look(t, p.n, a)
	for name := range was {
		p.same(t, a.Address+" "+name, was[name], now[name])
	}
	if len(now) != len(was) {
		t.Errorf("%s has %d folders, not %d", a.Address, len(now), len(was))
	}
}

func (p *parts) account(t *testing.T) {
	t.Helper()
	command(t, p.n, nil, "alias", "remove", "team@example.test")
	command(t, p.n, nil, "account", "delete", ada.Address, "--yes")
	out, err := p.n.Command(t.Context(), nil, "backup", "restore", "--identity-file", p.key, "--account", ada.Address, "--folder", "INBOX", "--dir", p.n.Dir)
	if err == nil || !strings.Contains(err.Error(), "the account is gone") {
		t.Errorf("a folder of an account that is gone: %s, %v", out, err)
	}
	got := p.restore(t, "--account", ada.Address)
	if len(got.Accounts) != 1 || !got.Accounts[0].Made || len(got.Aliases) != 1 {
		t.Errorf("restored: %+v", got)
	}
	p.sameAccount(t, ada, p.ada)
	sendPlain(t, p.n.SMTP, "sender@far.test", []string{"team@example.test"}, letter("sender@far.test", "team@example.test", "to the alias"))
	waitForMail(t, p.n, ada, "INBOX", len(p.ada["INBOX"].Messages)+1)
}

func (p *parts) domain(t *testing.T) {
	t.Helper()
	command(t, p.n, nil, "alias", "remove", "team@example.test")
	for _, a := range []rig.Account{ada, bob} {
		command(t, p.n, nil, "account", "delete", a.Address, "--yes")
	}
	command(t, p.n, nil, "domain", "remove", domain)
	got := p.restore(t, "--domain", domain)
	if got.Domain != domain || len(got.Accounts) != 2 || len(got.Aliases) != 1 {
		t.Errorf("restored: %+v", got)
	}
	p.sameAccount(t, ada, p.ada)
	p.sameAccount(t, bob, p.bob)
}
