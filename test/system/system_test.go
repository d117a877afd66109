// Package system tests the whole: the built binary, as an administrator starts it, with real clients and servers from
// Debian's packages around it. `make deps` installs them; a test that misses one fails, as a skipped test proves nothing.
package system

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"waxwing/test/rig"
)

const domain = "example.test"

// patience is how long a test waits for what must come. It says nothing of how long things take: the machine may be busy
// with much else.
const patience = 2 * time.Minute

var (
	ada = rig.Account{Address: "ada@example.test", Password: "correct horse 7 battery"}
	bob = rig.Account{Address: "bob@example.test", Password: "another phrase 9 entirely"}
)

// binary is the server under test, built once for all tests from this tree.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "waxwing-system")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "waxwing")
	build := exec.Command("go", "build", "-o", binary, "waxwing/cmd/waxwing")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the server: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// node starts a server with ada and bob; edit may change its waxwing.toml.
func node(t *testing.T, o rig.WaxwingOptions) *rig.Node {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Binary = binary
	if o.Domain == "" {
		o.Domain = domain
	}
	if o.Accounts == nil {
		o.Accounts = []rig.Account{ada, bob}
	}
	n, err := rig.NewNode(ctx, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Errorf("the end of the server: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the server:\n%s", tail(n.Log(), 8<<10))
		}
	})
	return n
}

func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}

// trust is a client's TLS configuration that believes the server's certificate and checks it.
func trust(t testing.TB, caFile string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in", caFile)
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

// sendPlain speaks to port 25 without TLS.
func sendPlain(t *testing.T, address, from string, to []string, body []byte) {
	t.Helper()
	c, err := smtp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SendMail(from, to, bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}

// submit sends one message as an authenticated user over STARTTLS.
func submit(t *testing.T, n *rig.Node, a rig.Account, to []string, body []byte) error {
	t.Helper()
	c, err := smtp.DialStartTLS(n.Submission, trust(t, n.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", a.Address, a.Password)); err != nil {
		t.Fatal(err)
	}
	return c.SendMail(a.Address, to, bytes.NewReader(body))
}

// mailbox opens an IMAP session with a mailbox selected.
func mailbox(t *testing.T, n *rig.Node, a rig.Account, name string) (*imapclient.Client, *imap.SelectData) {
	t.Helper()
	c, err := imapclient.DialTLS(n.IMAPS, &imapclient.Options{TLSConfig: trust(t, n.CAFile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Login(a.Address, a.Password).Wait(); err != nil {
		t.Fatal(err)
	}
	data, err := c.Select(name, nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	// The client's reader notes what is selected only after it has woken who waits for the answer.
	waitFor(t, "the client to know "+name, func() bool { return c.Mailbox() != nil })
	return c, data
}

// fetchAll returns every message of a selected mailbox, whole, by UID in ascending order.
func fetchAll(t *testing.T, c *imapclient.Client) []fetched {
	t.Helper()
	if c.Mailbox().NumMessages == 0 {
		return nil // "1:*" names nothing then, and is an error
	}
	section := &imap.FetchItemBodySection{Peek: true}
	messages, err := c.Fetch(imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}, &imap.FetchOptions{
		UID: true, Flags: true, RFC822Size: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{section},
	}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	var all []fetched
	for _, m := range messages {
		all = append(all, fetched{uid: m.UID, flags: m.Flags, size: m.RFC822Size, body: m.FindBodySection(section)})
	}
	return all
}

type fetched struct {
	uid   imap.UID
	flags []imap.Flag
	size  int64
	body  []byte
}

// waitFor polls a condition that another process makes true.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitForMail returns the messages of a mailbox when there are at least count.
func waitForMail(t *testing.T, n *rig.Node, a rig.Account, name string, count int) []fetched {
	t.Helper()
	c, _ := mailbox(t, n, a, name)
	waitFor(t, fmt.Sprintf("%d messages in %s", count, name), func() bool {
		if err := c.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
		return int(c.Mailbox().NumMessages) >= count
	})
	return fetchAll(t, c)
}

func host(t *testing.T, address string) (name, port string) {
	t.Helper()
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return name, port
}

// letter makes a small message whose subject and body carry a token.
func letter(from, to, token string) []byte {
	return fmt.Appendf(nil, "From: <%s>\r\nTo: <%s>\r\nSubject: letter %s\r\nMessage-ID: <%s@tests.example.test>\r\n"+
		"Date: Mon, 02 Nov 2026 10:00:00 +0800\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Transfer-Encoding: 8bit\r\n\r\n.a line that begins with a dot\r\n你好，%s。\r\n", from, to, token, token, token)
}

// deleteFirst flags the first message of a selected mailbox and expunges it.
func deleteFirst(t *testing.T, c *imapclient.Client) {
	t.Helper()
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}
	if err := c.Store(imap.SeqSetNum(1), &store, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Expunge().Collect(); err != nil {
		t.Fatal(err)
	}
}

// publicTempDir is a directory that Postfix's and Dovecot's own users can walk to.
func publicTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "waxwing-peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
