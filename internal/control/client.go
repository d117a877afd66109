package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// ErrNoServer means that no server answers on the socket of a directory.
var ErrNoServer = errors.New("no server is running on this directory")

// Client carries operations to a running server.
type Client struct {
	http *http.Client
	dir  string
}

// Dial finds the running server of a data directory; ErrNoServer when there is none.
func Dial(ctx context.Context, dir string) (*Client, error) {
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) },
		DisableCompression: true,
		MaxIdleConns:       4,
		IdleConnTimeout:    time.Minute,
	}}
	probe, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c, probe.Close()
}

func (c *Client) connect(ctx context.Context) (conn net.Conn, err error) {
	if _, err := os.Stat(filepath.Join(c.dir, SocketName)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNoServer
		}
		return nil, Errorf(Unavailable, "control socket: %w", err)
	}
	path, release, err := socketPath(c.dir)
	if err != nil {
		return nil, Errorf(Unavailable, "control socket: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	var d net.Dialer
	conn, err = d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoServer
	}
	if err != nil {
		return nil, Errorf(Unavailable, "control socket: %w", err)
	}
	return conn, nil
}

// Running tells that a server answers.
func (c *Client) Running() bool { return true }

// Close ends idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// post sends a request; the answer is 200 when there is no error.
func (c *Client) post(ctx context.Context, name string, req any, body io.Reader) (*http.Response, error) {
	raw, err := json.Marshal(req)
	if err != nil {
		return nil, Errorf(Invalid, "%s: %w", name, err)
	}
	payload := io.Reader(bytes.NewReader(append(raw, '\n')))
	if body != nil {
		payload = io.MultiReader(payload, body)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://control"+pathPrefix+name, payload)
	if err != nil {
		return nil, Errorf(Invalid, "%s: %w", name, err)
	}
	r.Header.Set("Content-Type", contentJSON)
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, Errorf(Unavailable, "ask the running server for %s: %w", name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	e := &Error{Kind: Failed}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || json.Unmarshal(text, e) != nil || e.Text == "" {
		return nil, Errorf(Failed, "%s: the server answers %s", name, resp.Status)
	}
	return nil, e
}

func (c *Client) do(ctx context.Context, name string, req any, body io.Reader, resp any) (err error) {
	r, err := c.post(ctx, name, req, body)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Body.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxResponse))
	if err != nil {
		return Errorf(Unavailable, "read the answer to %s: %w", name, err)
	}
	if err := json.Unmarshal(raw, resp); err != nil {
		return Errorf(Failed, "read the answer to %s: %w", name, err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, name string, req any) (io.ReadCloser, error) {
	r, err := c.post(ctx, name, req, nil)
	if err != nil {
		return nil, err
	}
	if r.ContentLength < 0 {
		return nil, errors.Join(fmt.Errorf("%s: the answer has no length", name), r.Body.Close())
	}
	return r.Body, nil
}
