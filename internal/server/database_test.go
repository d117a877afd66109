package server

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/internal/config"
	"waxwing/internal/control"
	"waxwing/internal/store"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/internal/store/search"
)

func TestSecretsAreReadFromPrivateFiles(t *testing.T) {
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
		got, err := config.ReadSecret(file, 1)
		if strings.Join(got, "") != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
		if _, err := config.ReadSecret(file, 3); err == nil {
			t.Errorf("%s: three lines were read", name)
		}
	}
}

// ownPostgres starts a server and returns the file with its connection string.
func ownPostgres(t *testing.T) (dsn string) {
	t.Helper()
	cluster, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	dsn = filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(cluster.DSN("")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dsn
}

func TestTheServerRunsOnPostgresAndS3(t *testing.T) {
	t.Parallel()
	dsn := ownPostgres(t)
	service, err := s3test.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	bucket := service.Bucket(t, "mail", "")
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(bucket.AccessKey+"\n"+bucket.SecretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := newNode(t, func(c *config.Config) {
		c.Store = config.Store{Driver: config.Postgres, DSNFile: dsn, S3: &config.S3{
			Endpoint: bucket.Endpoint, Bucket: "mail", Prefix: "one", Region: bucket.Region, CredentialsFile: keys, Plain: true,
		}}
	})
	for _, name := range []string{databaseName, packsName} {
		if _, err := os.Stat(filepath.Join(cfg.DataDir, name)); err == nil {
			t.Errorf("there is a file %s in the data directory", name)
		}
	}
	n := start(t, cfg)
	if err := send(n.address(config.SMTP, config.StartTLS), "kept."); err != nil {
		t.Fatal(err)
	}
	other := *cfg
	other.DataDir = t.TempDir()
	other.Spool.Dir = filepath.Join(other.DataDir, "spool")
	second, err := OpenState(t.Context(), &other, discard)
	if err != nil {
		t.Fatalf("a second server on the database: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	refusesToChangeTables(t, cfg)
	state, err := OpenState(t.Context(), cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	_, err = state.Store.MoveContents(t.Context()) // a slow machine may have moved it already
	if err := errors.Join(err, state.Close()); err != nil {
		t.Fatalf("move contents: %v", err)
	}
	if got := service.Keys(t, "mail"); len(got) != 1 || !strings.HasPrefix(got[0], "one/packs/") {
		t.Errorf("objects %v", got)
	}
	withState(t, cfg, func(c control.Carrier) {
		if got := subjects(t, c); got["kept."] != 1 {
			t.Errorf("subjects %v", got)
		}
	})
}

// TestSearchHasItsIndexInPostgres waits until the index excludes what does not hold a word.
func TestSearchHasItsIndexInPostgres(t *testing.T) {
	t.Parallel()
	dsn := ownPostgres(t)
	state, err := OpenState(t.Context(), newNode(t, func(c *config.Config) {
		c.Store = config.Store{Driver: config.Postgres, DSNFile: dsn}
	}), discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	}()
	file(t, state.Store, "Subject: =?utf-8?B?5oKo55qE55S15a2Q5Y+R56Wo?=\r\n\r\nbody\r\n")
	indexed(t, state, 1)
	for needle, want := range map[string]int{"发票": 1, "会议": 0} {
		if hits := state.Store.Candidates(t.Context(), 1, []byte(needle), search.Subject); hits == nil || len(hits.IDs) != want {
			t.Errorf("%s: found %+v", needle, hits)
		}
	}
	if v, err := state.Store.Verify(t.Context(), store.VerifyOptions{}); err != nil || v.Problems > 0 {
		t.Errorf("verified %+v, %v", v, err)
	}
	if _, err := os.Stat(filepath.Join(state.cfg.DataDir, searchName)); err == nil {
		t.Error("there is a file of the index too")
	}
}

// refusesToChangeTables holds that the tables of a PostgreSQL are changed by nobody unasked, and that a newer schema is
// refused. It leaves the database as it was.
func refusesToChangeTables(t *testing.T, cfg *config.Config) {
	t.Helper()
	dsn, err := readDSN(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(query string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	says := func(what string) {
		t.Helper()
		_, err := OpenState(t.Context(), cfg, discard)
		if control.KindOf(err) != control.Unavailable || !strings.Contains(err.Error(), what) {
			t.Errorf("%v; want %q in it", err, what)
		}
	}
	exec(`CREATE TABLE newest AS SELECT max(version_id) AS v FROM goose_db_version`)
	exec(`UPDATE goose_db_version SET version_id = -1 WHERE version_id = (SELECT v FROM newest)`)
	says("waxwing store upgrade --no-copy")
	exec(`UPDATE goose_db_version SET version_id = (SELECT v FROM newest) WHERE version_id = -1`)
	exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9001, true)`)
	exec(`INSERT INTO schema_history (version, program, at) VALUES (9001, 'v99.0', 0)`)
	says("waxwing v99.0 has brought this store to schema 9001")
	exec(`DELETE FROM goose_db_version WHERE version_id = 9001`)
	exec(`DROP TABLE newest`)
}
