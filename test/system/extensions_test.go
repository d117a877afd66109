package system

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// extensionsScript is a session of Python's smtplib: what is answered to each command stands in its output.
const extensionsScript = `
import smtplib, ssl, sys
host, port, ca, user, password, to = sys.argv[1:]
c = smtplib.SMTP("localhost", int(port), local_hostname="client.test")
c.ehlo()
c.starttls(context=ssl.create_default_context(cafile=ca))
c.ehlo()
c.login(user, password)
for word in ("deliverby", "futurerelease", "mt-priority", "rrvs", "limits", "dsn"):
    print("offered", word, c.has_extn(word))
print("held too long", c.mail(user, ["HOLDFOR=999999999"])[0])
print("too little time", c.mail(user, ["BY=30;R"])[0])
print("expn", c.docmd("EXPN", "list")[0], "vrfy", c.docmd("VRFY", user)[0], "etrn", c.docmd("ETRN", "x.test")[0])
print("priority", c.mail(user, ["MT-PRIORITY=9", "HOLDFOR=2", "ENVID=held-1"]))
print("rcpt", c.rcpt(to, ["NOTIFY=SUCCESS"])[0])
print("data", c.data("From: <%s>\r\nTo: <%s>\r\nSubject: held\r\n\r\nheld back\r\n" % (user, to))[0])
print("old owner", c.mail(user)[0], c.rcpt(to, ["RRVS=2001-09-09T01:46:40Z"])[0])
c.rset()
print("owner", c.mail(user)[0], c.rcpt(to, ["RRVS=2099-01-01T00:00:00Z"])[0])
c.quit()
`

// TestExtensionsFromPython asks for what a sender may ask: a message is held back for a mailbox here, with a lowered
// priority, comes in its time, and its sender hears of it.
func TestExtensionsFromPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is not there: run make deps")
	}
	n := node(t, rig.WaxwingOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, port := host(t, n.Submission)
	cmd := exec.CommandContext(ctx, python, "-c", extensionsScript, "localhost", port, n.CAFile, ada.Address, ada.Password, bob.Address)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"offered deliverby True", "offered futurerelease True", "offered mt-priority True", "offered rrvs True", "offered limits True", "offered dsn True",
		"held too long 501", "too little time 555", "expn 502 vrfy 252 etrn 502", "priority (250, b'2.3.6 ", "rcpt 250", "data 250",
		"old owner 250 550", "owner 250 250",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	got := string(waitForMail(t, n, bob, "INBOX", 1)[0].body)
	if !strings.Contains(got, "held back") || !strings.Contains(got, "MT-Priority: 3\r\n") || !strings.HasPrefix(got, "Return-Path: <"+ada.Address+">\r\n") {
		t.Errorf("released:\n%s", got)
	}
	note := string(waitForMail(t, n, ada, "INBOX", 1)[0].body)
	for _, want := range []string{"Action: delivered", "Final-Recipient: rfc822; " + bob.Address, "Original-Envelope-Id: held-1"} {
		if !strings.Contains(note, want) {
			t.Errorf("the notification lacks %q:\n%s", want, note)
		}
	}
}
