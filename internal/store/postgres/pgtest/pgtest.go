// Package pgtest runs a PostgreSQL server of its own for tests: Debian's, from make deps, over a socket in a directory
// that nobody else reads, with fsync on as in production.
//
// It is for test code alone. A package's TestMain starts the server and ends it:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m, &cluster)) }
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Cluster is a PostgreSQL server.
type Cluster struct {
	bin, dir string
	cred     *syscall.Credential // nil: as the user who runs the tests

	network *Network // nil: over the socket alone

	server chan error // the outcome of the running server; nil while it is stopped
	stop   func(sig os.Signal) error
}

// Network is where a cluster takes connections beside its socket, with TLS and from whoever can send there.
type Network struct {
	Enter             func(start func() error) error // calls start on a thread of the machine that the server is to run on
	Address, Range    string                         // of that machine, and those who may connect, in CIDR notation
	CertFile, KeyFile string                         // PEM
}

// startTime bounds how long a server may take to start: a busy machine takes seconds.
const startTime = 2 * time.Minute

// Start makes a new cluster and starts its server.
func Start() (c *Cluster, err error) {
	c = &Cluster{}
	if c.bin, err = binaries(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "waxwing-pg-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
	}()
	if err := c.unprivileged(); err != nil {
		return nil, err
	}
	cmd := c.command("initdb", "--pgdata", c.data(), "--username", "waxwing", "--auth", "trust", "--encoding", "UTF8",
		"--locale", "C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	return c, c.Run()
}

// binaries finds the newest PostgreSQL of Debian.
func binaries() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errors.New("pgtest: PostgreSQL is not installed: run make deps")
	}
	return slices.MaxFunc(found, func(a, b string) int {
		return version(a) - version(b)
	}), nil
}

func version(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

// unprivileged has the server run as another user when the tests run as root: PostgreSQL refuses root.
func (c *Cluster) unprivileged() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return fmt.Errorf("pgtest: a user for the server: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("pgtest: user id %s: %w", u.Uid, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("pgtest: group id %s: %w", u.Gid, err)
	}
	c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(c.dir, int(uid), int(gid))
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred}
	return cmd
}

// Run starts the server of a cluster that is stopped, and waits until it takes connections.
func (c *Cluster) Run() error {
	args := []string{"-D", c.data(), "-k", c.dir, "-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "fsync=on"}
	enter := func(start func() error) error { return start() }
	if n := c.network; n != nil {
		enter = n.Enter
		args = append(args, "-c", "listen_addresses="+n.Address, "-c", "ssl=on", "-c", "ssl_cert_file="+c.tlsFile(".crt"), "-c", "ssl_key_file="+c.tlsFile(".key"))
	} else {
		args = append(args, "-c", "listen_addresses=")
	}
	cmd := c.command("postgres", args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	// The server must not outlive the tests, whatever ends them. The signal comes when the thread ends that started it.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	started := make(chan error)
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := enter(cmd.Start)
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	c.server, c.stop = ended, cmd.Process.Signal
	if err := c.ready(); err != nil {
		return errors.Join(fmt.Errorf("pgtest: %w: %s", err, log.String()), c.Stop())
	}
	return nil
}

func (c *Cluster) tlsFile(suffix string) string { return filepath.Join(c.dir, "tls"+suffix) }

// Listen has the server, which is started anew, take connections from a network too.
func (c *Cluster) Listen(n Network) error {
	if err := c.Stop(); err != nil {
		return err
	}
	for from, to := range map[string]string{n.CertFile: c.tlsFile(".crt"), n.KeyFile: c.tlsFile(".key")} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err == nil && c.cred != nil {
			err = os.Chown(to, int(c.cred.Uid), int(c.cred.Gid))
		}
		if err != nil {
			return fmt.Errorf("pgtest: %w", err)
		}
	}
	hba, err := os.OpenFile(filepath.Join(c.data(), "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	_, err = fmt.Fprintf(hba, "hostssl all all %s trust\n", n.Range)
	if err = errors.Join(err, hba.Close()); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	c.network = &n
	return c.Run()
}

// ready connects until it works.
func (c *Cluster) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		conn, err := pgx.Connect(ctx, c.DSN(""))
		if err == nil {
			tick.Stop()
			return conn.Close(ctx)
		}
		select {
		case e := <-c.server:
			c.server <- e
			return errors.Join(err, e)
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Stop ends the server as an administrator's restart does: sessions are broken off.
func (c *Cluster) Stop() error { return c.end(os.Interrupt) }

// Crash ends the server at once: it recovers from its log at the next start.
func (c *Cluster) Crash() error { return c.end(syscall.SIGQUIT) }

func (c *Cluster) end(sig os.Signal) error {
	if c.server == nil {
		return nil
	}
	err := c.stop(sig)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if e := <-c.server; sig == os.Interrupt { // an orderly end; after a crash the server says that it crashed
		err = errors.Join(err, e)
	}
	c.server = nil
	return err
}

// Close ends the server and removes the cluster.
func (c *Cluster) Close() error { return errors.Join(c.Stop(), os.RemoveAll(c.dir)) }

// DSN is the connection string of a schema, "" for the default one.
func (c *Cluster) DSN(schema string) string {
	dsn := "host=" + c.dir + " user=waxwing dbname=postgres"
	if schema != "" {
		dsn += " search_path=" + schema
	}
	return dsn
}

// Exec runs a statement in the database, past the store.
func (c *Cluster) Exec(ctx context.Context, query string) error {
	conn, err := pgx.Connect(ctx, c.DSN(""))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, query)
	return errors.Join(err, conn.Close(ctx))
}

// Schema makes a schema unless it is there, and returns its connection string: to a store it is a database of its own.
func (c *Cluster) Schema(tb testing.TB, name string) string {
	tb.Helper()
	if err := c.Exec(tb.Context(), `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{name}.Sanitize()); err != nil {
		tb.Fatal(err)
	}
	return c.DSN(name)
}
