package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"waxwing/internal/dns/dnstest"
	"waxwing/test/rig"
)

// inbox is what sinks took: for each sink the recipients and bodies in their order.
type inbox struct {
	mu   sync.Mutex
	mail []taken
}

type taken struct {
	at   string // the sink
	from string // the whole command
	to   []string
	body string
}

func (b *inbox) at(name string) func(from string, to []string, body []byte) {
	return func(from string, to []string, body []byte) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.mail = append(b.mail, taken{name, from, slices.Clone(to), string(body)})
	}
}

func (b *inbox) all() []taken {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.mail)
}

// find waits for a message with a token and returns it.
func (b *inbox) find(t *testing.T, token string) (found taken) {
	t.Helper()
	waitFor(t, "mail with "+token, func() bool {
		for _, m := range b.all() {
			if strings.Contains(m.body, token) {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

// sinks starts one sink an address, all on the same port, which it returns.
func sinks(t *testing.T, box *inbox, answers map[string]func(string) string, ips ...string) int {
	t.Helper()
	var last error
	for range 20 {
		var started []*rig.Sink
		port := "0"
		for _, ip := range ips {
			k, err := rig.StartSinkAt(net.JoinHostPort(ip, port), answers[ip], box.at(ip))
			if last = err; err != nil {
				break
			}
			started = append(started, k)
			_, port = host(t, k.Address)
		}
		t.Cleanup(func() {
			for _, k := range started {
				k.Stop()
			}
		})
		if last == nil {
			n, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no port is free on all addresses:", last)
	return 0
}

// hasIPv6 tells whether this machine has an IPv6 loopback: no package brings one where the kernel has it switched off.
func hasIPv6() bool {
	l, err := net.Listen("tcp", "[::1]:0")
	return err == nil && l.Close() == nil
}

// TestOutboundFollowsTheDNS holds RFC 5321, section 5.1, and RFC 7505 with a name server that the test programs.
func TestOutboundFollowsTheDNS(t *testing.T) {
	names := dnstest.New(t, `
		order.example.       0 IN MX 20 second.example.
		order.example.       0 IN MX 10 first.example.
		dead.example.        0 IN MX 10 nobody.example.
		dead.example.        0 IN MX 20 second.example.
		plain.example.       0 IN A 127.0.0.2
		six.example.         0 IN MX 10 six-host.example.
		six-host.example.    0 IN AAAA ::1
		alias.example.       0 IN CNAME order.example.
		null.example.        0 IN MX 0 .
		shaky.example.       0 IN MX 10 first.example.
		first.example.       0 IN A 127.0.0.2
		second.example.      0 IN A 127.0.0.3
		nobody.example.      0 IN A 127.0.0.9
	`)
	names.Fail("shaky.example", dnstest.Fault{Rcode: "SERVFAIL", Times: 2})
	var box inbox
	greylist := func(command string) string {
		if strings.HasPrefix(command, "RCPT TO:<grey@") {
			return "450 4.2.0 greylisted"
		}
		return ""
	}
	ips := []string{"127.0.0.2", "127.0.0.3"}
	if hasIPv6() {
		ips = append(ips, "::1")
	}
	port := sinks(t, &box, map[string]func(string) string{"127.0.0.2": greylist}, ips...)
	n := node(t, rig.WaxwingOptions{Edit: func(toml string) string {
		return toml + fmt.Sprintf("\n[dns]\nresolvers = [%q]\n\n[transport]\nport = %d\nfirst_retry = \"1s\"\nmax_retry = \"2s\"\n", names.Addr(), port)
	}})
	for _, tc := range []struct{ name, to, at string }{
		{"lowest preference first", "x@order.example", "127.0.0.2"},
		{"next where the first is dead", "x@dead.example", "127.0.0.3"},
		{"next where the first greylists", "grey@order.example", "127.0.0.3"},
		{"address without MX", "x@plain.example", "127.0.0.2"},
		{"IPv6 alone", "x@six.example", "::1"},
		{"alias", "x@alias.example", "127.0.0.2"},
		{"after a failing name server", "x@shaky.example", "127.0.0.2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !slices.Contains(ips, tc.at) {
				t.Skipf("this machine has no %s", tc.at)
			}
			token := strings.ReplaceAll(tc.name, " ", "-")
			if err := submit(t, n, ada, []string{tc.to}, letter(ada.Address, tc.to, token)); err != nil {
				t.Fatal(err)
			}
			if got := box.find(t, token); got.at != tc.at || !slices.Equal(got.to, []string{"RCPT TO:<" + tc.to + ">"}) {
				t.Errorf("%s went to %s as %q, want %s", tc.to, got.at, got.to, tc.at)
			}
		})
	}
	for i, tc := range []struct{ to, status, words string }{
		{"x@null.example", "5.1.10", "does not accept mail (null MX)"},
		{"x@missing.example", "5.1.2", "does not exist"},
	} {
		if err := submit(t, n, bob, []string{tc.to}, letter(bob.Address, tc.to, "never")); err != nil {
			t.Fatal(err)
		}
		dsn := strings.ReplaceAll(string(waitForMail(t, n, bob, "INBOX", i+1)[i].body), "\r\n ", " ")
		if !strings.Contains(dsn, "Status: "+tc.status+"\r\n") || !strings.Contains(dsn, tc.words) {
			t.Errorf("the report about %s lacks %s or %q:\n%s", tc.to, tc.status, tc.words, dsn)
		}
	}
}

// TestOutboundMailHasNoReturnPath sends to a mailbox here and one elsewhere, which share the stored octets, and has the
// report of a failure bring the header back.
func TestOutboundMailHasNoReturnPath(t *testing.T) {
	var box inbox
	sink, err := rig.StartSinkAt("127.0.0.1:0", func(command string) string {
		if strings.HasPrefix(command, "RCPT TO:<gone@") {
			return "550 5.1.1 no such user / 没有该用户"
		}
		return ""
	}, box.at("sink"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address})
	c, err := smtp.DialStartTLS(n.Submission, trust(t, n.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", ada.Address, ada.Password)); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		c.Mail(ada.Address, &smtp.MailOptions{Return: smtp.DSNReturnHeaders, EnvelopeID: "envelope-7"}),
		c.Rcpt(bob.Address, &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifySuccess}}),
		c.Rcpt("far@remote.example", nil),
		c.Rcpt("gone@remote.example", &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure}}),
	)
	if err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(letter(ada.Address, bob.Address, "shared")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := waitForMail(t, n, bob, "INBOX", 1)[0].body; !bytes.HasPrefix(got, []byte("Return-Path: <"+ada.Address+">\r\nReceived: ")) {
		t.Errorf("delivered here as\n%s", got)
	}
	if got := box.find(t, "shared"); !strings.HasPrefix(got.body, "Received: ") || strings.Contains(got.body, "Return-Path") {
		t.Errorf("sent on as\n%s", got.body)
	}
	success, failure := "", ""
	for _, m := range waitForMail(t, n, ada, "INBOX", 2) {
		if body := string(m.body); strings.Contains(body, "Action: failed") {
			failure = body
		} else {
			success = body
		}
	}
	for _, want := range []string{
		"Return-Path: <>\r\n", "Original-Envelope-Id: envelope-7", "Final-Recipient: rfc822; gone@remote.example", "Status: 5.1.1",
		"Diagnostic-Code: smtp; 550 5.1.1 no such user", "Content-Type: text/rfc822-headers", "Subject: letter shared",
	} {
		if !strings.Contains(failure, want) {
			t.Errorf("the report of the failure lacks %q:\n%s", want, failure)
		}
	}
	if strings.Contains(failure, "Return-Path: <ada") || strings.Contains(failure, "你好") {
		t.Errorf("the report of the failure holds more than the header that was sent:\n%s", failure)
	}
	for _, want := range []string{"Action: delivered", "Final-Recipient: rfc822; " + bob.Address, "Original-Envelope-Id: envelope-7"} {
		if !strings.Contains(success, want) {
			t.Errorf("the report of the success lacks %q:\n%s", want, success)
		}
	}
}

// TestQueueCommandsOnTheRunningServer lists, holds, retries, releases and drops what a deaf server keeps waiting.
func TestQueueCommandsOnTheRunningServer(t *testing.T) {
	var box inbox
	var open atomic.Bool
	var asked atomic.Int64
	sink, err := rig.StartSinkAt("127.0.0.1:0", func(command string) string {
		if strings.HasPrefix(command, "MAIL") {
			asked.Add(1)
			if !open.Load() {
				return "451 4.3.0 not now"
			}
		}
		return ""
	}, box.at("sink"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address})
	command := func(args ...string) string {
		t.Helper()
		out, err := n.Command(t.Context(), nil, append([]string{"queue"}, append(args, "--dir", n.Dir, "--json")...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	type row struct {
		ID         int64
		Recipients []struct {
			To, State string
			Attempts  int
			LastError string `json:"last_error"`
		}
	}
	list := func(args ...string) (rows []row) {
		t.Helper()
		if err := json.Unmarshal([]byte(command(append([]string{"list"}, args...)...)), &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	for _, to := range []string{"one@far.example", "two@far.example"} {
		if err := submit(t, n, ada, []string{to}, letter(ada.Address, to, "to-"+to)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "both were tried", func() bool {
		rows := list()
		return len(rows) == 2 && rows[0].Recipients[0].Attempts > 0 && rows[1].Recipients[0].Attempts > 0 &&
			rows[0].Recipients[0].State == "waiting" && rows[1].Recipients[0].State == "waiting"
	})
	rows := list("--to", "one@far.example")
	if len(rows) != 1 || rows[0].Recipients[0].LastError != "451 4.3.0 not now" {
		t.Fatalf("listed %+v", rows)
	}
	one := strconv.FormatInt(rows[0].ID, 10)
	if out := command("show", one); !strings.Contains(out, "451 4.3.0 not now") || !strings.Contains(out, "letter to-one@far.example") {
		t.Errorf("shown as %s", out)
	}
	command("hold", one)
	open.Store(true)
	before := asked.Load()
	command("retry", "--all")
	if got := box.find(t, "to-two@far.example"); len(got.to) != 1 {
		t.Errorf("%+v", got)
	}
	if rows := list("--state", "held"); len(rows) != 1 || asked.Load() != before+1 {
		t.Errorf("the held message was tried: %+v, %d attempts", rows, asked.Load()-before)
	}
	command("release", one)
	box.find(t, "to-one@far.example")
	waitFor(t, "an empty queue", func() bool { return len(list()) == 0 })

	open.Store(false)
	if err := submit(t, n, ada, []string{"three@far.example"}, letter(ada.Address, "three@far.example", "to-three")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the third was tried", func() bool {
		rows := list()
		return len(rows) == 1 && rows[0].Recipients[0].Attempts > 0 && rows[0].Recipients[0].State == "waiting"
	})
	command("drop", strconv.FormatInt(list()[0].ID, 10))
	waitFor(t, "an empty queue", func() bool { return len(list()) == 0 })
	if _, err := n.Command(t.Context(), nil, "queue", "retry", "--all", "--dir", n.Dir); err == nil {
		t.Error("an act on an empty queue is no error")
	}
}

func passwordFile(t *testing.T, password string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSmartHostIsPostfix signs in to a real Postfix over STARTTLS and over TLS from the first octet on, and keeps the
// mail when the password is wrong or the certificate is not to be trusted.
func TestSmartHostIsPostfix(t *testing.T) {
	postfix := classic(t, "")
	_, starttls := host(t, postfix.Submission)
	_, implicit := host(t, postfix.Submissions)
	for i, tc := range []struct {
		name, port, mode, password, ca string
		delivered                      bool
		words                          string
	}{
		{"starttls", starttls, "starttls", carol.Password, postfix.CAFile, true, ""},
		{"implicit", implicit, "implicit", carol.Password, postfix.CAFile, true, ""},
		{"wrong password", starttls, "starttls", "a wrong one", postfix.CAFile, false, "535 5.7.8"},
		{"unknown authority", starttls, "starttls", carol.Password, "", false, "unknown authority"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := node(t, rig.WaxwingOptions{Edit: func(toml string) string {
				toml += "\n[transport]\n"
				if tc.ca != "" {
					toml += fmt.Sprintf("ca_file = %q\n", tc.ca)
				}
				return toml + fmt.Sprintf("\n[transport.smart_host]\naddress = \"localhost:%s\"\ntls = %q\nusername = %q\npassword_file = %q\n",
					tc.port, tc.mode, carol.Address, passwordFile(t, tc.password))
			}})
			token := "by-smart-host-" + strconv.Itoa(i)
			if err := submit(t, n, ada, []string{carol.Address}, letter(ada.Address, carol.Address, token)); err != nil {
				t.Fatal(err)
			}
			if tc.delivered {
				waitFor(t, "mail at Postfix", func() bool {
					return slices.ContainsFunc(waitForMail(t, &rig.Node{Server: *postfix}, carol, "INBOX", i+1), func(m fetched) bool {
						return bytes.Contains(m.body, []byte(token)) && bytes.Contains(m.body, []byte("ESMTPSA"))
					})
				})
				return
			}
			waitFor(t, "the failure in the queue", func() bool {
				out, err := n.Command(t.Context(), nil, "queue", "list", "--dir", n.Dir, "--json")
				if err != nil {
					t.Fatal(err)
				}
				return strings.Contains(out, tc.words)
			})
		})
	}
}

// TestCheck24NothingBareIsSentOn offers ends of data that other servers take for one, split and whole, to an address that
// is forwarded: what leaves is one message at most, in lines that end in CRLF.
func TestCheck24NothingBareIsSentOn(t *testing.T) {
	var box inbox
	sink, err := rig.StartSinkAt("127.0.0.1:0", nil, box.at("sink"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address})
	if _, err := n.Command(t.Context(), nil, "alias", "add", "away@example.test", "victim@far.example", "--dir", n.Dir); err != nil {
		t.Fatal(err)
	}
	ends := []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n", "\r\n\x00.\r\n", "\r\r\n.\r\n", "\n\n.\r\n", "\r\n.\r\r\n",
	}
	const inner = "MAIL FROM:<admin@far.example>\r\nRCPT TO:<away@example.test>\r\nDATA\r\nFrom: <admin@far.example>\r\nSubject: smuggled\r\n\r\nSMUGGLED\r\n.\r\n"
	for i, end := range ends {
		for _, cut := range []int{0, 1, len(end)} {
			token := fmt.Sprintf("outer-%d-%d", i, cut)
			smuggle(t, n.SMTP, "From: <eve@far.example>\r\nSubject: "+token+"\r\n\r\nouter"+end[:cut], end[cut:]+inner)
		}
	}
	// Everything that was taken goes out before this one.
	sendPlain(t, n.SMTP, "eve@far.example", []string{"away@example.test"}, letter("eve@far.example", "away@example.test", "last-of-all"))
	box.find(t, "last-of-all")
	waitFor(t, "an empty queue", func() bool {
		out, err := n.Command(t.Context(), nil, "queue", "list", "--dir", n.Dir, "--json")
		return err == nil && strings.TrimSpace(out) == "[]"
	})
	for _, m := range box.all() {
		if bytes.Count([]byte(m.body), []byte("\r\n")) != strings.Count(m.body, "\n") || strings.Count(m.body, "\r") != strings.Count(m.body, "\n") {
			t.Errorf("a bare CR or LF was sent: %q", m.body)
		}
		if !strings.HasPrefix(m.from, "MAIL FROM:<SRS0=") || !strings.Contains(m.from, "=far.example=eve@example.test>") {
			t.Errorf("a message from %s was smuggled: %q", m.from, m.body)
		}
	}
}

// smuggle writes a message in two pieces and reads until the server closes or has answered QUIT.
func smuggle(t *testing.T, address, first, second string) {
	t.Helper()
	c := dialText(t, address)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for _, step := range []struct {
		line string
		code int
	}{
		{"", 220}, {"EHLO client.example", 250}, {"MAIL FROM:<eve@far.example>", 250}, {"RCPT TO:<away@example.test>", 250}, {"DATA", 354},
	} {
		if step.line != "" {
			if err := c.PrintfLine("%s", step.line); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := c.ReadResponse(step.code); err != nil {
			t.Fatalf("%s: %v", step.line, err)
		}
	}
	for _, piece := range []string{first, second, "\r\n.\r\nQUIT\r\n"} {
		c.W.WriteString(piece)
		if c.W.Flush() != nil {
			return // refused and closed
		}
	}
	for {
		line, err := c.ReadLine()
		if err != nil || strings.HasPrefix(line, "221 ") {
			return
		}
	}
}
