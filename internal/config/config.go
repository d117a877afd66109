// Package config is what one node needs to start, read from the file waxwing.toml: its host name, data directory,
// listeners, certificates, resolvers, log and limits.
//
// It is one of two layers. Everything about the mail system itself (domains, accounts, policies) is a setting and lives
// in the store; nothing is read from the environment. The file is TOML 1.0, read strictly: an unknown key is an error
// with its line, its column and a suggestion, and so is a value out of range. Every default stands in Default and is
// documented in docs/reference/waxwing.toml.md, which is generated from the types of this package.
//
//	cfg, err := config.Load("/var/lib/waxwing/waxwing.toml")
package config

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

//go:generate go run ./reference -o ../../docs/reference/waxwing.toml.md

// FileName is the name of the file in the directory that the commands take as --dir.
const FileName = "waxwing.toml"

// Config is one node's configuration. Relative paths in the file are relative to the file's own directory; Load makes
// them absolute.
type Config struct {
	Hostname     string        `toml:"hostname" doc:"Host name of this node as other servers see it: in greetings, EHLO, Received and Message-ID. A fully qualified domain name that resolves to this node."`
	DataDir      string        `toml:"data_dir" doc:"Directory of the database, the message packs, the spool and the control socket. Relative to this file. Two servers on one directory are refused."`
	Store        Store         `toml:"store" doc:"Where the rows of mailboxes, queue and directory are kept."`
	Encryption   Encryption    `toml:"encryption" doc:"Encryption at rest: where the master key comes from that wraps the keys of stored messages. Init makes one and writes source = file; without this table messages are stored as they are. A store that has keys does not open without its master key."`
	Certificates []Certificate `toml:"certificate" doc:"TLS certificates. The first one serves clients that name no host or an unknown one; the others are chosen by the name that the client asks for (SNI)."`
	Listeners    []Listener    `toml:"listener" doc:"Sockets that take connections."`
	SMTP         SMTPServer    `toml:"smtp" doc:"The reception of mail from other servers."`
	LMTP         LMTPServer    `toml:"lmtp" doc:"The reception of mail by LMTP."`
	DNS          DNS           `toml:"dns" doc:"Name resolution."`
	Transport    Transport     `toml:"transport" doc:"How mail leaves this node."`
	Limits       Limits        `toml:"limits" doc:"Bounds on what peers may use of this node. The size of a message and the number of its recipients are settings."`
	Spool        Spool         `toml:"spool" doc:"Where incoming messages wait until they are committed."`
	Log          Log           `toml:"log" doc:"The log, on standard error."`
	Metrics      Metrics       `toml:"metrics" doc:"Metrics in Prometheus format and the health page, on loopback only."`

	// Path is the file that this configuration was read from, "" when it was not read from a file.
	Path string `toml:"-"`
}

// Driver is the kind of database that holds the rows.
type Driver string

// The databases.
const (
	SQLite   Driver = "sqlite"   // embedded, in the data directory
	Postgres Driver = "postgres" // a server of its own
)

// Store is where the rows are kept.
type Store struct {
	Driver  Driver `toml:"driver" oneof:"sqlite postgres" doc:"sqlite (embedded, in the data directory) or postgres."`
	DSNFile string `toml:"dsn_file" doc:"File whose first line is the connection string of PostgreSQL, e.g. postgres://user:password@db.example.net/waxwing?sslmode=verify-full; readable by the server alone. Relative to this file. A server beyond loopback needs sslmode verify-full or verify-ca."`
	S3      *S3    `toml:"s3" doc:"A bucket for the octets of messages, in place of packs in the data directory; with postgres only. What is new stands in PostgreSQL and is moved to sealed objects in the background; messages above 1 MiB go to the bucket at once."`
}

// Encryption says where the master key of encryption at rest comes from.
type Encryption struct {
	Source     KeySource `toml:"source" oneof:"none file credential command" doc:"none: messages are stored as they are. file: the key stands in file. credential: systemd hands it over, with LoadCredentialEncrypted= or LoadCredential= in the unit. command: a program prints it, a client of a key management service say."`
	File       string    `toml:"file" doc:"The file of source = file, readable by the server alone (mode 0600). Relative to this file. Keep it, and above all its backup, away from the data."`
	Credential string    `toml:"credential" doc:"Name of the credential of source = credential, in the directory that systemd names in CREDENTIALS_DIRECTORY."`
	Command    []string  `toml:"command" doc:"Program, by its full path, and arguments of source = command. No shell reads them. It prints the key on standard output: the text of a master key file, 64 hexadecimal digits, or 32 octets in base64."`
	Timeout    Duration  `toml:"timeout" min:"1s" max:"5m" doc:"How long the command may take."`
}

// KeySource is a kind of source of the master key.
type KeySource string

// The sources.
const (
	KeyNone       KeySource = "none"
	KeyFile       KeySource = "file"
	KeyCredential KeySource = "credential"
	KeyCommand    KeySource = "command"
)

// S3 is a bucket of a service that speaks S3's protocol.
type S3 struct {
	Endpoint        string `toml:"endpoint" doc:"Host, or host and port, of the service, e.g. \"s3.eu-central-1.amazonaws.com\"."`
	Bucket          string `toml:"bucket" doc:"The bucket. It must be there. Only this server may write below prefix."`
	Prefix          string `toml:"prefix" doc:"What the names of all objects begin with, e.g. \"mail/\"."`
	Region          string `toml:"region" doc:"Region of the bucket, empty when the service has none."`
	CredentialsFile string `toml:"credentials_file" doc:"File whose first line is the access key and whose second line is the secret key; readable by the server alone. Relative to this file."`
	Plain           bool   `toml:"plain" doc:"Speak HTTP without TLS. Only to loopback."`
}

// Certificate names the files of one certificate.
type Certificate struct {
	Cert string `toml:"cert" doc:"PEM file: the certificate first, then its chain."`
	Key  string `toml:"key" doc:"PEM file of the private key, readable by the server alone."`
}

// Protocol is what is spoken on a listener.
type Protocol string

// The protocols of this server.
const (
	SMTP       Protocol = "smtp"       // mail from other servers
	Submission Protocol = "submission" // mail from authenticated users
	IMAP       Protocol = "imap"
	POP3       Protocol = "pop3"
	LMTP       Protocol = "lmtp"  // mail for mailboxes here, from trusted programs (RFC 2033)
	Sieve      Protocol = "sieve" // ManageSieve
)

// TLSMode is when TLS begins on a listener. There is no mode without TLS, as no password may cross a network in plaintext.
type TLSMode string

// The TLS modes.
const (
	StartTLS TLSMode = "starttls" // on the client's command
	Implicit TLSMode = "implicit" // before anything else
)

// Listener is one listening socket.
type Listener struct {
	Address  string   `toml:"address" doc:"Host and port, e.g. \":25\", \"192.0.2.1:25\" or \"[2001:db8::1]:25\". \":25\" is every IPv4 and IPv6 address. For lmtp also \"unix:\" and a path: a socket in the file system, for programs of the server's own user and group."`
	Protocol Protocol `toml:"protocol" doc:"smtp (mail from other servers), submission (mail from users), imap, pop3, sieve (ManageSieve) or lmtp (mail for mailboxes here, from trusted programs)."`
	TLS      TLSMode  `toml:"tls" doc:"starttls or implicit. smtp and lmtp take only starttls, which is the default of lmtp."`
	Proxy    []string `toml:"proxy" doc:"Addresses and networks of proxies in front of this listener, e.g. [\"10.0.0.5/32\"]. When it isn't empty each connection must come from them and begin with a header of the PROXY protocol, version 1 or 2, that names the client; every other one is closed. TLS begins behind the header."`
	Name     string   `toml:"name" doc:"Name of a socket that systemd passes in (FileDescriptorName=). By default protocol and TLS mode, e.g. imap-implicit. When systemd passes a socket of this name, it is used in place of the address."`
}

// SocketName is the name under which systemd passes this listener's socket.
func (l Listener) SocketName() string {
	if l.Name != "" {
		return l.Name
	}
	return string(l.Protocol) + "-" + string(l.TLS)
}

// SMTPServer is the reception of mail from other servers.
type SMTPServer struct {
	XClient []string `toml:"xclient" doc:"Addresses and networks of proxies and test beds that may name the true client by XCLIENT, e.g. [\"127.0.0.1/32\"]. What they say is believed."`
}

// LMTPServer is the reception of mail by LMTP.
type LMTPServer struct {
	Clients []string `toml:"clients" doc:"Addresses and networks beyond this machine that may deliver by LMTP, e.g. [\"192.0.2.10\"]. They are trusted: no front door and no check of senders stands before them. Loopback and sockets of the file system need no entry."`
}

// DNS is name resolution.
type DNS struct {
	Resolvers []string `toml:"resolvers" doc:"Resolvers as address:port, asked in this order. Empty: those of /etc/resolv.conf."`
	Trusted   bool     `toml:"trusted" doc:"Believe the resolvers' DNSSEC verdict (the AD bit) although they are not on loopback. Set it only where the path to them can't be tampered with."`
	Timeout   Duration `toml:"timeout" min:"100ms" max:"1m" doc:"How long one query waits before the next resolver is asked."`
}

// Transport is how mail leaves this node.
type Transport struct {
	Port           int               `toml:"port" min:"1" max:"65535" doc:"Port of other servers. Anything but 25 is for test beds."`
	Routes         map[string]string `toml:"routes" doc:"Fixed next hops: domain = \"host:port\", or \"lmtp:host:port\" and \"lmtp:unix:/path\" for a server that is spoken to by LMTP. The domain's MX records are then not looked up. \"*\" is every domain without a line of its own."`
	CAFile         string            `toml:"ca_file" doc:"PEM file of certificate authorities trusted in place of the system's, for test beds and private networks."`
	MTASTSPort     int               `toml:"mta_sts_port" min:"1" max:"65535" doc:"Port of the web servers that other domains' MTA-STS policies are fetched from. Anything but 443 is for test beds."`
	SmartHost      *SmartHost        `toml:"smart_host" doc:"A server that takes all outgoing mail in place of direct delivery. Domains in routes keep their own next hop."`
	Concurrency    int               `toml:"concurrency" min:"1" max:"10000" doc:"Deliveries to other servers under way at one time."`
	PerDestination int               `toml:"per_destination" min:"1" max:"1000" doc:"Connections to one destination at one time. Fewer are used while it answers slowly or refuses."`
	FirstRetry     Duration          `toml:"first_retry" min:"1s" max:"24h" doc:"Wait after the first temporary failure; it doubles with each failure up to max_retry."`
	MaxRetry       Duration          `toml:"max_retry" min:"1s" max:"48h" doc:"Longest wait between two attempts."`
	WarnAfter      Duration          `toml:"warn_after" min:"1m" max:"240h" doc:"The sender is told once that a message is delayed after this time."`
}

// SmartHost is a server that relays all outgoing mail of this node.
type SmartHost struct {
	Address      string  `toml:"address" doc:"Host and port, e.g. \"smtp.example.net:587\". Its certificate must be valid for this host name."`
	TLS          TLSMode `toml:"tls" doc:"starttls or implicit."`
	Username     string  `toml:"username" doc:"User name, empty for none."`
	PasswordFile string  `toml:"password_file" doc:"File that holds the password, readable by the server alone. Relative to this file."`
}

// Limits are bounds on what peers may use.
type Limits struct {
	Hops             int      `toml:"hops" min:"10" max:"200" doc:"Received fields before a message counts as looping."`
	Sessions         int      `toml:"sessions" min:"1" max:"1000000" doc:"Sessions of one protocol at one time."`
	SessionsPerPeer  int      `toml:"sessions_per_peer" min:"1" max:"100000" doc:"Sessions of one protocol from one address (IPv6: one /64). Loopback is exempt."`
	ShutdownGrace    Duration `toml:"shutdown_grace" min:"1s" max:"5m" doc:"How long commands under way may take to finish after SIGTERM."`
	PasswordHashings int      `toml:"password_hashings" min:"0" max:"1024" doc:"Password verifications computed at one time, 19 MiB of memory each; 0 is one a core."`
}

// Spool is where incoming messages wait until they are committed.
type Spool struct {
	Dir         string `toml:"dir" doc:"Directory for messages above 256 KiB while they come in; they have no name there. Relative to this file; by default the folder spool of data_dir."`
	MaxBytes    Size   `toml:"max_bytes" min:"64MiB" max:"1TiB" doc:"Octets of all messages coming in at one time; beyond it peers are asked to try later."`
	DiskReserve Size   `toml:"disk_reserve" min:"16MiB" max:"1TiB" doc:"Free space of the disk below which no mail is taken."`
}

// Log is the log on standard error.
type Log struct {
	Level  slog.Level `toml:"level" doc:"debug, info, warn or error. Taken anew on SIGHUP."`
	Format string     `toml:"format" oneof:"text json" doc:"text or json."`
}

// Metrics is the listener of metrics and health.
type Metrics struct {
	Address string `toml:"address" doc:"Loopback address and port of /metrics and /healthz, e.g. \"127.0.0.1:9325\". Empty: none."`
}

// Default is the configuration of a file that says nothing but its host name.
func Default() Config {
	return Config{
		DataDir:    "data",
		Store:      Store{Driver: SQLite},
		Encryption: Encryption{Source: KeyNone, Timeout: Duration(10 * time.Second)},
		DNS:        DNS{Timeout: Duration(5 * time.Second)},
		Transport: Transport{
			Port:           25,
			MTASTSPort:     443,
			Concurrency:    100,
			PerDestination: 5,
			FirstRetry:     Duration(5 * time.Minute),
			MaxRetry:       Duration(70 * time.Minute),
			WarnAfter:      Duration(4 * time.Hour),
		},
		Limits: Limits{
			Hops:            50,
			Sessions:        10000,
			SessionsPerPeer: 50,
			ShutdownGrace:   Duration(30 * time.Second),
		},
		Spool:   Spool{MaxBytes: 1 << 30, DiskReserve: 256 << 20},
		Log:     Log{Level: slog.LevelInfo, Format: "text"},
		Metrics: Metrics{},
	}
}

// standardPorts lists the listeners that init writes.
var standardPorts = []struct {
	port     int
	protocol Protocol
	tls      TLSMode
}{
	{25, SMTP, StartTLS},
	{465, Submission, Implicit},
	{587, Submission, StartTLS},
	{143, IMAP, StartTLS},
	{993, IMAP, Implicit},
	{110, POP3, StartTLS},
	{995, POP3, Implicit},
	{4190, Sieve, StartTLS},
}

// LoopbackOffset is added to each standard port by --loopback.
const LoopbackOffset = 10000

// StandardListeners are the listeners on the standard ports of every address, or with loopback those on 127.0.0.1 and
// the ports 10000 above.
func StandardListeners(loopback bool) []Listener {
	out := make([]Listener, 0, len(standardPorts))
	for _, s := range standardPorts {
		l := Listener{Protocol: s.protocol, TLS: s.tls}
		if loopback {
			l.Address = joinPort("127.0.0.1", s.port+LoopbackOffset)
		} else {
			l.Address = joinPort("", s.port)
		}
		out = append(out, l)
	}
	return out
}

// resolvePaths makes the relative paths absolute, seen from dir.
func (c *Config) resolvePaths(dir string) {
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	abs(&c.DataDir)
	if c.Spool.Dir == "" {
		c.Spool.Dir = filepath.Join(c.DataDir, "spool")
	}
	abs(&c.Spool.Dir)
	abs(&c.Store.DSNFile)
	if s := c.Store.S3; s != nil {
		abs(&s.CredentialsFile)
	}
	for i := range c.Certificates {
		abs(&c.Certificates[i].Cert)
		abs(&c.Certificates[i].Key)
	}
	for i := range c.Listeners {
		if path := UnixPath(c.Listeners[i].Address); path != "" {
			abs(&path)
			c.Listeners[i].Address = "unix:" + path
		}
	}
	abs(&c.Encryption.File)
	abs(&c.Transport.CAFile)
	if s := c.Transport.SmartHost; s != nil {
		abs(&s.PasswordFile)
	}
}

// XClients are the networks of SMTP.XClient. Parse has checked them.
func (c *Config) XClients() []netip.Prefix {
	return prefixes(c.SMTP.XClient)
}

func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		if p, err := parsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// LMTPClients are the networks of LMTP.Clients. Parse has checked them.
func (c *Config) LMTPClients() []netip.Prefix {
	return prefixes(c.LMTP.Clients)
}

// UnixPath is the path of an address "unix:/path", "" for others.
func UnixPath(address string) string {
	path, _ := strings.CutPrefix(address, "unix:")
	if path == address {
		return ""
	}
	return path
}

// Proxies are the networks of Proxy. Parse has checked them.
func (l Listener) Proxies() []netip.Prefix { return prefixes(l.Proxy) }

// parsePrefix reads a network, or an address as a network of one.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

// Loopback tells whether the host of an address is a loopback address.
func Loopback(address string) bool {
	host, _, err := splitPort(address)
	return err == nil && (isLoopbackIP(host) || strings.EqualFold(host, "localhost"))
}
