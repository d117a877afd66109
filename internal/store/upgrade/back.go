package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"waxwing/internal/durable"
)

// Return is what a way back did.
type Return struct {
	To    Copy   `json:"to"`
	Aside string `json:"aside"` // name of what was there: below upgrades/, for as long as a copy
}

// Back puts a copy in the place of the store; the newest when name is "". prepare changes the database before it takes its
// place: what was given out since the copy must not be given out again. What was there is set aside.
//
// Where it is broken off, the same call goes on, and nothing else may open the store.
func (p *Place) Back(ctx context.Context, name string, now time.Time, prepare func(ctx context.Context, database string) error) (r Return, err error) {
	aside := now.UTC().Format("20060102T150405Z") + "-rolled-back"
	pending, err := p.Pending()
	if err != nil {
		return r, err
	}
	if pending != "" {
		pendingCopy, pendingAside, _ := strings.Cut(pending, "\n")
		if name != "" && name != pendingCopy {
			return r, fmt.Errorf("upgrade: going back to %s was broken off: finish that first", pendingCopy)
		}
		name, aside = pendingCopy, pendingAside
	}
	if r.To, err = p.find(name); err != nil {
		return r, err
	}
	r.Aside = aside
	if err := p.replace(ctx, r, prepare); err != nil {
		return r, fmt.Errorf("upgrade: back to %s: %w", r.To.Name, err)
	}
	return r, nil
}

// find finds a copy by its name, or the newest one.
func (p *Place) find(name string) (Copy, error) {
	all, err := p.List()
	if err != nil {
		return Copy{}, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if name == "" || all[i].Name == name {
			return all[i], nil
		}
	}
	if name == "" {
		return Copy{}, fmt.Errorf("%w: none was made in the last %d days", ErrNoCopy, int(Keep.Hours()/24))
	}
	return Copy{}, fmt.Errorf("%w: %q", ErrNoCopy, name)
}

// replace does it in steps that can each be done again.
func (p *Place) replace(ctx context.Context, r Return, prepare func(context.Context, string) error) error {
	from, aside := p.path(folder, r.To.Name), p.path(folder, r.Aside)
	database := p.path(p.Database)
	staged := database + ".rollback"
	sum, size, err := hashFile(ctx, filepath.Join(from, p.Database))
	if err != nil {
		return err
	}
	if sum != r.To.Hash {
		return fmt.Errorf("the copy of the database has changed since it was made: SHA-256 %s, not %s", sum, r.To.Hash)
	}
	free, err := durable.OS.Free(p.Dir)
	if err != nil {
		return err
	}
	if need := size + size/2 + 16<<20; free < need {
		return fmt.Errorf("%d MiB must be free, %d MiB are", need>>20, free>>20)
	}
	if err := removeAll(staged, staged+"-wal", staged+"-shm"); err != nil {
		return err
	}
	if err := copyFile(ctx, filepath.Join(from, p.Database), staged); err != nil {
		return err
	}
	if err := prepare(ctx, staged); err != nil {
		return err
	}
	// From here on the store is between two states.
	marker := p.path(folder, pendingName)
	if err := durable.WriteFile(durable.OS, marker, []byte(r.To.Name+"\n"+r.Aside), 0o600); err != nil {
		return err
	}
	if err := p.setAside(aside); err != nil {
		return err
	}
	for _, sub := range p.Linked {
		if err := linkAll(filepath.Join(from, sub), p.path(sub)); err != nil {
			return err
		}
	}
	derived := make([]string, 0, len(p.Derived)+2)
	for _, name := range p.Derived {
		derived = append(derived, p.path(name))
	}
	if err := removeAll(append(derived, database+"-wal", database+"-shm")...); err != nil {
		return err
	}
	if err := durable.OS.Rename(staged, database); err != nil {
		return err
	}
	if err := durable.OS.SyncDir(p.Dir); err != nil {
		return err
	}
	if err := durable.OS.Remove(marker); err != nil {
		return err
	}
	return durable.OS.SyncDir(filepath.Dir(marker))
}

// setAside gives the database and its log a second name. When it runs again after a kill, what it saw first stays.
func (p *Place) setAside(aside string) error {
	if err := durable.OS.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", ""} { // the database last: the log without it is worth nothing
		err := os.Link(p.path(p.Database+suffix), filepath.Join(aside, p.Database+suffix))
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.OS.SyncDir(aside)
}

// removeAll removes files, those that are there, and makes that durable.
func removeAll(names ...string) error {
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return durable.OS.SyncDir(filepath.Dir(names[0]))
}
