package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/auth"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/message"
	"waxwing/internal/server"
)

type demoCommand struct{}

const demoDomain = "example.test"

// demoAccount is one of the two accounts.
type demoAccount struct {
	Address  string `json:"address"`
	Name     string `json:"name"`
	Password string `json:"password,omitempty"` // only when it was made in this run
}

func demoAccounts() []demoAccount {
	return []demoAccount{
		{Address: "alice@" + demoDomain, Name: "Alice Winter"},
		{Address: "ming@" + demoDomain, Name: "李明"},
	}
}

func (c *demoCommand) Run(s *session) error {
	dir, err := filepath.Abs(s.directory("demo"))
	if err != nil {
		return err
	}
	cfg, err := config.Load(filepath.Join(dir, config.FileName))
	if errors.Is(err, os.ErrNotExist) {
		cfg, _, err = s.initialise(dir, demoDomain, "", true)
	}
	if err != nil {
		return err
	}
	accounts := demoAccounts()
	if err := s.furnish(cfg, accounts); err != nil {
		return err
	}
	var printed error
	ready := false
	err = s.serve(cfg, func(server.Ready) {
		ready = true
		printed = s.printDemo(cfg, dir, accounts)
	})
	if !ready {
		// A port was taken, say. The accounts are made, and their passwords are shown nowhere else.
		printed = s.print(map[string]any{"directory": dir, "accounts": accounts}, func(p *printer) {
			p.line("The accounts are made; the server could not be started. The same command tries again.")
			printAccounts(p, accounts)
		})
	}
	return errors.Join(err, printed)
}

// printAccounts shows the passwords of the accounts that this run has made.
func printAccounts(p *printer, accounts []demoAccount) {
	for _, a := range accounts {
		password := a.Password
		if password == "" {
			password = "(shown when it was made; `waxwing account password` sets another)"
		}
		p.line(fmt.Sprintf("  %s\tpassword %s", a.Address, password))
	}
}

// furnish makes the accounts that are missing, with their mail, and notes their passwords.
func (s *session) furnish(cfg *config.Config, accounts []demoAccount) (err error) {
	state, err := server.OpenState(s.ctx, cfg, s.logger())
	if err != nil {
		return unavailable(err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	k := control.Direct(state.Control(nil))
	for i := range accounts {
		a := &accounts[i]
		_, err := control.AccountShow.Call(s.ctx, k, control.AccountRef{Address: a.Address})
		if err == nil {
			continue
		}
		if control.KindOf(err) != control.NotFound {
			return err
		}
		a.Password = randomPassword()
		hash, err := auth.HashPassword([]byte(a.Password))
		if err != nil {
			return err
		}
		if _, err := control.AccountAdd.Call(s.ctx, k, control.NewAccounts{Accounts: []control.NewAccount{{
			Address: a.Address, Name: a.Name, PasswordHash: hash, Admin: i == 0,
		}}}); err != nil {
			return err
		}
		if err := s.fillInbox(k, *a); err != nil {
			return err
		}
	}
	return nil
}

// randomPassword has 80 bits, in groups that can be typed.
func randomPassword() string {
	text := strings.ToLower(rand.Text())
	return text[:4] + "-" + text[4:8] + "-" + text[8:12] + "-" + text[12:16]
}

func (s *session) fillInbox(k control.Carrier, a demoAccount) error {
	inbox, err := control.MailboxEnsure.Call(s.ctx, k, control.MailboxRef{Account: a.Address, Name: "INBOX"})
	if err != nil {
		return err
	}
	var body bytes.Buffer
	req := control.Append{Account: a.Address, Mailbox: inbox.ID}
	now := time.Now()
	for i, b := range sampleMail(a, now) {
		raw, err := b.Bytes()
		if err != nil {
			return err
		}
		body.Write(raw)
		req.Messages = append(req.Messages, control.NewMessage{Size: int64(len(raw)), InternalDate: now.Add(time.Duration(i) * time.Second), Flagged: i == 0})
	}
	_, err = control.MessageAppend.Call(s.ctx, k, req, &body)
	return err
}

// sampleMail is what an account of the demonstration finds in its INBOX: plain text, alternatives, and an attachment, in
// English and Chinese.
func sampleMail(a demoAccount, now time.Time) []*message.Builder {
	from := message.Address{Name: "Waxwing", Local: "postmaster", Domain: demoDomain}
	own, _ := address.Parse(a.Address) // a constant of this file
	to := message.Address{Name: a.Name, Local: own.Local, Domain: own.Domain}
	letter := func(subject string, body *message.Entity) *message.Builder {
		b := message.NewBuilder()
		b.Addresses("From", from).Addresses("To", to).Text("Subject", subject).Date(now)
		b.MessageID("mx." + demoDomain)
		return b.Body(body)
	}
	return []*message.Builder{
		letter("Welcome to Waxwing", message.PlainText("Hello "+a.Name+",\n\nthis mailbox is yours. It is read by IMAP and POP3, and mail goes out through submission; all of it inside TLS.\n\nWax kept letters sealed; wings carried them.\n")),
		letter("欢迎使用 Waxwing 邮件服务器", message.Multipart("alternative",
			message.PlainText(a.Name+"，您好：\n\n这个邮箱已经可以使用了。您可以用 IMAP 或 POP3 收信，通过提交端口发信，全程使用 TLS 加密。\n\n蜡封信札，羽翼传书。\n"),
			message.HTML("<p>"+a.Name+"，您好：</p><p>这个邮箱已经可以使用了。您可以用 IMAP 或 POP3 收信，通过提交端口发信，全程使用 <b>TLS</b> 加密。</p><p>蜡封信札，羽翼传书。</p>\n"))),
		letter("A message with an attachment / 带附件的邮件", message.Multipart("mixed",
			message.PlainText("The attachment has a Chinese name: see how your mail program shows it.\n附件的文件名是中文，请看看您的邮件客户端如何显示。\n"),
			message.Attachment("说明 notes.txt", "text/plain", []byte("会议 meeting 2026\r\n")))),
	}
}

// printDemo says what can be done now. The lines work as they are printed.
func (s *session) printDemo(cfg *config.Config, dir string, accounts []demoAccount) error {
	ports := map[string]string{}
	listeners := []string{}
	for _, l := range cfg.Listeners {
		_, port, _ := strings.Cut(l.Address, ":")
		ports[string(l.Protocol)+"-"+string(l.TLS)] = port
		listeners = append(listeners, string(l.Protocol)+"/"+string(l.TLS)+" "+l.Address)
	}
	return s.print(map[string]any{"directory": dir, "accounts": accounts, "listeners": listeners}, func(p *printer) {
		p.line("")
		p.line("Waxwing is running. Accounts of " + demoDomain + ":")
		p.line("")
		printAccounts(p, accounts)
		p.line("")
		p.line("Try it, in another terminal:")
		p.line("")
		for _, l := range demoLines(filepath.Join(dir, "tls", "cert.pem"), ports, accounts) {
			p.line("  " + l)
		}
		p.line("")
		p.line("In a mail program: IMAP localhost port " + ports["imap-implicit"] + " (SSL/TLS), SMTP localhost port " + ports["submission-implicit"] + " (SSL/TLS).")
		p.line("Messages are encrypted; the master key is " + cfg.Encryption.File + ". A real server's key needs a backup.")
		p.line("Everything is in " + dir + ". Ctrl-C ends the server; the same command starts it again.")
	})
}

// demoLines are commands for a shell: reading and sending mail with curl, swaks and openssl.
func demoLines(cert string, ports map[string]string, accounts []demoAccount) []string {
	a, b := accounts[0], accounts[1]
	user, password := shellQuote(a.Address), ""
	if a.Password != "" {
		user = shellQuote(a.Address + ":" + a.Password)
		password = " --auth-password " + shellQuote(a.Password)
	}
	ca := shellQuote(cert)
	return []string{
		"# read the first message",
		"curl --cacert " + ca + " --user " + user + " 'imaps://localhost:" + ports["imap-implicit"] + "/INBOX;MAILINDEX=1'",
		"",
		"# send a message, and see it arrive",
		"printf 'From: " + a.Address + "\\r\\nTo: " + b.Address + "\\r\\nSubject: Hello\\r\\n\\r\\nby curl\\r\\n' | \\",
		"  curl --cacert " + ca + " --ssl-reqd --user " + user + " --mail-from " + a.Address + " --mail-rcpt " + b.Address + " --upload-file - smtp://localhost:" + ports["submission-starttls"],
		"swaks --server localhost --port " + ports["submission-starttls"] + " --tls --auth PLAIN --auth-user " + a.Address + password + " --from " + a.Address + " --to " + b.Address,
		"",
		"# mail from outside, on the port for other servers",
		"swaks --server localhost --port " + ports["smtp-starttls"] + " --from friend@example.org --to " + b.Address,
		"",
		"# talk to the server by hand",
		"openssl s_client -quiet -crlf -CAfile " + ca + " -verify_return_error -connect localhost:" + ports["imap-implicit"],
	}
}

// shellQuote quotes for a POSIX shell where it is needed.
func shellQuote(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_./:@%+=,", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
