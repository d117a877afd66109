package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing/internal/store"
)

// peers is the way to the other nodes of a database: NOTIFY and LISTEN on a channel that has the name of the schema, and an
// advisory lock that the leader holds. Each of the three has a connection of its own, which waits or breaks by itself.
type peers struct {
	cfg  *pgx.ConnConfig
	tell *pgx.Conn // of the one who tells; nil: not open
}

var _ store.Peers = (*peers)(nil)

func newPeers(cfg *pgx.ConnConfig) *peers {
	own := cfg.Copy()
	own.RuntimeParams["lock_timeout"] = "0"
	return &peers{cfg: own}
}

// The rhythm of the leader.
const (
	leaderLook = 2 * time.Second  // how often the others try to lead, and the leader looks whether its connection lives
	answerTime = 10 * time.Second // that the database has for an answer
)

// leaderClass is the first key of the lock that the leader holds.
const leaderClass = lockClass + 1

func (p *peers) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return pgx.ConnectConfig(ctx, p.cfg)
}

// hangUp closes a connection that nothing of value hangs on.
func hangUp(c *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx)
}

// Tell implements store.Peers. The notification is a transaction of its own: within one that writes, the commits of all nodes
// would have to queue up for it. That it may be lost with the power harms nobody, so it does not wait for the disk.
func (p *peers) Tell(ctx context.Context, text string) (err error) {
	if p.tell == nil {
		if p.tell, err = p.connect(ctx); err != nil {
			return fmt.Errorf("postgres: tell the other nodes: %w", err)
		}
		_, err = p.tell.Exec(ctx, `SET synchronous_commit = off`)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		_, err = p.tell.Exec(ctx, `SELECT pg_notify('waxwing.' || current_schema(), $1)`, text)
	}
	if err != nil {
		hangUp(p.tell)
		p.tell = nil
		return fmt.Errorf("postgres: tell the other nodes: %w", err)
	}
	return nil
}

// Hear implements store.Peers.
func (p *peers) Hear(ctx context.Context, ready func(), heard func(text string)) error {
	c, err := p.connect(ctx)
	if err != nil {
		return fmt.Errorf("postgres: listen: %w", err)
	}
	defer hangUp(c)
	var schema string
	err = c.QueryRow(ctx, `SELECT current_schema()`).Scan(&schema)
	if err == nil {
		_, err = c.Exec(ctx, `LISTEN `+pgx.Identifier{"waxwing." + schema}.Sanitize())
	}
	if err != nil {
		return fmt.Errorf("postgres: listen: %w", err)
	}
	ready()
	for {
		n, err := c.WaitForNotification(ctx)
		if err != nil {
			return fmt.Errorf("postgres: listen: %w", err)
		}
		heard(n.Payload)
	}
}

// Lead implements store.Peers.
func (p *peers) Lead(ctx context.Context, fn func(ctx context.Context)) error {
	c, err := p.connect(ctx)
	if err != nil {
		return fmt.Errorf("postgres: lead: %w", err)
	}
	defer hangUp(c)
	tick := time.NewTicker(leaderLook)
	defer tick.Stop()
	for {
		// Tried again and again: to wait within the database would keep its dead rows from being removed.
		var leads bool
		if err := c.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext(current_schema()))`, leaderClass).Scan(&leads); err != nil {
			return fmt.Errorf("postgres: lead: %w", err)
		}
		if leads {
			return p.hold(ctx, c, tick.C, fn)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// errResigned ends a leader's look at its connection.
var errResigned = errors.New("resigned")

// hold calls fn for as long as the connection lives that holds the lock.
func (p *peers) hold(ctx context.Context, c *pgx.Conn, tick <-chan time.Time, fn func(ctx context.Context)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(ctx)
		cancel(errResigned)
	}()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-tick:
		}
		ask, stop := context.WithTimeout(ctx, answerTime)
		if _, err := c.Exec(ask, `SELECT 1`); err != nil {
			cancel(fmt.Errorf("postgres: lead: %w", err))
		}
		stop()
	}
	<-done
	if err := context.Cause(ctx); !errors.Is(err, errResigned) {
		return err
	}
	return nil
}

// Now implements store.Peers.
func (*peers) Now() string { return `(extract(epoch FROM clock_timestamp()) * 1000)::bigint` }

// Close implements store.Peers: nobody tells any more.
func (p *peers) Close() error {
	if p.tell != nil {
		hangUp(p.tell)
		p.tell = nil
	}
	return nil
}
