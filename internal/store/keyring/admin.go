package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

// State is what becomes of a data key.
type State string

// The states.
const (
	InUse   State = "current" // seals new records
	Leaving State = "leaving" // older records may be under it, and are encrypted anew
	Retired State = "retired" // no record is under it; backups may be
)

// KeyInfo describes a data key.
type KeyInfo struct {
	ID      KeyID
	Purpose string
	Created time.Time
	Blocks  int64 // sealed at most
	State   State
}

// Info describes a ring.
type Info struct {
	Master MasterID
	Source Source
	Backup time.Time // when a backup of the master key was last proved; zero: never
	Keys   []KeyInfo // in the order in which they were made
}

// Info describes the ring as it is now.
func (r *Ring) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refresh()
	current := r.current.Load().id
	out := Info{Master: r.master.id, Source: r.opt.Source}
	if r.file.backup > 0 {
		out.Backup = time.Unix(r.file.backup, 0).UTC()
	}
	for i := range r.file.keys {
		e := &r.file.keys[i]
		k := KeyInfo{ID: e.id, Purpose: e.purpose, Created: time.Unix(e.created, 0).UTC(), Blocks: e.used, State: Leaving}
		switch {
		case e.id == current:
			k.State = InUse
		case r.file.swept == current:
			k.State = Retired
		}
		out.Keys = append(out.Keys, k)
	}
	return out
}

// Format keeps every verb of package fmt from walking into the ring.
func (r *Ring) Format(f fmt.State, _ rune) { fmt.Fprint(f, "ring of data keys") }

// LogValue keeps package slog from walking into the ring.
func (r *Ring) LogValue() slog.Value { return slog.StringValue("ring of data keys") }

// ConfirmBackup proves that a file holds a backup of the master key in use, by reading it, and notes the day. The file that
// the server itself reads is no backup.
func (r *Ring) ConfirmBackup(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opt.Source.Kind == File && sameFile(r.opt.FS, name, r.opt.Source.File) {
		return fmt.Errorf("keyring: confirm backup: %s: %w: this is the file that the server reads", name, ErrBackup)
	}
	m, err := readMaster(r.opt.FS, name)
	if err != nil {
		return fmt.Errorf("keyring: confirm backup: %w", err)
	}
	if !m.Equal(r.master) {
		return fmt.Errorf("keyring: confirm backup: %s: %w: it holds master key %s, in use is %s", name, ErrBackup, m.id, r.master.id)
	}
	proved := r.master
	err = r.change(func(f *keyFile) (*Master, error) {
		if r.master != proved {
			return nil, fmt.Errorf("%w: another node changed the master key meanwhile", ErrBackup)
		}
		f.backup = r.opt.Clock().Unix()
		return r.master, nil
	})
	if err != nil {
		return fmt.Errorf("keyring: confirm backup: %w", err)
	}
	return nil
}

// Rewrapped says what Rewrap did.
type Rewrapped struct {
	Old, New MasterID
	Kept     string // where the old master key still stands, "" when that isn't ours to say
}

// Rewrap wraps all data keys with a new master key: that in a file or, with no name and a source of kind File, one that it
// makes. The records stay as they are. A file source holds the new key from then on, and the old one is kept beside it;
// any other source must give the new key before the next start. Broken off at any point, the next start finds its way.
// With a shared home the name is needed, and each other node must have the key: in a file source, beside the old one.
func (r *Ring) Rewrap(name string) (Rewrapped, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, err := r.rewrap(name)
	if err != nil {
		return Rewrapped{}, fmt.Errorf("keyring: rewrap: %w", err)
	}
	return out, nil
}

func (r *Ring) rewrap(name string) (Rewrapped, error) {
	m, err := r.nextMaster(name)
	if err != nil {
		return Rewrapped{}, err
	}
	old, source := r.master, r.opt.Source
	out := Rewrapped{Old: old.id, New: m.id}
	if source.Kind == File {
		if err := writeMaster(r.opt.FS, source.File+newSuffix, m, r.opt.Clock()); err != nil {
			return out, err
		}
	}
	err = r.change(func(f *keyFile) (*Master, error) {
		if r.master != old {
			return nil, errors.New("another node changed the master key meanwhile")
		}
		return m, r.wrapAll(f, m)
	})
	if err != nil {
		return out, err
	}
	if source.Kind != File {
		return out, nil
	}
	out.Kept = source.File + ".old-" + old.id.String()
	if err := source.publish(r.opt.FS, m); err != nil {
		return out, fmt.Errorf("the data keys are under master key %s now, which waits in %s%s: %w", m.id, source.File, newSuffix, err)
	}
	return out, nil
}

// wrapAll wraps all data keys of a version with another master key.
func (r *Ring) wrapAll(f *keyFile, m *Master) error {
	f.master, f.backup = m.id, 0
	for i := range f.keys {
		secret, err := f.unwrap(&f.keys[i], r.master)
		if err != nil {
			return err
		}
		err = r.wrapInto(f, &f.keys[i], secret, m)
		clear(secret)
		if err != nil {
			return err
		}
	}
	return nil
}

// nextMaster gets the new master key of Rewrap.
func (r *Ring) nextMaster(name string) (*Master, error) {
	if name == "" && r.opt.Home != nil {
		return nil, fmt.Errorf("a file with the new master key is needed: each node of the database must get it%s before, or it can't start any more", r.opt.Source.waiting())
	}
	if name == "" {
		if r.opt.Source.Kind != File {
			return nil, fmt.Errorf("a file with the new master key is needed, as %s is not ours to change", r.opt.Source)
		}
		return NewMaster(r.opt.Rand)
	}
	m, err := readMaster(r.opt.FS, name)
	switch {
	case err != nil:
		return nil, err
	case m.Equal(r.master):
		return nil, fmt.Errorf("%s holds the master key that is in use: %w", name, fs.ErrExist)
	case m.id == r.master.id:
		return nil, errors.New("two master keys of the same id")
	}
	return m, nil
}

// Sheet is a recovery sheet: what to print and put where neither fire nor the server's thief gets it.
func Sheet(m *Master, s Source, hostname string, now time.Time) string {
	return fmt.Sprintf(`WAXWING RECOVERY SHEET                                          %s

Server      %s
Master key  %s
Read from   %s

The mail of this server is encrypted at rest. Whoever has this key and a copy
of the data can read it; without this key nobody can, and nobody can bring the
mail back. Keep this sheet, or a copy of the key file, in two places away from
the server.

    %s

To bring it back: write the line above into the file that waxwing.toml names
([encryption], file), "chmod 600" it, make it the server user's own, and start
the server. Upper or lower case, spaces and line ends don't matter.
To prove a copy: waxwing store key confirm FILE
`, now.UTC().Format(time.DateOnly), hostname, m.id, s, m.Text())
}
