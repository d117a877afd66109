// Package keyring holds the keys under which stored octets are encrypted: data keys, which seal records, and the master
// key, which wraps the data keys (AES-256-GCM both times, NIST SP 800-38D).
//
// The data keys stand wrapped in a small text, twice, in two places: with a flipped bit in one copy nothing is lost. These
// are two files, or two tables of a database that several nodes share (Home). The master key is in neither. It comes from a
// Source: a file, a systemd credential, or a command that asks a key management service. Whoever has the data alone can read
// no record.
//
// A data key seals at most 2^30 blocks: the ring counts, and makes the next key by itself. With random nonces of 96 bits
// the probability that one repeats under a key is then below 2^-36. The count is recorded ahead, in steps, before it is
// used.
//
// With a Home that is shared, a change by one node counts against the version that it knew, and what another node did
// meanwhile is read first. A key stands in the Home before anything is sealed with it, so a node that meets an unknown key
// finds it there; new records follow a rotation elsewhere within seconds.
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
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/durable"
)

// Errors that callers act on. Their texts say what an administrator can do.
var (
	// ErrNoFile means that there are no data keys.
	ErrNoFile = errors.New("the data keys are missing")
	// ErrMaster means that the master key is another one than that which wrapped the data keys.
	ErrMaster = errors.New("wrong master key")
	// ErrNewer means that a newer version of the program wrote the data keys.
	ErrNewer = errors.New("the data keys were written by a newer version of waxwing")
	// ErrDamaged means that no copy of the data keys can be used.
	ErrDamaged = errors.New("the data keys are damaged")
	// ErrExists means that there are data keys already.
	ErrExists = errors.New("there are data keys already")
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
	Home   Home       // where they stand instead, for several nodes; none: in Files
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

// home is where the data keys stand.
func (o *Options) home() Home {
	if o.Home != nil {
		return o.Home
	}
	return files{o.FS, o.Files}
}

// dataKey is an unwrapped data key.
type dataKey struct {
	id      KeyID
	aead    cipher.AEAD
	used    atomic.Int64 // blocks, by this process
	granted atomic.Int64 // blocks that the file allows this process
}

// Ring is the open keys of one store. All methods may be called at the same time.
type Ring struct {
	opt     Options
	home    Home
	keys    atomic.Pointer[map[KeyID]*dataKey] // never changed, only replaced
	current atomic.Pointer[dataKey]
	changed chan struct{}
	limit   int64
	looked  atomic.Int64 // when a shared home was last read, in nanoseconds since 1970

	mu     sync.Mutex // guards what follows, and the home
	file   keyFile    // as both copies say
	master *Master
	missed map[KeyID]time.Time // ids that a shared home did not have, and when
}

// Create makes the data keys of a store that has none, with a first key. The master key must be there. fresh says that the
// store holds no record yet.
func Create(ctx context.Context, o Options, fresh bool) (*Ring, error) {
	o.setDefaults()
	for _, c := range o.home().Read(ctx) {
		if c.Err == nil {
			return nil, fmt.Errorf("keyring: create %s: %w", c.Name, ErrExists)
		} else if !errors.Is(c.Err, fs.ErrNotExist) {
			return nil, fmt.Errorf("keyring: create %s: %w", c.Name, c.Err)
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
		if errors.Is(err, ErrStale) {
			err = ErrExists // another node was first
		}
		return nil, fmt.Errorf("keyring: create: %w", err)
	}
	return r, nil
}

// Exists tells whether there are data keys, or a copy of some. What can't be read is there.
func Exists(ctx context.Context, o Options) bool {
	o.setDefaults()
	return slices.ContainsFunc(o.home().Read(ctx), func(c Copy) bool { return !errors.Is(c.Err, fs.ErrNotExist) })
}

// Open reads the data keys and unwraps them. Errors: ErrNoFile, ErrDamaged, ErrNewer, ErrMaster, ErrSource, or one of the home.
func Open(ctx context.Context, o Options) (*Ring, error) {
	o.setDefaults()
	copies, damage := readCopies(ctx, o.home())
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
	if err := r.take(p.keyFile, m); err != nil {
		return nil, err
	}
	r.publish()
	r.heal(copies)
	if _, swept := r.Current(); !swept {
		r.nudge() // what was broken off goes on
	}
	return r, nil
}

func newRing(o Options, m *Master) *Ring {
	r := &Ring{opt: o, home: o.home(), master: m, changed: make(chan struct{}, 1), limit: blockLimit, missed: make(map[KeyID]time.Time)}
	r.keys.Store(&map[KeyID]*dataKey{})
	r.looked.Store(o.Clock().UnixNano())
	return r
}

// publish gives a new master key, which waits in a file beside the old one, its place.
func (r *Ring) publish() {
	if r.opt.Source.Kind != File {
		return
	}
	if err := r.opt.Source.publish(r.opt.FS, r.master); err != nil {
		r.opt.Logger.Warn("keyring: the new master key can't be put in its place, and stays beside it", "file", r.opt.Source.File, "err", err)
	}
}

// nudge has records encrypted anew.
func (r *Ring) nudge() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
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
				return fmt.Errorf("keyring: %w: %s was signed by the right master key, %s, and changed since. Bring it back from a backup. Nothing was changed", ErrDamaged, o.home(), m.id)
			}
		}
	}
	return fmt.Errorf("keyring: %w: the data keys in %s were wrapped by master key %s, but %s gives master key %s. Bring the right one back from its backup; nothing was changed",
		ErrMaster, o.home(), copies[0].master, o.Source, masters[0].id)
}

// take makes a version of the data keys, which master key m signed, the one of this ring: keys that it knew stay as they are.
// After an error nothing has changed. The caller holds the lock, or is the only one.
func (r *Ring) take(f keyFile, m *Master) error {
	known := *r.keys.Load()
	all := make(map[KeyID]*dataKey, len(f.keys))
	var current *dataKey
	for i := range f.keys {
		e := &f.keys[i]
		k := known[e.id]
		if k == nil {
			secret, err := f.unwrap(e, m)
			if err != nil {
				return fmt.Errorf("keyring: %s: %w", r.home, err)
			}
			aead, err := newAEAD(secret)
			clear(secret)
			if err != nil {
				return err
			}
			k = &dataKey{id: e.id, aead: aead}
		}
		all[e.id] = k
		if e.purpose == Mail {
			current = k // the last one
		}
	}
	if current == nil {
		return fmt.Errorf("keyring: %s: %w: it holds no key", r.home, ErrDamaged)
	}
	r.file, r.master = f, m
	r.keys.Store(&all)
	r.current.Store(current)
	return nil
}

// heal writes both copies anew when they differ. Reading does not depend on it.
func (r *Ring) heal(copies []*parsed) {
	if len(copies) == 2 && copies[0].generation == copies[1].generation && copies[0].verify(r.master) && copies[1].verify(r.master) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.save(r.file.clone(), r.master); err != nil && !errors.Is(err, ErrStale) {
		r.opt.Logger.Error("keyring: a copy of the data keys is damaged or old and can't be written anew", "keys", r.home.String(), "err", err)
		return
	}
	r.opt.Logger.Warn("keyring: a copy of the data keys was damaged, old or missing; both were written anew", "keys", r.home.String())
}

// change lets fn make the next version of the data keys out of the last one, and returns when it stands in the home, twice. fn
// returns the master key that signs it, and runs again when another node was faster. A key is used only when both copies
// hold it: after an error nothing has changed for this process, and what one copy may hold more was never used. The caller
// holds the lock.
func (r *Ring) change(fn func(f *keyFile) (*Master, error)) error {
	for {
		f := r.file.clone()
		m, err := fn(&f)
		if err != nil {
			return err
		}
		if err = r.save(f, m); !errors.Is(err, ErrStale) {
			return err
		}
		before := r.file.generation
		if err := r.reload(); err != nil {
			return err
		}
		if r.file.generation == before {
			return fmt.Errorf("%s: %w", r.home, ErrStale) // an older version came back there: a backup, say
		}
	}
}

// save is one try of change.
func (r *Ring) save(f keyFile, m *Master) error {
	old := f.generation
	f.generation++
	text := f.encode(m)
	if len(text) > maxFile {
		return fmt.Errorf("more than %d data keys", maxKeys)
	}
	ctx, cancel := context.WithTimeout(context.Background(), homeTime)
	defer cancel()
	if err := r.home.Write(ctx, old, f.generation, text); err != nil {
		return err
	}
	return r.take(f, m)
}

// Seal returns the key for a new record, and counts the blocks that it seals.
func (r *Ring) Seal(blocks int64) (uint32, cipher.AEAD, error) {
	r.follow()
	for k := (*dataKey)(nil); ; {
		if now := r.current.Load(); now != k {
			k = now
			k.used.Add(blocks)
		}
		if k.used.Load() <= k.granted.Load() {
			return uint32(k.id), k.aead, nil
		}
		if err := r.grant(k); err != nil {
			return 0, nil, fmt.Errorf("keyring: count of data key %s: %w", k.id, err)
		}
	}
}

// errReplaced says that another key is the current one now.
var errReplaced = errors.New("keyring: the data key has been replaced")

// grant records that this process seals as many blocks with a key as it says, and some more. When the key has sealed enough
// another takes its place.
func (r *Ring) grant(k *dataKey) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var more int64
	full := false
	err := r.change(func(f *keyFile) (*Master, error) {
		i := slices.IndexFunc(f.keys, func(e entry) bool { return e.id == k.id })
		more = k.used.Load() - k.granted.Load()
		if more <= 0 || i < 0 || r.current.Load() != k {
			return nil, errReplaced // or another call was granted enough
		}
		used := &f.keys[i].used
		if full = *used+more > r.limit; full {
			return nil, errReplaced
		}
		more += min(blockStep, r.limit-*used-more)
		*used += more
		return r.master, nil
	})
	switch {
	case full:
		_, err = r.rotateLocked(false)
		return err
	case errors.Is(err, errReplaced):
		return nil
	case err != nil:
		return err
	}
	k.granted.Add(more)
	return nil
}

// Key returns the key that a record names, nil when there is none of this id. An error says that a shared home can't be
// asked for it now.
func (r *Ring) Key(id uint32) (cipher.AEAD, error) {
	if k := (*r.keys.Load())[KeyID(id)]; k != nil {
		return k.aead, nil
	}
	if r.opt.Home == nil {
		return nil, nil
	}
	return r.learn(KeyID(id))
}

// Current returns the id of the key for new records, and whether a walk over all records has found nothing under others.
func (r *Ring) Current() (id uint32, swept bool) {
	r.follow()
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
	err := r.change(func(f *keyFile) (*Master, error) {
		f.swept = KeyID(id)
		return r.master, nil
	})
	if err != nil {
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
	e := entry{purpose: Mail, created: r.opt.Clock().Unix(), used: blockStep}
	secret := make([]byte, keySize)
	defer clear(secret)
	if _, err := io.ReadFull(r.opt.Rand, secret); err != nil {
		return 0, err
	}
	err := r.change(func(f *keyFile) (*Master, error) { return r.master, r.addKey(f, &e, secret, fresh) })
	if err != nil {
		return 0, err
	}
	r.current.Load().granted.Store(blockStep)
	r.nudge()
	return e.id, nil
}

// addKey adds a data key to a version.
func (r *Ring) addKey(f *keyFile, e *entry, secret []byte, swept bool) error {
	if len(f.keys) >= maxKeys {
		return fmt.Errorf("there are %d data keys: no more fit", len(f.keys))
	}
	f.master = r.master.id
	for e.id == 0 || slices.ContainsFunc(f.keys, func(o entry) bool { return o.id == e.id }) {
		var b [4]byte
		if _, err := io.ReadFull(r.opt.Rand, b[:]); err != nil {
			return err
		}
		e.id = KeyID(b[0])<<24 | KeyID(b[1])<<16 | KeyID(b[2])<<8 | KeyID(b[3])
	}
	if err := r.wrapInto(f, e, secret, r.master); err != nil {
		return err
	}
	f.keys = append(f.keys, *e)
	if swept {
		f.swept = e.id
	}
	return nil
}

func (r *Ring) wrapInto(f *keyFile, e *entry, secret []byte, m *Master) error {
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(r.opt.Rand, nonce[:]); err != nil {
		return err
	}
	f.wrap(e, secret, m, nonce)
	return nil
}
