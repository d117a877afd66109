// Package upgrade keeps a copy of a store as it was before its tables were changed by a newer program, and brings it back.
// It is for stores whose database is a file: a PostgreSQL is backed up by its own means.
//
// A copy is a directory below upgrades/ in the data directory. It holds the database, the data keys, and a second name (a
// hard link) of each file of the packs: sealed packs never change and the others only grow, so that the copy costs the
// space of the database alone, until packs are rewritten. What is deleted for good after an upgrade leaves the disk only
// when the copy goes.
//
// Everything here works on closed files: the caller holds the lock of the data directory. A copy is complete when its name
// has no suffix. A way back that was broken off leaves the file pending behind; the store is not opened until it is gone.
package upgrade

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"waxwing/internal/durable"
)

// Names in the data directory and in a copy.
const (
	folder      = "upgrades"
	partial     = ".partial"
	infoName    = "copy.json"
	pendingName = "pending"
	maxInfo     = 64 << 10
)

// Place is where a store stands.
type Place struct {
	Dir      string   // the data directory
	Database string   // name of the database in it
	Linked   []string // directories below it whose files get a second name, each with nothing but files that only grow
	Kept     []string // small files that are copied
	Derived  []string // files that are made anew when they are missing: not copied, removed on the way back
}

// Copy says what a copy is of.
type Copy struct {
	Name     string    `json:"name"`
	Schema   int64     `json:"schema"`
	To       int64     `json:"to"` // the schema that the upgrade leads to
	Program  string    `json:"program"`
	Upgraded string    `json:"upgraded_by"`
	Time     time.Time `json:"time"`
	Octets   int64     `json:"octets"` // of the database
	Hash     string    `json:"sha256"` // of the database
}

// Keep is how long a copy is kept.
const Keep = 7 * 24 * time.Hour

// ErrNoCopy means that there is no copy of that name, or none at all.
var ErrNoCopy = errors.New("upgrade: there is no such copy")

func (p *Place) path(elem ...string) string {
	return filepath.Join(append([]string{p.Dir}, elem...)...)
}

// Save makes a copy, unless there is one of exactly this state, or the upgrade that a copy was made for is under way. The
// database's log must have been written back, and nobody may write. It returns the copy to go back to.
func (p *Place) Save(ctx context.Context, c Copy) (Copy, error) {
	all, err := p.List()
	if err != nil {
		return c, err
	}
	for _, old := range all {
		if old.Schema < c.Schema && c.Schema < old.To {
			return old, nil // some of its migrations are done: this goes on with the rest
		}
	}
	if c.Hash, c.Octets, err = hashFile(ctx, p.path(p.Database)); err != nil {
		return c, fmt.Errorf("upgrade: %w", err)
	}
	for _, old := range all {
		if old.Schema == c.Schema && old.Hash == c.Hash {
			return old, nil
		}
	}
	free, err := durable.OS.Free(p.Dir)
	if err != nil {
		return c, fmt.Errorf("upgrade: %w", err)
	}
	if need := c.Octets + c.Octets/4 + 64<<20; free < need { // the migrations take space too
		return c, fmt.Errorf("upgrade: %d MiB must be free for a copy of the database before it is changed, %d MiB are", need>>20, free>>20)
	}
	c.Time = c.Time.UTC().Truncate(time.Second)
	c.Name = fmt.Sprintf("%s-schema-%d-waxwing-%s", c.Time.Format("20060102T150405Z"), c.Schema, plain(c.Program))
	if err := p.write(ctx, c); err != nil {
		return c, fmt.Errorf("upgrade: copy before the upgrade: %w", err)
	}
	return c, nil
}

// plain makes a version fit for the name of a file.
func plain(version string) string {
	if version == "" {
		return "unknown"
	}
	return strings.Map(func(r rune) rune {
		if r < 128 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-') {
			return r
		}
		return '_'
	}, version)
}

// write makes the copy under a name with a suffix, and takes the suffix off when all of it is on stable storage.
func (p *Place) write(ctx context.Context, c Copy) error {
	final := p.path(folder, c.Name)
	dir := final + partial
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := durable.OS.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := copyFile(ctx, p.path(p.Database), filepath.Join(dir, p.Database)); err != nil {
		return err
	}
	for _, name := range p.Kept {
		if err := copyIfThere(ctx, p.path(name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, sub := range p.Linked {
		if err := linkAll(p.path(sub), filepath.Join(dir, sub)); err != nil {
			return fmt.Errorf("%w (files of the packs get a second name: the copy must stand on their file system)", err)
		}
	}
	info, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(durable.OS, filepath.Join(dir, infoName), append(info, '\n'), 0o600); err != nil {
		return err
	}
	if err := durable.OS.Rename(dir, final); err != nil {
		return err
	}
	return durable.OS.SyncDir(filepath.Dir(final))
}

// List lists the complete copies, the oldest first.
func (p *Place) List() ([]Copy, error) {
	entries, err := os.ReadDir(p.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	var all []Copy
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), partial) {
			continue
		}
		b, err := durable.ReadFile(durable.OS, p.path(folder, e.Name(), infoName), maxInfo)
		if errors.Is(err, fs.ErrNotExist) {
			continue // what a way back set aside
		}
		if err != nil {
			return nil, fmt.Errorf("upgrade: %w", err)
		}
		var c Copy
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, fmt.Errorf("upgrade: %s: %w", e.Name(), err)
		}
		c.Name = e.Name()
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Copy) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// Drop removes a copy, and what a way back set aside: by its name.
func (p *Place) Drop(name string) error {
	if name != filepath.Base(name) || name == "." || name == ".." || name == pendingName {
		return fmt.Errorf("%w: %q", ErrNoCopy, name)
	}
	dir := p.path(folder, name)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%w: %q", ErrNoCopy, name)
	}
	// Without its suffix it would be taken for complete while it goes.
	if !strings.HasSuffix(name, partial) {
		if err := durable.OS.Rename(dir, dir+partial); err != nil {
			return fmt.Errorf("upgrade: %w", err)
		}
		dir += partial
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// Expire removes what is older than Keep, and what was broken off.
func (p *Place) Expire(now time.Time) (gone []string, err error) {
	entries, err := os.ReadDir(p.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !expired(e.Name(), now) {
			continue
		}
		if err := p.Drop(e.Name()); err != nil {
			return gone, err
		}
		gone = append(gone, e.Name())
	}
	return gone, nil
}

// expired tells it by the time that a name begins with. A copy that is being made exists only while no server runs.
func expired(name string, now time.Time) bool {
	if strings.HasSuffix(name, partial) {
		return true
	}
	stamp, _, _ := strings.Cut(name, "-")
	at, err := time.Parse("20060102T150405Z", stamp)
	return err == nil && now.Sub(at) > Keep
}

// Pending says which copy a way back that was broken off was about; "" when there is none.
func (p *Place) Pending() (string, error) {
	b, err := durable.ReadFile(durable.OS, p.path(folder, pendingName), maxInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("upgrade: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func hashFile(ctx context.Context, name string) (sum string, size int64, err error) {
	h := sha256.New()
	size, err = pour(ctx, name, func(b []byte, _ int64) error {
		_, err := h.Write(b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), size, err
}
