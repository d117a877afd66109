package crashvfs_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	_ "modernc.org/sqlite"

	"waxwing/internal/durable/crashfs"
	"waxwing/internal/durable/ordeal"
	"waxwing/internal/sqlitefile"
	"waxwing/internal/sqlitefile/crashvfs"
)

const path = "/mail.db"

func disk(t *testing.T, fsys *crashfs.FS) *crashvfs.Disk {
	t.Helper()
	d, err := crashvfs.New(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// open opens the database with the settings of the store; a small cache and log, so that pages move.
func open(t *testing.T, d *crashvfs.Disk) (*sql.DB, error) {
	t.Helper()
	f, err := sqlitefile.Look(path, nil, d.Below())
	if err != nil {
		return nil, err
	}
	if err := f.Convert(t.Context()); err != nil {
		return nil, err
	}
	return f.Pool(t.Context(), sqlitefile.Pool{TxLock: "immediate", Pragmas: []string{
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "temp_store(MEMORY)", "secure_delete(ON)", "cache_size(10)", "wal_autocheckpoint(25)",
	}})
}

// load makes the table and adds rows, some large, and deletes some; done is called after each commit with the number of the
// last row. It ends with the first error.
func load(db *sql.DB, rows int, done func(last int)) error {
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT, body BLOB)`); err != nil {
		return err
	}
	if _, err := db.Exec(`CREATE INDEX IF NOT EXISTS t_name ON t (name)`); err != nil {
		return err
	}
	for i := 1; i <= rows; i++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		if _, err = tx.Exec(`INSERT INTO t (id, name, body) VALUES ($1, $2, $3)`, i, name(i), body(i)); err == nil && i%5 == 0 {
			_, err = tx.Exec(`UPDATE t SET body = zeroblob(3) WHERE id = $1`, i-2)
		}
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return err
		}
		done(i)
	}
	return nil
}

func name(i int) string { return fmt.Sprintf("%d of %d", i*7919%1000, i) }

func body(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 20+i%7*1700) }

// judge opens what a power cut left, and says how many rows are there: all up to some commit, each whole.
func judge(t *testing.T, o *ordeal.Ordeal, d *crashvfs.Disk, acked int, what string) {
	t.Helper()
	before := sqlitefile.Found()
	db, err := open(t, d)
	if err != nil {
		o.Lost("%s: %v", what, err)
		return
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Errorf("%s: close: %v", what, err)
		}
	}()
	var line string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&line); err != nil || line != "ok" {
		o.Partial("%s: %s, %v", what, line, err)
		return
	}
	var there, last int
	if err := db.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE name = 't'`).Scan(&there); err != nil {
		o.Partial("%s: %v", what, err)
		return
	}
	if there == 1 {
		if err := db.QueryRow(`SELECT count(*), COALESCE(max(id), 0) FROM t`).Scan(&there, &last); err != nil || there != last {
			o.Partial("%s: %d rows, the last is %d, %v", what, there, last, err)
			return
		}
	}
	if last < acked {
		o.Lost("%s: row %d was committed, %d is the last", what, acked, last)
	}
	checkRows(t, o, db, last, what)
	if err := goOn(db, last); err != nil {
		t.Errorf("%s: it can't go on: %v", what, err)
	}
	if after := sqlitefile.Found(); after.Broken != before.Broken { // a torn page may lack one octet, which was put right
		t.Errorf("%s: damage was found where none is: %+v, before %+v", what, after, before)
	}
}

func checkRows(t *testing.T, o *ordeal.Ordeal, db *sql.DB, last int, what string) {
	t.Helper()
	for i := 1; i <= last; i++ {
		want := body(i)
		if i%5 == 3 && i+2 <= last {
			want = make([]byte, 3)
		}
		var n string
		var b []byte
		if err := db.QueryRow(`SELECT name, body FROM t WHERE id = $1`, i).Scan(&n, &b); err != nil || n != name(i) || !bytes.Equal(b, want) {
			o.Partial("%s: row %d of %d is %q with %d octets, %v", what, i, last, n, len(b), err)
		}
	}
}

// goOn adds one more row, and takes it away.
func goOn(db *sql.DB, last int) error {
	if last == 0 {
		return nil
	}
	if _, err := db.Exec(`INSERT INTO t (name, body) VALUES ('more', zeroblob(9000))`); err != nil {
		return err
	}
	_, err := db.Exec(`DELETE FROM t WHERE name = 'more'`)
	return err
}

// cuts takes what a power cut would leave after each call that changes the disk, but for those that chance skips, and judges it.
type cuts struct {
	mu    sync.Mutex
	disks []*crashfs.FS
	acked []int
}

func (c *cuts) watch(fsys *crashfs.FS, acked *atomic.Int64, chance func() bool, seed func() uint64) {
	fsys.SetObserver(func(op crashfs.Op, _ error) {
		switch op.Kind {
		case crashfs.OpWrite, crashfs.OpSync, crashfs.OpTruncate, crashfs.OpRename, crashfs.OpRemove, crashfs.OpSyncDir:
		default:
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if chance() {
			c.acked = append(c.acked, int(acked.Load()))
			c.disks = append(c.disks, fsys.Crash(seed()))
		}
	})
}

func (c *cuts) judge(t *testing.T, o *ordeal.Ordeal) {
	t.Helper()
	d := disk(t, nil)
	for i, left := range c.disks {
		if err := d.Replace(left); err != nil {
			t.Fatal(err)
		}
		judge(t, o, d, c.acked[i], fmt.Sprintf("cut %d", i))
		o.Cut(1)
	}
}

// powerCuts cuts the power n times or so under a load.
func powerCuts(t *testing.T, o *ordeal.Ordeal, stream uint64, n int) {
	t.Helper()
	fsys := crashfs.New()
	chance := o.Chance(stream)
	var c cuts
	var acked atomic.Int64
	const first, calls = 40, 900 // those that make the database, and of the load, about
	seen := 0
	c.watch(fsys, &acked, func() bool {
		seen++
		return seen <= first || chance.IntN(calls) < n
	}, chance.Uint64)
	db, err := open(t, disk(t, fsys))
	if err != nil {
		t.Fatal(err)
	}
	if err := load(db, 120, func(last int) { acked.Store(int64(last)) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if len(c.disks) == 0 {
		t.Error("the power was never cut")
	}
	c.judge(t, o)
}

func TestPowerCutsLoseNoCommit(t *testing.T) {
	t.Parallel()
	powerCuts(t, ordeal.Begin(t), 1, 60)
}

func TestSoakPowerCutsLoseNoCommit(t *testing.T) {
	o := ordeal.Soak(t)
	for i := range o.Times(60) {
		powerCuts(t, o, uint64(i), 900)
	}
}

// older makes a database without sums, with commits in its log, and lets the power be cut then.
func older(t *testing.T, rows int) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	d := disk(t, fsys)
	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+d.Below().VFS+"&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	var left *crashfs.FS
	err = load(db, rows, func(last int) {
		if last == rows {
			left = fsys.Crash(1)
		}
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return left
}

// conversionCuts cuts the power while a file of before gets sums.
func conversionCuts(t *testing.T, o *ordeal.Ordeal, chance func() bool, seed func() uint64) {
	t.Helper()
	const rows = 40
	fsys := older(t, rows)
	var c cuts
	var acked atomic.Int64
	acked.Store(rows)
	c.watch(fsys, &acked, chance, seed)
	db, err := open(t, disk(t, fsys))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if len(c.disks) == 0 {
		t.Error("the power was never cut")
	}
	c.judge(t, o)
}

func TestPowerCutsInAConversionLoseNothing(t *testing.T) {
	t.Parallel()
	o := ordeal.Begin(t)
	chance := o.Chance(2)
	conversionCuts(t, o, func() bool { return chance.IntN(4) == 0 }, chance.Uint64)
}

func TestSoakPowerCutsInAConversionLoseNothing(t *testing.T) {
	o := ordeal.Soak(t)
	chance := o.Chance(3)
	for range o.Times(50) {
		conversionCuts(t, o, func() bool { return true }, chance.Uint64)
	}
}

// fault lets the n-th call of a kind fail, and judges what is there after: as it is, and after a power cut. The database has some
// rows, and gets more where it has none.
func fault(t *testing.T, o *ordeal.Ordeal, fsys *crashfs.FS, f failure, has, more, n int) (happened bool) {
	t.Helper()
	kind, errno := f.kind, f.errno
	var seen, failed atomic.Int64
	fsys.SetHook(func(op crashfs.Op) error {
		if op.Kind != kind || seen.Add(1) != int64(n) {
			return nil
		}
		failed.Add(1)
		if kind == crashfs.OpWrite {
			return &crashfs.Partial{N: int(op.Len / 2), Err: errno}
		}
		return errno
	})
	acked := has
	db, err := open(t, disk(t, fsys))
	if err == nil {
		_ = load(db, more, func(last int) { acked = last }) // what failed is not acknowledged
		_ = db.Close()
	}
	fsys.SetHook(nil)
	if failed.Load() == 0 {
		return false
	}
	o.Fault(1)
	what := fmt.Sprintf("%s %d fails with %v", kind, n, errno)
	d := disk(t, fsys.Crash(o.Seed()))
	judge(t, o, d, acked, what+", and a power cut")
	judge(t, o, disk(t, fsys), acked, what)
	return true
}

// TestAConversionWithoutRoomLeavesTheFileInUse has room for some rows and none for a copy.
func TestAConversionWithoutRoomLeavesTheFileInUse(t *testing.T) {
	t.Parallel()
	const rows = 40
	fsys := older(t, rows)
	fsys.SetCapacity(fsys.Used() + 32<<20)
	d := disk(t, fsys)
	var log strings.Builder
	f, err := sqlitefile.Look(path, slog.New(slog.NewTextHandler(&log, nil)), d.Below())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Convert(t.Context()); err != nil || f.Summed() || !strings.Contains(log.String(), "no room for a copy") {
		t.Errorf("converted: %v, %v; the log: %s", f.Summed(), err, log.String())
	}
	o := ordeal.Begin(t)
	judge(t, o, d, rows, "without room")
	fsys.SetCapacity(-1)
	judge(t, o, d, rows, "with room again")
	if f, err := sqlitefile.Look(path, nil, d.Below()); err != nil || !f.Summed() {
		t.Error("it has no sums:", err)
	}
}

type failure struct {
	kind  crashfs.Kind
	errno syscall.Errno
}

var failing = []failure{
	{crashfs.OpWrite, syscall.EIO},
	{crashfs.OpWrite, syscall.ENOSPC},
	{crashfs.OpRead, syscall.EIO},
	{crashfs.OpSync, syscall.EIO},
	{crashfs.OpTruncate, syscall.EIO},
	{crashfs.OpOpen, syscall.EMFILE},
	{crashfs.OpRemove, syscall.EIO},
	{crashfs.OpRename, syscall.EIO},
	{crashfs.OpSyncDir, syscall.EIO},
}

// faults lets calls fail, each alone, every so many: of a load, and of a conversion.
func faults(t *testing.T, o *ordeal.Ordeal, rows, step int) {
	t.Helper()
	for _, f := range failing {
		for n := 1; fault(t, o, crashfs.New(), f, 0, rows, n); n += step {
		}
		for n := 1; fault(t, o, older(t, 20), f, 20, 0, n); n += step {
		}
	}
}

func TestFailingCallsLoseNoCommit(t *testing.T) {
	t.Parallel()
	o := ordeal.Begin(t)
	faults(t, o, 30, 23)
	if o.SoFar().Faults < 40 {
		t.Errorf("only %d calls failed", o.SoFar().Faults)
	}
}

func TestSoakFailingCallsLoseNoCommit(t *testing.T) {
	o := ordeal.Soak(t)
	faults(t, o, o.Times(60), 1)
}
