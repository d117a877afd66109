package postgres

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errPlain says why a connection string is refused.
var errPlain = errors.New("the connection would not be safe from eavesdroppers: set sslmode=verify-full (or verify-ca) and sslrootcert, or use a socket or loopback")

// parse reads a connection string and sets what the store needs. A server that is neither on loopback nor behind a socket
// must be spoken to with TLS, and its certificate must be verified, on every address that the string may lead to.
func parse(dsn string) (*pgx.ConnConfig, error) {
	if strings.TrimSpace(dsn) == "" {
		return nil, errors.New("postgres: the connection string is empty")
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		// pgx leaves the password out of this error, but not what else a mistyped string may hold.
		return nil, errors.New("postgres: the connection string can't be read: write postgres://user:password@host/database?sslmode=verify-full")
	}
	if !safe(cfg.Host, cfg.TLSConfig) {
		return nil, fmt.Errorf("postgres: host %s: %w", cfg.Host, errPlain)
	}
	for _, f := range cfg.Fallbacks {
		if !safe(f.Host, f.TLSConfig) {
			return nil, fmt.Errorf("postgres: host %s: %w", f.Host, errPlain)
		}
	}
	cfg.ConnectTimeout = connectTimeout
	cfg.DialFunc = (&net.Dialer{
		Timeout:         connectTimeout,
		Control:         boundUnanswered,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveEvery, Count: keepAliveCount},
	}).DialContext
	// The server looks after this side too: the locks of a node that is gone must not outlive it by much.
	for k, v := range map[string]string{
		"application_name": "waxwing", "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
		"tcp_user_timeout":                    strconv.FormatInt(unansweredTime.Milliseconds(), 10),
		"idle_in_transaction_session_timeout": "60s", "default_transaction_isolation": "read committed",
	} {
		if _, set := cfg.RuntimeParams[k]; !set || k == "default_transaction_isolation" {
			cfg.RuntimeParams[k] = v
		}
	}
	cfg.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	return cfg, nil
}

// safe tells whether nobody on the way can read or change what goes to this server.
func safe(host string, t *tls.Config) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.EqualFold(host, "localhost") {
		return true
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		return true
	}
	// With verify-ca pgx verifies the chain by itself: InsecureSkipVerify is set, and so is VerifyPeerCertificate.
	return t != nil && (!t.InsecureSkipVerify || t.VerifyPeerCertificate != nil)
}
