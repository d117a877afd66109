package follow

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"waxwing/internal/store"
)

// Engine is the goroutine that makes an index, and what it tells of itself. All methods may be called at the same time, but
// for Start, which comes first.
type Engine struct {
	Indexed  atomic.Int64 // messages, since Start
	Rebuilds atomic.Int64
	Changes  atomic.Int64 // notices of the store

	log     *slog.Logger
	wake    chan struct{} // of one element
	failure atomic.Pointer[error]

	once   sync.Once
	stop   context.CancelFunc // nil: not started
	unhook func()
	done   chan struct{}
}

// NewEngine makes one that is not started.
func NewEngine(log *slog.Logger) *Engine {
	return &Engine{log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Start takes steps until Stop, woken by the source too. What of the loop concerns the engine alone is set here; its Failed
// is called after the engine has noted the error.
func (e *Engine) Start(src store.SearchSource, l Loop, step func(ctx context.Context) (more bool, err error)) {
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.unhook = src.WatchMessages(func() {
		e.Changes.Add(1)
		e.Poke()
	})
	also := l.Failed
	l.Wake, l.Changes, l.Fine = e.wake, e.Changes.Load, func() { e.failure.Store(nil) }
	l.Failed = func(err error) {
		if e.failure.Swap(&err) == nil {
			e.log.Error("search index: stopped for now, searches read the messages instead", "err", err)
		}
		also(err)
	}
	go func() {
		defer close(e.done)
		l.Run(ctx, step)
	}()
}

// Poke wakes the goroutine.
func (e *Engine) Poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Stop ends the goroutine and then calls after, once. What was not started has nothing to end.
func (e *Engine) Stop(after func() error) (err error) {
	e.once.Do(func() {
		if e.stop == nil {
			return
		}
		e.unhook()
		e.stop()
		<-e.done
		err = after()
	})
	return err
}

// Status tells where the index stands; how much waits, the index knows.
func (e *Engine) Status(waiting int64) Status {
	s := Status{Indexed: e.Indexed.Load(), Rebuilds: e.Rebuilds.Load(), Waiting: waiting}
	if err := e.failure.Load(); err != nil {
		s.Err = *err
	}
	return s
}
