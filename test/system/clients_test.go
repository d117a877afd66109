package system

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// client runs one program in a home directory of its own.
type client struct {
	t    *testing.T
	n    *rig.Node
	home string
}

func newClient(t *testing.T, n *rig.Node) client {
	t.Helper()
	home := t.TempDir()
	// fetchmail and getmail insist on directories that nobody else can read; neomutt wants a HOME that exists.
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	return client{t, n, home}
}

// file writes a file below the client's home and returns its path.
func (c client) file(name, format string, args ...any) string {
	c.t.Helper()
	path := filepath.Join(c.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// run runs a program and fails the test when it does not end well.
func (c client) run(stdin, name string, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.home
	cmd.Env = append(os.Environ(), "HOME="+c.home, "XDG_CONFIG_HOME="+c.home, "XDG_CACHE_HOME="+c.home, "TERM=dumb", "LC_ALL=C.UTF-8")
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", name, err, tail(string(out), 4<<10))
	}
	return string(out)
}

// arrives waits until ada's INBOX holds a message with the token in its subject.
func (c client) arrives(token string) {
	c.t.Helper()
	session, _ := mailbox(c.t, c.n, ada, "INBOX")
	waitFor(c.t, "mail with the subject "+token, func() bool {
		if err := session.Noop().Wait(); err != nil {
			c.t.Fatal(err)
		}
		for _, m := range fetchAll(c.t, session) {
			if strings.Contains(string(m.body), token) {
				return true
			}
		}
		return false
	})
}

func (c client) countFiles(pattern string) int {
	c.t.Helper()
	found, err := filepath.Glob(filepath.Join(c.home, pattern))
	if err != nil {
		c.t.Fatal(err)
	}
	return len(found)
}

func TestClientsSubmit(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	h, port := host(t, n.Submission)
	_, tlsPort := host(t, n.Submissions)
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		t.Run("swaks "+mechanism, func(t *testing.T) {
			c := newClient(t, n)
			c.run("", "swaks", "--server", h, "--port", port, "--tls", "--tls-ca-path", n.CAFile, "--auth", mechanism,
				"--auth-user", ada.Address, "--auth-password", ada.Password, "--from", ada.Address, "--to", ada.Address,
				"--header", "Subject: swaks-"+mechanism)
			c.arrives("swaks-" + mechanism)
		})
	}
	t.Run("swaks TLS on connect", func(t *testing.T) {
		c := newClient(t, n)
		c.run("", "swaks", "--server", h, "--port", tlsPort, "--tls-on-connect", "--auth", "PLAIN", "--auth-user", ada.Address,
			"--auth-password", ada.Password, "--from", ada.Address, "--to", ada.Address, "--header", "Subject: swaks-465")
		c.arrives("swaks-465")
	})
	t.Run("curl", func(t *testing.T) {
		c := newClient(t, n)
		file := c.file("mail", "%s", letter(ada.Address, ada.Address, "curl-smtp"))
		c.run("", "curl", "-sS", "--ssl-reqd", "--cacert", n.CAFile, "--user", ada.Address+":"+ada.Password,
			"--mail-from", ada.Address, "--mail-rcpt", ada.Address, "--upload-file", file, "smtp://"+n.Submission+"/client.test")
		c.arrives("curl-smtp")
	})
	t.Run("msmtp", func(t *testing.T) {
		c := newClient(t, n)
		rc := c.file("msmtprc", "account default\nhost %s\nport %s\ntls on\ntls_starttls on\ntls_trust_file %s\nauth on\nuser %s\npassword %q\nfrom %s\n",
			h, port, n.CAFile, ada.Address, ada.Password, ada.Address)
		c.run(string(letter(ada.Address, ada.Address, "msmtp-mail")), "msmtp", "-C", rc, ada.Address)
		c.arrives("msmtp-mail")
	})
	t.Run("s-nail", func(t *testing.T) {
		c := newClient(t, n)
		user, pass := strings.ReplaceAll(ada.Address, "@", "%40"), strings.ReplaceAll(ada.Password, " ", "%20")
		c.run("good day\n", "s-nail", "-:/", "-Sv15-compat", "-Stls-ca-file="+n.CAFile, "-Stls-verify=strict",
			fmt.Sprintf("-Smta=smtp://%s:%s@localhost:%s", user, pass, port), "-Ssmtp-use-starttls", "-Ssmtp-auth=plain",
			"-Sfrom="+ada.Address, "-Shostname=client.test", "-s", "snail-mail", ada.Address)
		c.arrives("snail-mail")
	})
	t.Run("neomutt", func(t *testing.T) {
		c := newClient(t, n)
		rc := c.file("muttrc", "set smtp_url=\"smtp://%s@localhost:%s/\"\nset smtp_pass=\"%s\"\nset ssl_starttls=yes\nset ssl_force_tls=yes\n"+
			"set ssl_ca_certificates_file=%s\nset from=%s\nset realname=Ada\nset record=\"\"\n", ada.Address, port, ada.Password, n.CAFile, ada.Address)
		c.run("good day\n", "neomutt", "-n", "-F", rc, "-s", "neomutt-mail", ada.Address)
		c.arrives("neomutt-mail")
	})
	t.Run("python smtplib", func(t *testing.T) {
		c := newClient(t, n)
		script := c.file("send.py", `
import smtplib, ssl, sys
context = ssl.create_default_context(cafile=%q)
s = smtplib.SMTP("localhost", %s); s.starttls(context=context); s.login(%q, %q)
s.sendmail(%q, [%q], "From: <%s>\r\nTo: <%s>\r\nSubject: python-smtplib\r\n\r\nhello\r\n"); s.quit()
s = smtplib.SMTP_SSL("localhost", %s, context=context); s.user, s.password = %q, %q
s.ehlo(); s.auth("LOGIN", s.auth_login); s.quit()
`, n.CAFile, port, ada.Address, ada.Password, ada.Address, ada.Address, ada.Address, ada.Address, tlsPort, ada.Address, ada.Password)
		c.run("", "python3", script)
		c.arrives("python-smtplib")
	})
}

func TestClientsRead(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	for i := range 5 {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, fmt.Sprintf("read-%d", i)))
	}
	h, imapPort := host(t, n.IMAP)
	_, popPort := host(t, n.POP3)
	_, popsPort := host(t, n.POP3S)

	t.Run("curl imap", func(t *testing.T) {
		c := newClient(t, n)
		out := c.run("", "curl", "-sS", "--ssl-reqd", "--cacert", n.CAFile, "--user", ada.Address+":"+ada.Password,
			"imap://"+n.IMAP+"/INBOX", "-X", "SEARCH SUBJECT read-3")
		if !strings.Contains(out, "* SEARCH 4") {
			t.Errorf("SEARCH said %q", out)
		}
		out = c.run("", "curl", "-sS", "--ssl-reqd", "--cacert", n.CAFile, "--user", ada.Address+":"+ada.Password, "imap://"+n.IMAP+"/INBOX;MAILINDEX=2")
		if !strings.Contains(out, "你好，read-1。") {
			t.Errorf("message 2 is %q", out)
		}
	})
	t.Run("curl pop3", func(t *testing.T) {
		c := newClient(t, n)
		out := c.run("", "curl", "-sS", "--ssl-reqd", "--cacert", n.CAFile, "--user", ada.Address+":"+ada.Password, "pop3://"+n.POP3+"/5")
		if !strings.Contains(out, "你好，read-4。") {
			t.Errorf("message 5 is %q", out)
		}
	})
	for _, protocol := range []string{"imap", "pop3"} {
		t.Run("fetchmail "+protocol, func(t *testing.T) {
			c := newClient(t, n)
			port := map[string]string{"imap": imapPort, "pop3": popPort}[protocol]
			rc := c.file("fetchmailrc", "poll localhost protocol %s port %s user \"%s\" password \"%s\" sslproto \"auto\" sslcertfile %s sslcertck keep fetchall mda \"cat >> %s/mbox\"\n",
				protocol, port, ada.Address, ada.Password, n.CAFile, c.home)
			c.run("", "fetchmail", "-v", "--nosyslog", "--pidfile", filepath.Join(c.home, "pid"), "-f", rc)
			b, err := os.ReadFile(filepath.Join(c.home, "mbox"))
			if err != nil || strings.Count(string(b), "Subject: letter read-") != 5 {
				t.Errorf("the mbox holds %d messages: %v", strings.Count(string(b), "Subject: letter read-"), err)
			}
		})
	}
	t.Run("getmail", func(t *testing.T) {
		c := newClient(t, n)
		for _, d := range []string{"box/cur", "box/new", "box/tmp"} {
			if err := os.MkdirAll(filepath.Join(c.home, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		rc := c.file("getmail/rc", "[retriever]\ntype=SimplePOP3SSLRetriever\nserver=localhost\nport=%s\nusername=%s\npassword=%s\nca_certs=%s\n[destination]\ntype=MDA_external\npath=/bin/sh\narguments=('-c', 'cat > %s/box/new/$$')\nallow_root_commands=true\n[options]\nread_all=true\ndelete=false\n",
			popsPort, ada.Address, ada.Password, n.CAFile, c.home)
		c.run("", "getmail", "-g", filepath.Dir(rc), "-r", rc)
		if got := c.countFiles("box/new/*"); got != 5 {
			t.Errorf("getmail fetched %d messages, want 5", got)
		}
	})
	t.Run("mpop", func(t *testing.T) {
		c := newClient(t, n)
		for _, d := range []string{"box/cur", "box/new", "box/tmp"} {
			if err := os.MkdirAll(filepath.Join(c.home, d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		rc := c.file("mpoprc", "account default\nhost %s\nport %s\ntls on\ntls_starttls on\ntls_trust_file %s\nuser %s\npassword %q\ndelivery maildir %s/box\nkeep on\nuidls_file %s/uidls\n",
			h, popPort, n.CAFile, ada.Address, ada.Password, c.home, c.home)
		for range 2 { // the second run finds by UIDL that nothing is new
			c.run("", "mpop", "-C", rc)
		}
		if got := c.countFiles("box/new/*"); got != 5 {
			t.Errorf("mpop fetched %d messages, want 5", got)
		}
	})
	t.Run("python imaplib and poplib", func(t *testing.T) {
		c := newClient(t, n)
		script := c.file("read.py", `
import imaplib, poplib, ssl
context = ssl.create_default_context(cafile=%q)
i = imaplib.IMAP4("localhost", %s); i.starttls(context); i.login(%q, %q)
assert i.select("INBOX")[0] == "OK"
ids = i.search(None, "ALL")[1][0].split(); assert len(ids) == 5, ids
kind, data = i.fetch(ids[-1], "(FLAGS BODYSTRUCTURE ENVELOPE BODY.PEEK[])"); assert kind == "OK", kind
assert i.append("Drafts", "\\Draft", None, b"Subject: from python\r\n\r\nx\r\n")[0] == "OK"
assert i.create("Folder")[0] == "OK" and i.rename("Folder", "Renamed")[0] == "OK" and i.delete("Renamed")[0] == "OK"
i.logout()
p = poplib.POP3("localhost", %s); capabilities = p.capa(); assert "UIDL" in capabilities, capabilities
p.stls(context); p.user(%q); p.pass_(%q)
n, octets = p.stat(); assert n == 5 == len(p.list()[1]) == len(p.uidl()[1])
assert sum(int(line.split()[1]) for line in p.list()[1]) == octets
r = p.retr(n); assert sum(len(line) + 2 for line in r[1]) == int(p.list(n).split()[2])
assert b"" in p.top(n, 0)[1]; p.rset(); p.quit()
`, n.CAFile, imapPort, ada.Address, ada.Password, popPort, ada.Address, ada.Password)
		c.run("", "python3", script)
	})
	t.Run("neomutt imap", func(t *testing.T) {
		c := newClient(t, n)
		rc := c.file("muttrc", "set imap_user=\"%s\"\nset imap_pass=\"%s\"\nset ssl_starttls=yes\nset ssl_force_tls=yes\nset ssl_ca_certificates_file=%s\n"+
			"set folder=imap://localhost:%s/\nset spoolfile=+INBOX\nset header_cache=%s/cache\nset timeout=5\n"+
			"push \"<limit>~A<enter><tag-pattern>~A<enter><tag-prefix><copy-message>=Archive<enter>y<quit>y\"\n",
			ada.Address, ada.Password, n.CAFile, imapPort, c.home)
		// script(1) gives the full-screen program the terminal that it wants.
		c.run("", "script", "-qec", "neomutt -n -F "+rc, "/dev/null")
		if got := len(waitForMail(t, n, ada, "Archive", 5)); got != 5 {
			t.Errorf("neomutt copied %d messages to Archive, want 5", got)
		}
	})
}

// TestClientsSynchronise runs two-way synchronisers: what changes on one side shows on the other, and a second run finds
// nothing to do.
func TestClientsSynchronise(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	for i := range 5 {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address, bob.Address}, letter("sender@far.test", ada.Address, fmt.Sprintf("sync-%d", i)))
	}
	_, imapPort := host(t, n.IMAP)

	t.Run("mbsync", func(t *testing.T) {
		c := newClient(t, n)
		if err := os.Mkdir(filepath.Join(c.home, "mail"), 0o700); err != nil {
			t.Fatal(err)
		}
		rc := c.file("mbsyncrc", "IMAPAccount a\nHost localhost\nPort %s\nUser %s\nPass \"%s\"\nSSLType STARTTLS\nCertificateFile %s\nAuthMechs PLAIN\n\n"+
			"IMAPStore far\nAccount a\n\nMaildirStore near\nPath %s/mail/\nInbox %s/mail/INBOX\nSubFolders Verbatim\n\n"+
			"Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n",
			imapPort, ada.Address, ada.Password, n.CAFile, c.home, c.home)
		c.run("", "mbsync", "-c", rc, "-a")
		if got := c.countFiles("mail/INBOX/*/*"); got != 5 {
			t.Fatalf("mbsync pulled %d messages, want 5", got)
		}
		// A new folder with a read message goes up.
		for _, d := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(c.home, "mail/Projects", d), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		c.file("mail/Projects/cur/1.local:2,S", "Subject: pushed\r\n\r\nfrom the other side\r\n")
		c.run("", "mbsync", "-c", rc, "-a")
		pushed := waitForMail(t, n, ada, "Projects", 1)
		if len(pushed) != 1 || len(pushed[0].flags) == 0 {
			t.Fatalf("the server has %d messages in Projects, flags %v", len(pushed), pushed)
		}
		// A message deleted on the server goes away here.
		session, _ := mailbox(t, n, ada, "INBOX")
		deleteFirst(t, session)
		out := c.run("", "mbsync", "-V", "-c", rc, "-a")
		if got := c.countFiles("mail/INBOX/*/*"); got != 4 {
			t.Errorf("after an expunge on the server mbsync keeps %d messages, want 4\n%s", got, out)
		}
	})
	t.Run("offlineimap", func(t *testing.T) {
		c := newClient(t, n)
		rc := c.file("offlineimaprc", "[general]\naccounts=a\nui=quiet\nmetadata=%s/meta\n[Account a]\nlocalrepository=l\nremoterepository=r\n"+
			"[Repository l]\ntype=Maildir\nlocalfolders=%s/mail\n[Repository r]\ntype=IMAP\nremotehost=localhost\nremoteport=%s\nremoteuser=%s\nremotepass=%s\nssl=no\nstarttls=yes\nsslcacertfile=%s\nauth_mechanisms=PLAIN\n",
			c.home, c.home, imapPort, bob.Address, bob.Password, n.CAFile)
		for range 2 {
			c.run("", "offlineimap", "-o", "-c", rc)
		}
		if got := c.countFiles("mail/INBOX/*/*"); got != 5 {
			t.Errorf("offlineimap holds %d messages, want 5", got)
		}
	})
}
