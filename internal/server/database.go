package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/store"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/objects"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/sqlite"
)

// openDatabase opens the database that the configuration names, and brings its tables up to date.
func openDatabase(ctx context.Context, cfg *config.Config, log *slog.Logger, u *upgrader) (*store.Database, error) {
	if cfg.Store.Driver != config.Postgres {
		db, err := sqlite.Open(ctx, filepath.Join(cfg.DataDir, databaseName), sqlite.Options{Logger: log, Before: u.before})
		if err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		return db, nil
	}
	dsn, err := readDSN(cfg)
	if err != nil {
		return nil, err
	}
	db, err := postgres.Open(ctx, postgres.Options{DSN: dsn, Logger: log, Before: u.before, Shared: cfg.Store.S3 != nil && !u.alone})
	switch {
	case errors.Is(err, postgres.ErrInUse) && u.alone:
		return nil, control.Errorf(control.Unavailable, "open store: the database is in use: this command needs it alone, so stop all servers that use it")
	case errors.Is(err, postgres.ErrInUse) && cfg.Store.S3 != nil:
		return nil, control.Errorf(control.Unavailable, "open store: somebody has the database alone, to move or restore a store or to change its tables: start when that has ended")
	case errors.Is(err, postgres.ErrInUse):
		return nil, control.Errorf(control.Unavailable, "open store: the database is in use by another server: without a bucket one server, or one command while it is stopped, at a time")
	case err != nil:
		return nil, control.Errorf(control.Unavailable, "open store: %w", err)
	}
	return db, nil
}

// readDSN reads the connection string of PostgreSQL.
func readDSN(cfg *config.Config) (string, error) {
	lines, err := config.ReadSecret(cfg.Store.DSNFile, 1)
	if err != nil {
		return "", control.Errorf(control.Invalid, "open store: store.dsn_file: %v", err)
	}
	return lines[0], nil
}

// openBlobs opens what holds the octets of messages.
func openBlobs(ctx context.Context, cfg *config.Config, log *slog.Logger, keys blob.Keys) (store.BlobStore, error) {
	b := cfg.Store.S3
	if b == nil {
		packs, err := blob.Open(blob.Options{
			Dir: filepath.Join(cfg.DataDir, packsName), Logger: log, Reserve: int64(cfg.Spool.DiskReserve), Keys: keys,
		})
		if err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
		return store.Packs(packs), nil
	}
	lines, err := config.ReadSecret(b.CredentialsFile, 2)
	if err != nil {
		return nil, control.Errorf(control.Invalid, "open store: store.s3.credentials_file: %v", err)
	}
	// What is staged is worth nothing after a crash.
	staging := filepath.Join(cfg.DataDir, stagingName)
	if err := os.RemoveAll(staging); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // the environment is not read
	bucket, err := objects.Open(ctx, objects.Options{
		Endpoint: b.Endpoint, Insecure: b.Plain, Region: b.Region, Bucket: b.Bucket, Prefix: b.Prefix,
		AccessKey: lines[0], SecretKey: lines[1], Keys: keys, Dir: staging, Transport: transport, Logger: log,
	})
	if err != nil {
		return nil, control.Errorf(control.Unavailable, "open store: %v", err)
	}
	return store.Objects(bucket), nil
}
