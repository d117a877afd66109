package rig

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"waxwing/internal/porttest"
)

// Milter is a program that speaks the milter protocol.
type Milter struct {
	Address string       // as `waxwing milter add` takes it
	Stop    func() error // may be called again
}

// Rspamd starts Debian's rspamd as a milter, with its own rules and without the Internet: nameserver must answer at once.
func Rspamd(ctx context.Context, dir, nameserver string) (*Milter, error) {
	ports, err := porttest.Reserve(1)
	if err != nil {
		return nil, err
	}
	address := Loopback(ports[0])
	for name, text := range map[string]string{
		"worker-normal.inc":     "enabled = false;\n",
		"worker-controller.inc": "enabled = false;\n",
		"worker-fuzzy.inc":      "enabled = false;\n",
		"worker-proxy.inc": fmt.Sprintf("bind_socket = %q;\nmilter = yes;\ntimeout = 60s;\ncount = 1;\n"+
			"upstream \"local\" { default = yes; self_scan = yes; }\n", address),
		"milter_headers.conf": "use = [\"x-spamd-result\", \"x-rspamd-server\"];\n",
		"options.inc":         fmt.Sprintf("dns { nameserver = [%q]; timeout = 0.5s; retransmits = 1; }\n", nameserver),
		"logging.inc":         "type = \"console\";\nlevel = \"notice\";\n",
	} {
		path := filepath.Join(dir, "local.d", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	_, stop, err := process(dir, "rspamd", "-f", "-i", "-c", "/etc/rspamd/rspamd.conf", "--var=LOCAL_CONFDIR="+dir,
		"--var=DBDIR="+dir, "--var=RUNDIR="+dir, "--var=LOGDIR="+dir)
	return started(ctx, address, stop, err, "rspamd")
}

// OpenDKIM starts Debian's opendkim as a milter that signs mail of a domain.
func OpenDKIM(ctx context.Context, dir, domain string) (*Milter, error) {
	ports, err := porttest.Reserve(1)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "dkim.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "opendkim.conf")
	lines := fmt.Sprintf("Domain %s\nSelector test\nKeyFile %s\nMode s\nSocket inet:%d@127.0.0.1\nCanonicalization relaxed/relaxed\nRequireSafeKeys no\n",
		domain, file, ports[0])
	if err := os.WriteFile(conf, []byte(lines), 0o600); err != nil {
		return nil, err
	}
	_, stop, err := process(dir, "opendkim", "-f", "-x", conf)
	return started(ctx, Loopback(ports[0]), stop, err, "opendkim")
}

// started waits until a program takes connections.
func started(ctx context.Context, address string, stop func() error, err error, name string) (*Milter, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w (run make deps)", name, err)
	}
	if err := WaitForPort(ctx, address); err != nil {
		_ = stop() // the first error says more
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Milter{Address: "tcp:" + address, Stop: sync.OnceValue(stop)}, nil
}
