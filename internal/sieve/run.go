package sieve

import (
	"context"
	"errors"
	"io"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// Host is what a run may ask of the world. An error ends the run, and the message is kept.
type Host interface {
	// MailboxExists tells whether the user has a mailbox of that name.
	MailboxExists(ctx context.Context, name string) (bool, error)
	// SpecialUse tells whether a mailbox has a special use such as "\Junk"; any mailbox when the name is empty.
	SpecialUse(ctx context.Context, name, use string) (bool, error)
	// Seen tells whether a message with that key was there before and its time is not over (RFC 7352).
	Seen(ctx context.Context, key string) (bool, error)
}

// Input is a message and all that a run is told about it.
type Input struct {
	Message *message.Part
	Content io.ReaderAt
	Size    int64

	From, To    address.Address   // of the envelope; To as the sender wrote it
	Mine        []address.Address // the user's own addresses; the first sends what a script answers
	Separator   string            // between user and detail
	Now         time.Time
	Environment map[string]string // items of RFC 5183
	Spam        int               // percent, from 0; -1: not tested
	Virus       int               // RFC 5235, section 3.2: 0 not tested, 1 clean, to 5
	Host        Host
}

// Result is what is to be done with a message.
type Result struct {
	Actions []Action
	Err     error    // why the run ended early: the message is kept then, and nothing else is done
	Seen    []Memory // what the host is to remember once the actions are done
}

// Memory is something to remember for some time (RFC 7352).
type Memory struct {
	Key string
	For time.Duration
}

// frame is what belongs to one script of a run.
type frame struct {
	vars  map[string]string
	match []string
}

// run is one run of some scripts over a message. It belongs to one goroutine.
type run struct {
	ctx  context.Context
	lim  *Limits
	in   *Input
	work int64
	err  error // what ended the run; stays

	frame   *frame
	globals map[string]string
	once    map[string]bool // scripts that were included
	flags   []string        // the internal variable of RFC 5232
	part    *message.Part   // of the loop of RFC 5703 around, nil for none
	header  message.Header  // as the script has edited it
	edits   int
	edited  bool
	decoded map[string][]string // of header fields, by their names
	bodies  map[body]string
	octets  int64 // of bodies

	actions   []Action
	cancelled bool // the implicit keep
	kept      *Keep
	refused   bool
	replied   bool
	redirects int
	notices   int
	seen      []Memory
}

// Ends of scripts that are no errors.
var (
	errStop   = errors.New("stop")
	errReturn = errors.New("return")
)

// ErrWork is the error of a run that looked at too much.
var ErrWork = errors.New("the script does too much for this message")

// fail ends the run.
func (r *run) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// spend counts octets that are looked at.
func (r *run) spend(n int) {
	if r.work -= int64(n); r.work < 0 && r.err == nil {
		r.err = ErrWork
	}
}

// all runs statements in their order.
func (r *run) all(list []stmt) error {
	for _, s := range list {
		r.spend(64)
		if r.err != nil {
			return r.err
		}
		if err := s(r); err != nil {
			return err
		}
	}
	return r.err
}

// Run runs scripts over a message, one after the other as long as the message is kept, and tells what is to be done.
func Run(ctx context.Context, scripts []*Script, in Input) Result {
	r := &run{
		ctx: ctx, in: &in, header: in.Message.Header, globals: map[string]string{}, once: map[string]bool{},
		decoded: map[string][]string{}, bodies: map[body]string{},
	}
	for i, s := range scripts {
		if r.cancelled && r.kept == nil {
			break
		}
		if r.lim = &s.limits; i == 0 {
			r.work = s.limits.Work
		}
		r.frame, r.part = &frame{vars: map[string]string{}}, nil
		err := r.all(s.program)
		if r.err != nil {
			err = r.err
		}
		if err != nil && !errors.Is(err, errStop) && !errors.Is(err, errReturn) {
			return Result{Actions: []Action{Keep{}}, Err: err}
		}
		if ctx.Err() != nil {
			return Result{Actions: []Action{Keep{}}, Err: ctx.Err()}
		}
	}
	return r.result()
}

func (r *run) result() Result {
	switch {
	case r.kept != nil:
		r.actions = append(r.actions, *r.kept)
	case !r.cancelled:
		r.actions = append(r.actions, Keep{Flags: r.flags, Header: r.now()})
	}
	return Result{Actions: r.actions, Seen: r.seen}
}

// now is the header as an action that stands here sees it: nil when it is that of the message.
func (r *run) now() message.Header {
	if !r.edited {
		return nil
	}
	return r.header
}
