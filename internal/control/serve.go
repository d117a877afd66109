package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/directory"
)

// Serving answers the control socket.
type Serving struct {
	server *http.Server
	done   chan struct{}
}

// Serve answers operations on l, which it owns, until Close.
func (s *Service) Serve(l net.Listener) *Serving {
	v := &Serving{
		done: make(chan struct{}),
		server: &http.Server{
			Handler:           s.Handler(),
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       5 * time.Minute,
			MaxHeaderBytes:    16 << 10,
			ConnContext:       keepConn,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		},
	}
	go func() {
		defer close(v.done)
		if err := v.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("control socket stopped", "error", err)
		}
	}()
	return v
}

// Close takes no new operations and waits for those under way until ctx ends.
func (v *Serving) Close(ctx context.Context) error {
	err := v.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, v.server.Close())
	}
	<-v.done
	return err
}

// Handler answers operations of the process's own user and of root.
func (s *Service) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := caller(r)
		if err != nil {
			s.refuse(w, Errorf(Invalid, "%w", err))
			return
		}
		if r.Method != http.MethodPost {
			s.refuse(w, Errorf(Invalid, "method %s: only POST is answered", r.Method))
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
		h, known := handlers[name]
		if !ok || !known {
			s.refuse(w, Errorf(NotFound, "unknown operation %q; is the command newer than the server?", name))
			return
		}
		s.answer(directory.WithActor(r.Context(), who), w, r, name, h)
	})
}

// caller names who asks, and refuses other users than the server's own and root.
func caller(r *http.Request) (string, error) {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return "", errors.New("no connection to judge")
	}
	uid, err := peerUser(c)
	if err != nil {
		return "", fmt.Errorf("find user of caller: %w", err)
	}
	if uid != 0 && uid != os.Getuid() {
		return "", fmt.Errorf("user %d may not control this server", uid)
	}
	return "local uid " + strconv.Itoa(uid), nil
}

func (s *Service) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, name string, h handler) {
	body := bufio.NewReaderSize(r.Body, 64<<10)
	raw, err := readLine(body, maxRequest)
	if err != nil {
		s.refuse(w, Errorf(Invalid, "%s: %w", name, err))
		return
	}
	req, err := h.decode(raw)
	if err != nil {
		s.refuse(w, err)
		return
	}
	if h.opens != nil {
		s.stream(ctx, w, name, req)
		return
	}
	resp, err := s.run(ctx, name, req, body)
	if err != nil {
		s.refuse(w, err)
		return
	}
	out, err := json.Marshal(resp)
	if err != nil {
		s.refuse(w, Errorf(Failed, "%s: %w", name, err))
		return
	}
	w.Header().Set("Content-Type", contentJSON)
	if _, err := w.Write(out); err != nil {
		s.log.Debug("control answer not sent", "operation", name, "error", err)
	}
}

// stream sends a download. When it fails midway fewer octets than announced have gone out, which the caller notices.
func (s *Service) stream(ctx context.Context, w http.ResponseWriter, name string, req any) {
	r, err := s.openStream(ctx, name, req)
	if err != nil {
		s.refuse(w, err)
		return
	}
	defer r.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(r.Size(), 10))
	if _, err := io.Copy(w, r); err != nil {
		s.log.Warn("control download broken off", "operation", name, "error", err)
	}
}

func (s *Service) refuse(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(Failed, "%w", err)
	}
	out, err := json.Marshal(e)
	if err != nil {
		out = []byte(`{"kind":"failed","error":"the error has no text"}`)
	}
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(statusOf[e.Kind])
	if _, err := w.Write(out); err != nil {
		s.log.Debug("control answer not sent", "error", err)
	}
}

// readLine reads up to a line end or the end of the body, at most limit octets.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		if len(line)+len(piece) > limit {
			return nil, fmt.Errorf("request is larger than %d octets", limit)
		}
		line = append(line, piece...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("read request: %w", err)
		}
	}
}
