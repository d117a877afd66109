package sqlitefile

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"modernc.org/libc"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile/memory"
)

// Run is what Scrub found in a run of pages.
type Run struct {
	Next   int64   `json:"next"`   // where the next run begins; 0: that was the last page
	Seen   int64   `json:"seen"`   // pages that were looked at
	Mended int64   `json:"mended"` // those with one wrong octet, which were written back as they should be
	Broken []int64 `json:"broken"` // the numbers of those with more
}

// PageSize is the size of all pages.
const PageSize = pageSize

// Querier is a connection, or a pool of one.
type Querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// The pragma that looks at a run of pages from a number on. The VFS answers it with a Run in JSON, when the statement is prepared:
// each question must be a statement of its own.
const (
	scrubPragma = "waxwing_scrub"
	scrubPages  = 256
)

// Scrub looks at a run of pages of the database, 256 at most, from page first on (the first of all has number 1), while others
// use it, and writes back those with one wrong octet. A file without sums gives an empty Run. What is broken is looked at
// again when the log is written back: a page that a crash tore is whole in the log.
func Scrub(ctx context.Context, q Querier, first int64) (Run, error) {
	if err := queryOne(ctx, q, `SELECT count(*) FROM sqlite_schema`, new(int64)); err != nil { // connects to the log
		return Run{}, err
	}
	r, err := runOf(ctx, q, first)
	if errors.Is(err, sql.ErrNoRows) {
		return Run{}, nil // nobody answers the pragma
	}
	if err != nil || len(r.Broken) == 0 {
		return r, err
	}
	var busy, log, written int64
	if err := queryOne(ctx, q, `PRAGMA wal_checkpoint(PASSIVE)`, &busy, &log, &written); err != nil {
		return r, err
	}
	again, err := runOf(ctx, q, first)
	again.Mended += r.Mended
	return again, err
}

// runOf asks the VFS. While the log is written back, it waits.
func runOf(ctx context.Context, q Querier, first int64) (r Run, err error) {
	const wait, tries = 20 * time.Millisecond, 3000
	for range tries {
		var text string
		err = queryOne(ctx, q, fmt.Sprintf(`PRAGMA %s(%d)`, scrubPragma, first), &text)
		if err == nil {
			return r, json.Unmarshal([]byte(text), &r)
		}
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code() != lib.SQLITE_BUSY {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(wait):
		}
	}
	return r, err
}

func queryOne(ctx context.Context, q Querier, query string, dest ...any) error {
	rows, err := q.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	if !rows.Next() {
		return errors.Join(rows.Err(), sql.ErrNoRows)
	}
	if err := rows.Scan(dest...); err != nil {
		return err
	}
	return errors.Join(rows.Err(), rows.Close())
}

// pragma answers the pragma of Scrub: arg is the address of the answer, the pragma's name and its argument.
func (f *file) pragma(tls *libc.TLS, arg uintptr) int32 {
	a := memory.At[[3]uintptr](arg)
	if a[2] == 0 || libc.GoString(a[1]) != scrubPragma {
		return lib.SQLITE_NOTFOUND
	}
	first, err := strconv.ParseInt(libc.GoString(a[2]), 10, 64)
	if err != nil || first < 1 {
		return lib.SQLITE_MISUSE
	}
	run, rc := f.scrub(tls, first)
	if rc != lib.SQLITE_OK {
		return rc
	}
	text, err := json.Marshal(run)
	if err != nil {
		return lib.SQLITE_INTERNAL
	}
	a[0] = lib.Xsqlite3_malloc64(tls, lib.Tsqlite3_uint64(len(text)+1))
	if a[0] == 0 {
		return lib.SQLITE_NOMEM
	}
	out := memory.Octets(a[0], len(text)+1)
	copy(out, text)
	out[len(text)] = 0
	return lib.SQLITE_OK
}

// scrub looks at a run of pages under the lock of whoever writes the log back, so that no page changes meanwhile, in this process
// or another: in WAL mode nobody else writes to the database itself.
func (f *file) scrub(tls *libc.TLS, first int64) (run Run, rc int32) {
	const ckptLock, n = lib.WAL_CKPT_LOCK, 1
	lock := memory.Function[memory.ShmLockFunc](f.methods().FxShmLock)
	if rc := lock(tls, f.real, ckptLock, n, lib.SQLITE_SHM_LOCK|lib.SQLITE_SHM_EXCLUSIVE); rc != lib.SQLITE_OK {
		return run, rc
	}
	defer func() {
		if e := lock(tls, f.real, ckptLock, n, lib.SQLITE_SHM_UNLOCK|lib.SQLITE_SHM_EXCLUSIVE); rc == lib.SQLITE_OK {
			rc = e
		}
	}()
	var size int64
	if rc := f.size(tls, &size); rc != lib.SQLITE_OK {
		return run, rc
	}
	last := min(size/pageSize, first+scrubPages-1)
	for p := first; p <= last; p++ {
		if rc := f.scrubPage(tls, p, &run); rc != lib.SQLITE_OK {
			return run, rc
		}
	}
	if last < size/pageSize {
		run.Next = last + 1
	}
	if run.Mended > 0 {
		rc = memory.Function[memory.FlagFunc](f.methods().FxSync)(tls, f.real, lib.SQLITE_SYNC_NORMAL)
	}
	return run, rc
}

func (f *file) scrubPage(tls *libc.TLS, p int64, run *Run) int32 {
	off := (p - 1) * pageSize
	rc := f.readReal(tls, f.scratch(), pageSize, off)
	if rc != lib.SQLITE_OK {
		return rc
	}
	run.Seen++
	switch s := check(f.room[:pageSize], uint32(p)); s {
	case mended:
		f.report(off, s)
		run.Mended++
		return f.writeReal(tls, f.scratch(), pageSize, off)
	case broken:
		run.Broken = append(run.Broken, p)
	}
	return lib.SQLITE_OK
}
