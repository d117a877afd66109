package sqlitefile

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// unfinished ends the name of the file that a conversion writes. After a crash it is rubbish.
const unfinished = ".converting"

// spare is what a conversion leaves free.
const spare = 64 << 20

// isSummed tells whether a file has sums, or will have them. One that is missing or empty will; so will one whose first page was torn by
// a power cut when it was first written. A file with room for sums and no mark was copied by a program that knows nothing of them.
func (f *File) isSummed(path string) (bool, error) {
	file, err := f.below.FS.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close() //nolint:errcheck // nothing was written
	page := make([]byte, pageSize)
	if _, err := file.ReadAt(page, 0); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	check(page, 1) // a wrong octet is put right
	return !bytes.HasPrefix(page, header) || fits(page) && page[writersAt]&onlyUs != 0, nil
}

// header is how a database begins.
var header = []byte("SQLite format 3\x00")

// Convert gives the pages of a file sums, when they have none yet: it writes a copy and puts it in the file's place. Nobody may use
// the file meanwhile. When it can't be converted, by lack of room or since it is damaged, the log is told why, and the file stays
// what it is; the error is that of ctx. Until the copy takes the name, the file is what it was, so a crash at any moment leaves one of
// the two.
func (f *File) Convert(ctx context.Context) error {
	if f.summed {
		return nil
	}
	err := f.convert(ctx)
	if ctx.Err() != nil {
		return errors.Join(fmt.Errorf("sqlitefile: %w", ctx.Err()), err)
	}
	if err != nil {
		f.log.Warn("sqlitefile: the database is used without sums of its pages", "file", f.path, "err", err)
		return nil
	}
	f.summed = true
	return nil
}

func (f *File) convert(ctx context.Context) (err error) {
	temp := f.path + unfinished
	if err := f.removeWith(temp); err != nil {
		return err
	}
	old, err := f.below.FS.Stat(f.path)
	if err != nil {
		return err
	}
	if err := f.room(old.Size()); err != nil {
		return err
	}
	f.log.Info("sqlitefile: rewriting the database with sums of its pages", "file", f.path, "octets", old.Size())
	if err := f.copyTo(ctx, temp, old); err != nil {
		return errors.Join(err, f.removeWith(temp))
	}
	f.log.Info("sqlitefile: the database has sums of its pages now", "file", f.path)
	return nil
}

// copyTo writes the copy and renames it. The old file is locked throughout, and its log is empty and gone: beside the new one it
// would be damage.
func (f *File) copyTo(ctx context.Context, temp string, old fs.FileInfo) (err error) {
	db, err := pool(ctx, f.path, f.below.VFS, Pool{Pragmas: []string{"busy_timeout(10000)", "locking_mode(EXCLUSIVE)"}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var mode string
	if err := db.QueryRowContext(ctx, `PRAGMA journal_mode(DELETE)`).Scan(&mode); err != nil || mode != "delete" {
		return errors.Join(fmt.Errorf("the log of %s can't be written back: its mode is %q", f.path, mode), err)
	}
	if err := f.copyInto(ctx, db, temp, old); err != nil {
		return err
	}
	if err := f.below.FS.Rename(temp, f.path); err != nil {
		return err
	}
	return f.below.FS.SyncDir(filepath.Dir(f.path))
}

// room tells whether there is room for a copy of the file and its log.
func (f *File) room(size int64) error {
	if wal, err := f.below.FS.Stat(f.path + "-wal"); err == nil {
		size += wal.Size()
	}
	free, err := f.below.FS.Free(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	if free < size+size/64+spare {
		return fmt.Errorf("no room for a copy of %s: %d octets are free, %d needed", f.path, free, size+size/64+spare)
	}
	return nil
}

// copyInto writes a copy with sums, and returns when it is on stable storage.
func (f *File) copyInto(ctx context.Context, db *sql.DB, temp string, old fs.FileInfo) (err error) {
	file, err := f.below.FS.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, old.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := sameOwner(temp, old); err != nil {
		return err
	}
	into := uri(temp, f.vfs, url.Values{"reserve": {strconv.Itoa(reserved)}})
	if _, err := db.ExecContext(ctx, `VACUUM INTO $1`, into); err != nil {
		return err
	}
	summed, err := f.isSummed(temp)
	if err == nil && !summed {
		err = fmt.Errorf("%s came out without sums", temp)
	}
	return errors.Join(err, file.Sync())
}

// sameOwner gives a new file the owner of another one: root may run a command in the directory of the server's user.
func sameOwner(path string, old fs.FileInfo) error {
	st, ok := old.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// removeWith removes a file and its journal.
func (f *File) removeWith(path string) error {
	var errs []error
	for _, name := range []string{path, path + "-journal"} {
		if err := f.below.FS.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
