package milter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	protocol "github.com/emersion/go-milter"
)

// What a milter may ask for, and which steps it may have left out. Many want to replace bodies, though they hardly ever do, and
// don't work with servers that don't let them: what they send of that is left out unless the settings allow it.
const (
	actions = protocol.OptAddHeader | protocol.OptChangeBody | protocol.OptChangeHeader | protocol.OptAddRcpt | protocol.OptRemoveRcpt | protocol.OptQuarantine | protocol.OptChangeFrom
	steps   = protocol.OptNoConnect | protocol.OptNoHelo | protocol.OptNoMailFrom | protocol.OptNoRcptTo | protocol.OptNoBody |
		protocol.OptNoHeaders | protocol.OptNoEOH | protocol.OptNoHeaderReply | protocol.OptNoConnReply | protocol.OptNoHeloReply |
		protocol.OptNoMailReply | protocol.OptNoRcptReply | protocol.OptNoData | protocol.OptNoDataReply | protocol.OptNoUnknown |
		protocol.OptNoUnknownReply | protocol.OptNoEOHReply | protocol.OptNoBodyReply | protocol.OptHeaderLeadingSpace
)

// maxAnswers bounds the octets that a milter may send in one transaction, beside bodies.
const maxAnswers = 4 << 20

// errTooMuch ends a milter that doesn't stop to talk.
var errTooMuch = errors.New("milter: it sends too much")

// errBusy is the answer when too many connections are open.
var errBusy = errors.New("milter: too many connections are open")

// conn is a connection whose answers are bounded in time and octets: the protocol lets a milter ask for more time as often as
// it likes.
type conn struct {
	net.Conn
	mu    sync.Mutex
	wait  time.Duration // for one answer
	until time.Time     // for all answers of a stage
	left  int64         // octets
}

// stage gives the milter so long for one answer, and for all answers together.
func (c *conn) stage(wait, all time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait, c.until = wait, time.Now().Add(all)
}

// expire ends what waits for an answer: the client has gone.
func (c *conn) expire() {
	c.mu.Lock()
	c.until = time.Unix(1, 0)
	c.mu.Unlock()
	_ = c.SetDeadline(time.Unix(1, 0)) // a connection that takes no deadline is closed soon after
}

// SetReadDeadline is called by the protocol before each answer; what it wants is not asked.
func (c *conn) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return c.Conn.SetReadDeadline(c.deadline())
}

// SetWriteDeadline is the same for what is sent.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return c.Conn.SetWriteDeadline(c.deadline())
}

func (c *conn) deadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := time.Now().Add(c.wait); d.Before(c.until) {
		return d
	}
	return c.until
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.left -= int64(n); c.left < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// dialer hands the protocol a connection that was made already.
type dialer struct{ c *conn }

// Dial implements protocol.Dialer.
func (d dialer) Dial(string, string) (net.Conn, error) { return d.c, nil }

// What milters of the protocol's second version know.
const (
	oldActions = actions & 0x3f
	oldSteps   = steps & 0x7f
)

// connect connects to a milter and negotiates. One that speaks only an older version is connected to once more, and from then on
// at once in its words.
func (r *Run) connect(ctx context.Context, a *asked) error {
	if r.chain.open.Add(1) > maxOpen {
		r.chain.open.Add(-1)
		return errBusy
	}
	if _, old := r.chain.old.Load(a.Address); old {
		return r.negotiate(ctx, a, oldActions, oldSteps)
	}
	err := r.negotiate(ctx, a, actions, steps)
	if !errors.Is(err, protocol.ErrUnsupportedMilterVersion) {
		return err
	}
	_ = a.conn.Close() // nothing was said on it that could get lost
	if err = r.negotiate(ctx, a, oldActions, oldSteps); err == nil {
		r.chain.old.Store(a.Address, true)
	}
	return err
}

// negotiate makes one connection. When it fails, end frees what it took.
func (r *Run) negotiate(ctx context.Context, a *asked, offer protocol.OptAction, leave protocol.OptProtocol) error {
	wait, command, content := a.Waits()
	network, address := a.Network()
	dial := net.Dialer{Timeout: wait}
	nc, err := dial.DialContext(ctx, network, address)
	if err != nil {
		if a.conn == nil {
			r.chain.open.Add(-1)
		}
		return err
	}
	a.conn = &conn{Conn: nc, left: maxAnswers}
	if a.Body {
		a.conn.left += maxBody
	}
	a.conn.stage(command, command)
	stop := context.AfterFunc(ctx, a.conn.expire)
	defer stop()
	s, err := protocol.NewClientWithOptions(network, address, protocol.ClientOptions{
		Dialer: dialer{a.conn}, ReadTimeout: content, WriteTimeout: content, ActionMask: offer, ProtocolMask: leave,
	}).Session()
	if err != nil {
		return err
	}
	if extra := s.ProtocolOpts &^ leave; extra != 0 {
		return fmt.Errorf("milter: it asks for protocol options that were not offered (%#x)", uint32(extra))
	}
	a.s = s
	return nil
}
