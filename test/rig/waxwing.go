package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"waxwing/internal/porttest"
)

// WaxwingOptions says what a Waxwing is for.
type WaxwingOptions struct {
	Binary   string
	Domain   string
	Accounts []Account
	Relay    string // next hop of all other domains, host:port
	// Dir is the directory of the server, which must be empty; by default one below the directory of the test.
	Dir string
	// Edit changes waxwing.toml before the start; nil leaves it.
	Edit func(toml string) string
	// SMTPPort is the port that takes mail, 0 for any: a peer that is started first must know it.
	SMTPPort int
	// Env is added to the environment of the server and of commands.
	Env []string
	// Host is the machine of a Network that the server and commands run on; nil is this one.
	Host *Host
	// Empty makes a directory without a store: a backup is restored into it before the start, or with accounts the store that
	// Edit names gets them.
	Empty bool
}

// Node is a Waxwing whose process a test may kill and start again on the same directory and ports.
type Node struct {
	Server
	options WaxwingOptions
	cmd     *exec.Cmd
	done    chan error
	home    string // of the test: logs, certificates
	log     string
}

// Waxwing makes a server directory with the built binary, as an administrator would, and starts it.
func Waxwing(ctx context.Context, dir string, o WaxwingOptions) (*Server, error) {
	n, err := NewNode(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return &n.Server, nil
}

// NewNode makes the directory, the domain and the accounts, and starts nothing.
func NewNode(ctx context.Context, dir string, o WaxwingOptions) (*Node, error) {
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return nil, err
	}
	o.Binary = binary
	n := &Node{options: o, home: dir}
	n.Name, n.Dir = "Waxwing", filepath.Join(dir, "waxwing")
	if o.Dir != "" {
		n.Dir = filepath.Join(o.Dir, "waxwing")
	}
	n.pids = func() []int {
		if n.cmd == nil {
			return nil
		}
		return []int{n.cmd.Process.Pid}
	}
	begin := []string{"init", "--dir", n.Dir, "--domain", o.Domain, "--loopback"}
	if o.Empty {
		begin = []string{"init", "--dir", n.Dir, "--empty", "--hostname", "mx." + o.Domain, "--loopback"}
	}
	if _, err := n.Command(ctx, nil, begin...); err != nil {
		return nil, err
	}
	if err := n.configure(dir); err != nil {
		return nil, err
	}
	var csv strings.Builder
	for _, a := range o.Accounts {
		fmt.Fprintf(&csv, "%s,%s,,\n", a.Address, a.Password)
	}
	if csv.Len() > 0 && o.Empty {
		if _, err := n.Command(ctx, nil, "domain", "add", o.Domain, "--dir", n.Dir); err != nil {
			return nil, err
		}
	}
	if csv.Len() > 0 {
		file := filepath.Join(dir, "accounts.csv")
		if err := os.WriteFile(file, []byte(csv.String()), 0o600); err != nil {
			return nil, err
		}
		if _, err := n.Command(ctx, nil, "account", "import", file, "--dir", n.Dir); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// OpenNode takes over a directory that `waxwing init` made with --loopback, with all that is in it, and starts nothing.
func OpenNode(home, dir string, o WaxwingOptions) (*Node, error) {
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return nil, err
	}
	o.Binary = binary
	n := &Node{options: o, home: home}
	n.Name, n.Dir = "Waxwing", dir
	return n, n.configure(home)
}

// Use has another binary run from the next start or command on.
func (n *Node) Use(binary string) { n.options.Binary = binary }

// configure moves the listeners to free ports and gives the server a certificate that clients can be told to trust.
func (n *Node) configure(dir string) error {
	file := filepath.Join(n.Dir, "waxwing.toml")
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	toml := string(b)
	ports, err := porttest.Reserve(9)
	if err != nil {
		return err
	}
	if n.options.SMTPPort != 0 {
		ports[0] = n.options.SMTPPort
	}
	for i, l := range []struct {
		port  int
		field *string
	}{
		{10025, &n.SMTP},
		{10465, &n.Submissions},
		{10587, &n.Submission},
		{10143, &n.IMAP},
		{10993, &n.IMAPS},
		{10110, &n.POP3},
		{10995, &n.POP3S},
		{14190, &n.Sieve},
	} {
		*l.field = Loopback(ports[i])
		toml = strings.ReplaceAll(toml, Loopback(l.port), Loopback(ports[i]))
	}
	cert, key, err := Certificate(dir)
	if err != nil {
		return err
	}
	n.CAFile = cert
	if toml, err = replaceCertificate(toml, cert, key); err != nil {
		return err
	}
	n.Metrics = Loopback(ports[8])
	toml += fmt.Sprintf("\n[metrics]\naddress = %q\n", n.Metrics)
	if n.options.Relay != "" {
		toml += fmt.Sprintf("\n[transport.routes]\n\"*\" = %q\n", n.options.Relay)
	}
	if n.options.Edit != nil {
		toml = n.options.Edit(toml)
	}
	return os.WriteFile(file, []byte(toml), 0o600)
}

// replaceCertificate puts other file names into the lines "cert = ..." and "key = ...".
func replaceCertificate(toml, cert, key string) (string, error) {
	lines := strings.Split(toml, "\n")
	found := 0
	for i, line := range lines {
		switch name, _, _ := strings.Cut(strings.TrimSpace(line), "="); strings.TrimSpace(name) {
		case "cert":
			lines[i], found = fmt.Sprintf("cert = %q", cert), found+1
		case "key":
			lines[i], found = fmt.Sprintf("key = %q", key), found+1
		}
	}
	if found != 2 {
		return "", fmt.Errorf("waxwing.toml names no certificate:\n%s", toml)
	}
	return strings.Join(lines, "\n"), nil
}

// Command runs one subcommand of the binary and returns what it printed on standard output.
func (n *Node) Command(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.options.Binary, args...)
	cmd.Stdin = stdin
	cmd.Env = append(os.Environ(), n.options.Env...)
	var out, talk strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := n.begin(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return out.String(), fmt.Errorf("waxwing %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), talk.String())
	}
	return out.String(), nil
}

// begin starts a program where the server is.
func (n *Node) begin(cmd *exec.Cmd) error {
	if n.options.Host == nil {
		return cmd.Start()
	}
	return n.options.Host.Enter(cmd.Start)
}

// Start starts the server and returns when it says that it is ready.
func (n *Node) Start(ctx context.Context) error {
	n.log = filepath.Join(n.home, "waxwing.log")
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	cmd := exec.Command(n.options.Binary, "serve", "--dir", n.Dir)
	cmd.Env = append(os.Environ(), n.options.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := cmd.StderrPipe()
	if err != nil {
		log.Close()
		return err
	}
	if err := n.begin(cmd); err != nil {
		log.Close()
		return err
	}
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer log.Close()
		copyLog(log, pipe, ready)
		done <- cmd.Wait()
	}()
	n.cmd, n.done = cmd, done
	select {
	case <-ready:
		n.stop = []func() error{n.Terminate}
		return nil
	case err := <-done:
		done <- err
		return fmt.Errorf("waxwing ended before it was ready: %w\n%s", err, n.Log())
	case <-ctx.Done():
		return fmt.Errorf("waxwing is not ready: %w\n%s", ctx.Err(), n.Log())
	}
}

// copyLog copies the server's log to a file and closes ready at the line that says so.
func copyLog(w io.Writer, r io.Reader, ready chan struct{}) {
	lines := bufio.NewReader(r)
	for said := false; ; {
		line, err := lines.ReadString('\n')
		if _, werr := io.WriteString(w, line); werr != nil {
			fmt.Fprintln(os.Stderr, "rig: log:", werr)
		}
		if !said && strings.Contains(line, "ready") {
			said = true
			close(ready)
		}
		if err != nil {
			return
		}
	}
}

// Log is what the server has logged so far.
func (n *Node) Log() string {
	b, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill ends the server as a power cut of the process would: kill -9.
func (n *Node) Kill() error {
	if err := n.cmd.Process.Kill(); err != nil {
		return err
	}
	<-n.done
	n.stop = nil
	return nil
}

// Terminate sends SIGTERM and waits for the end.
func (n *Node) Terminate() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	n.stop = nil
	select {
	case err := <-n.done:
		return err
	case <-time.After(40 * time.Second):
		_ = n.cmd.Process.Kill()
		<-n.done
		return fmt.Errorf("waxwing did not end within 40 s of SIGTERM")
	}
}
