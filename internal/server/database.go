package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/store"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/sqlite"
)

// maxDSN bounds the file that holds a connection string.
const maxDSN = 16 << 10

// openDatabase opens the database that the configuration names.
func openDatabase(ctx context.Context, cfg *config.Config, log *slog.Logger) (*store.Database, error) {
	if cfg.Store.Driver != config.Postgres {
		db, err := sqlite.Open(ctx, filepath.Join(cfg.DataDir, databaseName), sqlite.Options{})
		if err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		return db, nil
	}
	dsn, err := readDSN(cfg.Store.DSNFile)
	if err != nil {
		return nil, control.Errorf(control.Invalid, "open store: store.dsn_file: %v", err)
	}
	db, err := postgres.Open(ctx, postgres.Options{DSN: dsn, Logger: log})
	if errors.Is(err, postgres.ErrInUse) {
		return nil, control.Errorf(control.Unavailable, "open store: the database is in use by another server: one server, or one command while it is stopped, at a time")
	}
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "open store: %v", err)
	}
	return db, nil
}

// readDSN reads the first line of a file that holds a connection string. As it holds a password, nobody else may read it.
func readDSN(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return "", err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s has mode %04o: others can read the password in it; chmod 600", name, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxDSN))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return line, nil
}
