package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"
)

// Proxied is a listener behind proxies: each connection begins with a header of the PROXY protocol, version 1 or 2, that
// names the true client. Connections from elsewhere than Trusted, and those without a header that can be believed, are closed
// without a word.
type Proxied struct {
	net.Listener
	Trusted []netip.Prefix
}

// SetDeadline bounds Accept, where the listener can.
func (l *Proxied) SetDeadline(t time.Time) error {
	if timed, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return timed.SetDeadline(t)
	}
	return errors.ErrUnsupported
}

const (
	headerTime   = 5 * time.Second // for the whole header
	maxHeaderV1  = 107             // octets with CRLF, by its specification
	maxHeaderV2  = 2048            // octets behind the first sixteen, with TLVs
	maxHeaders   = 1000            // connections whose header is awaited at one time, on one pool
	proxySigV2   = "\r\n\r\n\x00\r\nQUIT\n"
	fixedPartV2  = 16
	shortestLine = len("PROXY UNKNOWN\r\n")
)

// proxied takes a connection of l: its header is read by a goroutine of its own, so that nobody holds up the others.
func (p *Pool) proxied(l *Proxied, nc net.Conn, h Handler) {
	if p.headers.Add(1) > maxHeaders || !p.begun() {
		p.headers.Add(-1)
		refuse(nc, h, TooMany)
		return
	}
	go func() {
		defer p.work.Done()
		stop := context.AfterFunc(p.drain, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
		client, err := l.client(nc)
		stop()
		p.headers.Add(-1)
		if err != nil {
			p.o.Logger.Warn("connection refused: no PROXY header that can be believed", "listener", l.Addr().String(), "remote", nc.RemoteAddr().String(), "err", err)
			nc.Close()
			return
		}
		p.admit(client, h)
	}()
}

// begun counts a goroutine of the pool, unless it is closing.
func (p *Pool) begun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Load() {
		return false
	}
	p.work.Add(1)
	return true
}

// client reads the header, and gives the connection with the addresses that it names.
func (l *Proxied) client(nc net.Conn) (net.Conn, error) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, errors.New("no TCP connection")
	}
	if !l.trusts(tcp) {
		return nil, errors.New("not from a trusted proxy")
	}
	if err := nc.SetReadDeadline(time.Now().Add(headerTime)); err != nil {
		return nil, err
	}
	raw, err := readHeader(nc)
	if err != nil {
		return nil, err
	}
	client, err := named(tcp, raw)
	if err != nil {
		return nil, err
	}
	return client, nc.SetReadDeadline(time.Time{})
}

func (l *Proxied) trusts(nc *net.TCPConn) bool {
	at, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return false
	}
	a := at.AddrPort().Addr().Unmap().WithZone("")
	for _, p := range l.Trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// readHeader reads a header and not one octet behind it: what follows may be a TLS handshake.
func readHeader(r io.Reader) ([]byte, error) {
	b := make([]byte, len(proxySigV2), maxHeaderV1)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read PROXY header: %w", err)
	}
	if string(b) == proxySigV2 {
		return readRestV2(r, b)
	}
	if !bytes.HasPrefix(b, []byte("PROXY ")) {
		return nil, errors.New("read PROXY header: there is none")
	}
	var one [1]byte
	for len(b) < maxHeaderV1 {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return nil, fmt.Errorf("read PROXY header: %w", err)
		}
		if b = append(b, one[0]); one[0] == '\n' {
			if len(b) < shortestLine || b[len(b)-2] != '\r' {
				break
			}
			return b, nil
		}
	}
	return nil, errors.New("read PROXY header: malformed line")
}

func readRestV2(r io.Reader, b []byte) ([]byte, error) {
	b = append(b, make([]byte, fixedPartV2-len(b))...)
	if _, err := io.ReadFull(r, b[len(proxySigV2):]); err != nil {
		return nil, fmt.Errorf("read PROXY header: %w", err)
	}
	n := int(b[14])<<8 | int(b[15])
	if n > maxHeaderV2 {
		return nil, fmt.Errorf("read PROXY header: %d octets are too many", n)
	}
	at := len(b)
	b = append(b, make([]byte, n)...)
	if _, err := io.ReadFull(r, b[at:]); err != nil {
		return nil, fmt.Errorf("read PROXY header: %w", err)
	}
	return b, nil
}

// named gives the connection with the addresses of a header. A proxy that speaks for itself (LOCAL), or doesn't know for
// whom (UNKNOWN), keeps its own.
func named(tcp *net.TCPConn, raw []byte) (net.Conn, error) {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, err
	}
	if h.Command.IsLocal() || h.Version == 1 && h.TransportProtocol.IsUnspec() {
		return tcp, nil
	}
	from, to, ok := h.TCPAddrs()
	if !ok || !from.AddrPort().IsValid() || from.AddrPort().Addr().IsUnspecified() {
		return nil, errors.New("the PROXY header names no TCP client")
	}
	return &proxiedConn{TCPConn: tcp, remote: from, local: to}, nil
}

// proxiedConn is a connection with the addresses that a proxy named. All else is the socket's own.
type proxiedConn struct {
	*net.TCPConn
	remote, local net.Addr
}

func (c *proxiedConn) RemoteAddr() net.Addr { return c.remote }
func (c *proxiedConn) LocalAddr() net.Addr  { return c.local }
