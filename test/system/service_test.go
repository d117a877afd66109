package system

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"waxwing/internal/durable/ordeal"
	"waxwing/test/rig"
)

// TestServiceNotifiesSystemd plays systemd: it expects READY=1, the watchdog's beat, and STOPPING=1.
func TestServiceNotifiesSystemd(t *testing.T) {
	// The path of a Unix socket is short: the test's own directory may be too deep.
	dir, err := os.MkdirTemp("", "ww")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	n := node(t, rig.WaxwingOptions{Env: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=400000"}})
	heard := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		var all []string
		socket.SetReadDeadline(time.Now().Add(patience))
		for {
			k, err := socket.Read(b)
			if err != nil {
				t.Fatalf("systemd was not told %s, only %q", want, all)
			}
			all = append(all, string(b[:k]))
			if strings.Contains(string(b[:k]), want) {
				return
			}
		}
	}
	heard("READY=1")
	heard("WATCHDOG=1")
	heard("WATCHDOG=1")
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	heard("STOPPING=1")
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestServiceTakesSocketsFromSystemd passes a listening socket by number, as socket activation does (sd_listen_fds(3)).
func TestServiceTakesSocketsFromSystemd(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// LISTEN_PID must be the server's own, which only a shell that becomes the server knows ahead.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp-starttls exec "$0" serve --dir "$1"`, binary, n.Dir)
	cmd.ExtraFiles = []*os.File{file}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	code, text := trySend(t, l.Addr().String(), "sender@far.test", ada.Address, letter("sender@far.test", ada.Address, "through-systemd"))
	if code != 250 {
		t.Errorf("through the passed socket a message is answered %d %s", code, text)
	}
	if c, err := net.DialTimeout("tcp", n.SMTP, time.Second); err == nil {
		c.Close()
		t.Error("the address of the configuration is bound although systemd passed a socket for it")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b, _ := os.ReadFile(log.Name())
		t.Errorf("the server ended badly: %v\n%s", err, b)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitForMail(t, n, ada, "INBOX", 1)
}

// TestFault33TermUnderLoadLosesNothing sends SIGTERM while messages come in: what was answered 250 is there afterwards,
// and the end comes within 30 s and without an error.
func TestFault33TermUnderLoadLosesNothing(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	j := newJournal()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 4)
	for range cap(done) {
		go func() { done <- deliverWork(ctx, t, n, j) }()
	}
	waitFor(t, "the load runs", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return len(j.delivered) > 50
	})
	began := time.Now()
	if err := n.Terminate(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the end took %s", took)
	}
	cancel()
	for range cap(done) {
		if err := <-done; err != nil && !politeEnd(err) {
			t.Logf("a client saw %v", err)
		}
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, _ := mailbox(t, n, ada, "INBOX")
	inbox := j.contents(t, ordeal.Begin(t), fetchAll(t, c))
	for token := range j.delivered {
		if len(inbox[token]) != 1 {
			t.Errorf("%s was answered 250 and is in INBOX %d times", token, len(inbox[token]))
		}
	}
}

func politeEnd(err error) bool {
	e, ok := err.(*smtp.SMTPError) //nolint:errorlint // the client returns it unwrapped
	return ok && e.Code == 421
}

// TestTwoServersOnOneDirectoryAreRefused protects the store from a second writer.
func TestTwoServersOnOneDirectoryAreRefused(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := n.Command(ctx, nil, "serve", "--dir", n.Dir); err == nil || ctx.Err() != nil {
		t.Errorf("the second server ran: %v", err)
	}
	if code, text := trySend(t, n.SMTP, "sender@far.test", ada.Address, letter("sender@far.test", ada.Address, "still-here")); code != 250 {
		t.Errorf("the first server says %d %s", code, text)
	}
}

// TestCommandsWorkWithTheServerRunningAndStopped changes and lists accounts both ways.
func TestCommandsWorkWithTheServerRunningAndStopped(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	ctx := t.Context()
	for i, running := range []bool{true, false} {
		if !running {
			if err := n.Terminate(); err != nil {
				t.Fatal(err)
			}
		}
		address := fmt.Sprintf("new%d@example.test", i)
		if _, err := n.Command(ctx, strings.NewReader("a phrase 4 somebody\n"), "account", "add", address, "--dir", n.Dir, "--password-file", "-"); err != nil {
			t.Fatal(err)
		}
		out, err := n.Command(ctx, nil, "account", "list", "--dir", n.Dir, "--json")
		if err != nil || !strings.Contains(out, address) {
			t.Errorf("running %v: account list says %q, %v", running, out, err)
		}
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		a := rig.Account{Address: fmt.Sprintf("new%d@example.test", i), Password: "a phrase 4 somebody"}
		mailbox(t, n, a, "INBOX")
	}
}
