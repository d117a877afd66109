package system

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"waxwing/test/rig"
)

// dialText opens a bare line-by-line connection.
func dialText(t *testing.T, address string) *textproto.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return textproto.NewConn(nc)
}

// highestModSeq asks for the modification sequence of the selected mailbox.
func highestModSeq(t *testing.T, c *imapclient.Client) uint64 {
	t.Helper()
	data, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	if data.HighestModSeq == 0 {
		t.Fatal("SELECT gave no HIGHESTMODSEQ")
	}
	return data.HighestModSeq
}

// popUIDL lists the unique ids of a maildrop.
func popUIDL(t *testing.T, n *rig.Node, a rig.Account) []string {
	t.Helper()
	nc, err := tls.Dial("tcp", n.POP3S, trust(t, n.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	c := textproto.NewConn(nc)
	defer c.Close()
	for _, line := range []string{"", "USER " + a.Address, "PASS " + a.Password, "UIDL"} {
		if line != "" {
			c.PrintfLine("%s", line)
		}
		if answer, err := c.ReadLine(); err != nil || !strings.HasPrefix(answer, "+OK") {
			t.Fatalf("%s: %q %v", line, answer, err)
		}
	}
	lines, err := c.ReadDotLines()
	if err != nil {
		t.Fatal(err)
	}
	c.PrintfLine("QUIT")
	var ids []string
	for _, line := range lines {
		ids = append(ids, strings.Fields(line)[1])
	}
	return ids
}

// TestCheck23RelaysNothingForStrangers tries every notation that ever fooled a server; an unknown address of our own
// domain is refused too.
func TestCheck23RelaysNothingForStrangers(t *testing.T) {
	sink, err := rig.StartSink(func(_ string, to []string, _ []byte) { t.Errorf("relayed to %q", to) })
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address})
	recipients := []string{
		"<victim@far.test>", "<victim%far.test@example.test>", "<far.test!victim@example.test>", "<@example.test:victim@far.test>",
		"<\"victim@far.test\"@example.test>", "<\"victim%far.test\"@example.test>", "<victim@[127.0.0.1]>", "<victim@[198.51.100.7]>",
		"<victim@far.test@example.test>", "<\"victim\"@far.test>", "<victim@FAR.test>", "<victim@far.test.>", "<far.test!victim>",
		"<victim%far.test>", "<victim@еxample.test>", "<victim@example.test.far.test>", "victim@far.test", "<@far.test:ada@example.test>",
		"<nobody@example.test>", "<victim@sub.example.test>", "<ada@example.test@far.test>", "<ada%far.test@[127.0.0.1]>",
	}
	for _, sender := range []string{"<stranger@far.test>", "<>", "<ada@example.test>", "<\"ada@example.test\"@far.test>"} {
		c := dialText(t, n.SMTP)
		c.ReadResponse(220)
		c.PrintfLine("EHLO client.test")
		c.ReadResponse(250)
		c.PrintfLine("MAIL FROM:%s SMTPUTF8", sender)
		if code, text, _ := c.ReadResponse(250); code/100 != 2 {
			if code/100 != 5 {
				t.Errorf("MAIL FROM:%s: %d %s", sender, code, text)
			}
			c.Close()
			continue
		}
		for _, to := range recipients {
			c.PrintfLine("RCPT TO:%s", to)
			code, text, err := c.ReadResponse(0)
			if err != nil && code == 0 {
				t.Fatalf("RCPT TO:%s ended the session: %v", to, err)
			}
			if code/100 == 2 && to != "<@far.test:ada@example.test>" { // a source route is ignored: RFC 5321, appendix C
				t.Errorf("from %s, RCPT TO:%s was answered %d %s", sender, to, code, text)
			}
		}
		c.Close()
	}
}

// TestCheck25PlaintextBeforeTLSHasNoEffect injects a command behind STARTTLS in the same packet, on every protocol.
func TestCheck25PlaintextBeforeTLSHasNoEffect(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	cases := []struct {
		name, address, before, inject, after, forbidden, expected string
	}{
		{"smtp", n.SMTP, "EHLO a.test\r\n", "STARTTLS\r\nNOOP injected\r\n", "EHLO b.test\r\nQUIT\r\n", "250 2.0.0", "\n221 "},
		{"submission", n.Submission, "EHLO a.test\r\n", "STARTTLS\r\nNOOP injected\r\n", "EHLO b.test\r\nQUIT\r\n", "250 2.0.0", "\n221 "},
		{"imap", n.IMAP, "", "a STARTTLS\r\nevil NOOP\r\n", "b NOOP\r\nc LOGOUT\r\n", "evil", "b OK"},
		{"pop3", n.POP3, "", "STLS\r\nCAPA\r\n", "QUIT\r\n", "TOP", "+OK"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			nc, _ := greeted(t, c.address)
			if c.before != "" {
				io.WriteString(nc, c.before)
				readAnswer(t, nc)
			}
			io.WriteString(nc, c.inject)
			if line := readLine(t, nc); !strings.HasPrefix(line, "220") && !strings.Contains(line, "OK") {
				t.Fatalf("STARTTLS: %q", line)
			}
			tc := tls.Client(nc, trust(t, n.CAFile))
			if err := tc.Handshake(); err != nil {
				t.Fatalf("a client that injected gets no clean handshake: %v", err)
			}
			io.WriteString(tc, c.after)
			all, _ := io.ReadAll(tc) // to the end of the session, whatever it is
			if answer := string(all); strings.Contains(answer, c.forbidden) {
				t.Errorf("the injected command was answered: %q", answer)
			} else if !strings.Contains(answer, c.expected) {
				t.Errorf("the session did not go on: %q", answer)
			}
		})
	}
}

// readLine reads one line octet by octet, so that nothing of the TLS handshake behind it is taken.
func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatalf("after %q: %v", line, err)
		}
		line = append(line, b[0])
		if b[0] == '\n' {
			return string(line)
		}
	}
}

// lastLine is the line that ends an answer: in SMTP the one without a hyphen, in IMAP the tagged one (or the greeting), in
// POP3 the only one.
var lastLine = regexp.MustCompile(`^(\d{3} |a |\* OK |\+OK|-ERR)`)

// readAnswer reads an answer to its end.
func readAnswer(t *testing.T, r io.Reader) string {
	t.Helper()
	var all strings.Builder
	for {
		line := readLine(t, r)
		all.WriteString(line)
		if lastLine.MatchString(line) {
			return all.String()
		}
	}
}

// greeted opens a bare connection and reads the greeting.
func greeted(t *testing.T, address string) (nc net.Conn, greeting string) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return nc, readAnswer(t, nc)
}

// TestCheck26NoPasswordBeforeTLS asks for authentication in plaintext and, on port 25, at all.
func TestCheck26NoPasswordBeforeTLS(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	cases := []struct {
		name, address string
		lines         []string
	}{
		{"smtp", n.SMTP, []string{"EHLO a.test", "AUTH PLAIN AGFkYQBi"}},
		{"submission", n.Submission, []string{"EHLO a.test", "AUTH PLAIN AGFkYQBi"}},
		{"submission login", n.Submission, []string{"EHLO a.test", "AUTH LOGIN"}},
		{"imap login", n.IMAP, []string{"a LOGIN ada@example.test x"}},
		{"imap authenticate", n.IMAP, []string{"a AUTHENTICATE PLAIN AGFkYQBi"}},
		{"pop3 user", n.POP3, []string{"USER ada@example.test"}},
		{"pop3 auth", n.POP3, []string{"AUTH PLAIN AGFkYQBi"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			nc, greeting := greeted(t, c.address)
			var answer string
			for _, line := range c.lines {
				fmt.Fprintf(nc, "%s\r\n", line)
				answer = readAnswer(t, nc)
				if strings.Contains(answer, "AUTH PLAIN") || strings.Contains(greeting+answer, "AUTH=PLAIN") {
					t.Errorf("AUTH is offered in plaintext: %q", answer)
				}
			}
			refused := strings.HasPrefix(answer, "5") || strings.HasPrefix(answer, "-ERR") || strings.Contains(answer, "a NO") || strings.Contains(answer, "a BAD")
			if !refused {
				t.Errorf("%s was answered %q", c.lines[len(c.lines)-1], answer)
			}
		})
	}
	// Port 25 has no AUTH with TLS either.
	nc, _ := greeted(t, n.SMTP)
	io.WriteString(nc, "EHLO a.test\r\n")
	readAnswer(t, nc)
	io.WriteString(nc, "STARTTLS\r\n")
	readLine(t, nc)
	tc := tls.Client(nc, trust(t, n.CAFile))
	io.WriteString(tc, "EHLO a.test\r\n")
	if answer := readAnswer(t, tc); strings.Contains(answer, "AUTH") || !strings.Contains(answer, "PIPELINING") {
		t.Errorf("EHLO over TLS on port 25 says %q", answer)
	}
	io.WriteString(tc, "AUTH PLAIN AGFkYQBi\r\n")
	if answer := readAnswer(t, tc); !strings.HasPrefix(answer, "50") {
		t.Errorf("AUTH on port 25 was answered %q", answer)
	}
}

// TestPromise6StrangersCannotFillMemory sends each protocol lines and literals without end before any login.
func TestPromise6StrangersCannotFillMemory(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	// A session of each first, so that what is allocated once does not count.
	for _, address := range []string{n.SMTP, n.Submission, n.IMAP, n.POP3} {
		nc, _ := greeted(t, address)
		nc.Close()
	}
	before := n.Memory()
	floods := []struct{ name, address, head, repeat string }{
		{"smtp line", n.SMTP, "EHLO ", strings.Repeat("a", 64<<10)},
		{"smtp parameters", n.SMTP, "MAIL FROM:<a@b.test> ", strings.Repeat("X=1 ", 16<<10)},
		{"imap line", n.IMAP, "a NOOP ", strings.Repeat("a", 64<<10)},
		{"imap parentheses", n.IMAP, "a SEARCH ", strings.Repeat("(", 64<<10)},
		{"imap id", n.IMAP, "a ID (", strings.Repeat("\"a\" \"b\" ", 8<<10)},
		{"imap literal", n.IMAP, "a LOGIN {4000000000+}\r\n", strings.Repeat("a", 64<<10)},
		{"pop3 line", n.POP3, "USER ", strings.Repeat("a", 64<<10)},
	}
	for _, f := range floods {
		for range 4 {
			nc, err := net.Dial("tcp", f.address)
			if err != nil {
				t.Fatal(err)
			}
			nc.SetDeadline(time.Now().Add(patience))
			io.WriteString(nc, f.head)
			written := 0
			for written < 32<<20 {
				k, err := io.WriteString(nc, f.repeat)
				written += k
				if err != nil {
					break
				}
			}
			if written >= 32<<20 {
				t.Errorf("%s: the server reads on after 32 MiB", f.name)
			}
			nc.Close()
		}
	}
	if grown := n.Memory() - before; grown > 32<<20 {
		t.Errorf("28 floods of strangers made the server grow by %d MiB", grown>>20)
	}
	if code, text := trySend(t, n.SMTP, "sender@far.test", ada.Address, letter("sender@far.test", ada.Address, "after")); code != 250 {
		t.Errorf("after the floods a message is answered %d %s", code, text)
	}
}
