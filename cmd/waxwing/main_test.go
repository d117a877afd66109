package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"waxwing/internal/porttest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"waxwing": main})
}

// TestCommandLine runs the scripts of testdata/script over the program as it is called from a shell. Beside testscript's
// own commands there are: freeports DIR (moves the listeners of a configuration to free ports), serve DIR, stop (SIGTERM)
// and hup, smtp DIR (runs a dialog of lines against the port for other servers), spoil DIR (flips an
// octet of a pack).
func TestCommandLine(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Values["servers"] = map[string]*runningServer{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"freeports": freePorts,
			"serve":     serveInBackground,
			"stop":      stopServer,
			"smtp":      smtpDialog,
			"spoil":     spoilPack,
		},
	})
}

// runningServer is a server that a script has started.
type runningServer struct {
	cmd  *exec.Cmd
	log  []string
	done chan error
}

func servers(ts *testscript.TestScript) map[string]*runningServer {
	m, ok := ts.Value("servers").(map[string]*runningServer)
	if !ok {
		ts.Fatalf("no servers")
	}
	return m
}

var loopbackPort = regexp.MustCompile(`127\.0\.0\.1:1\d{4}`)

// freePorts gives each listener a port of its own.
func freePorts(ts *testscript.TestScript, _ bool, args []string) {
	file := ts.MkAbs(filepath.Join(args[0], "waxwing.toml"))
	text, err := os.ReadFile(file)
	ts.Check(err)
	out := loopbackPort.ReplaceAllStringFunc(string(text), func(string) string {
		ports, err := porttest.Reserve(1)
		ts.Check(err)
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	})
	ts.Check(os.WriteFile(file, []byte(out), 0o600))
}

// serveInBackground starts a server and waits until it says that it is ready.
func serveInBackground(ts *testscript.TestScript, _ bool, args []string) {
	exe, err := exec.LookPath("waxwing")
	if err != nil {
		exe = filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "waxwing")
	}
	dir := ts.MkAbs(args[0])
	s := &runningServer{cmd: exec.Command(exe, "serve", "--dir", dir), done: make(chan error, 1)}
	s.cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"))
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	pipe, err := s.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(pipe)
		said := false
		for lines.Scan() {
			s.log = append(s.log, lines.Text())
			if !said && strings.Contains(lines.Text(), "msg=ready") {
				said = true
				close(ready)
			}
		}
		s.done <- s.cmd.Wait()
	}()
	ts.Defer(func() { _ = s.end() })
	select {
	case <-ready:
	case err := <-s.done:
		s.done <- err
		ts.Fatalf("the server ended: %v\n%s", err, strings.Join(s.log, "\n"))
	case <-time.After(2 * time.Minute):
		ts.Fatalf("the server is not ready after two minutes")
	}
	servers(ts)[dir] = s
}

// end sends SIGTERM and waits; a second call does nothing.
func (s *runningServer) end() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(40 * time.Second):
		return errors.Join(errors.New("the server did not end within 40 s of SIGTERM"), s.cmd.Process.Kill())
	}
}

func stopServer(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	s := servers(ts)[dir]
	if s == nil {
		ts.Fatalf("no server on %s", dir)
	}
	if err := s.end(); err != nil {
		ts.Fatalf("the server ended with %v\n%s", err, strings.Join(s.log, "\n"))
	}
	delete(servers(ts), dir)
}

var smtpListener = regexp.MustCompile(`address = "([^"]+)"\nprotocol = "smtp"`)

// smtpDialog sends the lines of a file to the port for other servers, one for each reply, and prints the dialog. A line
// of a single dot ends the message that the lines before it are.
func smtpDialog(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(filepath.Join(args[0], "waxwing.toml"))
	m := smtpListener.FindStringSubmatch(text)
	if m == nil {
		ts.Fatalf("no listener for smtp in %s", text)
	}
	conn, err := net.Dial("tcp", m[1])
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(2 * time.Minute)))
	replies := bufio.NewReader(conn)
	last := readReply(ts, replies)
	inData := false
	for _, line := range strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n") {
		_, err := io.WriteString(conn, line+"\r\n")
		ts.Check(err)
		if inData && line != "." {
			continue
		}
		last = readReply(ts, replies)
		inData = strings.HasPrefix(last, "354")
		fmt.Fprintf(ts.Stdout(), "%s -> %s\n", line, last)
	}
	if refused := last[0] == '4' || last[0] == '5'; refused != neg {
		ts.Fatalf("the last reply is %s", last)
	}
}

func readReply(ts *testscript.TestScript, r *bufio.Reader) string {
	for {
		line, err := r.ReadString('\n')
		ts.Check(err)
		if len(line) > 3 && line[3] == ' ' {
			return strings.TrimSpace(line)
		}
	}
}
