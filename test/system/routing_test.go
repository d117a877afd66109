package system

import (
	"errors"
	"net/textproto"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// answerTo sends one RCPT as a stranger and gives the answer.
func answerTo(t *testing.T, address, from, to string) (int, string) {
	t.Helper()
	c := dialText(t, address)
	defer c.Close()
	for _, step := range []struct {
		line string
		code int
	}{{"", 220}, {"EHLO client.example", 250}, {"MAIL FROM:<" + from + ">", 250}} {
		if step.line != "" {
			if err := c.PrintfLine("%s", step.line); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := c.ReadResponse(step.code); err != nil {
			t.Fatalf("%s: %v", step.line, err)
		}
	}
	if err := c.PrintfLine("RCPT TO:<%s>", to); err != nil {
		t.Fatal(err)
	}
	code, text, err := c.ReadResponse(250)
	var reply *textproto.Error
	if err != nil && !errors.As(err, &reply) {
		t.Fatalf("RCPT TO:<%s>: %v", to, err)
	}
	return code, text
}

// TestForwardedMailGoesUnderAnAddressOfOurs forwards an account's mail to another server, which sends a notification of
// failure back to the sender it was given: that goes on to the true sender.
func TestForwardedMailGoesUnderAnAddressOfOurs(t *testing.T) {
	var box inbox
	sink, err := rig.StartSinkAt("127.0.0.1:0", nil, box.at("sink"))
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address})
	command(t, n, nil, "forward", "set", ada.Address, "ada@far.example", "--copy")
	sendPlain(t, n.SMTP, "eve@strange.example", []string{ada.Address}, letter("eve@strange.example", ada.Address, "forward-me"))
	waitForMail(t, n, ada, "INBOX", 1)
	m := box.find(t, "forward-me")
	path, _, _ := strings.Cut(strings.TrimPrefix(m.from, "MAIL FROM:<"), ">")
	if !strings.HasPrefix(path, "SRS0=") || !strings.HasSuffix(path, "=strange.example=eve@example.test") || !strings.Contains(m.body, "Delivered-To: ada@example.test\r\n") {
		t.Fatalf("sent from %s:\n%s", path, m.body)
	}
	// The message that went out comes back: a loop.
	if err := sendAs(n.SMTP, "eve@strange.example", ada.Address, m.body); err == nil || !strings.Contains(err.Error(), "554") {
		t.Errorf("the loop is not found: %v", err)
	}
	for name, tt := range map[string]struct{ from, to string }{
		"not a notification": {"spammer@strange.example", path}, "forged": {"", strings.Replace(path, "eve", "mallory", 1)},
	} {
		if code, text := answerTo(t, n.SMTP, tt.from, tt.to); code != 550 || !strings.HasPrefix(text, "5.7.1 ") {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	sendPlain(t, n.SMTP, "", []string{path}, letter("mailer-daemon@far.example", path, "it-failed"))
	if m = box.find(t, "it-failed"); m.from != "MAIL FROM:<>" && !strings.HasPrefix(m.from, "MAIL FROM:<> ") || !strings.Contains(strings.Join(m.to, " "), "eve@strange.example") {
		t.Errorf("the notification went from %s to %v", m.from, m.to)
	}
}

// TestBackupMX relays for the domain of another Waxwing, which is asked about each recipient, and is down for a while.
func TestBackupMX(t *testing.T) {
	first := node(t, rig.WaxwingOptions{})
	command(t, first, nil, "domain", "add", "first.example")
	command(t, first, nil, "domain", "set", "first.example", "--alias-of", domain)
	const to = "bob@first.example"
	backup := node(t, rig.WaxwingOptions{})
	if code, _ := answerTo(t, backup.SMTP, "eve@far.example", to); code != 550 {
		t.Errorf("relays for a domain that isn't its own: %d", code)
	}
	command(t, backup, nil, "relay", "add", "first.example", "--host", first.SMTP)
	for to, want := range map[string]int{to: 250, "nobody@first.example": 550, "bob%far.example@first.example": 550, "x@far.example": 550} {
		if code, text := answerTo(t, backup.SMTP, "eve@far.example", to); code != want {
			t.Errorf("%s: %d %s, want %d", to, code, text, want)
		}
	}
	sendPlain(t, backup.SMTP, "eve@far.example", []string{to}, letter("eve@far.example", to, "by-the-backup"))
	waitForMail(t, first, bob, "INBOX", 1)

	if err := first.Terminate(); err != nil {
		t.Fatal(err)
	}
	if code, text := answerTo(t, backup.SMTP, "eve@far.example", "carl@first.example"); code != 451 {
		t.Errorf("while it is down: %d %s", code, text)
	}
	command(t, backup, nil, "relay", "set", "first.example", "--host", first.SMTP, "--accept-down")
	if code, text := answerTo(t, backup.SMTP, "eve@far.example", "dora@first.example"); code != 250 {
		t.Errorf("while it is down, as set: %d %s", code, text)
	}
	sendPlain(t, backup.SMTP, "eve@far.example", []string{to}, letter("eve@far.example", to, "meanwhile"))
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	command(t, backup, nil, "queue", "retry", "--all")
	waitForMail(t, first, bob, "INBOX", 2)
}

// TestRoutesAndJournals sends by the route of a sender's domain, discards, refuses, and keeps a journal of all of it.
func TestRoutesAndJournals(t *testing.T) {
	var box inbox
	office, err := rig.StartSinkAt("127.0.0.1:0", nil, box.at("office"))
	if err != nil {
		t.Fatal(err)
	}
	defer office.Stop()
	plain, err := rig.StartSinkAt("127.0.0.1:0", nil, box.at("plain"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Stop()
	n := node(t, rig.WaxwingOptions{Relay: plain.Address})
	command(t, n, nil, "route", "add", "office", "--from", "example.test", "--host", office.Address, "--tls", "opportunistic")
	command(t, n, nil, "route", "add", "shut", "--to", "shut.example", "--reject", "closed for good")
	command(t, n, nil, "route", "add", "void", "--to", "void@example.test", "--discard")
	command(t, n, nil, "journal", "add", "law", "--of", "example.test", "--to", bob.Address, "--report")
	if err := submit(t, n, ada, []string{"x@far.example"}, letter(ada.Address, "x@far.example", "by-the-office")); err != nil {
		t.Fatal(err)
	}
	if m := box.find(t, "by-the-office"); m.at != "office" {
		t.Errorf("went by %s", m.at)
	}
	if err := submit(t, n, ada, []string{"x@shut.example"}, letter(ada.Address, "x@shut.example", "refused")); err == nil || !strings.Contains(err.Error(), "closed for good") {
		t.Errorf("to a domain that is refused: %v", err)
	}
	sendPlain(t, n.SMTP, "eve@far.example", []string{"void@example.test"}, letter("eve@far.example", "void@example.test", "into-the-void"))
	reports := waitForMail(t, n, bob, "INBOX", 2)
	for i, want := range []string{"Recipient: <x@far.example>", "Recipient: <void@example.test>"} {
		if text := string(reports[i].body); !strings.Contains(text, want) || !strings.Contains(text, "message/rfc822") {
			t.Errorf("report %d lacks %q:\n%s", i, want, text)
		}
	}
	var told struct{ Why []string }
	command(t, n, &told, "route", "test", "x@far.example", "--from", ada.Address, "--signed")
	if !strings.Contains(strings.Join(told.Why, "\n"), "the route office") {
		t.Errorf("route test says %q", told.Why)
	}
	// The route goes while mail waits on it: what is left of the way is taken.
	office.Stop()
	if err := submit(t, n, ada, []string{"y@far.example"}, letter(ada.Address, "y@far.example", "after-the-office")); err != nil {
		t.Fatal(err)
	}
	command(t, n, nil, "route", "remove", "office")
	command(t, n, nil, "queue", "retry", "--all")
	if m := box.find(t, "after-the-office"); m.at != "plain" {
		t.Errorf("went by %s", m.at)
	}
}

// sendAs sends one message as it is and gives the refusal.
func sendAs(address, from, to, body string) error {
	c, err := textproto.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, step := range []struct {
		line string
		code int
	}{{"", 220}, {"HELO client.example", 250}, {"MAIL FROM:<" + from + ">", 250}, {"RCPT TO:<" + to + ">", 250}, {"DATA", 354}, {body + ".", 250}} {
		if step.line != "" {
			if _, err := c.W.WriteString(step.line + "\r\n"); err != nil {
				return err
			}
			if err := c.W.Flush(); err != nil {
				return err
			}
		}
		if _, _, err := c.ReadResponse(step.code); err != nil {
			return err
		}
	}
	return nil
}
