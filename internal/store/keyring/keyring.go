// Package keyring holds the keys under which stored octets are encrypted: data keys, which seal records, and the master
// key, which wraps the data keys (AES-256-GCM both times, NIST SP 800-38D).
//
// The data keys stand wrapped in a small file, twice, in two places: with a flipped bit in one copy nothing is lost. The
// master key is nowhere in the data directory. It comes from a Source: a file, a systemd credential, or a command that
// asks a key management service. Whoever has the data directory alone can read no record.
//
// A data key seals at most 2^30 blocks: the ring counts, and makes the next key by itself. With random nonces of 96 bits
// the probability that one repeats under a key is then below 2^-36. The count is recorded ahead, in steps, before it is
// used.
//
//	ring, err := keyring.Open(ctx, keyring.Options{Files: files, Source: source})
//	id, key, err := ring.Seal(1)  // for a new record of one block
//	key = ring.Key(id)            // for a record that says id
//
// Nothing here prints, logs or encodes key material; Master.Text is the one way out, for the file and the recovery
// sheet. It is no cryptographic agent: the keys are in this process's memory while it runs.
package keyring

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/durable"
)

// Errors that callers act on. Their texts say what an administrator can do.
var (
	// ErrNoFile means that there is no file of data keys.
	ErrNoFile = errors.New("the file of data keys is missing")
	// ErrMaster means that the master key is another one than that which wrapped the data keys.
	ErrMaster = errors.New("wrong master key")
	// ErrDamaged means that no copy of the file of data keys can be used.
	ErrDamaged = errors.New("the file of data keys is damaged")
	// ErrExists means that there is a file of data keys already.
	ErrExists = errors.New("there is a file of data keys already")
	// ErrBackup means that a file holds no backup of the master key in use.
	ErrBackup = errors.New("no backup of the master key in use")
)

// Mail is the purpose of the keys for messages.
const Mail = "mail"

// Blocks that a data key seals at most, and by how many its count is recorded ahead.
const (
	blockLimit = 1 << 30
	blockStep  = 1 << 20
)

// KeyID names a data key. It is random, never 0, and stands in each record.
type KeyID uint32

func (id KeyID) String() string { return fmt.Sprintf("%08x", uint32(id)) }

// Options of a Ring.
type Options struct {
	FS     durable.FS // durable.OS
	Files  [2]string  // where the data keys stand, and where their copy
	Source Source
	Clock  func() time.Time // time.Now
	Rand   io.Reader        // crypto/rand
	Logger *slog.Logger     // none
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = durable.OS
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// dataKey is an unwrapped data key.
type dataKey struct {
	id      KeyID
	aead    cipher.AEAD
	used    atomic.Int64 // blocks
	granted atomic.Int64 // blocks that the file says
}

// Ring is the open keys of one store. All methods may be called at the same time.
type Ring struct {
	opt     Options
	keys    atomic.Pointer[map[KeyID]*dataKey] // never changed, only replaced
	current atomic.Pointer[dataKey]
	changed chan struct{}
	limit   int64

	mu     sync.Mutex // guards what follows, and the files
	file   keyFile    // as both copies say
	master *Master
}

// Create makes the files of data keys, with a first key. The master key must be there. fresh says that the store holds
// no record yet.
func Create(ctx context.Context, o Options, fresh bool) (*Ring, error) {
	o.setDefaults()
	for _, name := range o.Files {
		if _, err := o.FS.Stat(name); err == nil {
			return nil, fmt.Errorf("keyring: create %s: %w", name, ErrExists)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("keyring: create: %w", err)
		}
	}
	masters, err := o.Source.Load(ctx, o.FS)
	if err != nil {
		return nil, err
	}
	r := newRing(o, masters[0])
	if _, err := io.ReadFull(o.Rand, r.file.store[:]); err != nil {
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	if _, err := r.rotate(fresh); err != nil {
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	return r, nil
}

// Exists tells whether there is a file of data keys, or a copy of one.
func Exists(o Options) bool {
	o.setDefaults()
	return slices.ContainsFunc(o.Files[:], func(name string) bool {
		_, err := o.FS.Stat(name)
		return !errors.Is(err, fs.ErrNotExist)
	})
}

// Open reads the data keys and unwraps them. Errors: ErrNoFile, ErrDamaged, ErrMaster, ErrSource.
func Open(ctx context.Context, o Options) (*Ring, error) {
	o.setDefaults()
	copies, damage := readCopies(o)
	if len(copies) == 0 {
		return nil, damage
	}
	masters, err := o.Source.Load(ctx, o.FS)
	if err != nil {
		return nil, fmt.Errorf("%w. The data keys need master key %s: bring it back from its backup; without it no encrypted message can be read. Nothing was changed", err, copies[0].master)
	}
	p, m := match(copies, masters)
	if p == nil {
		return nil, mismatch(o, copies, masters)
	}
	r := newRing(o, m)
	r.file = p.keyFile
	if err := r.unwrapAll(); err != nil {
		return nil, err
	}
	if o.Source.Kind == File {
		if err := o.Source.publish(o.FS, m); err != nil {
			o.Logger.Warn("keyring: the new master key can't be put in its place, and stays beside it", "file", o.Source.File, "err", err)
		}
	}
	r.heal(copies)
	if _, swept := r.Current(); !swept {
		r.changed <- struct{}{} // what was broken off goes on
	}
	return r, nil
}

func newRing(o Options, m *Master) *Ring {
	r := &Ring{opt: o, master: m, changed: make(chan struct{}, 1), limit: blockLimit}
	r.keys.Store(&map[KeyID]*dataKey{})
	return r
}

// readCopies reads what there is, the newest first, and says what is wrong when there is nothing.
func readCopies(o Options) ([]*parsed, error) {
	var found []*parsed
	var problems []error
	missing := 0
	for _, name := range o.Files {
		b, err := durable.ReadFile(o.FS, name, maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			missing++
			continue
		}
		var p *parsed
		if err == nil {
			p, err = parseFile(b)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
			continue
		}
		found = append(found, p)
	}
	slices.SortStableFunc(found, func(a, b *parsed) int { return int(b.generation - a.generation) })
	if missing == len(o.Files) {
		return nil, fmt.Errorf("keyring: %w: neither %s nor its copy %s is there. Bring it back from the backup that the messages came from", ErrNoFile, o.Files[0], o.Files[1])
	}
	return found, fmt.Errorf("keyring: %w: bring %s back from a backup. Nothing was changed: %w", ErrDamaged, o.Files[0], errors.Join(problems...))
}

// match finds the newest copy that one of the master keys signed.
func match(copies []*parsed, masters []*Master) (*parsed, *Master) {
	for _, p := range copies {
		for _, m := range masters {
			if p.verify(m) {
				return p, m
			}
		}
	}
	return nil, nil
}

// mismatch says why no copy opens.
func mismatch(o Options, copies []*parsed, masters []*Master) error {
	for _, p := range copies {
		for _, m := range masters {
			if p.master == m.id {
				return fmt.Errorf("keyring: %w: %s was signed by the right master key, %s, and changed since. Bring it back from a backup. Nothing was changed", ErrDamaged, o.Files[0], m.id)
			}
		}
	}
	return fmt.Errorf("keyring: %w: the data keys in %s were wrapped by master key %s, but %s gives master key %s. Bring the right one back from its backup; nothing was changed",
		ErrMaster, o.Files[0], copies[0].master, o.Source, masters[0].id)
}

// unwrapAll opens all data keys of the file.
func (r *Ring) unwrapAll() error {
	all := make(map[KeyID]*dataKey, len(r.file.keys))
	var current *dataKey
	for i := range r.file.keys {
		e := &r.file.keys[i]
		secret, err := r.file.unwrap(e, r.master)
		if err != nil {
			return fmt.Errorf("keyring: %s: %w", r.opt.Files[0], err)
		}
		aead, err := newAEAD(secret)
		clear(secret)
		if err != nil {
			return err
		}
		k := &dataKey{id: e.id, aead: aead}
		k.used.Store(e.used)
		k.granted.Store(e.used)
		all[e.id] = k
		if e.purpose == Mail {
			current = k // the last one
		}
	}
	if current == nil {
		return fmt.Errorf("keyring: %s: %w: it holds no key", r.opt.Files[0], ErrDamaged)
	}
	r.keys.Store(&all)
	r.current.Store(current)
	return nil
}

// heal writes both copies anew when they differ. Reading does not depend on it.
func (r *Ring) heal(copies []*parsed) {
	if len(copies) == len(r.opt.Files) && copies[0].generation == copies[1].generation && copies[0].verify(r.master) && copies[1].verify(r.master) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.save(r.file.clone(), r.master); err != nil {
		r.opt.Logger.Error("keyring: a copy of the data keys is damaged or old and can't be written anew", "file", r.opt.Files[0], "copy", r.opt.Files[1], "err", err)
		return
	}
	r.opt.Logger.Warn("keyring: a copy of the data keys was damaged, old or missing; both were written anew", "file", r.opt.Files[0], "copy", r.opt.Files[1])
}

// save makes f the content of both copies. A key is used only when both hold it: after an error nothing has changed for
// this process, and what one copy may hold more was never used. The caller holds the lock.
func (r *Ring) save(f keyFile, m *Master) error {
	f.generation++
	text := f.encode(m)
	if len(text) > maxFile {
		return fmt.Errorf("more than %d data keys", maxKeys)
	}
	for _, name := range r.opt.Files {
		if err := r.opt.FS.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return err
		}
		if err := durable.WriteFile(r.opt.FS, name, text, 0o600); err != nil {
			return err
		}
	}
	r.file, r.master = f, m
	return nil
}

// Seal returns the key for a new record, and counts the blocks that it seals.
func (r *Ring) Seal(blocks int64) (uint32, cipher.AEAD, error) {
	for {
		k := r.current.Load()
		used := k.used.Add(blocks)
		if used <= k.granted.Load() {
			return uint32(k.id), k.aead, nil
		}
		granted, err := r.grant(k, used)
		if err != nil {
			return 0, nil, fmt.Errorf("keyring: count of data key %s: %w", k.id, err)
		}
		if granted {
			return uint32(k.id), k.aead, nil
		}
	}
}

// grant records that a key seals as many blocks, and some more. False means that another key has taken its place, or takes it
// now, since this one has sealed enough.
func (r *Ring) grant(k *dataKey, used int64) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.current.Load() != k:
		return false, nil
	case used <= k.granted.Load(): // by another call
		return true, nil
	case used > r.limit:
		_, err := r.rotateLocked(false)
		return false, err
	}
	f := r.file.clone()
	i := slices.IndexFunc(f.keys, func(e entry) bool { return e.id == k.id })
	f.keys[i].used = k.used.Load() + blockStep
	if err := r.save(f, r.master); err != nil {
		return false, err
	}
	k.granted.Store(f.keys[i].used)
	return true, nil
}

// Key returns the key that a record names, nil when the ring has none of this id.
func (r *Ring) Key(id uint32) cipher.AEAD {
	if k := (*r.keys.Load())[KeyID(id)]; k != nil {
		return k.aead
	}
	return nil
}

// Current returns the id of the key for new records, and whether a walk over all records has found nothing under others.
func (r *Ring) Current() (id uint32, swept bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.current.Load()
	return uint32(k.id), r.file.swept == k.id
}

// Swept records that all records are under key id.
func (r *Ring) Swept(id uint32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file.swept == KeyID(id) {
		return nil
	}
	f := r.file.clone()
	f.swept = KeyID(id)
	if err := r.save(f, r.master); err != nil {
		return fmt.Errorf("keyring: note the end of re-encryption: %w", err)
	}
	return nil
}

// Changed gets a value when records are to be encrypted anew: after a new key, and at the start when that was broken off.
func (r *Ring) Changed() <-chan struct{} { return r.changed }

// Rotate makes a new data key, under which all records are sealed from now on. Older keys stay: records need them until
// they are encrypted anew, and backups after that.
func (r *Ring) Rotate() (KeyID, error) {
	id, err := r.rotate(false)
	if err != nil {
		return 0, fmt.Errorf("keyring: rotate: %w", err)
	}
	return id, nil
}

func (r *Ring) rotate(fresh bool) (KeyID, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rotateLocked(fresh)
}

func (r *Ring) rotateLocked(fresh bool) (KeyID, error) {
	f := r.file.clone()
	if len(f.keys) >= maxKeys {
		return 0, fmt.Errorf("there are %d data keys: no more fit", len(f.keys))
	}
	f.master = r.master.id
	e := entry{purpose: Mail, created: r.opt.Clock().Unix(), used: blockStep}
	secret := make([]byte, keySize)
	defer clear(secret)
	if _, err := io.ReadFull(r.opt.Rand, secret); err != nil {
		return 0, err
	}
	for e.id == 0 || slices.ContainsFunc(f.keys, func(o entry) bool { return o.id == e.id }) {
		var b [4]byte
		if _, err := io.ReadFull(r.opt.Rand, b[:]); err != nil {
			return 0, err
		}
		e.id = KeyID(b[0])<<24 | KeyID(b[1])<<16 | KeyID(b[2])<<8 | KeyID(b[3])
	}
	if err := r.wrapInto(&f, &e, secret, r.master); err != nil {
		return 0, err
	}
	aead, err := newAEAD(secret)
	if err != nil {
		return 0, err
	}
	f.keys = append(f.keys, e)
	if fresh {
		f.swept = e.id
	}
	if err := r.save(f, r.master); err != nil {
		return 0, err
	}
	k := &dataKey{id: e.id, aead: aead}
	k.granted.Store(e.used)
	all := make(map[KeyID]*dataKey, len(f.keys))
	for id, old := range *r.keys.Load() {
		all[id] = old
	}
	all[e.id] = k
	r.keys.Store(&all)
	r.current.Store(k)
	select {
	case r.changed <- struct{}{}:
	default:
	}
	return e.id, nil
}

func (r *Ring) wrapInto(f *keyFile, e *entry, secret []byte, m *Master) error {
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(r.opt.Rand, nonce[:]); err != nil {
		return err
	}
	f.wrap(e, secret, m, nonce)
	return nil
}
