package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/control"
)

func runServer(ctx context.Context, s Subject) []result {
	if s.Carrier == nil {
		return []result{{Fail, "neither the server nor the store can be reached: " + s.Problem.Error(), "start the server with `waxwing serve`, or run this as the user that owns " + s.Config.DataDir}}
	}
	if !s.Carrier.Running() {
		return []result{{Warn, "the server is stopped; its store was opened by this command", "start it with `waxwing serve`"}}
	}
	st, err := control.ServerStatus.Call(ctx, s.Carrier, control.Done{})
	if err != nil {
		return []result{{Fail, "the server does not tell its state: " + err.Error(), "look into its log; restart it when it hangs"}}
	}
	out := []result{{OK, fmt.Sprintf("version %s runs as process %d since %s", st.Version, st.PID, st.Started.Format(time.RFC3339)), ""}}
	for _, c := range st.Conditions {
		if c.Problem != "" {
			out = append(out, result{Warn, fmt.Sprintf("%s: %s, since %s", c.Subject, c.Problem, c.Since.UTC().Format(time.RFC3339)), "look into the log of the server"})
		}
	}
	return out
}

// runListeners connects to each listener of a running server, and tries to bind those of a stopped one.
func runListeners(ctx context.Context, s Subject) []result {
	var out []result
	running := s.Carrier != nil && s.Carrier.Running()
	for _, l := range s.Config.Listeners {
		what := fmt.Sprintf("%s (%s) on %s", l.Protocol, l.TLS, l.Address)
		if running {
			out = append(out, connectTo(ctx, what, l.Address))
		} else {
			out = append(out, bindTo(ctx, what, l.Address))
		}
	}
	return out
}

func connectTo(ctx context.Context, what, address string) result {
	host, port, err := net.SplitHostPort(address)
	if err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return result{Fail, what + " can't be reached: " + err.Error(), "look into the log; a listener that was added to waxwing.toml needs a restart"}
	}
	if err := c.Close(); err != nil {
		return result{Warn, what + " takes connections, but closing one failed: " + err.Error(), ""}
	}
	return result{OK, what + " takes connections", ""}
}

func bindTo(ctx context.Context, what, address string) result {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return result{Fail, what + ": another program has this port", "find it with `ss -ltnp`, and stop it or change the listener"}
	case errors.Is(err, syscall.EACCES):
		return result{Warn, what + ": this user may not bind the port", "run the server under systemd with CAP_NET_BIND_SERVICE or socket activation"}
	case err != nil:
		return result{Fail, what + " can't be bound: " + err.Error(), "see that the address belongs to this machine"}
	}
	if err := l.Close(); err != nil {
		return result{Warn, what + " could be bound, but not closed: " + err.Error(), ""}
	}
	return result{OK, what + " is free to be bound", ""}
}

// Days before its end at which a certificate is worth a word.
const (
	certSoon = 21 * 24 * time.Hour
	certNow  = 3 * 24 * time.Hour
)

func runCertificates(_ context.Context, s Subject) []result {
	var out []result
	for _, c := range s.Config.Certificates {
		out = append(out, certificate(c, s))
	}
	if len(out) == 0 {
		return []result{{Fail, "no certificate is configured", "`waxwing init` makes a self-signed one; see [[certificate]] in the reference"}}
	}
	return out
}

func certificate(c config.Certificate, s Subject) result {
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return result{Fail, "can't be used: " + err.Error(), "put a certificate and its key at " + c.Cert + " and " + c.Key}
	}
	leaf := pair.Leaf
	names := strings.Join(leaf.DNSNames, ", ")
	left := leaf.NotAfter.Sub(s.Clock())
	seen := fmt.Sprintf("%s, for %s, until %s", c.Cert, names, leaf.NotAfter.UTC().Format(time.DateOnly))
	switch {
	case left <= 0:
		return result{Fail, seen + ": expired", "replace the files; they are taken up within a minute"}
	case s.Clock().Before(leaf.NotBefore):
		return result{Fail, seen + ": not valid yet", "see that the clock is right"}
	case leaf.VerifyHostname(s.Config.Hostname) != nil && len(s.Config.Certificates) == 1:
		return result{Fail, seen + ": not for the host name " + s.Config.Hostname, "get a certificate for " + s.Config.Hostname}
	case left < certNow:
		return result{Fail, seen + ": expires in " + days(left), "renew it now"}
	case left < certSoon:
		return result{Warn, seen + ": expires in " + days(left), "renew it"}
	case certs.SelfIssued(leaf):
		return result{Warn, seen + ": self-signed", "other servers encrypt to it all the same; people's mail programs ask. A certificate of a public authority ends that"}
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Intermediates: intermediates(pair), CurrentTime: s.Clock()}); err != nil {
		return result{Warn, seen + ": " + err.Error(), "put the whole chain behind the certificate in its file"}
	}
	return result{OK, seen, ""}
}

func intermediates(pair tls.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(c)
		}
	}
	return pool
}

func days(d time.Duration) string { return fmt.Sprintf("%d days", int(d.Hours()/24)) }

func runSample(ctx context.Context, s Subject) []result {
	if s.Carrier == nil {
		return []result{{Fail, "not examined: the store can't be reached", ""}}
	}
	got, err := control.StoreSample.Call(ctx, s.Carrier, control.SampleRequest{Messages: s.Sample})
	if err != nil {
		return []result{{Fail, "the sample could not be read: " + err.Error(), "look into the log of the server, and at the disk"}}
	}
	if len(got.Damaged) > 0 {
		return []result{{Fail, fmt.Sprintf("%d of %d messages are damaged: %s", len(got.Damaged), got.Checked, strings.Join(got.Damaged, "; ")), "bring these messages back from a backup; look at the disk's own report (smartctl)"}}
	}
	return []result{{OK, fmt.Sprintf("%d messages chosen at random, %s, are whole", got.Checked, config.Size(got.Octets).Human()), ""}}
}

// longQueue is the age of the oldest message that is worth a word.
const longQueue = 4 * time.Hour

func runQueue(ctx context.Context, s Subject) []result {
	if s.Carrier == nil {
		return []result{{Fail, "not examined: the store can't be reached", ""}}
	}
	c, err := control.QueueCount.Call(ctx, s.Carrier, control.Done{})
	if err != nil {
		return []result{{Fail, "the queue can't be counted: " + err.Error(), "look into the log of the server"}}
	}
	if c.Messages == 0 {
		return []result{{OK, "empty", ""}}
	}
	age := s.Clock().Sub(c.Oldest).Round(time.Second)
	seen := fmt.Sprintf("%d messages to %d destinations, the oldest waits for %s; %d recipients held", c.Messages, c.Destinations, age, c.Held)
	var out []result
	if c.Damaged > 0 {
		out = append(out, result{Fail, fmt.Sprintf("%d recipients are set aside, as their rows or messages can't be read", c.Damaged), "see `waxwing queue list --state damaged`; drop them with --silent once they are dealt with"})
	}
	if age > longQueue {
		return append(out, result{Warn, seen, "`waxwing queue list` shows what the other servers said"})
	}
	return append(out, result{OK, seen, ""})
}
