package keyring

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"waxwing/internal/durable"
)

// Home is where the data keys stand, wrapped and signed: two copies of one text. Several nodes may share one.
type Home interface {
	// Read returns both copies; one that is not there has fs.ErrNotExist as its error.
	Read(ctx context.Context) []Copy
	// Write makes text, version number generation, the content of both copies, in place of version old; 0 says that there was
	// none. When another version stands there it answers ErrStale and changes nothing. A home that is not shared need not look.
	Write(ctx context.Context, old, generation int64, text []byte) error
	// String names the home for people.
	String() string
}

// Copy is one of the two copies in a Home.
type Copy struct {
	Name string // for people
	Text []byte
	Err  error
}

// ErrStale means that another node changed the data keys meanwhile.
var ErrStale = errors.New("the data keys were changed by another node")

// Times of a shared home.
const (
	homeTime    = 15 * time.Second // bounds one call
	followEvery = 5 * time.Second  // a node that seals looks as often for a rotation elsewhere
	missFor     = time.Second      // an id that the home does not have is not asked for again
	missedMax   = 1000
)

// files is a home of one process: two files.
type files struct {
	fs    durable.FS
	names [2]string
}

// Read implements Home.
func (f files) Read(context.Context) []Copy {
	var out []Copy
	for _, name := range f.names {
		b, err := durable.ReadFile(f.fs, name, maxFile)
		out = append(out, Copy{name, b, err})
	}
	return out
}

// Write implements Home. The files belong to this process alone, so nobody can have been faster.
func (f files) Write(_ context.Context, _, _ int64, text []byte) error {
	for _, name := range f.names {
		if err := f.fs.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(f.fs, name, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// String implements Home.
func (f files) String() string { return f.names[0] }

// readCopies reads what there is, the newest first, and says what is wrong when there is nothing.
func readCopies(ctx context.Context, home Home) ([]*parsed, error) {
	var found []*parsed
	var problems []error
	missing := 0
	all := home.Read(ctx)
	for _, c := range all {
		if errors.Is(c.Err, fs.ErrNotExist) {
			missing++
			continue
		}
		p, err := (*parsed)(nil), c.Err
		if err == nil {
			p, err = parseFile(c.Text)
		}
		if errors.Is(err, ErrNewer) { // whatever the other copy says: it may lack the newest keys
			return nil, fmt.Errorf("keyring: %w: %s. Run that version or a newer one. Nothing was changed", ErrNewer, c.Name)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		found = append(found, p)
	}
	slices.SortStableFunc(found, func(a, b *parsed) int { return int(b.generation - a.generation) })
	if missing == len(all) {
		return nil, fmt.Errorf("keyring: %w: neither %s nor its copy %s is there. Bring it back from the backup that the messages came from", ErrNoFile, all[0].Name, all[1].Name)
	}
	return found, fmt.Errorf("keyring: %w: bring %s back from a backup. Nothing was changed: %w", ErrDamaged, home, errors.Join(problems...))
}

// reload reads a shared home, and takes over what is newer there. The caller holds the lock.
func (r *Ring) reload() error {
	ctx, cancel := context.WithTimeout(context.Background(), homeTime)
	defer cancel()
	copies, damage := readCopies(ctx, r.home)
	r.looked.Store(r.opt.Clock().UnixNano())
	if len(copies) == 0 {
		return damage
	}
	masters := []*Master{r.master}
	if copies[0].master != r.master.id { // another node wrapped the keys anew
		loaded, err := r.opt.Source.Load(ctx, r.opt.FS)
		if err != nil {
			return fmt.Errorf("%w. Another node changed the master key to %s", err, copies[0].master)
		}
		masters = append(masters, loaded...)
	}
	p, m := match(copies, masters)
	if p == nil {
		return mismatch(r.opt, copies, masters[len(masters)-1:])
	}
	if p.generation <= r.file.generation {
		return nil
	}
	before, moved := r.current.Load(), m != r.master
	if err := r.take(p.keyFile, m); err != nil {
		return err
	}
	if moved {
		r.publish()
	}
	if r.current.Load() != before {
		r.nudge()
	}
	return nil
}

// refresh reads a shared home, if it can. Without it the ring goes on with what it knows. The caller holds the lock.
func (r *Ring) refresh() {
	if r.opt.Home == nil {
		return
	}
	if err := r.reload(); err != nil {
		r.opt.Logger.Error("keyring: what other nodes did to the data keys can't be read", "keys", r.home.String(), "err", err)
	}
}

// follow looks now and then whether another node has changed the keys. One caller looks, the others go on.
func (r *Ring) follow() {
	if r.opt.Home == nil || r.opt.Clock().UnixNano()-r.looked.Load() < int64(followEvery) || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	r.refresh()
}

// learn looks for an unknown key in a shared home: another node made it before it sealed anything with it.
func (r *Ring) learn(id KeyID) (cipher.AEAD, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for try := range 2 {
		if k := (*r.keys.Load())[id]; k != nil {
			return k.aead, nil
		}
		now := r.opt.Clock()
		if at, ok := r.missed[id]; try > 0 || ok && now.Sub(at) < missFor {
			break
		}
		if err := r.reload(); err != nil {
			return nil, fmt.Errorf("keyring: look for data key %s: %w", id, err)
		}
		if len(r.missed) >= missedMax {
			clear(r.missed)
		}
		r.missed[id] = now
	}
	return nil, nil
}
