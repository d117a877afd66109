package system

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// TestSieveConnect stores, lists, activates, reads and deletes a script with Debian's sieve-connect: check 18's client.
func TestSieveConnect(t *testing.T) {
	t.Parallel()
	c := newClient(t, node(t, rig.WaxwingOptions{}))
	script := c.file("s.sieve", "require [\"fileinto\"];\nif header :contains \"subject\" \"never-matches\" { fileinto \"Junk\"; }\n")
	wrong := c.file("wrong.sieve", "fileinto \"Junk\";\n")
	_, port, _ := strings.Cut(c.n.Sieve, ":")
	connect := func(args ...string) string {
		t.Helper()
		return c.run(ada.Password+"\n", "sieve-connect", append([]string{
			"-s", "localhost", "-p", port, "-u", ada.Address, "--passwordfd", "0", "--tlscafile", c.n.CAFile,
		}, args...)...)
	}
	connect("--localsieve", script, "--remotesieve", "filter", "--upload")
	if list := connect("--list"); !strings.Contains(list, `"filter"`) {
		t.Errorf("list: %s", list)
	}
	connect("--remotesieve", "filter", "--activate")
	if list := connect("--list"); !strings.Contains(list, "ACTIVE") {
		t.Errorf("list: %s", list)
	}
	connect("--remotesieve", "filter", "--localsieve", c.home+"/back.sieve", "--download")
	if b, err := os.ReadFile(c.home + "/back.sieve"); err != nil || !strings.Contains(string(b), "never-matches") {
		t.Errorf("%q, %v", b, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refused := exec.CommandContext(ctx, "sieve-connect", "-s", "localhost", "-p", port, "-u", ada.Address, "--passwordfd", "0", "--tlscafile", c.n.CAFile,
		"--localsieve", wrong, "--remotesieve", "wrong", "--upload")
	refused.Stdin = strings.NewReader(ada.Password + "\n")
	if out, err := refused.CombinedOutput(); err == nil || !strings.Contains(string(out), "line 1, column 1") {
		t.Errorf("a wrong script was taken: %v, %s", err, out)
	}
	connect("--deactivate")
	connect("--remotesieve", "filter", "--delete")
}

// TestFilteredDelivery holds what a user sees of a script that sieve-connect has stored: mail in its folder, an answer to who
// wrote, and a refusal in the session.
func TestFilteredDelivery(t *testing.T) {
	t.Parallel()
	c := newClient(t, node(t, rig.WaxwingOptions{}))
	script := c.file("s.sieve", `require ["fileinto", "mailbox", "imap4flags", "vacation", "reject"];
if header :contains "subject" "refuse" { reject "not this"; stop; }
if header :contains "subject" "folder" { fileinto :create :flags "\\Flagged" "Filed/Here"; vacation :subject "Away" "I am away."; }
`)
	_, port, _ := strings.Cut(c.n.Sieve, ":")
	for _, args := range [][]string{{"--localsieve", script, "--remotesieve", "filter", "--upload"}, {"--remotesieve", "filter", "--activate"}} {
		c.run(ada.Password+"\n", "sieve-connect", append([]string{
			"-s", "localhost", "-p", port, "-u", ada.Address, "--passwordfd", "0", "--tlscafile", c.n.CAFile,
		}, args...)...)
	}
	_, smtpPort, _ := strings.Cut(c.n.Submission, ":")
	send := func(subject string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "swaks", "--server", "localhost", "--port", smtpPort, "--tls", "--tls-ca-path", c.n.CAFile, "--auth", "PLAIN",
			"--auth-user", bob.Address, "--auth-password", bob.Password, "--from", bob.Address, "--to", ada.Address, "--header", "Subject: "+subject)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := send("to the folder"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	session, _ := mailbox(t, c.n, ada, "Filed/Here")
	if list := fetchAll(t, session); len(list) != 1 || !strings.Contains(string(list[0].body), "to the folder") {
		t.Errorf("%d messages in the folder", len(list))
	}
	answers, _ := mailbox(t, c.n, bob, "INBOX")
	waitFor(t, "the answer", func() bool {
		if err := answers.Noop().Wait(); err != nil {
			t.Fatal(err)
		}
		list := fetchAll(t, answers)
		return len(list) == 1 && strings.Contains(string(list[0].body), "Auto-Submitted: auto-replied") && strings.Contains(string(list[0].body), "I am away.")
	})
	if out, err := send("to refuse"); err == nil || !strings.Contains(out, "550 5.7.1 not this") {
		t.Errorf("%v\n%s", err, out)
	}
}
