package system

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"waxwing/internal/porttest"
	"waxwing/test/rig"
)

var carol = rig.Account{Address: "carol@classic.example", Password: "a classic phrase 4 carol"}

// classic starts Postfix and Dovecot with carol; Postfix sends everything else to relay.
func classic(t *testing.T, relay string, extra ...string) *rig.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := rig.Classic(ctx, publicTempDir(t), rig.ClassicOptions{
		Domain: "classic.example", Accounts: []rig.Account{carol}, Relay: relay, Extra: extra,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestPostfixAndWaxwingExchangeMail sends a letter each way between the two servers, over STARTTLS, and a reply.
func TestPostfixAndWaxwingExchangeMail(t *testing.T) {
	ports, err := porttest.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	postfix := classic(t, rig.Loopback(ports[0]), "smtp_tls_security_level = encrypt", "mynetworks = 127.0.0.0/8")
	n := node(t, rig.WaxwingOptions{Relay: postfix.SMTP, SMTPPort: ports[0]})

	if err := submit(t, n, ada, []string{carol.Address}, letter(ada.Address, carol.Address, "to-postfix")); err != nil {
		t.Fatal(err)
	}
	got := waitForMail(t, &rig.Node{Server: *postfix}, carol, "INBOX", 1)
	if !bytes.Contains(got[0].body, []byte("你好，to-postfix。")) {
		t.Errorf("Postfix delivered %q", got[0].body)
	}
	if !bytes.Contains(got[0].body, []byte("(Postfix) with ESMTPS")) {
		t.Errorf("Waxwing did not use TLS towards Postfix:\n%s", got[0].body)
	}

	sendPlain(t, postfix.SMTP, carol.Address, []string{ada.Address, bob.Address}, letter(carol.Address, ada.Address, "from-postfix"))
	for _, a := range []rig.Account{ada, bob} {
		got := waitForMail(t, n, a, "INBOX", 1)
		if !bytes.Contains(got[0].body, []byte("你好，from-postfix。")) {
			t.Errorf("%s received %q", a.Address, got[0].body)
		}
		if !strings.Contains(string(got[0].body), "with ESMTPS") {
			t.Errorf("Postfix did not use TLS towards Waxwing:\n%s", got[0].body)
		}
	}
}

// TestUnknownRecipientAtPostfixComesBackAsDSN shows the words of the other server to the sender.
func TestUnknownRecipientAtPostfixComesBackAsDSN(t *testing.T) {
	postfix := classic(t, "")
	n := node(t, rig.WaxwingOptions{Relay: postfix.SMTP})
	if err := submit(t, n, ada, []string{"nobody@classic.example"}, letter(ada.Address, "nobody@classic.example", "to-nobody")); err != nil {
		t.Fatal(err)
	}
	dsn := string(waitForMail(t, n, ada, "INBOX", 1)[0].body)
	for _, want := range []string{
		"Return-Path: <>", "multipart/report", "report-type=delivery-status", "Final-Recipient: rfc822; nobody@classic.example",
		"Action: failed", "Status: 5.1.1", "550 5.1.1", "User unknown", "Subject: letter to-nobody", "Auto-Submitted: auto-replied",
	} {
		if !strings.Contains(dsn, want) {
			t.Errorf("the DSN lacks %q:\n%s", want, dsn)
		}
	}
}
