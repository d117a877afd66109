package system

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/dns/dnstest"
	"waxwing/test/rig"
)

// gtube is what every spam filter refuses.
const gtube = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

// milterOf starts a milter that ends with the test.
func milterOf(t *testing.T, start func(ctx context.Context, dir string) (*rig.Milter, error)) *rig.Milter {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // rspamd compiles its patterns first
	defer cancel()
	m, err := start(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// asStranger speaks SMTP as a client at another address would, and returns the answer to the end of the message.
func asStranger(t *testing.T, n *rig.Node, to, body string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", n.SMTP, 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	answer := func() string {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if len(line) > 3 && line[3] == ' ' {
				return strings.TrimSpace(line)
			}
		}
	}
	answer()
	for _, line := range []string{
		"EHLO proxy.example", "XCLIENT ADDR=192.0.2.77 HELO=mail.stranger.example", "EHLO mail.stranger.example",
		"MAIL FROM:<friend@stranger.example>", "RCPT TO:<" + to + ">", "DATA",
	} {
		fmt.Fprintf(c, "%s\r\n", line)
		if got := answer(); got[0] > '3' {
			return got
		}
	}
	fmt.Fprintf(c, "From: friend@stranger.example\r\nTo: %s\r\nSubject: by milter\r\nDate: %s\r\nMessage-ID: <%d@stranger.example>\r\n\r\n%s\r\n.\r\n",
		to, time.Now().Format(time.RFC1123Z), len(body), body)
	return answer()
}

// TestRspamdAndOpenDKIMAsMilters has Debian's rspamd judge what comes in, and opendkim sign behind it what users send.
func TestRspamdAndOpenDKIMAsMilters(t *testing.T) {
	names := dnstest.New(t, "stranger.example. 0 IN A 192.0.2.77\n") // nothing else exists, which is answered at once
	rspamd := milterOf(t, func(ctx context.Context, dir string) (*rig.Milter, error) { return rig.Rspamd(ctx, dir, names.Addr()) })
	opendkim := milterOf(t, func(ctx context.Context, dir string) (*rig.Milter, error) {
		return rig.OpenDKIM(ctx, dir, "example.test")
	})
	n := node(t, rig.WaxwingOptions{Domain: "example.test", Accounts: []rig.Account{ada, bob}, Edit: func(toml string) string {
		return toml + fmt.Sprintf("\n[dns]\nresolvers = [%q]\n\n[smtp]\nxclient = [\"127.0.0.1/32\"]\n", names.Addr())
	}})
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, []byte("[greylist]\nmode = \"off\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"config", "apply", settings, "--yes"},
		{"milter", "add", "rspamd", rspamd.Address, "--content", "2m", "--when", "mx"},
		{"milter", "add", "opendkim", opendkim.Address, "--when", "submission"},
		{"milter", "test"},
	} {
		if out, err := n.Command(t.Context(), nil, append(args, "--dir", n.Dir)...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}

	if got := asStranger(t, n, bob.Address, "just words"); !strings.HasPrefix(got, "250 ") {
		t.Fatalf("a harmless message: %s", got)
	}
	mail := waitForMail(t, n, bob, "INBOX", 1)
	if !bytes.Contains(mail[0].body, []byte("\r\nX-Spamd-Result: ")) {
		t.Errorf("rspamd's field is missing:\n%s", mail[0].body)
	}
	if got := asStranger(t, n, bob.Address, gtube); !strings.HasPrefix(got, "554 5.7.1 ") {
		t.Errorf("GTUBE: %s", got)
	}
	refused := traced(t, n, "", "rejected", "--status", "rejected", bob.Address)
	if !strings.Contains(refused.kinds(), "check content") {
		t.Errorf("the trace of the refusal: %+v", refused)
	}

	if err := submit(t, n, ada, []string{bob.Address}, letter(ada.Address, bob.Address, "signed")); err != nil {
		t.Fatal(err)
	}
	mail = waitForMail(t, n, bob, "INBOX", 2)
	if !bytes.Contains(mail[1].body, []byte("\r\nDKIM-Signature: v=1; a=rsa-sha256;")) {
		t.Errorf("opendkim's signature is missing:\n%s", mail[1].body)
	}
	if err := opendkim.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := submit(t, n, ada, []string{bob.Address}, letter(ada.Address, bob.Address, "unsigned")); err == nil || !strings.Contains(err.Error(), "451") {
		t.Errorf("with opendkim down: %v", err)
	}
}
