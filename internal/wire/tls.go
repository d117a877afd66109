package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"
)

// StartTLS sends what is pending, discards all plaintext that was already read (RFC 3207, section 4.2: octets before
// the handshake must have no effect), and does the server's side of the handshake under Limits.Handshake. After an
// error the connection is of no use any more.
func (c *Conn) StartTLS(ctx context.Context, cfg *tls.Config) error {
	if err := c.readyForTLS(); err != nil {
		return err
	}
	c.dropInput()
	c.skipping = false
	return c.handshake(ctx, tls.Server(c.nc, cfg))
}

// ClientTLS does the client's side. Plaintext that the server sent behind its consent is an attack, not a mistake:
// ErrInjected.
func (c *Conn) ClientTLS(ctx context.Context, cfg *tls.Config) error {
	if err := c.readyForTLS(); err != nil {
		return err
	}
	if c.Buffered() > 0 {
		return c.failRead("start TLS", ErrInjected)
	}
	c.dropInput()
	return c.handshake(ctx, tls.Client(c.nc, cfg))
}

func (c *Conn) readyForTLS() error {
	switch {
	case c.rerr != nil:
		return c.rerr
	case c.tls != nil:
		return errNoTLSOver
	case c.open != openNone:
		return c.failRead("start TLS", errUnread)
	}
	return c.Flush()
}

func (c *Conn) handshake(ctx context.Context, t *tls.Conn) error {
	if err := c.raw.SetDeadline(time.Now().Add(c.lim.Handshake)); err != nil {
		return c.failRead("start TLS", err)
	}
	c.rdl, c.wdl = time.Time{}, time.Time{}
	if err := t.HandshakeContext(ctx); err != nil {
		c.werr = fatalError{fmt.Errorf("wire: TLS handshake: %w", err)}
		return c.failRead("TLS handshake", err)
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return c.failRead("start TLS", err)
	}
	c.tls, c.nc = t, t
	return nil
}

// TLS returns the state of the TLS connection, false on plaintext.
func (c *Conn) TLS() (tls.ConnectionState, bool) {
	if c.tls == nil {
		return tls.ConnectionState{}, false
	}
	return c.tls.ConnectionState(), true
}
