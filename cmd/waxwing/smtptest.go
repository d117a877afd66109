package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/control"
	"waxwing/internal/dns"
	"waxwing/internal/message"
	"waxwing/internal/transport"
)

// smtpTest talks to any mail server step by step. It needs no server of ours: where there is a waxwing.toml its resolvers and
// host name are used.
type smtpTest struct {
	Target       string        `arg:"" help:"A domain, a host, an IP address, or an e-mail address to try."`
	From         string        `help:"Sender; without one the null sender is tried." placeholder:"ADDRESS"`
	To           string        `help:"Recipient to try; by default the address that was given." placeholder:"ADDRESS"`
	Send         bool          `help:"Send a short test message. Otherwise the transaction ends before it."`
	Port         int           `help:"Port; by default 25, with --tls implicit 465." placeholder:"PORT"`
	TLS          string        `help:"starttls, implicit (from the first octet on), or none." enum:"starttls,implicit,none" default:"starttls"`
	Only         string        `help:"Only addresses of this kind: 4 or 6." enum:",4,6" default:"" placeholder:"4|6"`
	User         string        `help:"Sign in as this user; TLS with a valid certificate is needed." placeholder:"NAME"`
	PasswordFile string        `help:"File whose first line is the password; - for standard input. Without it the password is asked for." placeholder:"FILE"`
	Hostname     string        `help:"Name in EHLO; by default that of waxwing.toml or of this machine." placeholder:"NAME"`
	Resolver     []string      `help:"Resolver to ask, address:port, in place of those of waxwing.toml or of this machine." placeholder:"ADDRESS"`
	CAFile       string        `help:"Certificates to trust in place of the system's, PEM." placeholder:"FILE"`
	Timeout      time.Duration `help:"For each step." default:"30s"`
}

// smtpTested is the result as JSON.
type smtpTested struct {
	Target   string                `json:"target"`
	Reached  bool                  `json:"reached"`
	Problems int                   `json:"problems"`
	Steps    []transport.ProbeStep `json:"steps"`
}

func (c *smtpTest) Run(s *session) error {
	req, err := c.request(s)
	if err != nil {
		return err
	}
	t, closeResolver, err := c.transport(s)
	if err != nil {
		return err
	}
	defer closeResolver()
	out := smtpTested{Target: req.Target}
	out.Reached = t.Probe(s.ctx, req, func(step transport.ProbeStep) {
		if step.Finding == transport.Problem {
			out.Problems++
		}
		out.Steps = append(out.Steps, step)
		if !s.json {
			err = errors.Join(err, s.printStep(step))
		}
	})
	if err != nil {
		return err
	}
	if s.json {
		if err := s.print(out, nil); err != nil {
			return err
		}
	}
	switch {
	case !out.Reached:
		return quietError{exitUnavailable}
	case out.Problems > 0:
		return quietError{exitFailed}
	}
	return nil
}

// printStep writes a step as soon as it is known.
func (s *session) printStep(step transport.ProbeStep) error {
	return s.print(nil, func(p *printer) {
		mark := map[transport.Finding]string{transport.Fine: "  ok  ", transport.Note: " note ", transport.Problem: "  !!  "}[step.Finding]
		line := mark + fmt.Sprintf("%-12s ", step.Stage)
		if step.Address != "" && step.Stage == "connect" {
			line += plain(step.Host+" "+step.Address) + ": "
		} else if step.Address == "" && step.Host != "" {
			line += plain(step.Host) + ": "
		}
		line += plain(step.Text)
		if step.Took >= time.Millisecond {
			line += " (" + step.Took.Round(time.Millisecond).String() + ")"
		}
		p.line(line)
		for said := range strings.SplitSeq(step.Said, "\n") {
			if said != "" {
				p.line("                     | " + plain(said))
			}
		}
		if step.Hint != "" {
			p.line("                     = " + plain(step.Hint))
		}
	})
}

// request turns the command line into a request.
func (c *smtpTest) request(s *session) (transport.ProbeRequest, error) {
	req := transport.ProbeRequest{From: strings.Trim(c.From, "<>"), To: strings.Trim(c.To, "<>"), Implicit: c.TLS == "implicit", NoTLS: c.TLS == "none", Only: c.Only, Username: c.User}
	target := strings.Trim(c.Target, "<>")
	if strings.Contains(target, "@") {
		if req.To == "" {
			req.To = target
		}
		target = target[strings.LastIndexByte(target, '@')+1:]
	}
	for _, a := range []string{req.From, req.To} {
		if a == "" {
			continue
		}
		if _, err := address.Parse(a); err != nil {
			return req, usagef("%q is no address: %v", a, err)
		}
	}
	if c.Send && req.To == "" {
		return req, usagef("--send needs a recipient: --to")
	}
	ip, err := netip.ParseAddr(strings.Trim(target, "[]"))
	switch {
	case err == nil && ip.Is4():
		req.Target = "[" + ip.String() + "]"
	case err == nil:
		req.Target = "[IPv6:" + ip.WithZone("").String() + "]"
	case strings.HasPrefix(target, "["):
		req.Target = target
	default:
		if req.Target, err = address.ParseDomain(target); err != nil {
			return req, usagef("%q is no domain, host or address: %v", target, err)
		}
	}
	if c.User != "" {
		if req.Password, err = c.password(s); err != nil {
			return req, err
		}
	}
	if c.Send {
		req.Message, err = testLetter(req.From, req.To)
	}
	return req, err
}

// password reads the password from its file, or asks for it once.
func (c *smtpTest) password(s *session) ([]byte, error) {
	if c.PasswordFile != "" {
		return passwordFlag{c.PasswordFile}.read(s)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, usagef("there is no terminal to ask for the password: give --password-file")
	}
	password, err := ask(s, tty, "Password of "+c.User+": ")
	return password, errors.Join(err, tty.Close())
}

// testLetter is the message that --send sends.
func testLetter(from, to string) ([]byte, error) {
	b := message.NewBuilder()
	now := time.Now()
	b.Date(now)
	sender, err := address.Parse(from)
	if err != nil {
		sender = address.Address{Local: "postmaster", Domain: "localhost"}
	}
	rcpt, err := address.Parse(to)
	if err != nil {
		return nil, usagef("%q is no address: %v", to, err)
	}
	b.Addresses("From", message.Address{Local: sender.Local, Domain: sender.Domain})
	b.Addresses("To", message.Address{Local: rcpt.Local, Domain: rcpt.Domain})
	b.Text("Subject", "Test of a mail server")
	b.Raw("Message-ID", fmt.Sprintf("<smtp-test.%d@%s>", now.UnixNano(), sender.Domain))
	b.Raw("Auto-Submitted", "auto-generated")
	b.Body(message.PlainText("This message was sent by waxwing smtp-test to see whether mail arrives.\r\n"))
	return b.Bytes()
}

// transport makes the way out that the test uses.
func (c *smtpTest) transport(s *session) (*transport.Transport, func(), error) {
	name := c.Hostname
	options := dns.Options{Servers: c.Resolver}
	if cfg, err := s.config(); err == nil {
		if name == "" {
			name = cfg.Hostname
		}
		if len(options.Servers) == 0 {
			options.Servers, options.TrustAD, options.Timeout = cfg.DNS.Resolvers, cfg.DNS.Trusted, cfg.DNS.Timeout.Std()
		}
	} else if s.dir != "" {
		return nil, nil, err
	}
	if name == "" {
		var err error
		if name, err = os.Hostname(); err != nil {
			return nil, nil, control.Errorf(control.Failed, "name of this machine: %w", err)
		}
	}
	resolver, err := dns.New(options)
	if err != nil {
		return nil, nil, err
	}
	o := transport.Options{Hostname: name, Resolver: resolver, Port: c.Port, Timeouts: transport.Timeouts{
		Connect: c.Timeout, Greeting: c.Timeout, Command: c.Timeout, DataInit: c.Timeout, DataBlock: c.Timeout, DataEnd: c.Timeout, TLS: c.Timeout,
	}}
	if o.Port == 0 && c.TLS == "implicit" {
		o.Port = 465
	}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			resolver.Close()
			return nil, nil, usageError{err}
		}
		if o.RootCAs = x509.NewCertPool(); !o.RootCAs.AppendCertsFromPEM(text) {
			resolver.Close()
			return nil, nil, usagef("%s holds no certificate", c.CAFile)
		}
	}
	t, err := transport.New(o)
	if err != nil {
		resolver.Close()
		return nil, nil, err
	}
	return t, resolver.Close, nil
}
