package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// SocketName is the name of the socket in the data directory.
const SocketName = "control.sock"

// The protocol: POST /v1/OPERATION. The body of the request is one JSON value and a line end, then the octets of an
// upload. An answer 200 holds the JSON of the result, or the octets of a download with their Content-Length; any other
// status holds the JSON of an Error.
const (
	pathPrefix  = "/v1/"
	maxRequest  = 16 << 20 // octets of the JSON of a request
	maxResponse = 64 << 20 // octets of the JSON of a result
	contentJSON = "application/json"
)

// statusOf maps the kinds of errors to HTTP, and back.
var statusOf = map[Kind]int{Invalid: 400, NotFound: 404, Conflict: 409, Unavailable: 503, Failed: 500}

// unmarshalStrict reads one JSON value and refuses fields that v lacks.
func unmarshalStrict(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// socketPath gives a path for the socket that fits into a socket address, which holds 107 octets: a longer one is
// reached through an open descriptor of its directory. release closes that.
func socketPath(dir string) (path string, release func() error, err error) {
	path = filepath.Join(dir, SocketName)
	if len(path) < 100 {
		return path, func() error { return nil }, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.FormatUint(uint64(d.Fd()), 10) + "/" + SocketName, d.Close, nil
}

// ListenSocket makes the control socket in dir, readable and writable by its owner alone. The caller holds the lock of
// the directory, so that a socket that is there is a dead server's.
func ListenSocket(dir string) (l net.Listener, err error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err = net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The mode is set after the bind; until then the directory, which is 0700, keeps others out, and each peer's user is
	// checked besides.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // its path may lead through a descriptor that is closed by then
	}
	return l, nil
}

// RemoveSocket removes the socket's name once the listener is closed.
func RemoveSocket(dir string) error {
	if err := os.Remove(filepath.Join(dir, SocketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// connKey is the key of the context value that holds the connection of a request.
type connKey struct{}

func keepConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}
