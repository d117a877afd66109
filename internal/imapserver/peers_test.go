package imapserver

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"waxwing/internal/dialogtest"
)

// TestGoIMAPClient works with the server as an independent implementation understands the protocol.
func TestGoIMAPClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := 1; i <= 5; i++ {
		r.fill("INBOX", testMessage(i))
	}
	keys := dialogtest.KeysFor(t, hostname)
	updates := make(chan uint32, 16)
	c, err := imapclient.DialStartTLS(r.plain, &imapclient.Options{
		TLSConfig: keys.Client,
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(d *imapclient.UnilateralDataMailbox) {
				if d.NumMessages != nil {
					updates <- *d.NumMessages
				}
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Login(testLogin, testPassword).Wait())
	must(c.Create("项目/2026", nil).Wait())
	boxes, err := c.List("", "*", &imap.ListOptions{ReturnStatus: &imap.StatusOptions{NumMessages: true}}).Collect()
	must(err)
	names := make([]string, 0, len(boxes))
	for _, b := range boxes {
		names = append(names, b.Mailbox)
	}
	if got := strings.Join(names, " "); got != "Archive Drafts INBOX Junk Sent Trash 项目 项目/2026" {
		t.Fatal(got)
	}
	sel, err := c.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait()
	must(err)
	if sel.NumMessages != 5 || sel.UIDNext != 6 || sel.HighestModSeq == 0 {
		t.Fatalf("%+v", sel)
	}
	got, err := c.Fetch(imap.SeqSetNum(2, 4), &imap.FetchOptions{
		Envelope: true, Flags: true, UID: true, RFC822Size: true, InternalDate: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection:   []*imap.FetchItemBodySection{{Peek: true}},
	}).Collect()
	must(err)
	if len(got) != 2 || got[0].Envelope.Subject != "message 2" || got[1].UID != 4 ||
		!bytes.Equal(got[1].BodySection[0].Bytes, []byte(testMessage(4))) ||
		got[1].RFC822Size != int64(len(testMessage(4))) || got[0].BodyStructure.MediaType() != "text/plain" {
		t.Fatalf("%+v", got)
	}
	for _, n := range []uint32{3, 5} {
		must(c.Store(imap.SeqSetNum(n), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagFlagged}}, nil).Close())
	}
	var all imap.SeqSet
	all.AddRange(2, 4)
	changed, err := c.Fetch(all, &imap.FetchOptions{UID: true, ModSeq: true, ChangedSince: sel.HighestModSeq}).Collect()
	must(err)
	if len(changed) != 1 || changed[0].UID != 3 || changed[0].ModSeq <= sel.HighestModSeq {
		t.Fatalf("%+v", changed)
	}
	w := c.Append("项目/2026", int64(len(testMessage(9))), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}, Time: time.Unix(1e9, 0)})
	_, err = w.Write([]byte(testMessage(9)))
	must(err)
	must(w.Close())
	placed, err := w.Wait()
	must(err)
	if placed.UID != 1 || placed.UIDValidity == 0 {
		t.Fatalf("%+v", placed)
	}
	copied, err := c.Copy(imap.SeqSetNum(1, 3), "项目").Wait()
	must(err)
	if copied.SourceUIDs.String() != "1,3" || copied.DestUIDs.String() != "1:2" {
		t.Fatalf("%+v", copied)
	}
	moved, err := c.Move(imap.UIDSetNum(2), "Trash").Wait()
	must(err)
	if moved.DestUIDs.String() != "1" {
		t.Fatalf("%+v", moved)
	}
	found, err := c.UIDSearch(&imap.SearchCriteria{Text: []string{"BODY OF 4"}}, &imap.SearchOptions{ReturnAll: true, ReturnCount: true}).Wait()
	must(err)
	if found.Count != 1 || found.All.String() != "4" {
		t.Fatalf("%+v", found)
	}
	must(c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	gone, err := c.Expunge().Collect()
	must(err)
	if len(gone) != 1 || gone[0] != 1 {
		t.Fatalf("%v", gone)
	}
	idle, err := c.Idle()
	must(err)
	for len(updates) > 0 {
		<-updates
	}
	r.fill("INBOX", testMessage(10))
	select {
	case n := <-updates:
		if n != 4 {
			t.Fatalf("told of %d messages", n)
		}
	case <-time.After(dialogtest.Patience):
		t.Fatal("IDLE tells nothing")
	}
	must(idle.Close())
	must(idle.Wait())
	must(c.Logout().Wait())
}

// imaplibScript does a session with Python's imaplib; it prints "done" at its end.
const imaplibScript = `
import imaplib, ssl, sys
host, port, ca, user, password = sys.argv[1:]
ctx = ssl.create_default_context(cafile=ca); ctx.check_hostname = False
i = imaplib.IMAP4(host, int(port)); i.starttls(ctx); i.login(user, password)
def ok(r):
    assert r[0] == "OK", r
    return r[1]
assert ok(i.select("INBOX")) == [b"3"]
assert ok(i.search(None, "ALL")) == [b"1 2 3"]
assert ok(i.search("UTF-8", "SUBJECT", '"message 2"')) == [b"2"]
d = ok(i.fetch("1:3", "(FLAGS BODYSTRUCTURE ENVELOPE BODY.PEEK[])"))
assert len([x for x in d if isinstance(x, tuple)]) == 3, d
assert d[0][1].endswith(b"body of 1\r\n"), d[0]
ok(i.append("Drafts", "\\Draft", imaplib.Time2Internaldate(1.0e9), b"Subject: draft\r\n\r\nx\r\n"))
assert ok(i.status("Drafts", "(MESSAGES UIDNEXT)")) == [b'"Drafts" (MESSAGES 1 UIDNEXT 2)']
ok(i.uid("STORE", "2", "+FLAGS", "(\\Deleted)"))
assert ok(i.expunge()) == [b"2"]
ok(i.copy("1:2", "Archive"))
ok(i.create("sub/dir")); ok(i.rename("sub", "other")); assert b"other/dir" in b"".join(ok(i.list()))
ok(i.subscribe("other/dir")); assert b"other/dir" in b"".join(ok(i.lsub())); ok(i.unsubscribe("other/dir"))
ok(i.delete("other/dir")); ok(i.namespace()); ok(i.noop()); ok(i.check()); ok(i.close()); i.logout()
print("done")
`

func TestPythonImaplib(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is not installed: make deps installs it")
	}
	r := newRig(t)
	r.fill("INBOX", testMessage(1), testMessage(2), testMessage(3))
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, dialogtest.KeysFor(t, hostname).PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, _ := strings.Cut(r.plain, ":")
	ctx, cancel := context.WithTimeout(t.Context(), dialogtest.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "-c", imaplibScript, host, port, ca, testLogin, testPassword).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Fatalf("%v\n%s", err, out)
	}
}
