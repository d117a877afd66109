package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
)

// Reader reads one backup with an identity. It is a store.Source: what a Loader takes.
type Reader struct {
	Backup

	target  Target
	ids     []age.Identity
	dir     string
	catalog *catalog
	damaged map[Sum]struct{}

	mu      sync.Mutex  // one piece is read at a time
	where   map[Sum]int // in the manifest's bundles
	indexed map[Kind]bool
	bundles []*opened // of the manifest, nil until the index was read
	near    []*near   // the last used in front
	bad     map[int]error
	lost    map[Kind][]int // bundles whose index could not be had
	dec     *zstd.Decoder
}

var _ store.Source = (*Reader)(nil)

// nearBundles is how many bundles are at hand, as files of about 32 MiB.
const nearBundles = 4

// near is a bundle that was fetched.
type near struct {
	n     int
	file  *os.File
	plain io.ReaderAt
	at    map[Sum]int64 // where each piece begins
	of    map[Sum]piece
}

// Read opens a backup. dir is for bundles that are at hand, which stay encrypted; nothing in it outlives the process.
func (r *Repository) Read(ctx context.Context, b Backup, ids []age.Identity, dir string) (*Reader, error) {
	sealed, err := getWhole(ctx, r.target, b.Manifest.Catalog.Name, maxCatalog)
	if err != nil {
		return nil, fmt.Errorf("backup %s: catalog: %w", b.ID, err)
	}
	if sum := sha256.Sum256(sealed); hex.EncodeToString(sum[:]) != b.Manifest.Catalog.SHA256 {
		return nil, fmt.Errorf("backup %s: catalog: %w", b.ID, errDiffers)
	}
	c, err := openCatalog(bytes.NewReader(sealed), ids)
	if err != nil {
		return nil, fmt.Errorf("backup %s: catalog: %w", b.ID, err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return nil, err
	}
	rd := &Reader{
		Backup: b, target: r.target, ids: ids, dir: dir, catalog: c, dec: dec, damaged: make(map[Sum]struct{}),
		where: make(map[Sum]int), indexed: make(map[Kind]bool), bundles: make([]*opened, len(b.Manifest.Bundles)),
		bad: make(map[int]error), lost: make(map[Kind][]int),
	}
	for _, sum := range c.Damaged {
		rd.damaged[sum] = struct{}{}
	}
	return rd, nil
}

// Close lets go of what is at hand.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dec.Close()
	var errs []error
	for _, n := range r.near {
		errs = append(errs, n.file.Close())
	}
	r.near = nil
	return errors.Join(errs...)
}

// indexes reads the indexes of the bundles of a kind.
func (r *Reader) indexes(ctx context.Context, kind Kind) error {
	if r.indexed[kind] {
		return nil
	}
	for i, p := range r.Manifest.Bundles {
		if p.Kind != kind {
			continue
		}
		if _, err := r.bundle(ctx, i); r.harmed(ctx, err) {
			r.lost[kind] = append(r.lost[kind], i) // what is in the others is found
		} else if err != nil {
			return err
		}
	}
	r.indexed[kind] = true
	return nil
}

// harmed tells a bundle that is lost or damaged from a target that doesn't answer, and from a disk that is not there: then
// the manifest is gone too. The catalog was opened, so an identity that doesn't fit is damage.
func (r *Reader) harmed(ctx context.Context, err error) bool {
	if err == nil || errors.Is(err, errTarget) || ctx.Err() != nil {
		return false
	}
	for _, harm := range []error{errDiffers, errFormat, io.ErrUnexpectedEOF, ErrIdentity} {
		if errors.Is(err, harm) {
			return true
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = readManifest(ctx, r.target, r.ID)
	return err == nil
}

func (r *Reader) bundle(ctx context.Context, i int) (*opened, error) {
	if r.bundles[i] != nil {
		return r.bundles[i], nil
	}
	p := r.Manifest.Bundles[i]
	o, err := openBundle(ctx, r.target, p.Name, p.Size, r.ids)
	if err != nil {
		return nil, err
	}
	r.bundles[i] = o
	for _, x := range o.pieces {
		r.where[x.sum] = i
	}
	return o, nil
}

// bring has a bundle at hand.
func (r *Reader) bring(ctx context.Context, i int) (*near, error) {
	for at, n := range r.near {
		if n.n == i {
			copy(r.near[1:at+1], r.near[:at])
			r.near[0] = n
			return n, nil
		}
	}
	if err := r.bad[i]; err != nil {
		return nil, err
	}
	n, err := r.fetch(ctx, i)
	if r.harmed(ctx, err) {
		short := errors.Is(err, io.ErrUnexpectedEOF) // the next time it may come whole
		err = fmt.Errorf("%w: %v", errDiffers, err)  //nolint:errorlint // it is damage, whatever it was
		if !short {
			r.bad[i] = err // it is not fetched again for each of its pieces
		}
	}
	if err != nil {
		return nil, err
	}
	r.near = append([]*near{n}, r.near...)
	if len(r.near) > nearBundles {
		last := r.near[nearBundles]
		r.near = r.near[:nearBundles]
		if err := last.file.Close(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (r *Reader) fetch(ctx context.Context, i int) (n *near, err error) {
	o, err := r.bundle(ctx, i)
	if err != nil {
		return nil, err
	}
	f, err := nameless(r.dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	body, err := r.target.Get(ctx, o.name, int64(len(bundleMagic)), o.payload)
	if err != nil {
		return nil, err
	}
	got, err := io.Copy(f, io.LimitReader(body, o.payload))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", o.name, err)
	}
	if got != o.payload {
		return nil, fmt.Errorf("%s: %w", o.name, io.ErrUnexpectedEOF)
	}
	plain, _, err := age.DecryptReaderAt(f, o.payload, r.ids...)
	if err = unsealError(err); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", o.name, errDiffers, err)
	}
	n = &near{n: i, file: f, plain: unsealed{plain}, at: make(map[Sum]int64), of: make(map[Sum]piece)}
	off := int64(0)
	for _, p := range o.pieces {
		n.at[p.sum], n.of[p.sum] = off, p
		off += p.stored
	}
	return n, nil
}

// unsealed is a decrypted bundle: what can't be decrypted of it is damaged, and says so.
type unsealed struct{ io.ReaderAt }

func (u unsealed) ReadAt(b []byte, off int64) (int, error) {
	n, err := u.ReaderAt.ReadAt(b, off)
	var local *fs.PathError
	if err != nil && !errors.Is(err, io.EOF) && !errors.As(err, &local) {
		err = fmt.Errorf("%w: %w", errDiffers, err)
	}
	return n, err
}

// find says which bundle has a piece. One that none has may be in a bundle that could not be read: that is tried again.
func (r *Reader) find(ctx context.Context, sum Sum, kind Kind) (int, error) {
	err := fmt.Errorf("piece %x is in no bundle of backup %s: %w", sum[:8], r.ID, errFormat)
	for _, i := range r.lost[kind] {
		if _, ok := r.where[sum]; ok {
			break
		}
		if _, lost := r.bundle(ctx, i); r.harmed(ctx, lost) {
			err = fmt.Errorf("piece %x, and %s can't be read: %v: %w", sum[:8], r.Manifest.Bundles[i].Name, lost, errFormat) //nolint:errorlint // it harms this piece alone
		} else if lost != nil {
			return 0, lost
		}
	}
	if i, ok := r.where[sum]; ok {
		return i, nil
	}
	return 0, err
}

// piece gives a piece as a file that can be read anywhere: in memory, or without a name when it is large. It is whole.
func (r *Reader) piece(ctx context.Context, sum Sum, kind Kind) (store.Blob, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.indexes(ctx, kind); err != nil {
		return nil, err
	}
	i, err := r.find(ctx, sum, kind)
	if err != nil {
		return nil, err
	}
	n, err := r.bring(ctx, i)
	if err != nil {
		return nil, err
	}
	p := n.of[sum]
	var out store.Blob
	err = readPiece(p, io.NewSectionReader(n.plain, n.at[sum], p.stored), r.dec, func(p piece, src io.Reader) (err error) {
		out, err = hold(r.dir, p.length, src)
		return err
	})
	if err != nil {
		if out != nil {
			err = errors.Join(err, out.Close())
		}
		return nil, fmt.Errorf("%s: piece %x: %w", r.Manifest.Bundles[i].Name, sum[:8], err)
	}
	return out, nil
}

// held is a piece in memory.
type held struct{ *bytes.Reader }

func (held) Close() error { return nil }

// heldFile is a piece in a file without a name.
type heldFile struct {
	*os.File
	size int64
}

func (h heldFile) Size() int64 { return h.size }

// hold takes what comes, of a length that is known.
func hold(dir string, size int64, src io.Reader) (store.Blob, error) {
	if size <= holdPiece {
		var b bytes.Buffer
		n, err := io.Copy(&b, src) // not made before it comes: a length may lie
		if err == nil && n != size {
			err = errDiffers
		}
		return held{bytes.NewReader(b.Bytes())}, err
	}
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	if n, err := io.Copy(f, src); err != nil || n != size {
		return nil, errors.Join(errDiffers, err, f.Close())
	}
	return heldFile{f, size}, nil
}

// table finds a table of the catalog; nil when the backup has none of the name.
func (r *Reader) table(name string) *table {
	for i := range r.catalog.Tables {
		if r.catalog.Tables[i].Name == name {
			return &r.catalog.Tables[i]
		}
	}
	return nil
}

// Rows implements store.Source. A table that the backup lacks, as it was made before there was one, is empty.
func (r *Reader) Rows(ctx context.Context, name string, acct store.AccountID) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		column := ""
		for _, t := range store.Tables() {
			if t.Name == name {
				column = t.Account
			}
		}
		t := r.table(name)
		if t == nil || acct != 0 && column == "" {
			return
		}
		mine := -1
		for i, c := range t.Columns {
			if c == column {
				mine = i
			}
		}
		rows := int64(0)
		for _, sum := range t.Pieces {
			records, err := r.records(ctx, t, sum)
			if err != nil {
				yield(store.Record{}, fmt.Errorf("backup %s: table %s: %w", r.ID, name, err))
				return
			}
			rows += int64(len(records))
			for _, rec := range records {
				if acct != 0 && (mine < 0 || rec.Values[mine] != int64(acct)) {
					continue
				}
				if !yield(rec, nil) {
					return
				}
			}
		}
		if rows != t.Rows {
			yield(store.Record{}, fmt.Errorf("backup %s: table %s has %d rows, not %d: %w", r.ID, name, rows, t.Rows, errFormat))
		}
	}
}

// records reads the rows of one piece.
func (r *Reader) records(ctx context.Context, t *table, sum Sum) ([]store.Record, error) {
	b, err := r.piece(ctx, sum, Rows)
	if err != nil {
		return nil, err
	}
	raw, err := readAtMost(io.NewSectionReader(b, 0, b.Size()), maxPiece)
	if err = errors.Join(err, b.Close()); err != nil {
		return nil, err
	}
	if len(t.Columns) == 0 {
		return nil, errFormat
	}
	var out []store.Record
	for len(raw) > 0 {
		var row []any
		if row, raw, err = parseRow(raw, len(t.Columns)); err != nil {
			return nil, err
		}
		out = append(out, store.Record{Columns: t.Columns, Values: row})
	}
	return out, nil
}

// Contents implements store.Source. What was damaged when the backup was made is among them, and Open tells.
func (r *Reader) Contents(ctx context.Context) iter.Seq2[store.ContentInfo, error] {
	return func(yield func(store.ContentInfo, error) bool) {
		for rec, err := range r.Rows(ctx, contentTable, 0) {
			var c store.ContentInfo
			if err == nil {
				c, err = contentOf(rec)
			}
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// Open implements store.Source.
func (r *Reader) Open(ctx context.Context, c store.ContentInfo) (store.Blob, error) {
	if r.Damaged(c.Sum) {
		return nil, fmt.Errorf("content %d was damaged when backup %s was made: %w", c.ID, r.ID, store.ErrCorrupt)
	}
	b, err := r.piece(ctx, Sum(c.Sum), Mail)
	if errors.Is(err, errDiffers) || errors.Is(err, errFormat) {
		err = fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %s: content %d: %w", r.ID, c.ID, err)
	}
	return b, nil
}

// Damaged tells a content that was damaged when the backup was made.
func (r *Reader) Damaged(sum blob.ID) bool {
	_, ok := r.damaged[Sum(sum)]
	return ok
}
