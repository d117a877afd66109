package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// loopback returns both ends of a TCP connection, closed at the end of the test.
func loopback(t *testing.T) (server, client net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// slow runs a reading of a connection whose peer sends one octet of text every step, in fake time.
func slow(t *testing.T, lim Limits, text string, step time.Duration, read func(c *Conn) error) (took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := range len(text) {
				if i > 0 {
					time.Sleep(step)
				}
				if _, err := b.Write([]byte{text[i]}); err != nil {
					return
				}
			}
		}()
		c := New(a, lim)
		start := time.Now()
		err = read(c)
		took = time.Since(start)
		c.Close()
		<-done
		b.Close()
	})
	return took, err
}

func readLine(c *Conn) error { _, err := c.ReadLine(); return err }
func readAll(c *Conn) error  { _, err := io.Copy(io.Discard, c.Dot(1<<20)); return err }
func literal(c *Conn) error  { _, err := io.Copy(io.Discard, c.Literal(1000)); return err }

func TestTimeBounds(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, tc := range []struct {
		name string
		lim  Limits
		text string
		step time.Duration
		read func(*Conn) error
		err  error
		took time.Duration
	}{
		{"no octet of a line", Limits{Idle: 300 * s}, "", 0, readLine, os.ErrDeadlineExceeded, 300 * s},
		{"a pause inside a line", Limits{Idle: 300 * s, Read: 60 * s}, "AB", 61 * s, readLine, os.ErrDeadlineExceeded, 60 * s},
		{"an octet at a time", Limits{Idle: 300 * s, Read: 60 * s, LineTime: 100 * s}, strings.Repeat("A", 50), 10 * s, readLine, ErrTooSlow, 100 * s},
		{"a slow line within its time", Limits{Idle: 300 * s, Read: 60 * s, LineTime: 100 * s}, "NOOP\r\n", 19 * s, readLine, nil, 95 * s},
		{"a body below the rate", Limits{Read: 60 * s, MinRate: 10, Grace: 30 * s}, strings.Repeat("A", 50), s, readAll, ErrTooSlow, 33300 * time.Millisecond},
		{"a body above the rate", Limits{Read: 60 * s, MinRate: 1, Grace: 30 * s}, strings.Repeat("A", 100) + "\r\n.\r\n", s, readAll, nil, 104 * s},
		{"a pause inside a body", Limits{Read: 60 * s, MinRate: 1, Grace: 300 * s}, "AB", 61 * s, readAll, os.ErrDeadlineExceeded, 60 * s},
		{"a body over its whole time", Limits{Read: 60 * s, Bulk: 50 * s}, strings.Repeat("A", 100), s, readAll, ErrTooSlow, 50 * s},
		{"a literal over its whole time", Limits{Read: 60 * s, Bulk: 50 * s}, strings.Repeat("A", 100), s, literal, ErrTooSlow, 50 * s},
		{"a refused line that never ends", Limits{Line: 10, Idle: 300 * s, Read: 60 * s, LineTime: 40 * s}, strings.Repeat("A", 100), s, readLine, ErrTooSlow, 40 * s},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			took, err := slow(t, tc.lim, tc.text, tc.step, tc.read)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Errorf("got %v, want %v", err, tc.err)
			}
			if took < tc.took || took > tc.took+2*s {
				t.Errorf("took %v, want %v", took, tc.took)
			}
			if err != nil && (!Fatal(err) || !Timeout(err)) {
				t.Errorf("fatal %v, timeout %v", Fatal(err), Timeout(err))
			}
		})
	}
}

func TestAWriteThatNobodyReadsEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := New(a, Limits{Write: 60 * time.Second})
		start := time.Now()
		if _, err := c.WriteString("250 ok\r\n"); err != nil {
			t.Fatal(err)
		}
		err := c.Flush()
		if !errors.Is(err, os.ErrDeadlineExceeded) || !Fatal(err) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took < 60*time.Second || took > 75*time.Second {
			t.Errorf("took %v", took)
		}
		if _, again := c.WriteString("x"); again != err {
			t.Errorf("the error is not sticky: %v", again)
		}
		c.Close()
	})
}

func TestTimeOfThisSideDoesNotCountAgainstThePeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.WriteString(b, strings.Repeat("0123456789\r\n", 5000)+".\r\n")
		}()
		c := New(a, Limits{Read: time.Second, MinRate: 1000, Grace: time.Second, Bulk: 10 * time.Second})
		if _, err := io.Copy(slowDisk{}, c.Dot(1<<20)); err != nil {
			t.Error(err)
		}
		c.Close()
		<-done
		b.Close()
	})
}

type slowDisk struct{}

func (slowDisk) Write(p []byte) (int, error) { time.Sleep(20 * time.Second); return len(p), nil }

func TestStartTLSDiscardsPlaintext(t *testing.T) {
	t.Parallel()
	server, client := loopback(t)
	cfg := certificate(t)
	errc := make(chan error, 1)
	go func() {
		c := New(client, Limits{})
		errc <- func() error {
			// the injected command is in the packet of STARTTLS itself
			if _, err := c.WriteString("STARTTLS\r\nINJECTED\r\n"); err != nil {
				return err
			}
			if _, err := c.ReadLine(); err != nil {
				return err
			}
			if err := c.ClientTLS(context.Background(), &tls.Config{InsecureSkipVerify: true}); err != nil {
				return err
			}
			if _, err := c.WriteString("INSIDE\r\n"); err != nil {
				return err
			}
			return c.Flush()
		}()
	}()
	c := New(server, Limits{})
	if line, err := c.ReadLine(); err != nil || string(line) != "STARTTLS" {
		t.Fatalf("%q, %v", line, err)
	}
	if c.Buffered() == 0 {
		t.Fatal("nothing was injected: the test shows nothing")
	}
	if _, err := c.WriteString("220 go\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.StartTLS(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	if line, err := c.ReadLine(); err != nil || string(line) != "INSIDE" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	if _, ok := c.TLS(); !ok {
		t.Error("no TLS state")
	}
	if err := c.StartTLS(context.Background(), cfg); err == nil {
		t.Error("TLS inside TLS")
	}
	c.Close()
}

func TestClientTLSRefusesInjectedReplies(t *testing.T) {
	t.Parallel()
	c := New(sent("220 go\r\n250 injected\r\n"), Limits{})
	if _, err := c.ReadLine(); err != nil {
		t.Fatal(err)
	}
	if err := c.ClientTLS(context.Background(), &tls.Config{}); !errors.Is(err, ErrInjected) || !Fatal(err) {
		t.Errorf("got %v", err)
	}
}

func TestAHandshakeThatStallsEnds(t *testing.T) {
	t.Parallel()
	server, _ := loopback(t)
	c := New(server, Limits{Handshake: 20 * time.Millisecond})
	if err := c.StartTLS(context.Background(), certificate(t)); !Timeout(err) || !Fatal(err) {
		t.Errorf("got %v", err)
	}
	if _, err := c.ReadLine(); err == nil {
		t.Error("plaintext is read after a failed handshake")
	}
}

// waitOver is a connection on which Wait and Wake are tried, and how its peer sends.
func waitOver(t *testing.T, secure bool) (*Conn, func(string)) {
	t.Helper()
	server, client := loopback(t)
	c := New(server, Limits{Idle: time.Minute})
	if !secure {
		return c, func(s string) { write(t, client, s) }
	}
	tc := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	errc := make(chan error, 1)
	go func() { errc <- tc.Handshake() }()
	if err := c.StartTLS(context.Background(), certificate(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-errc; err != nil {
		t.Fatal(err)
	}
	return c, func(s string) { write(t, tc, s) }
}

func TestWakeInterruptsWaitAndInputSurvives(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plaintext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, send := waitOver(t, secure)
			for range 50 {
				go c.Wake()
				if woken, err := c.Wait(); !woken || err != nil {
					t.Fatalf("woken %v, %v", woken, err)
				}
				send("DONE\r\n")
				if woken, err := c.Wait(); woken || err != nil {
					t.Fatalf("woken %v, %v", woken, err)
				}
				if c.pooled != nil {
					t.Fatal("a waiting connection holds a buffer")
				}
				if line, err := c.ReadLine(); err != nil || string(line) != "DONE" {
					t.Fatalf("%q, %v", line, err)
				}
			}
			c.Wake() // sticky, and one only
			c.Wake()
			if woken, err := c.Wait(); !woken || err != nil {
				t.Fatalf("woken %v, %v", woken, err)
			}
			send("A\r\n")
			if line, err := c.ReadLine(); err != nil || string(line) != "A" {
				t.Fatalf("%q, %v", line, err)
			}
		})
	}
}

func TestWaitEndsWithItsTimeAndWithThePeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		c := New(a, Limits{Idle: 29 * time.Minute})
		start := time.Now()
		if _, err := c.Wait(); !Timeout(err) || time.Since(start) != 29*time.Minute {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		a2, b2 := net.Pipe()
		b2.Close()
		if _, err := New(a2, Limits{}).Wait(); err != io.EOF {
			t.Errorf("got %v", err)
		}
		c.Close()
		b.Close()
		a2.Close()
	})
}

func TestWatchPeerCancelsWhenThePeerLeaves(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the watch needs Linux")
	}
	server, client := loopback(t)
	c := New(server, Limits{})
	ctx, stop := c.WatchPeer(context.Background())
	client.Close()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), ErrPeerGone) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	stop()
	c.Close()
}

func TestWatchPeerForEndsWithTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := New(a, Limits{})
		start := time.Now()
		ctx, stop := c.WatchPeerFor(context.Background(), 10*time.Second)
		<-ctx.Done()
		if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+peerPeriod {
			t.Errorf("took %v", took)
		}
		if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("cause %v", context.Cause(ctx))
		}
		stop()
		if ctx, stop = c.WatchPeer(context.Background()); ctx.Err() != nil {
			t.Error("the next command inherits the bound")
		}
		time.Sleep(time.Hour)
		if ctx.Err() != nil {
			t.Error("the next command inherits the bound")
		}
		stop()
		c.Close()
	})
}

func TestWatchPeerLeavesPipelinedInputAlone(t *testing.T) {
	t.Parallel()
	server, client := loopback(t)
	c := New(server, Limits{})
	write(t, client, "QUIT\r\n")
	if err := client.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := c.WatchPeer(context.Background())
	c.lookAtPeer() // what the timer does
	if ctx.Err() != nil {
		t.Error("a peer that pipelined and ended its output counts as gone")
	}
	stop()
	if ctx.Err() == nil {
		t.Error("the end of a command does not end its context")
	}
	if line, err := c.ReadLine(); err != nil || string(line) != "QUIT" {
		t.Errorf("%q, %v", line, err)
	}
	c.Close()
}

func TestLingerLetsThePeerReadTheLastReply(t *testing.T) {
	t.Parallel()
	server, client := loopback(t)
	write(t, client, strings.Repeat("x", 100_000))
	c := New(server, Limits{})
	if _, err := c.WriteString("421 bye\r\n"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Linger(1<<20, time.Minute)
		c.Close()
	}()
	got, err := io.ReadAll(client)
	if err != nil || string(got) != "421 bye\r\n" {
		t.Errorf("%q, %v", got, err)
	}
	client.Close()
	<-done
}

func TestAbortEndsAReadFromAnotherGoroutine(t *testing.T) {
	t.Parallel()
	server, _ := loopback(t)
	c := New(server, Limits{})
	go c.Abort()
	if _, err := c.ReadLine(); !errors.Is(err, net.ErrClosed) || !Fatal(err) {
		t.Errorf("got %v", err)
	}
	c.Close()
}
