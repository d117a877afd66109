package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"unicode"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/server"
)

// session is what one command runs with.
type session struct {
	ctx  context.Context
	in   io.Reader
	out  io.Writer
	talk io.Writer
	json bool
	dir  string // as given; "" when it wasn't
}

// directory is the server's directory.
func (s *session) directory(otherwise string) string {
	if s.dir != "" {
		return s.dir
	}
	return otherwise
}

// config reads the node's configuration.
func (s *session) config() (*config.Config, error) {
	dir := s.directory(".")
	cfg, err := config.Load(filepath.Join(dir, config.FileName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, control.Errorf(control.NotFound, "%s holds no %s: name the server's directory with --dir, or make one with `waxwing init`", dir, config.FileName)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, control.Errorf(control.Unavailable, "%w", err)
	}
	return cfg, err
}

// with runs fn with a carrier to the running server or, while it is stopped, to the store opened by this process.
func (s *session) with(fn func(c control.Carrier) error) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	return s.withConfig(cfg, fn)
}

func (s *session) withConfig(cfg *config.Config, fn func(c control.Carrier) error) (err error) {
	client, err := control.Dial(s.ctx, cfg.DataDir)
	if err == nil {
		defer func() { err = errors.Join(err, client.Close()) }()
		return fn(client)
	}
	if !errors.Is(err, control.ErrNoServer) {
		return err
	}
	state, err := server.OpenState(s.ctx, cfg, s.logger())
	if err != nil {
		return unavailable(fullDisk(cfg, err))
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	return fn(control.Direct(state.Control(nil)))
}

// unavailable marks an error of opening the store, unless it has a kind already.
func unavailable(err error) error {
	var e *control.Error
	if errors.As(err, &e) {
		return err
	}
	return control.Errorf(control.Unavailable, "%w", err)
}

// openNeeds is the free space that opening the store takes.
const openNeeds = 1 << 20

// fullDisk says that the disk is full where an error of the database doesn't.
func fullDisk(cfg *config.Config, err error) error {
	free, ferr := durable.OS.Free(cfg.DataDir)
	if ferr != nil || free >= openNeeds {
		return err
	}
	return fmt.Errorf("%w: the disk of %s is full (%s free): make room there", err, cfg.DataDir, config.Size(free).Human())
}

// logger writes warnings of this process's own store to standard error.
func (s *session) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(s.talk, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// program is how this program was called, for lines that can be copied.
func program() string { return shellQuote(os.Args[0]) }

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// print writes v as JSON, or lets text write it for people.
func (s *session) print(v any, text func(w *printer)) error {
	if s.json {
		enc := json.NewEncoder(s.out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	p := &printer{w: tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)}
	text(p)
	if err := p.w.Flush(); err != nil && p.err == nil {
		p.err = err
	}
	if p.err != nil {
		return fmt.Errorf("print: %w", p.err)
	}
	return nil
}

// say talks on standard error, unless --json asks for quiet.
func (s *session) say(format string, args ...any) {
	if !s.json {
		fmt.Fprintf(s.talk, format+"\n", args...)
	}
}

// printer writes lines of columns and keeps the first error.
type printer struct {
	w   *tabwriter.Writer
	err error
}

// row writes a line of columns. What comes from outside is made harmless to a terminal.
func (p *printer) row(columns ...any) {
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = plain(fmt.Sprint(c))
	}
	p.line(strings.Join(cells, "\t"))
}

// line writes a line as it is.
func (p *printer) line(text string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.w, text+"\n")
	}
}

// plain replaces control characters, by which text from a peer could move the cursor or forge lines.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '\uFFFD'
		}
		return r
	}, s)
}
