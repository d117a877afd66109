package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/backup"
	"waxwing/internal/directory"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/store"
	"waxwing/internal/store/keyring"
	"waxwing/internal/trace"
)

// Server is what only a running server can do; nil while it is stopped.
type Server interface {
	Status() Status
	Reload(ctx context.Context) error
	DNSLists() []dnslist.Status
	SurgeChanged(id store.AccountID)
}

// Options of a Service.
type Options struct {
	Store     *store.Store
	Directory *directory.Directory
	Keys      *keyring.Ring // of encryption at rest; nil when messages are not encrypted
	Backup    *backup.Agent // nil: there are no backups
	Trace     *trace.Recorder
	Server    Server // nil when the server is stopped
	SpoolDir  string // for messages above 256 KiB while they are imported
	Clock     func() time.Time
	Logger    *slog.Logger
	// TryList asks one DNS list; nil where there is no resolver.
	TryList func(ctx context.Context, l dnslist.List, a netip.Addr, domain string) (dnslist.Tried, error)
}

// Service carries out the operations. It is safe for concurrent use.
type Service struct {
	store  *store.Store
	dir    *directory.Directory
	keys   *keyring.Ring
	backup *backup.Agent
	trace  *trace.Recorder // nil when the server is stopped
	server Server
	spool  string
	clock  func() time.Time
	log    *slog.Logger
	proof  *proof

	tryList func(ctx context.Context, l dnslist.List, a netip.Addr, domain string) (dnslist.Tried, error)

	appends appends
}

// New makes the service; the caller owns what is in the options.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{store: o.Store, dir: o.Directory, keys: o.Keys, backup: o.Backup, trace: o.Trace, server: o.Server, spool: o.SpoolDir, clock: o.Clock, log: o.Logger, proof: &proof{}, tryList: o.TryList}
}

func (s *Service) run(ctx context.Context, name string, req any, body io.Reader) (any, error) {
	h, ok := handlers[name]
	if !ok || h.run == nil {
		return nil, Errorf(NotFound, "unknown operation %q", name)
	}
	resp, err := h.run(ctx, s, req, body)
	if err != nil {
		return nil, classify(err)
	}
	return resp, nil
}

func (s *Service) openStream(ctx context.Context, name string, req any) (sized, error) {
	h, ok := handlers[name]
	if !ok || h.opens == nil {
		return nil, Errorf(NotFound, "unknown operation %q", name)
	}
	r, err := h.opens(ctx, s, req)
	if err != nil {
		return nil, classify(err)
	}
	return r, nil
}

// classify gives an error of the parts below its kind.
func classify(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	e := &Error{Kind: Failed, Text: err.Error(), cause: err}
	var batch *directory.BatchError
	if errors.As(err, &batch) {
		e.Index = &batch.Index
		e.Text = batch.Err.Error()
	}
	var field *directory.FieldError
	switch {
	case errors.As(err, &field):
		e.Kind, e.Field = Invalid, field.Field
	case isAny(err, store.ErrName, backup.ErrNoRecipients):
		e.Kind = Invalid
	case isAny(err, store.ErrSelection):
		e.Kind, e.Text = Invalid, "the selection is empty: name ids, a destination, a sender or a recipient, or --all"
	case isAny(err, directory.ErrNotFound, store.ErrNotFound, backup.ErrNoRepository):
		e.Kind = NotFound
	case isAny(err, directory.ErrExists, directory.ErrNotEmpty, directory.ErrConflict, directory.ErrHoldsMail, store.ErrExists, store.ErrActive, store.ErrHeld, backup.ErrBusy):
		e.Kind = Conflict
	case isAny(err, directory.ErrLimit, store.ErrLimit, store.ErrOverQuota):
		e.Kind = Conflict
	case isAny(err, store.ErrFull, store.ErrReadOnly, store.ErrClosed, context.Canceled, context.DeadlineExceeded, os.ErrPermission):
		e.Kind = Unavailable
	}
	return e
}

func isAny(err error, kinds ...error) bool {
	for _, k := range kinds {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// parseAddress reads an address of a request.
func parseAddress(field, text string) (address.Address, error) {
	a, err := address.Parse(text)
	if err != nil {
		return a, addressError(field, err)
	}
	return a, nil
}

// parseAddresses reads a list of them.
func parseAddresses(field string, list []string) ([]address.Address, error) {
	var out []address.Address
	for _, text := range list {
		a, err := parseAddress(field, text)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func shownAddresses(list []address.Address) []string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.Unicode()
	}
	return out
}

func addressError(field string, err error) *Error {
	return &Error{Kind: Invalid, Field: field, Text: field + ": " + err.Error(), cause: err}
}

// inList puts the place in a document before the field of an error.
func inList(list string, i int, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	place := fmt.Sprintf("%s.%d.", list, i)
	return &Error{Kind: e.Kind, Field: place + e.Field, Text: place + e.Text, cause: err}
}
