package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// checker collects what is wrong with a configuration that parses.
type checker struct {
	file     string
	places   map[string]place
	problems Problems
}

// bad reports a problem at a key, or at the nearest table above it that stands in the file.
func (c *checker) bad(key, format string, args ...any) {
	p := Problem{File: c.file, Key: key, Text: fmt.Sprintf(format, args...)}
	at := nearestPlace(c.places, key)
	p.Line, p.Column = at.line, at.column
	c.problems = append(c.problems, p)
}

func (c *checker) config(cfg *Config) {
	c.ranges("", reflect.ValueOf(cfg).Elem())
	c.hostname(cfg)
	if cfg.DataDir == "" {
		c.bad("data_dir", "must not be empty")
	}
	if (cfg.Store.Driver == Postgres) != (cfg.Store.DSNFile != "") {
		c.bad("store.dsn_file", "belongs to the driver postgres: set both or neither")
	}
	c.bucket(&cfg.Store)
	for i, cert := range cfg.Certificates {
		key := "certificate." + strconv.Itoa(i)
		if cert.Cert == "" {
			c.bad(key+".cert", "is missing")
		}
		if cert.Key == "" {
			c.bad(key+".key", "is missing")
		}
	}
	if len(cfg.Listeners) > 0 && len(cfg.Certificates) == 0 {
		c.bad("certificate", "is missing: every listener needs TLS; `waxwing init` makes a self-signed certificate")
	}
	c.encryption(&cfg.Encryption)
	c.listeners(cfg)
	for i, x := range cfg.SMTP.XClient {
		if _, err := parsePrefix(x); err != nil {
			c.bad("smtp.xclient."+strconv.Itoa(i), "%q is not an address or network such as \"127.0.0.1/32\"", x)
		}
	}
	for i, x := range cfg.LMTP.Clients {
		if _, err := parsePrefix(x); err != nil {
			c.bad("lmtp.clients."+strconv.Itoa(i), "%q is not an address or network such as \"192.0.2.10\"", x)
		}
	}
	for i, r := range cfg.DNS.Resolvers {
		host, port, err := splitPort(r)
		if err != nil || port == 0 {
			c.bad("dns.resolvers."+strconv.Itoa(i), "%q is not address:port, e.g. \"127.0.0.1:53\"", r)
		} else if _, err := netip.ParseAddr(host); err != nil {
			c.bad("dns.resolvers."+strconv.Itoa(i), "%q is not an IP address: a resolver can't be looked up by name", host)
		}
	}
	c.transport(&cfg.Transport)
	if a := cfg.Metrics.Address; a != "" {
		if _, _, err := splitPort(a); err != nil {
			c.bad("metrics.address", "%q %v", a, err)
		} else if !Loopback(a) {
			c.bad("metrics.address", "%q is not a loopback address: metrics tell too much to be open", a)
		}
	}
}

func (c *checker) bucket(s *Store) {
	b := s.S3
	if b == nil {
		return
	}
	if s.Driver != Postgres {
		c.bad("store.s3", "belongs to the driver postgres: what is new stands in the database")
	}
	for _, f := range [][2]string{{"endpoint", b.Endpoint}, {"bucket", b.Bucket}, {"credentials_file", b.CredentialsFile}} {
		if f[1] == "" {
			c.bad("store.s3."+f[0], "is missing")
		}
	}
	if strings.Contains(b.Endpoint, "/") {
		c.bad("store.s3.endpoint", "%q is not a host, or a host and port", b.Endpoint)
	}
	if b.Plain && !Loopback(b.Endpoint) {
		c.bad("store.s3.plain", "would send mail in plaintext to %s: only for host:port on loopback", b.Endpoint)
	}
}

func (c *checker) hostname(cfg *Config) {
	if cfg.Hostname == "" {
		c.bad("hostname", "is missing: the name under which other servers know this node, e.g. \"mx.example.com\"")
		return
	}
	name, err := idna.Lookup.ToASCII(strings.ToLower(strings.TrimSuffix(cfg.Hostname, ".")))
	if err != nil || len(name) > 253 || strings.ContainsAny(name, " /:@[]_") || name == "" {
		c.bad("hostname", "%q is not a host name", cfg.Hostname)
		return
	}
	if !strings.Contains(name, ".") {
		c.bad("hostname", "%q is not fully qualified: other servers refuse such a name in EHLO", cfg.Hostname)
		return
	}
	cfg.Hostname = name
}

// encryption checks that the source has what it needs.
func (c *checker) encryption(e *Encryption) {
	switch e.Source {
	case KeyFile:
		if e.File == "" {
			c.bad("encryption.file", "is missing: the file that holds the master key, e.g. \"keys/master.key\"")
		}
	case KeyCredential:
		if e.Credential == "" || strings.ContainsAny(e.Credential, "/\x00") {
			c.bad("encryption.credential", "%q is not the name of a credential, e.g. \"waxwing-master-key\"", e.Credential)
		}
	case KeyCommand:
		if len(e.Command) == 0 || !filepath.IsAbs(e.Command[0]) {
			c.bad("encryption.command", "must begin with the full path of a program, e.g. [\"/usr/local/bin/master-key\"]")
		}
	}
}

func (c *checker) listeners(cfg *Config) {
	used := map[string]int{}
	for i, l := range cfg.Listeners {
		key := "listener." + strconv.Itoa(i)
		if !slices.Contains([]Protocol{SMTP, Submission, IMAP, POP3, LMTP, Sieve}, l.Protocol) {
			c.bad(key+".protocol", "%q is not one of smtp, submission, imap, pop3, lmtp, sieve", string(l.Protocol))
		}
		if l.Protocol == LMTP && l.TLS == "" {
			l.TLS = StartTLS
			cfg.Listeners[i].TLS = StartTLS
		}
		if l.TLS != StartTLS && l.TLS != Implicit {
			c.bad(key+".tls", "%q is not one of starttls, implicit", string(l.TLS))
		}
		if l.Protocol == SMTP && l.TLS == Implicit {
			c.bad(key+".tls", "smtp begins in plaintext (RFC 3207): use starttls, or the protocol submission")
		}
		for j, text := range l.Proxy {
			if _, err := parsePrefix(text); err != nil {
				c.bad(fmt.Sprintf("%s.proxy.%d", key, j), "%q is not an address or network such as 192.0.2.0/24", text)
			}
		}
		if l.Protocol == LMTP && l.TLS == Implicit {
			c.bad(key+".tls", "lmtp begins in plaintext: use starttls")
		}
		if path, unix := strings.CutPrefix(l.Address, "unix:"); unix {
			c.socket(key+".address", l, path, used, i)
			continue
		}
		host, port, err := splitPort(l.Address)
		if err != nil {
			c.bad(key+".address", "%q %v", l.Address, err)
			continue
		}
		if host != "" && !strings.EqualFold(host, "localhost") {
			if _, err := netip.ParseAddr(host); err != nil {
				c.bad(key+".address", "%q is not an IP address: a listener binds addresses, not names", host)
			}
		}
		at := net.JoinHostPort(host, strconv.Itoa(port))
		if first, dup := used[at]; dup && port != 0 {
			c.bad(key+".address", "%q is taken by listener.%d", l.Address, first)
			continue
		}
		used[at] = i
	}
}

// socket checks a listener on a socket of the file system.
func (c *checker) socket(key string, l Listener, path string, used map[string]int, i int) {
	switch first, dup := used[l.Address]; {
	case l.Protocol != LMTP:
		c.bad(key, "%q is a socket of the file system: only lmtp has one", l.Address)
	case path == "" || len(path) > 100 || strings.ContainsRune(path, 0): // sun_path has 108 octets
		c.bad(key, "%q is not a path of 1 to 100 octets", path)
	case dup:
		c.bad(key, "%q is taken by listener.%d", l.Address, first)
	}
	used[l.Address] = i
}

func (c *checker) transport(t *Transport) {
	if t.MaxRetry < t.FirstRetry {
		c.bad("transport.max_retry", "%s is shorter than first_retry, %s", t.MaxRetry, t.FirstRetry)
	}
	for domain, hop := range t.Routes {
		key := "transport.routes." + domain
		next, lmtp := strings.CutPrefix(hop, "lmtp:")
		if lmtp && filepath.IsAbs(UnixPath(next)) && len(UnixPath(next)) <= 100 {
			continue
		}
		if host, port, err := splitPort(next); err != nil || host == "" || port == 0 {
			c.bad(key, "%q is not host:port, lmtp:host:port or lmtp:unix:/path", hop)
		}
		if _, err := idna.Lookup.ToASCII(domain); err != nil && domain != "*" {
			c.bad(key, "%q is not a domain", domain)
		}
	}
	s := t.SmartHost
	if s == nil {
		return
	}
	if t.Routes["*"] != "" {
		c.bad("transport.smart_host", "says the same as the route \"*\": keep one of them")
	}
	if host, port, err := splitPort(s.Address); err != nil || host == "" || port == 0 {
		c.bad("transport.smart_host.address", "%q is not host:port", s.Address)
	}
	if s.TLS != StartTLS && s.TLS != Implicit {
		c.bad("transport.smart_host.tls", "%q is not one of starttls, implicit", string(s.TLS))
	}
	if (s.Username == "") != (s.PasswordFile == "") {
		c.bad("transport.smart_host.password_file", "username and password_file belong together")
	}
}

// ranges checks the bounds that the min, max and oneof tags state.
func (c *checker) ranges(prefix string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("toml")
		if name == "-" {
			continue
		}
		key, fv := join(prefix, name), v.Field(i)
		if list := f.Tag.Get("oneof"); list != "" && !slices.Contains(strings.Fields(list), fv.String()) {
			c.bad(key, "%q is not one of %s", fv.String(), strings.Join(strings.Fields(list), ", "))
		}
		if lo, hi := f.Tag.Get("min"), f.Tag.Get("max"); lo != "" {
			n, low, high := fv.Int(), bound(fv, lo), bound(fv, hi)
			if n < low || n > high {
				c.bad(key, "%v is out of range: from %s to %s", fv.Interface(), lo, hi)
			}
		}
		if fv.Kind() == reflect.Struct {
			c.ranges(key, fv)
		}
	}
}

// bound reads a min or max tag in the unit of the field. The tags are constants of this package, and the test of the
// defaults reads them all: one that is wrong bounds the field to nothing and fails there.
func bound(field reflect.Value, text string) int64 {
	switch field.Interface().(type) {
	case Duration:
		d, err := parseDuration(text)
		if err != nil {
			return -1
		}
		return int64(d)
	case Size:
		z, err := ParseSize(text)
		if err != nil {
			return -1
		}
		return int64(z)
	default:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
}
