package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modernc.org/sqlite"

	"waxwing/internal/store"
	own "waxwing/internal/store/sqlite"
)

func open(t *testing.T, path string) *store.Database {
	t.Helper()
	db, err := own.Open(t.Context(), path, own.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestSettingsThatDurabilityHangsOn(t *testing.T) {
	t.Parallel()
	// The name has what means something in a URL.
	path := filepath.Join(t.TempDir(), "my mail?x#y%20.db")
	db := open(t, path)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"} {
		var got string
		if err := db.Writer.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", pragma, got, err, want)
		}
	}
	if !sqlite.OFDLockingEnabled() {
		t.Error("locks would be lost when another descriptor of the file is closed")
	}
	if n := db.Writer.Stats().MaxOpenConnections; n != 1 {
		t.Errorf("%d connections write", n)
	}
	if n := db.Reader.Stats().MaxOpenConnections; n < 4 {
		t.Errorf("%d connections read", n)
	}
	if _, err := db.Reader.Exec(`INSERT INTO sequence (name, next) VALUES ('x', 1)`); db.Dialect.Fault(err) != store.FaultReadOnly {
		t.Errorf("a reader wrote: %v", err)
	}
}

func TestASecondOpenFindsTheSchemaInPlace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.db")
	first, err := own.Open(t.Context(), path, own.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Writer.Exec(`INSERT INTO sequence (name, next) VALUES ('x', 7)`); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := open(t, path).Reader.QueryRow(`SELECT next FROM sequence WHERE name = 'x'`).Scan(&n); err != nil || n != 7 {
		t.Error(n, err)
	}
}

func TestFaultsOfTheDriverAreKnown(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "mail.db"))
	exec := func(query string) error {
		_, err := db.Writer.Exec(query)
		return err
	}
	if err := exec(`INSERT INTO sequence (name, next) VALUES ('x', 1)`); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]store.Fault{
		`INSERT INTO sequence (name, next) VALUES ('x', 1)`:    store.FaultUnique,
		`INSERT INTO sequence (name, next) VALUES ('x', NULL)`: store.FaultOther,
		`SELECT nonsense`: store.FaultOther,
	} {
		if err := exec(query); err == nil || db.Dialect.Fault(err) != want {
			t.Errorf("%s: %v is %d, want %d", query, err, db.Dialect.Fault(err), want)
		}
	}
}

func TestNotADatabaseIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err := own.Open(t.Context(), path, own.Options{}); err == nil {
		t.Error("opened", db.Close())
	}
	if _, err := own.Open(t.Context(), filepath.Join(t.TempDir(), "no", "such", "dir", "mail.db"), own.Options{}); err == nil {
		t.Error("opened in a directory that is not there")
	}
}

// TestEveryOrderHasItsIndex holds that the hot queries neither sort nor scan.
func TestEveryOrderHasItsIndex(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "mail.db"))
	for _, query := range []string{
		`SELECT uid FROM entry WHERE account_id = 1 AND mailbox_id = 1 AND uid > 5 ORDER BY uid`,
		`SELECT uid FROM entry WHERE account_id = 1 AND mailbox_id = 1 AND uid BETWEEN 1 AND 9 ORDER BY uid`,
		`SELECT uid FROM tombstone WHERE account_id = 1 AND mailbox_id = 1 AND modseq > 4 ORDER BY modseq, uid`,
		`SELECT hash FROM blob WHERE segment = 1 AND place >= 2 ORDER BY place LIMIT 3`,
		`SELECT blob_id FROM blob WHERE hash_key = 1 AND hash = x'00'`,
		`SELECT ref FROM thread_ref WHERE account_id = 1 AND ref IN (1, 2, 3)`,
		`SELECT name FROM mailbox WHERE account_id = 1`,
		`SELECT * FROM entry WHERE (mailbox_id, uid) > (1, 2) AND account_id = 1 ORDER BY mailbox_id, uid LIMIT 9`,
		`SELECT * FROM entry WHERE (account_id, mailbox_id, uid) > (1, 1, 2) ORDER BY account_id, mailbox_id, uid LIMIT 9`,
		`SELECT uidl FROM message WHERE account_id = 1 AND uidl IS NOT NULL`,
		`SELECT m.message_id FROM (SELECT value AS v FROM json_each('[1]')) AS t, message AS m WHERE m.message_id = t.v AND m.account_id = 1`,
	} {
		rows, err := db.Reader.Query(`EXPLAIN QUERY PLAN ` + query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(detail, "TEMP B-TREE") || strings.HasPrefix(detail, "SCAN") && !strings.Contains(detail, "json_each") {
				t.Errorf("%s\n\t%s", query, detail)
			}
		}
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		rows.Close()
	}
}

func TestWhatIsDeletedIsOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.db")
	db := open(t, path)
	const secret = "the subject of a letter that was deleted"
	holds := func() bool {
		t.Helper()
		if _, err := db.Writer.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), secret)
	}
	if _, err := db.Writer.Exec(`INSERT INTO house_state (name, value) VALUES ('x', $1)`, secret+strings.Repeat(".", 9000)); err != nil {
		t.Fatal(err)
	}
	if !holds() {
		t.Fatal("it is not there before")
	}
	if _, err := db.Writer.Exec(`DELETE FROM house_state WHERE name = 'x'`); err != nil {
		t.Fatal(err)
	}
	if holds() {
		t.Error("it can still be read")
	}
}
