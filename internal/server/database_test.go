package server

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/store/postgres/pgtest"
)

func TestTheConnectionStringIsReadFromAPrivateFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"first line":         {"host=/run/postgresql\nnothing else counts\n", 0o600, "host=/run/postgresql"},
		"no newline":         {" postgres://u:p@h/d ", 0o400, "postgres://u:p@h/d"},
		"empty":              {"\nhost=x", 0o600, ""},
		"readable by others": {"host=x", 0o644, ""},
		"readable by group":  {"host=x", 0o640, ""},
	} {
		file := filepath.Join(t.TempDir(), "dsn")
		if err := os.WriteFile(file, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := readDSN(file)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestTheServerRunsOnPostgres(t *testing.T) {
	t.Parallel()
	cluster, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	dsn := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(cluster.DSN("")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := newNode(t, func(c *config.Config) { c.Store = config.Store{Driver: config.Postgres, DSNFile: dsn} })
	if _, err := os.Stat(filepath.Join(cfg.DataDir, databaseName)); err == nil {
		t.Error("there is an SQLite database")
	}
	n := start(t, cfg)
	if err := send(n.address(config.SMTP, config.StartTLS), "kept."); err != nil {
		t.Fatal(err)
	}
	other := *cfg
	other.DataDir = t.TempDir()
	other.Spool.Dir = filepath.Join(other.DataDir, "spool")
	_, err = OpenState(t.Context(), &other, slog.New(slog.DiscardHandler))
	var refused *control.Error
	if !errors.As(err, &refused) || refused.Kind != control.Unavailable {
		t.Fatalf("a second server on the database: %v", err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	withState(t, cfg, func(c control.Carrier) {
		if got := subjects(t, c); got["kept."] != 1 {
			t.Errorf("subjects %v", got)
		}
	})
}
