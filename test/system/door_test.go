package system

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/porttest"
	"waxwing/test/rig"
)

// talk is a plain conversation with a server.
type talk struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

// talkAs connects to a listener behind a proxy and names a client in the header; "" says nothing.
func talkAs(t *testing.T, addr, client string) *talk {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := &talk{t, nc, bufio.NewReader(nc)}
	if client != "" {
		c.write("PROXY TCP4 " + client + " 127.0.0.1 40000 25\r\n")
	}
	return c
}

func (c *talk) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.nc, s); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads a whole reply and gives its last line.
func (c *talk) reply() string {
	c.t.Helper()
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return strings.TrimSpace(line + err.Error())
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSpace(line)
		}
	}
}

func (c *talk) expect(command, want string) {
	c.t.Helper()
	if command != "" {
		c.write(command + "\r\n")
	}
	if got := c.reply(); !strings.HasPrefix(got, want) {
		c.t.Fatalf("%q was answered %q, want %q", command, got, want)
	}
}

// behindProxy makes all listeners ask loopback for the PROXY protocol.
func behindProxy(toml string) string {
	return strings.ReplaceAll(toml, "[[listener]]", "[[listener]]\nproxy = [\"127.0.0.0/8\"]")
}

func TestTheFrontDoor(t *testing.T) {
	t.Parallel()
	n := node(t, rig.WaxwingOptions{Edit: behindProxy})
	run := func(args ...string) {
		t.Helper()
		if out, err := n.Command(t.Context(), nil, append(args, "--dir", n.Dir)...); err != nil {
			t.Fatalf("%v: %s, %v", args, out, err)
		}
	}
	run("access", "add", "deny", "192.0.2.0/24", "--note", "a test")
	run("access", "add", "allow", "192.0.2.9")
	run("access", "add", "deny", "sender:spam.example")
	run("access", "add", "deny", "helo:bad.example", "--for", domain)
	run("access", "add", "allow", "198.51.100.0/24", "--for", ada.Address)

	talkAs(t, n.SMTP, "192.0.2.8").expect("", "554 5.7.1 access denied")
	bare := talkAs(t, n.SMTP, "")
	bare.write("EHLO client.test\r\n")
	if got := bare.reply(); strings.HasPrefix(got, "2") {
		t.Errorf("a connection without a PROXY header was answered %q", got)
	}
	c := talkAs(t, n.SMTP, "192.0.2.9")
	c.expect("", "220 ")
	c.expect("EHLO mail.bad.example", "250 ")
	c.expect("MAIL FROM:<a@sub.spam.example>", "550 5.7.1 access denied")
	c.expect("MAIL FROM:<a@far.test>", "250 ")
	c.expect("RCPT TO:<"+ada.Address+">", "550 5.7.1 access denied")

	early := talkAs(t, n.SMTP, "203.0.113.5")
	early.write("EHLO bot.test\r\n")
	early.expect("", "554 5.5.1")
	eager := talkAs(t, n.SMTP, "203.0.113.6")
	eager.expect("", "220 ")
	eager.expect("EHLO bot.test\r\nMAIL FROM:<a@b.test>", "421 5.5.1")

	// An account's own rule, and the end of its sessions when it is suspended.
	if _, err := imapAs(t, n, "203.0.113.7"); err == nil {
		t.Error("signed in to from elsewhere than its rules allow")
	}
	in, err := imapAs(t, n, "198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	in.write("b IDLE\r\n")
	if line, err := in.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+") {
		t.Fatalf("%q, %v", line, err)
	}
	run("account", "suspend", ada.Address)
	all, _ := io.ReadAll(in.r)
	if !strings.Contains(string(all), "* BYE") {
		t.Errorf("the session of a suspended account heard %q", all)
	}
}

// imapAs signs ada in from an address.
func imapAs(t *testing.T, n *rig.Node, client string) (*talk, error) {
	t.Helper()
	c := talkAs(t, n.IMAPS, client)
	tc := tls.Client(c.nc, trust(t, n.CAFile))
	if err := tc.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.nc, c.r = tc, bufio.NewReader(tc)
	if _, err := c.r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.write(fmt.Sprintf("a LOGIN %s %q\r\n", ada.Address, ada.Password))
	line, err := c.r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(line, "a OK") {
		return nil, fmt.Errorf("%s", line)
	}
	return c, nil
}

// TestHaproxyNamesTheClient puts Debian's haproxy in front of SMTP and IMAP over TLS, with both versions of the header.
func TestHaproxyNamesTheClient(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("haproxy"); err != nil {
		t.Fatal("haproxy is not there: run make deps")
	}
	n := node(t, rig.WaxwingOptions{Edit: behindProxy})
	ports, err := porttest.Reserve(2)
	if err != nil {
		t.Fatal(err)
	}
	front, frontTLS := rig.Loopback(ports[0]), rig.Loopback(ports[1])
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
	maxconn 100
defaults
	mode tcp
	timeout connect 30s
	timeout client 2m
	timeout server 2m
listen smtp
	bind %s
	server w %s send-proxy
listen imaps
	bind %s
	server w %s send-proxy-v2
`, front, n.SMTP, frontTLS, n.IMAPS)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "haproxy", "-db", "-f", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	if err := rig.WaitForPort(t.Context(), front); err != nil {
		t.Fatal(err)
	}

	// The client is another address of loopback: it stands in Received.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	nc, err := d.DialContext(t.Context(), "tcp", front)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &talk{t, nc, bufio.NewReader(nc)}
	c.expect("", "220 ")
	c.expect("EHLO client.test", "250 ")
	c.expect("MAIL FROM:<a@far.test>", "250 ")
	c.expect("RCPT TO:<"+ada.Address+">", "250 ")
	c.expect("DATA", "354 ")
	c.expect("Subject: by haproxy\r\n\r\nhello\r\n.", "250 ")

	tc, err := tls.DialWithDialer(&d, "tcp", frontTLS, trust(t, n.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	m := &talk{t, tc, bufio.NewReader(tc)}
	for i, command := range []string{fmt.Sprintf("LOGIN %s %q", ada.Address, ada.Password), "SELECT INBOX", "FETCH 1 BODY[HEADER]"} {
		tag := fmt.Sprintf("t%d", i)
		m.write(tag + " " + command + "\r\n")
		var all strings.Builder
		for {
			line, err := m.r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(line)
			if strings.HasPrefix(line, tag+" ") {
				break
			}
		}
		if command == "FETCH 1 BODY[HEADER]" && !strings.Contains(all.String(), "127.0.0.9") {
			t.Errorf("the client's address does not stand in %s", all.String())
		}
	}
}

// TestAnAccountThatSendsAsItNeverDidComesOnHold sends a burst as a signed-in user, from an address that isn't exempt.
func TestAnAccountThatSendsAsItNeverDidComesOnHold(t *testing.T) {
	t.Parallel()
	n := node(t, rig.WaxwingOptions{Edit: behindProxy, Relay: rig.Loopback(1)})
	set := filepath.Join(t.TempDir(), "set.toml")
	text := "[sending]\nanomaly_floor = 20\nanomaly_factor = 2\nanomaly_end_sessions = \"yes\"\n"
	if err := os.WriteFile(set, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := n.Command(t.Context(), nil, append(args, "--dir", n.Dir)...)
		if err != nil {
			t.Fatalf("%v: %s, %v", args, out, err)
		}
		return out
	}
	run("config", "apply", "--yes", set)
	in, err := imapAs(t, n, "198.51.100.7")
	if err != nil {
		t.Fatal(err)
	}
	c := submitAs(t, n, "198.51.100.7")
	send := func(to ...string) {
		t.Helper()
		c.expect("MAIL FROM:<"+ada.Address+">", "250 ")
		for _, r := range to {
			c.expect("RCPT TO:<"+r+">", "250 ")
		}
		c.expect("DATA", "354 ")
		c.expect("From: <"+ada.Address+">\r\nSubject: a burst\r\n\r\nhello\r\n.", "250 ")
	}
	send("first@far.test")
	var many []string
	for i := range 21 {
		many = append(many, fmt.Sprintf("r%d@far.test", i))
	}
	c.expect("MAIL FROM:<"+ada.Address+">", "250 ")
	for _, r := range many {
		c.write("RCPT TO:<" + r + ">\r\n")
	}
	if rest, _ := io.ReadAll(in.r); !strings.Contains(string(rest), "* BYE") {
		t.Errorf("the IMAP session heard %q", rest)
	}
	// What it sends from now on is taken, and kept.
	c = submitAs(t, n, "198.51.100.7")
	send("later@far.test", bob.Address)
	if states := queueStates(t, n); states["first@far.test"] != "held" || states["later@far.test"] != "held" || states[bob.Address] != "held" {
		t.Errorf("in the queue: %v", states)
	}
	if out := run("account", "show", ada.Address); !strings.Contains(out, "on hold since") {
		t.Errorf("account show: %s", out)
	}
	run("sending", "release", ada.Address)
	waitFor(t, "the release of mail for bob", func() bool {
		_, waits := queueStates(t, n)[bob.Address]
		return !waits
	})
	if out := run("sending", "list"); strings.Contains(out, ada.Address) {
		t.Errorf("still on hold: %s", out)
	}
}

// queueStates gives the states of the recipients in the queue.
func queueStates(t *testing.T, n *rig.Node) map[string]string {
	t.Helper()
	var queue []struct {
		Recipients []struct{ To, State string }
	}
	commandJSON(t, n, &queue, "queue", "list", "--json", "--dir", n.Dir)
	states := map[string]string{}
	for _, m := range queue {
		for _, r := range m.Recipients {
			states[r.To] = r.State
		}
	}
	return states
}

// submitAs signs ada in to submission from an address.
func submitAs(t *testing.T, n *rig.Node, client string) *talk {
	t.Helper()
	c := talkAs(t, n.Submissions, client)
	tc := tls.Client(c.nc, trust(t, n.CAFile))
	if err := tc.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.nc, c.r = tc, bufio.NewReader(tc)
	c.expect("", "220 ")
	c.expect("EHLO client.test", "250 ")
	c.expect("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+ada.Address+"\x00"+ada.Password)), "235 ")
	return c
}
