package system

import (
	"bytes"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/internal/porttest"
	"waxwing/test/rig"
)

// TestMailGoesToDovecotByLMTP routes a domain to Dovecot's socket: each recipient has a fate of its own.
func TestMailGoesToDovecotByLMTP(t *testing.T) {
	dir := publicTempDir(t)
	dovecot, err := rig.Classic(t.Context(), dir, rig.ClassicOptions{Domain: "classic.example", Accounts: []rig.Account{carol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dovecot.Stop(); err != nil {
			t.Error(err)
		}
	})
	n := node(t, rig.WaxwingOptions{Relay: "lmtp:unix:" + filepath.Join(dir, "dovecot/lmtp")})
	nobody := "nobody@classic.example"
	if err := submit(t, n, ada, []string{carol.Address, nobody}, letter(ada.Address, carol.Address, "by-lmtp")); err != nil {
		t.Fatal(err)
	}
	got := waitForMail(t, &rig.Node{Server: *dovecot}, carol, "INBOX", 1)
	if !bytes.Contains(got[0].body, []byte("你好，by-lmtp。")) || !bytes.Contains(got[0].body, []byte("with LMTP")) {
		t.Errorf("Dovecot delivered %q", got[0].body)
	}
	dsn := string(waitForMail(t, n, ada, "INBOX", 1)[0].body)
	if !strings.Contains(dsn, "Final-Recipient: rfc822; "+nobody) || !strings.Contains(dsn, "Action: failed") || strings.Contains(dsn, "Final-Recipient: rfc822; "+carol.Address) {
		t.Errorf("the DSN:\n%s", dsn)
	}
}

// TestPostfixDeliversByLMTP has Postfix bring mail to mailboxes here, over TCP and over a socket of the file system.
func TestPostfixDeliversByLMTP(t *testing.T) {
	for _, kind := range []string{"tcp", "socket"} {
		t.Run(kind, func(t *testing.T) {
			ports, err := porttest.Reserve(1)
			if err != nil {
				t.Fatal(err)
			}
			address, next := rig.Loopback(ports[0]), fmt.Sprintf("lmtp:inet:[127.0.0.1]:%d", ports[0])
			if kind == "socket" {
				dir := publicTempDir(t)
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				socket := filepath.Join(dir, "lmtp")
				address, next = "unix:"+socket, "lmtp:unix:"+socket
			}
			n := node(t, rig.WaxwingOptions{Edit: func(toml string) string {
				return toml + fmt.Sprintf("\n[[listener]]\naddress = %q\nprotocol = \"lmtp\"\n", address)
			}})
			if kind == "socket" {
				if err := os.Chmod(strings.TrimPrefix(address, "unix:"), 0o666); err != nil { // Postfix has a user of its own
					t.Fatal(err)
				}
			}
			postfix := classic(t, "", "default_transport = "+next, "defer_transports =", "mynetworks = 127.0.0.0/8")
			sendPlain(t, postfix.SMTP, carol.Address, []string{ada.Address, "nobody@" + domain, bob.Address}, letter(carol.Address, ada.Address, "by-lmtp"))
			for _, a := range []rig.Account{ada, bob} {
				got := waitForMail(t, n, a, "INBOX", 1)
				if !bytes.Contains(got[0].body, []byte("你好，by-lmtp。")) || !bytes.Contains(got[0].body, []byte("with LMTP")) ||
					!bytes.HasPrefix(got[0].body, []byte("Return-Path: <"+carol.Address+">\r\n")) {
					t.Errorf("%s received %q", a.Address, got[0].body)
				}
			}
			bounce := waitForMail(t, &rig.Node{Server: *postfix}, carol, "INBOX", 1)
			if !bytes.Contains(bounce[0].body, []byte("nobody@"+domain)) || !bytes.Contains(bounce[0].body, []byte("550 5.1.1")) {
				t.Errorf("the bounce: %q", bounce[0].body)
			}
		})
	}
}

// TestLMTPIsNoRelay brings a letter for elsewhere.
func TestLMTPIsNoRelay(t *testing.T) {
	ports, err := porttest.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	address := rig.Loopback(ports[0])
	node(t, rig.WaxwingOptions{Edit: func(toml string) string {
		return toml + fmt.Sprintf("\n[[listener]]\naddress = %q\nprotocol = \"lmtp\"\n", address)
	}})
	c, err := smtp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, step := range []struct{ command, answer string }{
		{"LHLO client.test", "250"},
		{"MAIL FROM:<x@remote.example>", "250"},
		{"RCPT TO:<y@remote.example>", "550"},
		{"RCPT TO:<y%remote.example@" + domain + ">", "550"},
	} {
		id, err := c.Text.Cmd("%s", step.command)
		if err != nil {
			t.Fatal(err)
		}
		c.Text.StartResponse(id)
		code, text, _ := c.Text.ReadResponse(0)
		c.Text.EndResponse(id)
		if fmt.Sprint(code) != step.answer {
			t.Errorf("%s: %d %s", step.command, code, text)
		}
	}
}
