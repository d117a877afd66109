package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"waxwing/internal/certs"
	"waxwing/internal/config"
	"waxwing/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// newNode writes a configuration with a certificate and all listeners on free ports, and makes the domain example.test
// with two accounts.
func newNode(t *testing.T, edit func(*config.Config)) *config.Config {
	t.Helper()
	dir := t.TempDir()
	writeCertificate(t, dir, "mx.example.test")
	cfg := config.Default()
	cfg.Hostname = "mx.example.test"
	cfg.Certificates = []config.Certificate{{Cert: "cert.pem", Key: "key.pem"}}
	cfg.Listeners = config.StandardListeners(true)
	for i := range cfg.Listeners {
		cfg.Listeners[i].Address = "127.0.0.1:0"
	}
	cfg.DNS.Resolvers = []string{"127.0.0.1:1"}
	cfg.Metrics.Address = "127.0.0.1:0"
	if edit != nil {
		edit(&cfg)
	}
	file := filepath.Join(dir, config.FileName)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cfg.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	loaded, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	loaded.Limits, loaded.Transport, loaded.Spool.DiskReserve = cfg.Limits, cfg.Transport, 16<<20
	if err := CreateDataDir(loaded); err != nil {
		t.Fatal(err)
	}
	withState(t, loaded, func(c control.Carrier) {
		if _, err := control.DomainAdd.Call(t.Context(), c, control.Domain{Name: "example.test"}); err != nil {
			t.Fatal(err)
		}
		if _, err := control.AccountAdd.Call(t.Context(), c, control.NewAccounts{Accounts: []control.NewAccount{{Address: "a@example.test"}, {Address: "b@example.test"}}}); err != nil {
			t.Fatal(err)
		}
	})
	return loaded
}

func writeCertificate(t *testing.T, dir, name string) {
	t.Helper()
	cert, key, err := certs.SelfSigned([]string{name}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// withState opens the store of a stopped server.
func withState(t *testing.T, cfg *config.Config, fn func(control.Carrier)) {
	t.Helper()
	state, err := OpenState(t.Context(), cfg, discard)
	// A process that another test starts has this one's locks until it is loaded.
	for deadline := time.Now().Add(30 * time.Second); control.KindOf(err) == control.Unavailable && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
		state, err = OpenState(t.Context(), cfg, discard)
	}
	if err != nil {
		t.Fatal(err)
	}
	fn(control.Direct(state.Control(nil)))
	if err := state.Close(); err != nil {
		t.Fatal(err)
	}
}

// node is a running server.
type node struct {
	*Server
	ready Ready
	stop  func() error // ends it and tells what Run returned
}

func (n *node) address(p config.Protocol, mode config.TLSMode) string {
	for _, l := range n.ready.Listeners {
		if l.Protocol == string(p) && l.TLS == string(mode) {
			return l.Address
		}
	}
	return ""
}

func start(t *testing.T, cfg *config.Config) *node {
	t.Helper()
	ready := make(chan Ready, 1)
	level := &slog.LevelVar{}
	srv, err := New(t.Context(), cfg, Options{Version: "test", Log: discard, Level: level, Ready: func(r Ready) { ready <- r }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	n := &node{Server: srv}
	n.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	select {
	case n.ready = <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the server ended before it was ready: %v", err)
	}
	return n
}

func send(addr, token string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	msg := "From: friend@far.test\r\nTo: a@example.test\r\nSubject: " + token + "\r\n\r\n" + strings.Repeat("body\r\n", 500)
	return c.SendMail("friend@far.test", []string{"a@example.test"}, strings.NewReader(msg))
}

// Fault 33: SIGTERM under load. Run's context is what SIGTERM ends.
func TestStopUnderLoadLosesNothingThatWasAnswered(t *testing.T) {
	t.Parallel()
	cfg := newNode(t, nil)
	n := start(t, cfg)
	addr := n.address(config.SMTP, config.StartTLS)
	var mu sync.Mutex
	answered := map[string]bool{}
	enough := make(chan struct{})
	var senders sync.WaitGroup
	for w := range 6 {
		senders.Go(func() {
			for i := 0; ; i++ {
				token := fmt.Sprintf("token-%d-%d.", w, i)
				if err := send(addr, token); err != nil {
					return
				}
				mu.Lock()
				answered[token] = true
				if len(answered) == 60 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the end took %s", took)
	}
	senders.Wait()
	withState(t, cfg, func(c control.Carrier) {
		found := subjects(t, c)
		for token := range answered {
			if found[token] != 1 {
				t.Errorf("%s was answered 250 and is there %d times", token, found[token])
			}
		}
	})
}

// subjects counts the tokens of the messages in an INBOX.
func subjects(t *testing.T, c control.Carrier) map[string]int {
	t.Helper()
	box, err := control.MailboxEnsure.Call(t.Context(), c, control.MailboxRef{Account: "a@example.test", Name: "INBOX"})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	req := control.MessagePage{Account: "a@example.test", Mailbox: box.ID}
	for {
		page, err := control.MessageList.Call(t.Context(), c, req)
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Messages) == 0 {
			return out
		}
		for _, m := range page.Messages {
			req.After = m.UID
			r, err := control.MessageRead.Call(t.Context(), c, control.MessageRef{Account: "a@example.test", ID: m.ID})
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			if _, rest, ok := strings.Cut(string(text), "Subject: "); ok {
				token, _, _ := strings.Cut(rest, "\r\n")
				out[token]++
			}
		}
	}
}

func shownName(t *testing.T, addr string) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the name is compared
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].DNSNames[0]
}

func TestReloadTakesUpCertificateAndLevel(t *testing.T) {
	t.Parallel()
	cfg := newNode(t, nil)
	n := start(t, cfg)
	addr := n.address(config.IMAP, config.Implicit)
	if got := shownName(t, addr); got != "mx.example.test" {
		t.Fatalf("shown: %s", got)
	}
	client, err := control.Dial(t.Context(), cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	dir := filepath.Dir(cfg.Path)

	// What can't be used changes nothing, and is told.
	good, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Path, []byte("half a f"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("half a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = control.ServerReload.Call(t.Context(), client, control.Done{})
	if err == nil || !strings.Contains(err.Error(), "cert.pem") || !strings.Contains(err.Error(), "waxwing.toml:1:") {
		t.Errorf("reload of broken files: %v", err)
	}
	if got := shownName(t, addr); got != "mx.example.test" {
		t.Errorf("shown after a broken reload: %s", got)
	}

	writeCertificate(t, dir, "new.example.test")
	if err := os.WriteFile(cfg.Path, []byte(strings.Replace(string(good), `level = "info"`, `level = "debug"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.ServerReload.Call(t.Context(), client, control.Done{}); err != nil {
		t.Fatal(err)
	}
	if got := shownName(t, addr); got != "new.example.test" {
		t.Errorf("shown after reload: %s", got)
	}
	if n.opts.Level.Level() != slog.LevelDebug {
		t.Errorf("level %v", n.opts.Level.Level())
	}
}

func TestTwoServersOnOneDirectoryAreRefused(t *testing.T) {
	t.Parallel()
	cfg := newNode(t, nil)
	n := start(t, cfg)
	_, err := New(t.Context(), cfg, Options{})
	if err == nil || control.KindOf(err) != control.Unavailable || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("a second server: %v", err)
	}
	// The refused one must not have taken the socket of the first.
	client, err := control.Dial(t.Context(), cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	st, err := control.ServerStatus.Call(t.Context(), client, control.Done{})
	if err != nil || st.Version != "test" || len(st.Listeners) != len(cfg.Listeners) {
		t.Errorf("status: %+v, %v", st, err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(cfg.DataDir, control.SocketName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's name is left behind: %v", err)
	}
	withState(t, cfg, func(control.Carrier) {})
}

func TestABusyPortIsToldAndNothingStaysOpen(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := newNode(t, func(c *config.Config) { c.Listeners[3].Address = l.Addr().String() })
	_, err = New(t.Context(), cfg, Options{})
	if err == nil || control.KindOf(err) != control.Unavailable {
		t.Fatalf("a busy port: %v", err)
	}
	for _, want := range []string{"listener.3", l.Addr().String(), cfg.Path, "another program has this port"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("a busy port: %v lacks %q", err, want)
		}
	}
	withState(t, cfg, func(control.Carrier) {}) // the lock is free again
}

func TestMetricsCountWhatHappens(t *testing.T) {
	t.Parallel()
	cfg := newNode(t, nil)
	n := start(t, cfg)
	if err := send(n.address(config.SMTP, config.StartTLS), "one"); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, string) {
		resp, err := client.Get("http://" + n.ready.Metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if code, text := get("/metrics"); code != 200 || !strings.Contains(text, `waxwing_smtp_messages_total{code="250",mode="mx"} 1`) ||
		!strings.Contains(text, `waxwing_smtp_replies_total{class="2",command="RCPT",mode="mx"} 1`) {
		t.Errorf("metrics: %d\n%s", code, text)
	}
	if code, text := get("/healthz"); code != 200 || !strings.Contains(text, `"subject":"store"`) {
		t.Errorf("health: %d %s", code, text)
	}
}

func TestTransportOptionsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.Hostname = "mx.example.test"
	cfg.Transport.Routes = map[string]string{"Remote.test": "[::1]:2525"}
	cfg.Transport.SmartHost = &config.SmartHost{Address: "relay.test:465", TLS: config.Implicit, Username: "u", PasswordFile: secret}
	o, err := transportOptions(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r := o.Routes["remote.test"]; r == nil || r.Host != "::1" || r.Port != 2525 {
		t.Errorf("route: %+v", r)
	}
	if s := o.SmartHost; s == nil || s.Host != "relay.test" || s.Port != 465 || s.TLS != "implicit" || string(s.Password) != "hush" {
		t.Errorf("smart host: %+v", s)
	}
	cfg.Transport.SmartHost.PasswordFile = filepath.Join(dir, "nowhere")
	if _, err := transportOptions(&cfg); err == nil {
		t.Error("a password file that isn't there is no error")
	}
	cfg.Transport.SmartHost, cfg.Transport.CAFile = nil, secret
	if _, err := transportOptions(&cfg); err == nil {
		t.Error("a file without certificates is taken as authorities")
	}
}

func TestStoreIsOpenedByItsOwnerAlone(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	cfg := newNode(t, nil)
	if err := os.Chown(cfg.DataDir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	_, err := OpenState(t.Context(), cfg, discard)
	if err == nil || control.KindOf(err) != control.Unavailable || !strings.Contains(err.Error(), "run this as that user") {
		t.Errorf("opened as another user: %v", err)
	}
}
