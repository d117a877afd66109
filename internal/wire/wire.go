// Package wire reads and writes the text protocols of mail: CRLF lines, IMAP literals, SMTP dot-stuffed bodies and
// BDAT chunks, under limits of length, time and rate. SMTP, IMAP, POP3 and ManageSieve sessions stand on it, and so
// does the SMTP client. It knows no command of any of them.
//
// It serves RFC 5321 (sections 2.3.8, 4.5.2 and 4.5.3), RFC 3030 (chunks), RFC 3501 (literals) and the lines of
// RFC 1939 and RFC 5804.
//
//	c := wire.New(nc, wire.Limits{Line: 2048, Idle: 5 * time.Minute, Read: time.Minute})
//	line, err := c.ReadLine()
//
// A Conn belongs to one goroutine; only Wake and Abort may be called from others. Output is buffered and goes out when
// the session is about to wait for input, so that a pipelined group of commands is answered in one write. While a
// session waits for its next line it holds no buffer: a small array inside Conn takes the first octets.
package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Errors after which a session may answer and go on. They are fatal only where Fatal says so: when the peer went past
// what may be drained, the same error comes back marked as fatal.
var (
	ErrLineTooLong = errors.New("wire: line too long")
	ErrBareNewline = errors.New("wire: CR or LF outside of CRLF")
	ErrTooLarge    = errors.New("wire: too large")
)

// Errors that end a session.
var (
	ErrTooSlow   = errors.New("wire: peer is too slow")
	ErrInjected  = errors.New("wire: plaintext before the TLS handshake")
	ErrPeerGone  = errors.New("wire: peer has closed the connection")
	errUnread    = errors.New("wire: literal or body not read to its end")
	errNoTLSOver = errors.New("wire: TLS is already on")
)

// fatalError marks an error that is recoverable in other places.
type fatalError struct{ err error }

func (e fatalError) Error() string { return e.err.Error() + ", connection unusable" }
func (e fatalError) Unwrap() error { return e.err }

// Fatal tells whether the connection can't be read on after err. A nil error is not fatal.
func Fatal(err error) bool {
	if err == nil {
		return false
	}
	var f fatalError
	if errors.As(err, &f) {
		return true
	}
	return !errors.Is(err, ErrLineTooLong) && !errors.Is(err, ErrBareNewline) && !errors.Is(err, ErrTooLarge)
}

// Timeout tells whether err says that the peer let a deadline pass.
func Timeout(err error) bool {
	return errors.Is(err, ErrTooSlow) || errors.Is(err, os.ErrDeadlineExceeded)
}

// Limits bound what a peer may cost. A zero duration or rate is no limit.
type Limits struct {
	Line      int           // octets of one line with its CRLF; 0 means 2048
	Idle      time.Duration // wait for the first octet of a line
	Read      time.Duration // wait for each further read inside a line, literal or body
	LineTime  time.Duration // wait for one whole line after its first octets
	Write     time.Duration // each write; it ends up to a quarter later than said
	MinRate   int           // octets a second that a literal or body must average after Grace
	Grace     time.Duration
	Bulk      time.Duration // wait for one whole literal or body
	Drain     int64         // octets past its maximum that a refused body is still read on; 0 means 1 MiB
	Handshake time.Duration // TLS handshake; 0 means 30 s
}

const (
	bufSize      = 16 << 10
	smallSize    = 64
	lineDrainCap = 1 << 20 // octets of an overlong or malformed line that are discarded before giving up
	defaultLine  = 2048
	defaultDrain = 1 << 20
)

var buffers = sync.Pool{New: func() any { return new([bufSize]byte) }}

// Conn is one connection of a text protocol.
type Conn struct {
	raw net.Conn // the socket: deadlines and peeking
	nc  net.Conn // raw, or the TLS connection above it
	tls *tls.Conn
	lim Limits

	remote, local netip.AddrPort

	// Input. buf is small[:], pooled[:], or one grown for a long line; buf[r:w] has not been consumed.
	buf      []byte
	r, w     int
	small    [smallSize]byte
	pooled   *[bufSize]byte
	rerr     error     // sticky: nothing is parsed after a read error
	rdl      time.Time // read deadline that is armed; zero when unknown
	skipping bool      // the rest of a line with a bare CR or LF is being discarded
	skipped  int64

	open opened // a literal or body that has not been read to its end
	lit  LiteralReader
	dot  DotReader
	bulk bulk

	// Output.
	wbuf *[bufSize]byte
	wn   int
	werr error
	wdl  time.Time
	dotw DotWriter

	mu      sync.Mutex // guards waiting and woken
	waiting bool
	woken   bool

	watch watch
}

type opened uint8

const (
	openNone opened = iota
	openLiteral
	openDot
)

// New takes over nc. A *tls.Conn counts as TLS at once.
func New(nc net.Conn, lim Limits) *Conn {
	c := &Conn{raw: nc, nc: nc}
	if t, ok := nc.(*tls.Conn); ok {
		c.tls = t
		c.raw = t.NetConn()
	}
	c.remote = addrPort(nc.RemoteAddr())
	c.local = addrPort(nc.LocalAddr())
	c.SetLimits(lim)
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// SetLimits replaces the limits; they hold from the next read or write.
func (c *Conn) SetLimits(lim Limits) {
	if lim.Line <= 0 {
		lim.Line = defaultLine
	}
	if lim.Drain <= 0 {
		lim.Drain = defaultDrain
	}
	if lim.Handshake <= 0 {
		lim.Handshake = 30 * time.Second
	}
	c.lim = lim
}

// Limits returns the limits in force.
func (c *Conn) Limits() Limits { return c.lim }

// NetConn returns the connection that is read: the TLS connection once TLS is on.
func (c *Conn) NetConn() net.Conn { return c.nc }

// RemoteAddr returns the peer's address, IPv4 unmapped; zero where the connection is not TCP.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// LocalAddr returns the own address of the connection.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// SetRemoteAddr overrides the peer's address, for a trusted proxy that names the true client.
func (c *Conn) SetRemoteAddr(a netip.AddrPort) { c.remote = a }

// Buffered returns the octets that can be read without waiting.
func (c *Conn) Buffered() int { return c.w - c.r }

// Close gives the buffers back and closes the connection without flushing. It is for the goroutine that owns the
// session; others use Abort.
func (c *Conn) Close() error {
	c.stopWatch()
	c.dropInput()
	c.dropOutput()
	if c.rerr == nil {
		c.rerr = fmt.Errorf("wire: read: %w", net.ErrClosed)
	}
	if c.werr == nil {
		c.werr = fmt.Errorf("wire: write: %w", net.ErrClosed)
	}
	return c.nc.Close()
}

// Abort cuts the socket from any goroutine: the session's reads and writes fail at once. The owner still calls Close.
func (c *Conn) Abort() error { return c.raw.Close() }

// CloseWrite flushes and ends the output; input can still be read.
func (c *Conn) CloseWrite() error {
	if err := c.Flush(); err != nil {
		return err
	}
	if cw, ok := c.nc.(interface{ CloseWrite() error }); ok {
		if err := cw.CloseWrite(); err != nil {
			return fmt.Errorf("wire: close write: %w", err)
		}
		if c.tls == nil {
			return nil
		}
	}
	if cw, ok := c.raw.(interface{ CloseWrite() error }); ok {
		if err := cw.CloseWrite(); err != nil {
			return fmt.Errorf("wire: close write: %w", err)
		}
	}
	return nil
}

// Linger sends what is pending, ends the output, and discards input until the peer closes, at most limit octets and
// for d: closing a socket with unread input resets it, and the peer would lose the last reply. Close it afterwards.
func (c *Conn) Linger(limit int64, d time.Duration) {
	if c.CloseWrite() != nil {
		return
	}
	if _, ok := c.raw.(interface{ CloseWrite() error }); !ok {
		return // without a half-close the peer doesn't know that it should close
	}
	c.dropInput()
	b := buffers.Get().(*[bufSize]byte)
	defer buffers.Put(b)
	if c.raw.SetReadDeadline(time.Now().Add(d)) != nil {
		return
	}
	for got := int64(0); got < limit; {
		n, err := c.raw.Read(b[:])
		if err != nil {
			return
		}
		got += int64(n)
	}
}

// failRead makes err the end of all reading.
func (c *Conn) failRead(op string, err error) error {
	if c.rerr == nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			c.rerr = err // callers compare these
		} else {
			c.rerr = fatalError{fmt.Errorf("wire: %s: %w", op, err)}
		}
	}
	return c.rerr
}
