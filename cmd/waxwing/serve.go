package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"waxwing/internal/build"
	"waxwing/internal/config"
	"waxwing/internal/server"
	"waxwing/internal/telemetry"
)

type serveCommand struct{}

func (c *serveCommand) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	return s.serve(cfg, nil)
}

// serve runs the server until the context ends; SIGHUP reloads.
func (s *session) serve(cfg *config.Config, ready func(server.Ready)) error {
	level := &slog.LevelVar{}
	level.Set(cfg.Log.Level)
	log := telemetry.NewLogger(s.talk, cfg.Log.Format, level)
	srv, err := server.New(s.ctx, cfg, server.Options{Version: build.Version, Log: log, Level: level, Ready: ready})
	if err != nil {
		return unavailable(fullDisk(cfg, err))
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				// What went wrong stands in the log; the old state stays in use.
				_ = srv.Reload(ctx)
			}
		}
	}()
	err = srv.Run(s.ctx)
	cancel()
	<-ended
	return err
}
