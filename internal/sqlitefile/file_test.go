package sqlitefile_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile"
)

var wal = []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(MEMORY)"}

func open(t *testing.T, path string, pragmas ...string) *sql.DB {
	t.Helper()
	f, err := sqlitefile.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Summed() {
		t.Fatal(path, "has no sums")
	}
	db, err := f.Pool(t.Context(), sqlitefile.Pool{Pragmas: append(wal[:len(wal):len(wal)], pragmas...)})
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

func plain(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func run(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// fill makes a table with an index and values on pages of their own.
func fill(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	run(t, db, `CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT, body BLOB)`)
	run(t, db, `CREATE INDEX IF NOT EXISTS t_name ON t (name)`)
	for i := range n {
		run(t, db, `INSERT INTO t (name, body) VALUES ($1, $2)`, fmt.Sprintf("name %d", i*7919%n), bytes.Repeat([]byte{byte(i)}, 10+i%9*900))
	}
}

// content sums up what is in the table.
func content(db *sql.DB) (string, error) {
	rows, err := db.Query(`SELECT id, name, length(body), hex(substr(body, -3)) FROM t ORDER BY name, id`)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var out bytes.Buffer
	for rows.Next() {
		var id, n int64
		var name, end string
		if err := rows.Scan(&id, &name, &n, &end); err != nil {
			return "", err
		}
		fmt.Fprintln(&out, id, name, n, end)
	}
	return out.String(), rows.Err()
}

func mustContent(t *testing.T, db *sql.DB) string {
	t.Helper()
	s, err := content(db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func integrity(t *testing.T, db *sql.DB) {
	t.Helper()
	var line string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&line); err != nil || line != "ok" {
		t.Error(line, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// closed makes a database and closes it, so that all of it is in one file.
func closed(t *testing.T, path string, n int) (file []byte, want string) {
	t.Helper()
	db := open(t, path)
	fill(t, db, n)
	want = mustContent(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return read(t, path), want
}

// hot makes a database whose commits are in the log still, as a crash leaves it, and returns both files.
func hot(t *testing.T, pragmas ...string) (file, log []byte, want string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hot.db")
	db := open(t, path, append(pragmas, "wal_autocheckpoint(0)")...)
	fill(t, db, 30)
	run(t, db, `PRAGMA wal_checkpoint(TRUNCATE)`)
	run(t, db, `BEGIN`)
	for i := range 60 {
		run(t, db, `UPDATE t SET body = zeroblob(5000 + $1), name = name || $2 WHERE id % 3 = 1`, i, i)
	}
	run(t, db, `COMMIT`)
	fill(t, db, 20)
	return read(t, path), read(t, path+"-wal"), mustContent(t, db)
}

// scrub looks at all pages.
func scrub(ctx context.Context, db *sql.DB) (all sqlitefile.Run, err error) {
	for next := int64(1); next > 0 && err == nil; {
		var r sqlitefile.Run
		r, err = sqlitefile.Scrub(ctx, db, next)
		next = r.Next
		all.Seen, all.Mended, all.Broken = all.Seen+r.Seen, all.Mended+r.Mended, append(all.Broken, r.Broken...)
	}
	return all, err
}

func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

func TestTheFileIsAnOrdinaryDatabase(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "it's a?file#%20.db")
	_, want := closed(t, path, 100)
	db := plain(t, "file:"+filepath.ToSlash(filepath.Dir(path))+"/it's a%3Ffile%23%2520.db?mode=ro")
	integrity(t, db)
	if got := mustContent(t, db); got != want {
		t.Error("another program sees something else")
	}
}

func TestEveryWrongOctetOfTheDatabaseIsPutRight(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, want := closed(t, filepath.Join(dir, "good.db"), 60)
	r := rand.New(rand.NewPCG(1, uint64(len(file))))
	path := filepath.Join(dir, "bad.db")
	for i := range 40 + len(file)/4096 {
		at := r.IntN(len(file))
		if i < 40 {
			at = []int{i, 100, 4072 + i}[i%3] // the header counts most
		} else {
			at = (i-40)*4096 + at%4096
		}
		bad := bytes.Clone(file)
		bad[at] ^= byte(1 + r.IntN(255))
		write(t, path, bad)
		db := open(t, path)
		if got, err := content(db); err != nil || got != want {
			t.Fatalf("octet %d: %v", at, err)
		}
		done, err := scrub(t.Context(), db)
		if err != nil || len(done.Broken) > 0 || done.Seen != int64(len(file)/4096) || done.Mended > 1 {
			t.Fatalf("octet %d: scrub: %+v, %v", at, done, err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if at%4096 < 4096-12 && (done.Mended != 1 || !bytes.Equal(read(t, path), file)) {
			t.Fatalf("octet %d was not written back", at)
		}
	}
}

// TestLargeValuesAreChecked reads a value whole: SQLite would read its pages in part, and past all checks, from a device that lets it.
func TestLargeValuesAreChecked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "large.db")
	db := open(t, path)
	want := bytes.Repeat([]byte("a large value "), 5000)
	run(t, db, `CREATE TABLE large (body BLOB)`)
	run(t, db, `INSERT INTO large VALUES ($1)`, want)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	file := read(t, path)
	for page := 2; page < len(file)/4096; page++ {
		bad := bytes.Clone(file)
		bad[page*4096+2000] ^= 8
		write(t, path, bad)
		db := open(t, path)
		var got []byte
		if err := db.QueryRow(`SELECT body FROM large`).Scan(&got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("page %d: %d octets, %v", page+1, len(got), err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOtherProgramsOnlyRead holds that nobody who knows nothing of the sums can make them wrong.
func TestOtherProgramsOnlyRead(t *testing.T) {
	t.Parallel()
	file, log, want := hot(t)
	path := filepath.Join(t.TempDir(), "mail.db")
	write(t, path, file)
	write(t, path+"-wal", log)
	for range 2 { // with the log, and when it was written back
		db := plain(t, path)
		for _, query := range []string{`UPDATE t SET name = 'x'`, `VACUUM`, `PRAGMA user_version(3)`, `PRAGMA journal_mode(DELETE)`} {
			if _, err := db.Exec(query); code(err)&0xff != lib.SQLITE_READONLY {
				t.Errorf("%s: %v", query, err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		ours := open(t, path)
		if got := mustContent(t, ours); got != want {
			t.Error("it has other rows")
		}
		integrity(t, ours)
		if err := ours.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if db := open(t, path); mustContent(t, db) != want {
		t.Error("it has other rows")
	}
}

func TestLargerDamageIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, want := closed(t, filepath.Join(dir, "good.db"), 60)
	path := filepath.Join(dir, "bad.db")
	for page := 1; page < len(file)/4096; page += 5 {
		bad := bytes.Clone(file)
		bad[page*4096+2000] ^= 1
		bad[page*4096+3000] ^= 1
		write(t, path, bad)
		db := open(t, path)
		got, err := content(db)
		if err == nil && got != want || err != nil && code(err) != lib.SQLITE_IOERR_DATA {
			t.Fatalf("page %d: %v", page+1, err)
		}
		done, err := scrub(t.Context(), db)
		if err != nil || len(done.Broken) != 1 || done.Broken[0] != int64(page+1) || done.Mended != 0 {
			t.Fatalf("page %d: scrub: %+v, %v", page+1, done, err)
		}
		db.Close()
	}
}

// TestEveryWrongOctetOfALogLeftByACrashIsPutRight flips octets of the headers and of pages of a log that SQLite must recover. A
// small cache lets the transaction write pages to the log more than once.
func TestEveryWrongOctetOfALogLeftByACrashIsPutRight(t *testing.T) {
	t.Parallel()
	file, log, want := hot(t, "cache_size(8)")
	path := filepath.Join(t.TempDir(), "bad.db")
	check := func(at int, bad []byte) {
		t.Helper()
		write(t, path, file)
		write(t, path+"-wal", bad)
		db := open(t, path)
		if got, err := content(db); err != nil || got != want {
			t.Errorf("octet %d of %d of the log: %v", at, len(log), err)
		}
		integrity(t, db)
		db.Close()
	}
	check(-1, log)
	r := rand.New(rand.NewPCG(2, uint64(len(log))))
	const frame = 24 + 4096
	frames := (len(log) - 32) / frame
	for i := range 32 + 3*24 + 60 {
		at := i // the header of the log
		switch {
		case i >= 32+3*24:
			at = r.IntN(len(log))
		case i >= 32+2*24: // those of the last frame, of any, and of the first
			at = 32 + (frames-1)*frame + (i-32)%24
		case i >= 32+24:
			at = 32 + r.IntN(frames)*frame + (i-32)%24
		}
		bad := bytes.Clone(log)
		bad[at] ^= byte(1) << r.IntN(8)
		check(at, bad)
	}
}

func TestAnotherProgramReadsTheLogToo(t *testing.T) {
	t.Parallel()
	for _, cache := range []string{"cache_size(8)", "cache_size(-8000)"} {
		file, log, want := hot(t, cache)
		path := filepath.Join(t.TempDir(), "other.db")
		write(t, path, file)
		write(t, path+"-wal", log)
		db := plain(t, path)
		if got := mustContent(t, db); got != want {
			t.Error("another program sees something else")
		}
		integrity(t, db)
	}
}

// TestALogThatACrashCutShortEndsThere cuts a log at many places, and leaves rubbish behind some: what was committed before is there,
// and nothing else.
func TestALogThatACrashCutShortEndsThere(t *testing.T) {
	t.Parallel()
	file, log, _ := hot(t, "cache_size(8)")
	path := filepath.Join(t.TempDir(), "cut.db")
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 40 {
		cut := bytes.Clone(log[:32+r.IntN(len(log)-32)])
		if i%2 == 1 {
			cut = append(cut, make([]byte, 5000)...)
		}
		write(t, path, file)
		write(t, path+"-wal", cut)
		other := plain(t, path)
		theirs := mustContent(t, other)
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, path, file)
		write(t, path+"-wal", cut)
		db := open(t, path)
		if ours := mustContent(t, db); ours != theirs {
			t.Fatalf("cut at %d: with sums it reads otherwise", len(cut))
		}
		integrity(t, db)
		db.Close()
	}
}

func TestAFileOfBeforeIsConverted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "old.db")
	old := plain(t, path)
	run(t, old, `PRAGMA journal_mode(WAL)`)
	run(t, old, `PRAGMA user_version(77)`)
	run(t, old, `PRAGMA wal_autocheckpoint(0)`)
	fill(t, old, 50)
	want := mustContent(t, old)
	file, log := read(t, path), read(t, path+"-wal") // a crash left commits in the log
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, file)
	write(t, path+"-wal", log)
	write(t, path+".converting", []byte("what a conversion left that was killed"))
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, path)
	if got := mustContent(t, db); got != want {
		t.Error("it has other rows")
	}
	integrity(t, db)
	var version int
	if err := db.QueryRow(`PRAGMA user_version`).Scan(&version); err != nil || version != 77 {
		t.Error(version, err)
	}
	if _, err := os.Stat(path + ".converting"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Error(fi.Mode(), err)
	}
	done, err := scrub(t.Context(), db)
	if err != nil || done.Seen == 0 || done.Mended > 0 || len(done.Broken) > 0 {
		t.Errorf("%+v, %v", done, err)
	}
}

// TestAConversionThatFailsLeavesTheFile stops a conversion, and damages what it can't read.
func TestAConversionThatFailsLeavesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "old.db")
	old := plain(t, path)
	fill(t, old, 50)
	want := mustContent(t, old)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqlitefile.Open(ctx, path, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	file := read(t, path)
	bad := bytes.Clone(file)
	clear(bad[4096 : 2*4096]) // the root of the table
	write(t, path, bad)
	f, err := sqlitefile.Open(t.Context(), path, nil)
	if err != nil || f.Summed() {
		t.Error("a damaged file was converted:", err)
	}
	if !bytes.Equal(read(t, path)[4096:], bad[4096:]) {
		t.Error("a conversion that failed changed the file")
	}
	write(t, path, file)
	if got := mustContent(t, open(t, path)); got != want {
		t.Error("it has other rows")
	}
	if left, err := filepath.Glob(path + "?*"); err != nil || len(left) > 2 { // -wal and -shm
		t.Error(left, err)
	}
}

// TestACopyByAnotherProgramGetsSums: SQLite's backup over its own VFS leaves the room for sums empty.
func TestACopyByAnotherProgramGetsSums(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "from.db"))
	fill(t, db, 50)
	want := mustContent(t, db)
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = c.Raw(func(c any) error {
		b, err := c.(interface {
			NewBackup(dst string) (*sqlite.Backup, error)
		}).NewBackup(filepath.Join(dir, "backup.db"))
		if err != nil {
			return err
		}
		_, err = b.Step(-1)
		return errors.Join(err, b.Finish())
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	run(t, db, `VACUUM INTO $1`, filepath.Join(dir, "vacuum.db"))
	for _, name := range []string{"backup.db", "vacuum.db"} {
		copied := open(t, filepath.Join(dir, name))
		if got := mustContent(t, copied); got != want {
			t.Error(name, "has other rows")
		}
		integrity(t, copied)
	}
	run(t, db, `DELETE FROM t WHERE id % 2 = 0`)
	want = mustContent(t, db)
	run(t, db, `VACUUM`)
	if got := mustContent(t, db); got != want {
		t.Error("a vacuum changed rows")
	}
	integrity(t, db)
}

func TestWhatWouldGoPastTheSumsIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.db")
	db := open(t, path, "mmap_size(268435456)")
	fill(t, db, 20)
	var n sql.NullInt64
	if err := db.QueryRow(`PRAGMA mmap_size`).Scan(&n); err == nil && n.Int64 != 0 {
		t.Error("the file is mapped into memory:", n)
	}
	run(t, db, `PRAGMA journal_mode(DELETE)`)
	run(t, db, `PRAGMA page_size(8192)`)
	if _, err := db.Exec(`VACUUM`); err == nil {
		t.Error("the size of pages was changed")
	}
	fill(t, db, 5)
	integrity(t, db)
}

// TestReadersWritersAndTheScrubAtOnce is for the race detector, and for locks.
func TestReadersWritersAndTheScrubAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "mail.db")
	db := open(t, path, "wal_autocheckpoint(20)", "cache_size(20)")
	fill(t, db, 50)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 2 {
		reader := open(t, path, "query_only(1)", "cache_size(5)")
		all.Go(func() {
			for ctx.Err() == nil {
				var n, names int
				if err := reader.QueryRow(`SELECT count(*), count(DISTINCT name) FROM t WHERE body = body`).Scan(&n, &names); err != nil || n < 50 {
					t.Error(n, names, err)
					return
				}
			}
		})
	}
	scrubber := open(t, path, "query_only(1)")
	all.Go(func() {
		for ctx.Err() == nil {
			done, err := scrub(ctx, scrubber)
			if err != nil && ctx.Err() == nil || done.Mended > 0 || len(done.Broken) > 0 {
				t.Errorf("%+v, %v", done, err)
				return
			}
		}
	})
	for i := range 300 {
		run(t, db, `UPDATE t SET body = zeroblob($1) WHERE id = $2`, i*37%9000, 1+i%50)
		run(t, db, `INSERT INTO t (name, body) VALUES ($1, zeroblob(300))`, fmt.Sprint("more ", i))
	}
	cancel()
	all.Wait()
	integrity(t, db)
}
