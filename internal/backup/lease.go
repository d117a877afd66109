package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// lease is the right to change a repository: one backup or one removal of old ones at a time. It is an object that must
// not be there before, and that its holder renews; one that was not renewed for long belonged to somebody who is gone.
type lease struct {
	target Target
	clock  func() time.Time
	stop   context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	mine leaseText
	raw  []byte
	err  error
}

// leaseText is the object.
type leaseText struct {
	Token   string    `json:"token"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Process string    `json:"process"` // random: containers have the same PIDs
	What    string    `json:"what"`
	Expires time.Time `json:"expires"`
}

const (
	leaseTime  = 15 * time.Minute
	leaseRenew = leaseTime / 5
	maxLease   = 64 << 10
)

// ErrBusy means that another process changes the repository.
var ErrBusy = errors.New("another backup works on this target")

// takeLease waits for nobody: ErrBusy while another has it.
func takeLease(ctx context.Context, t Target, clock func() time.Time, what string) (*lease, error) {
	token, err := randomName()
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // for people
	alive.Store(token, nil)
	l := &lease{target: t, clock: clock, mine: leaseText{Token: token, Host: host, PID: os.Getpid(), Process: process, What: what}, done: make(chan struct{})}
	err = l.put(ctx)
	if errors.Is(err, fs.ErrExist) {
		if err = l.takeOver(ctx); err == nil {
			err = l.put(ctx)
		}
		if errors.Is(err, fs.ErrExist) {
			err = ErrBusy
		}
	}
	if err == nil {
		err = l.check(ctx)
	}
	if err != nil {
		alive.Delete(token)
		return nil, fmt.Errorf("backup: lease of %s: %w", t, err)
	}
	ctx, l.stop = context.WithCancel(context.WithoutCancel(ctx))
	go l.renew(ctx)
	return l, nil
}

func (l *lease) put(ctx context.Context) error {
	l.mine.Expires = l.clock().Add(leaseTime).UTC()
	raw, err := json.Marshal(l.mine)
	if err != nil {
		return err
	}
	l.raw = raw
	return l.target.Put(ctx, leaseName, bytes.NewReader(raw), int64(len(raw)))
}

// takeOver removes the lease of somebody who is gone.
func (l *lease) takeOver(ctx context.Context) error {
	raw, err := getWhole(ctx, l.target, leaseName, maxLease)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var other leaseText
	if json.Unmarshal(raw, &other) != nil { // torn by a crash: its age is what is known of it
		list, err := l.target.List(ctx, "")
		if err != nil {
			return err
		}
		for _, o := range list {
			if o.Name == leaseName {
				other.Expires = o.Modified.Add(leaseTime)
			}
		}
	}
	if now := l.clock(); now.Before(other.Expires) && !(l.mine.Host == other.Host && left(other)) {
		return fmt.Errorf("%w: %s on %s, until %s unless it is renewed", ErrBusy, other.What, other.Host, other.Expires.UTC().Format(time.RFC3339))
	}
	return l.target.Remove(ctx, leaseName)
}

// process tells this process from all others, and alive are the tokens of its leases.
var (
	process = rand.Text()
	alive   sync.Map
)

// left tells a lease of this machine whose holder is gone, or of this process, which failed to give it back: the target may
// not have answered then.
func left(other leaseText) bool {
	if other.Process != process {
		return other.PID != os.Getpid() && gone(other.PID)
	}
	_, is := alive.Load(other.Token)
	return !is
}

// renew puts the lease anew in time, until it ends.
func (l *lease) renew(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := l.again(ctx); err != nil && ctx.Err() == nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
			return
		}
	}
}

func (l *lease) again(ctx context.Context) error {
	if err := l.check(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.target.Remove(ctx, leaseName); err != nil {
		return err
	}
	return l.put(ctx)
}

// check holds that the lease is still ours. It comes before each step that would harm another.
func (l *lease) check(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return fmt.Errorf("backup: the lease was lost: %w", l.err)
	}
	raw, err := getWhole(ctx, l.target, leaseName, maxLease)
	if err == nil && !bytes.Equal(raw, l.raw) {
		err = ErrBusy
	}
	if err != nil {
		return fmt.Errorf("backup: the lease was lost: %w", err)
	}
	return nil
}

// end gives the lease back.
func (l *lease) end() error {
	l.stop()
	<-l.done
	defer alive.Delete(l.mine.Token)
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	if err := l.check(ctx); err != nil {
		return nil //nolint:nilerr // it is not ours to remove: whoever lost it has been told by its own check
	}
	return l.target.Remove(ctx, leaseName)
}
