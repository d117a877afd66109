// Package control is the service layer of administration: every act that the command line can do to a mail system, and
// later the HTTP API and the console, is one typed operation here.
//
// An operation is called through a carrier. Direct runs it in this process, over an open store: so the commands work
// while the server is stopped. A Client sends it to the running server as JSON over HTTP on a Unix socket in the data
// directory, which only the owner of the directory can open. Both give the same results and the same errors.
//
//	c := control.Direct(service)        // or control.Dial(dir)
//	a, err := control.AccountShow.Call(ctx, c, control.AccountRef{Address: "li@example.test"})
//
// No password comes here: a password is hashed before it enters an operation. There is no authorisation either; who
// may open the store or the socket may do everything.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Kind is the kind of an Error, which decides the exit code of a command and the status of an HTTP answer.
type Kind string

// The kinds of errors.
const (
	Invalid     Kind = "invalid"     // the request can't be right: the caller must change it
	NotFound    Kind = "not_found"   // what it is about isn't there
	Conflict    Kind = "conflict"    // what it would make is there already, or changed meanwhile
	Unavailable Kind = "unavailable" // the store, the disk or the server refuses now; later it may work
	Failed      Kind = "failed"      // anything else
)

// Error is what an operation failed with, in a form that crosses the socket.
type Error struct {
	Kind  Kind   `json:"kind"`
	Text  string `json:"error"`
	Field string `json:"field,omitempty"` // of the request, where one is to blame
	Index *int   `json:"index,omitempty"` // of the entry of a batch, from 0
	cause error
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error; %w keeps the cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Text: err.Error(), cause: err}
}

// KindOf is the kind of an error, Failed for one that is no Error.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}

// Carrier takes operations to a Service.
type Carrier interface {
	// do runs the operation with this request and sets *resp. body is what an upload carries, nil for all others.
	do(ctx context.Context, name string, req any, body io.Reader, resp any) error
	// open runs an operation that answers with octets.
	open(ctx context.Context, name string, req any) (io.ReadCloser, error)
	// Running tells whether a running server answers, rather than this process.
	Running() bool
	// Close frees the carrier.
	Close() error
}

// Operation is one act with its request and its result.
type Operation[Req, Resp any] struct{ name string }

// Call runs the operation.
func (o Operation[Req, Resp]) Call(ctx context.Context, c Carrier, req Req) (Resp, error) {
	var resp Resp
	err := c.do(ctx, o.name, req, nil, &resp)
	return resp, err
}

// Upload is an operation that takes octets beside its request.
type Upload[Req, Resp any] struct{ name string }

// Call runs the operation, which reads body as far as the request says.
func (o Upload[Req, Resp]) Call(ctx context.Context, c Carrier, req Req, body io.Reader) (Resp, error) {
	var resp Resp
	err := c.do(ctx, o.name, req, body, &resp)
	return resp, err
}

// Download is an operation that answers with octets.
type Download[Req any] struct{ name string }

// Call runs the operation; the caller closes what it returns.
func (o Download[Req]) Call(ctx context.Context, c Carrier, req Req) (io.ReadCloser, error) {
	return c.open(ctx, o.name, req)
}

// sized is what a Download answers with inside this process: octets whose number is known.
type sized interface {
	io.ReadCloser
	Size() int64
}

// handler runs one operation inside this process, from a request of its own type or from JSON.
type handler struct {
	decode func(raw []byte) (any, error)
	run    func(ctx context.Context, s *Service, req any, body io.Reader) (any, error)
	upload bool
	opens  func(ctx context.Context, s *Service, req any) (sized, error) // set for downloads alone
}

// handlers is the table of all operations, filled while the package's variables are made and never after.
var handlers = map[string]handler{}

func operation[Req, Resp any](name string, run func(*Service, context.Context, Req) (Resp, error)) Operation[Req, Resp] {
	handlers[name] = handler{
		decode: decodeAs[Req],
		run: func(ctx context.Context, s *Service, req any, _ io.Reader) (any, error) {
			r, ok := req.(Req)
			if !ok {
				return nil, Errorf(Invalid, "%s takes no %T", name, req)
			}
			return run(s, ctx, r)
		},
	}
	return Operation[Req, Resp]{name}
}

func upload[Req, Resp any](name string, run func(*Service, context.Context, Req, io.Reader) (Resp, error)) Upload[Req, Resp] {
	handlers[name] = handler{
		decode: decodeAs[Req],
		upload: true,
		run: func(ctx context.Context, s *Service, req any, body io.Reader) (any, error) {
			r, ok := req.(Req)
			if !ok {
				return nil, Errorf(Invalid, "%s takes no %T", name, req)
			}
			return run(s, ctx, r, body)
		},
	}
	return Upload[Req, Resp]{name}
}

func download[Req any](name string, open func(*Service, context.Context, Req) (sized, error)) Download[Req] {
	handlers[name] = handler{
		decode: decodeAs[Req],
		opens: func(ctx context.Context, s *Service, req any) (sized, error) {
			r, ok := req.(Req)
			if !ok {
				return nil, Errorf(Invalid, "%s takes no %T", name, req)
			}
			return open(s, ctx, r)
		},
	}
	return Download[Req]{name}
}

// decodeAs reads a request; an unknown field is an error, so that a newer command doesn't believe that an older
// server understood it.
func decodeAs[Req any](raw []byte) (any, error) {
	var r Req
	if err := unmarshalStrict(raw, &r); err != nil {
		return nil, Errorf(Invalid, "request: %w", err)
	}
	return r, nil
}

// direct runs operations in this process.
type direct struct{ service *Service }

// Direct is the carrier of a process that has opened the store itself. Close does not close the service.
func Direct(s *Service) Carrier { return direct{s} }

func (d direct) Running() bool { return false }
func (d direct) Close() error  { return nil }

func (d direct) do(ctx context.Context, name string, req any, body io.Reader, resp any) error {
	got, err := d.service.run(ctx, name, req, body)
	if err != nil {
		return err
	}
	// The same way that a result takes over the socket, so that a caller can't tell the carriers apart, nor change what
	// the service keeps.
	raw, err := json.Marshal(got)
	if err != nil {
		return Errorf(Failed, "%s: %w", name, err)
	}
	if err := json.Unmarshal(raw, resp); err != nil {
		return Errorf(Failed, "%s: %w", name, err)
	}
	return nil
}

func (d direct) open(ctx context.Context, name string, req any) (io.ReadCloser, error) {
	return d.service.openStream(ctx, name, req)
}
