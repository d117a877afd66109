package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"filippo.io/age"

	"waxwing/internal/build"
	"waxwing/internal/durable"
	"waxwing/internal/store"
)

// bundleSize is how long a bundle becomes, about. One piece that is longer has a bundle of its own.
const bundleSize = 32 << 20

// Snapshot is what is backed up: everything, at one moment.
type Snapshot interface {
	store.Source
	Taken() time.Time
	Close() error
}

// Options of Run.
type Options struct {
	Snapshot   func(ctx context.Context) (Snapshot, error) // required
	Target     Target                                      // required
	Recipients []string                                    // as age writes them; at least one
	Dir        string                                      // of this node, for the index and the bundle in the making; required
	FS         durable.FS                                  // of Dir; the machine's
	Full       bool                                        // use nothing of earlier backups
	Rate       int64                                       // octets a second that are sent at most; 0: no bound
	Keep       Retention                                   // which backups stay afterwards; zero: all
	Host       string
	Schema     int64 // of the store
	Clock      func() time.Time
	Logger     *slog.Logger
	Progress   func(Progress)
	BundleSize int64 // 32 MiB
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = durable.OS
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.BundleSize == 0 {
		o.BundleSize = bundleSize
	}
}

// Progress is how far a backup is.
type Progress struct {
	Contents int64 `json:"contents"` // looked at
	Octets   int64 `json:"octets"`   // of these
	Rows     int64 `json:"rows"`
	Sent     int64 `json:"sent"` // octets that went to the target
}

// Result is what a run made.
type Result struct {
	ID       string
	Manifest *Manifest
	Sent     int64
	Bundles  int     // new ones
	Damaged  []error // contents that the store can't read; they are not in the backup
	Pruned   Pruned
}

// run is one backup in the making.
type run struct {
	opts   Options
	repo   *Repository
	to     []age.Recipient
	digest string
	index  *index
	packer *packer
	lease  *lease

	open  *bundle
	kind  Kind
	used  map[int]struct{} // bundles of the index that the backup needs
	needs map[int]int64    // octets that it needs of them
	cat   catalog
	lost  map[Sum]struct{}
	done  Progress
	out   Result
	count Counts
}

// Run makes a backup. It is listed when Run returns nil, and not before: the manifest is written last. A run that ended
// anywhere leaves bundles that the next one uses.
func Run(ctx context.Context, o Options) (out *Result, err error) {
	o.setDefaults()
	to, err := ParseRecipients(o.Recipients)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	if err := o.FS.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	repo, err := create(ctx, o.Target)
	if err != nil {
		return nil, err
	}
	l, err := takeLease(ctx, o.Target, o.Clock, "a backup")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.end()) }()
	r := &run{
		opts: o, repo: repo, to: to, digest: recipientsDigest(o.Recipients), lease: l,
		used: make(map[int]struct{}), needs: make(map[int]int64), lost: make(map[Sum]struct{}),
	}
	if r.packer, err = newPacker(); err != nil {
		return nil, err
	}
	if err := r.loadIndex(ctx); err != nil {
		return nil, err
	}
	if err := r.make(ctx); err != nil {
		return nil, err
	}
	if !o.Keep.all() {
		if r.out.Pruned, err = repo.prune(ctx, o.Keep, l, o.Clock()); err != nil {
			return &r.out, fmt.Errorf("the backup %s is made, but old ones can't be removed: %w", r.out.ID, err)
		}
		if r.out.Pruned.Repacked, err = r.repack(); err != nil {
			return &r.out, fmt.Errorf("the backup %s is made, but not what the next one needs: %w", r.out.ID, err)
		}
	}
	return &r.out, nil
}

// loadIndex leaves in the index what the target still has, and what is for these recipients.
func (r *run) loadIndex(ctx context.Context) (err error) {
	if r.index, err = loadIndex(r.opts.FS, r.opts.Dir, r.repo.id); err != nil {
		return err
	}
	there, err := r.there(ctx)
	if err != nil {
		return err
	}
	if err := r.index.keep(func(k known) bool { return there[k.Name] == k.Size }); err != nil {
		return err
	}
	for sum, i := range r.index.where {
		if r.opts.Full || r.index.bundles[i].For != r.digest {
			delete(r.index.where, sum)
		}
	}
	return nil
}

// there lists the lengths of the bundles in the target.
func (r *run) there(ctx context.Context) (map[string]int64, error) {
	list, err := r.opts.Target.List(ctx, bundleDir)
	if err != nil {
		return nil, fmt.Errorf("backup: list %s: %w", r.opts.Target, err)
	}
	sizes := make(map[string]int64, len(list))
	for _, o := range list {
		sizes[o.Name] = o.Size
	}
	return sizes, nil
}

func (r *run) make(ctx context.Context) (err error) {
	began := r.opts.Clock()
	snap, err := r.opts.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	defer func() {
		if r.open != nil {
			err = errors.Join(err, r.open.file.Close())
		}
	}()
	r.cat.Format = format
	if err := r.contents(ctx, snap); err != nil {
		return err
	}
	for _, t := range store.Tables() {
		if err := r.table(ctx, t.Name, snap.Rows(ctx, t.Name, 0)); err != nil {
			return fmt.Errorf("backup: table %s: %w", t.Name, err)
		}
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	return r.commit(ctx, snap.Taken(), began)
}

// contents puts the contents in that are not there yet, and lists all in a table of their own.
func (r *run) contents(ctx context.Context, snap Snapshot) error {
	r.kind = Mail
	for c, err := range snap.Contents(ctx) {
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		r.count.Contents++
		r.count.Octets += c.Size
		err = r.piece(ctx, Sum(c.Sum), c.Size, func() (io.ReadCloser, error) {
			b, err := snap.Open(ctx, c)
			if err != nil {
				return nil, err
			}
			return blobReader{io.NewSectionReader(b, 0, b.Size()), b}, nil
		})
		if damagedSource(err) && ctx.Err() == nil {
			r.damaged(Sum(c.Sum), c.ID, err)
			err = nil
		}
		if err != nil {
			return fmt.Errorf("backup: content %d: %w", c.ID, err)
		}
		r.done.Contents, r.done.Octets = r.count.Contents, r.count.Octets
		r.opts.Progress(r.done)
	}
	if err := r.flush(ctx); err != nil {
		return err
	}
	return r.table(ctx, contentTable, contentRecords(snap.Contents(ctx)))
}

func (r *run) damaged(sum Sum, id int64, err error) {
	r.lost[sum] = struct{}{}
	r.cat.Damaged = append(r.cat.Damaged, sum)
	r.count.Damaged++
	err = fmt.Errorf("content %d, SHA-256 %x: %w", id, sum, err)
	r.opts.Logger.Error("a message is damaged in the store and not in the backup", "error", err)
	if len(r.out.Damaged) < maxDamaged {
		r.out.Damaged = append(r.out.Damaged, err)
	}
}

// maxDamaged bounds the errors that a Result lists.
const maxDamaged = 1000

type blobReader struct {
	*io.SectionReader
	blob store.Blob
}

func (b blobReader) Close() error { return b.blob.Close() }

// piece puts a piece in, unless the repository has it.
func (r *run) piece(ctx context.Context, sum Sum, size int64, open func() (io.ReadCloser, error)) error {
	if i, ok := r.index.where[sum]; ok {
		r.used[i] = struct{}{}
		r.needs[i] += size
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.open != nil && r.has(sum) {
		return nil
	}
	if r.open != nil && (r.open.octets+size > r.opts.BundleSize || len(r.open.pieces) == maxPieces) {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	if r.open == nil {
		b, err := newBundle(r.opts.Dir, r.to)
		if err != nil {
			return err
		}
		r.open = b
	}
	return r.open.add(r.packer, sum, size, open)
}

// has tells that the bundle in the making has a piece: contents are there once, but pieces of rows may be alike.
func (r *run) has(sum Sum) bool {
	if r.kind != Rows {
		return false
	}
	for _, p := range r.open.pieces {
		if p.sum == sum {
			return true
		}
	}
	return false
}

// flush uploads the bundle in the making, and notes it.
func (r *run) flush(ctx context.Context) (err error) {
	b := r.open
	r.open = nil
	if b == nil {
		return nil
	}
	defer func() { err = errors.Join(err, b.file.Close()) }()
	if len(b.pieces) == 0 {
		return nil
	}
	size, err := b.finish()
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	part, err := r.upload(ctx, bundleDir, b.file, size)
	if err != nil {
		return err
	}
	part.Kind = r.kind
	if err := r.index.add(known{Part: part, For: r.digest, pieces: b.pieces}); err != nil {
		return err
	}
	last := len(r.index.bundles) - 1
	r.used[last] = struct{}{}
	for _, p := range b.pieces {
		r.needs[last] += p.length
	}
	r.out.Bundles++
	return nil
}

// upload puts an object under a random name.
func (r *run) upload(ctx context.Context, dir string, f io.ReaderAt, size int64) (Part, error) {
	name, err := randomName()
	if err != nil {
		return Part{}, err
	}
	sum, err := sum256(f, size)
	if err != nil {
		return Part{}, fmt.Errorf("backup: %w", err)
	}
	p := Part{Name: dir + name + sealedSuffix, Size: size, SHA256: hex.EncodeToString(sum[:])}
	if err := r.opts.Target.Put(ctx, p.Name, newPaced(ctx, f, r.opts.Rate), size); err != nil {
		return Part{}, fmt.Errorf("backup: send to %s: %w", r.opts.Target, err)
	}
	r.out.Sent += size
	r.done.Sent = r.out.Sent
	r.opts.Progress(r.done)
	return p, nil
}

// commit writes the catalog and, when everything that it needs was seen to be there, the manifest.
func (r *run) commit(ctx context.Context, taken, began time.Time) error {
	sealed, err := sealCatalog(&r.cat, r.to)
	if err != nil {
		return fmt.Errorf("backup: catalog: %w", err)
	}
	part, err := r.upload(ctx, catalogDir, bytes.NewReader(sealed), int64(len(sealed)))
	if err != nil {
		return err
	}
	m := &Manifest{
		Format: format, Created: taken.UTC(), Finished: r.opts.Clock().UTC(), Host: r.opts.Host, Program: build.Version, Schema: r.opts.Schema,
		Recipients: r.opts.Recipients, Counts: r.count, Added: r.out.Sent, Catalog: part, Bundles: []Part{},
	}
	there, err := r.there(ctx)
	if err != nil {
		return err
	}
	for i := range r.index.bundles {
		if _, ok := r.used[i]; !ok {
			continue
		}
		p := r.index.bundles[i].Part
		if there[p.Name] != p.Size {
			return fmt.Errorf("backup: %s has gone from %s while the backup was made: run it again", p.Name, r.opts.Target)
		}
		m.Bundles = append(m.Bundles, p)
	}
	raw, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if err := r.lease.check(ctx); err != nil {
		return err
	}
	id := idOf(m, raw)
	if err := r.opts.Target.Put(ctx, manifestDir+id+manifestExt, bytes.NewReader(raw), int64(len(raw))); err != nil {
		return fmt.Errorf("backup: send to %s: %w", r.opts.Target, err)
	}
	r.out.ID, r.out.Manifest = id, m
	r.opts.Logger.Info("backup made", "id", id, "target", r.opts.Target.String(), "octets", m.Counts.Octets, "sent", r.out.Sent,
		"took", r.opts.Clock().Sub(began).Round(time.Millisecond))
	return nil
}
