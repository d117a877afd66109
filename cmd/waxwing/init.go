package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/server"
	"waxwing/internal/store/keyring"
)

type initCommand struct {
	Domain   string `help:"First domain whose mail this server takes." placeholder:"DOMAIN"`
	Hostname string `help:"Name of this server as others see it; by default mx. before the domain." placeholder:"HOST"`
	Empty    bool   `help:"Make no store: a backup is to be restored into it. Name the host with --hostname."`
	Loopback bool   `help:"For trying out: listen on 127.0.0.1, on the standard ports plus 10000."`
}

// initialised is what the command prints.
type initialised struct {
	Directory string      `json:"directory"`
	Hostname  string      `json:"hostname"`
	Domain    string      `json:"domain"`
	Listeners []string    `json:"listeners"`
	Keys      encryption  `json:"encryption"`
	DNS       []dnsRecord `json:"dns"`
}

// dnsRecord is a record that the domain needs.
type dnsRecord struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Value string `json:"value"`
	Why   string `json:"why"`
}

func (c *initCommand) Run(s *session) error {
	switch {
	case c.Empty && (c.Domain != "" || c.Hostname == ""):
		return usagef("--empty takes --hostname, and no --domain: domains come with the backup")
	case c.Empty:
		return c.empty(s)
	case c.Domain == "":
		return usagef("missing flags: --domain=DOMAIN")
	}
	cfg, info, err := s.initialise(s.directory("."), c.Domain, c.Hostname, c.Loopback)
	if err != nil {
		return err
	}
	domain, err := address.ParseDomain(c.Domain)
	if err != nil {
		return usageError{err}
	}
	out := initialised{Directory: filepath.Dir(cfg.Path), Hostname: cfg.Hostname, Domain: domain, Keys: encryptionOf(info), DNS: records(domain, cfg.Hostname)}
	out.list(cfg)
	return s.print(out, func(p *printer) {
		p.row("made", out.Directory, "for "+out.Domain+", host "+out.Hostname)
		p.line("")
		if !c.Loopback {
			p.line("Records to set in the DNS:")
			for _, r := range out.DNS {
				p.row("  "+r.Name, r.Type, r.Value, "; "+r.Why)
			}
			p.line("")
		}
		printBackup(p, out.Keys, out.Directory)
		p.line("")
		p.line("Next:")
		p.line(fmt.Sprintf("  %s account add you@%s --admin --dir %s", program(), out.Domain, shellQuote(out.Directory)))
		p.line(fmt.Sprintf("  %s serve --dir %s", program(), shellQuote(out.Directory)))
		p.line("The certificate is self-signed: other servers encrypt to it, mail programs ask. Put a trusted one at")
		p.line("  " + cfg.Certificates[0].Cert + " and " + cfg.Certificates[0].Key)
	})
}

// empty makes the directory of a server that a backup is restored into.
func (c *initCommand) empty(s *session) error {
	cfg, info, err := s.initialise(s.directory("."), "", c.Hostname, c.Loopback)
	if err != nil {
		return err
	}
	out := initialised{Directory: filepath.Dir(cfg.Path), Hostname: cfg.Hostname, Keys: encryptionOf(info), DNS: []dnsRecord{}}
	out.list(cfg)
	return s.print(out, func(p *printer) {
		p.row("made", out.Directory, "without a store, host "+out.Hostname)
		p.line("")
		printBackup(p, out.Keys, out.Directory)
		p.line("")
		p.line("Next: `" + program() + " backup restore --all --target TARGET --identity-file KEY --dir " + shellQuote(out.Directory) + "`")
	})
}

func (i *initialised) list(cfg *config.Config) {
	for _, l := range cfg.Listeners {
		i.Listeners = append(i.Listeners, string(l.Protocol)+" "+l.Address)
	}
}

// records lists what the DNS must say so that mail comes in and is believed on its way out.
func records(domain, hostname string) []dnsRecord {
	return []dnsRecord{
		{hostname + ".", "A", "<IPv4 address of this server>", "and AAAA when it has IPv6"},
		{domain + ".", "MX", "10 " + hostname + ".", "mail for the domain comes here"},
		{domain + ".", "TXT", `"v=spf1 mx -all"`, "only this server sends for the domain (RFC 7208)"},
		{"_dmarc." + domain + ".", "TXT", `"v=DMARC1; p=none; rua=mailto:postmaster@` + domain + `"`, "others report forgeries (RFC 7489)"},
		{"_submissions._tcp." + domain + ".", "SRV", "0 1 465 " + hostname + ".", "mail programs find the server (RFC 6186, 8314)"},
		{"_imaps._tcp." + domain + ".", "SRV", "0 1 993 " + hostname + ".", "the same"},
		{"_pop3s._tcp." + domain + ".", "SRV", "10 1 995 " + hostname + ".", "the same, less preferred"},
		{"<IPv4 address of this server>", "PTR", hostname + ".", "set by who gives you the address: others refuse mail without it"},
	}
}

// initialise makes the directory of a new server with its configuration, certificate, store and first domain. It
// overwrites nothing. Without a domain it makes no store. waxwing.toml is written last: a directory that has it is complete.
func (s *session) initialise(dir, domainText, hostname string, loopback bool) (cfg *config.Config, keys keyring.Info, err error) {
	domain := ""
	if domainText != "" {
		if domain, err = address.ParseDomain(domainText); err != nil {
			return nil, keys, usageError{err}
		}
	}
	if hostname == "" {
		hostname = "mx." + domain
	}
	fresh := config.Default()
	fresh.Hostname = hostname
	fresh.Encryption.Source, fresh.Encryption.File = config.KeyFile, "keys/master.key"
	fresh.Certificates = []config.Certificate{{Cert: "tls/cert.pem", Key: "tls/key.pem"}}
	fresh.Listeners = config.StandardListeners(loopback)
	var text bytes.Buffer
	if err := fresh.Write(&text); err != nil {
		return nil, keys, err
	}
	if _, err := config.Parse(config.FileName, text.Bytes()); err != nil {
		return nil, keys, err // a host name that can't be one
	}
	file := filepath.Join(dir, config.FileName)
	for _, name := range []string{file, filepath.Join(dir, fresh.DataDir), filepath.Join(dir, "tls"), filepath.Join(dir, "keys")} {
		if _, err := os.Lstat(name); err == nil {
			return nil, keys, control.Errorf(control.Conflict, "init: %s exists already: nothing is overwritten", name)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, keys, control.Errorf(control.Unavailable, "init: %w", err)
		}
	}
	if err := durable.OS.MkdirAll(filepath.Join(dir, "tls"), 0o700); err != nil {
		return nil, keys, control.Errorf(control.Unavailable, "init: %w", err)
	}
	names := []string{hostname}
	if loopback {
		names = append(names, "localhost", "127.0.0.1")
	}
	if err := writeCertificate(filepath.Join(dir, "tls"), names); err != nil {
		return nil, keys, err
	}
	// Written under another name first, as the store is opened by it.
	staged := file + ".new"
	if err := durable.WriteFile(durable.OS, staged, text.Bytes(), 0o600); err != nil {
		return nil, keys, control.Errorf(control.Unavailable, "init: %w", err)
	}
	loaded, err := config.Load(staged)
	if err != nil {
		return nil, keys, err
	}
	if keys, err = s.createStore(loaded, domain); err != nil {
		return nil, keys, err
	}
	if err := errors.Join(durable.OS.Rename(staged, file), durable.OS.SyncDir(dir)); err != nil {
		return nil, keys, control.Errorf(control.Unavailable, "init: %w", err)
	}
	cfg, err = config.Load(file)
	return cfg, keys, err
}

func writeCertificate(dir string, names []string) error {
	cert, key, err := certs.SelfSigned(names, time.Now())
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := durable.WriteFile(durable.OS, filepath.Join(dir, name), data, 0o600); err != nil {
			return control.Errorf(control.Unavailable, "init: %w", err)
		}
	}
	return nil
}

// createStore makes the data directory, its keys, and the store with its first domain.
func (s *session) createStore(cfg *config.Config, domain string) (keys keyring.Info, err error) {
	if err := server.CreateDataDir(cfg); err != nil {
		return keys, control.Errorf(control.Unavailable, "init: %w", err)
	}
	if keys, err = server.CreateKeys(s.ctx, cfg, true); err != nil || domain == "" {
		return keys, err
	}
	state, err := server.OpenState(s.ctx, cfg, s.logger())
	if err != nil {
		return keys, unavailable(err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	_, err = control.DomainAdd.Call(s.ctx, control.Direct(state.Control(nil)), control.Domain{Name: domain})
	return keys, err
}
