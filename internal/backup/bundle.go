package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"waxwing/internal/store"
	"waxwing/internal/store/blob"
)

// A bundle is an object that holds many pieces: contents of messages, or rows. It is
//
//	magic, a payload, an index, and a trailer: the lengths of both and the magic again
//
// Payload and index are age files of their own, so that the index can be read without the rest. The payload is one piece
// after the other, each compressed by itself: were they compressed together, its length would tell whoever can send mail
// to one user and sees the bucket something about the mail of others.
const (
	bundleMagic = "wxbundl1"
	trailerSize = 8 + 8 + len(bundleMagic)

	maxPieces = 1 << 20  // of one bundle
	maxIndex  = 64 << 20 // octets of the index of one
	maxPiece  = 1 << 31  // octets of one piece
	maxObject = 4 << 30  // octets of one object

	holdPiece = 8 << 20 // a piece up to this is held in memory
)

// errFormat says that an object isn't what it should be.
var errFormat = errors.New("not what a backup has there")

// Sum is the SHA-256 of a piece.
type Sum [sha256.Size]byte

// piece is what the index of a bundle says of one piece.
type piece struct {
	sum    Sum
	length int64
	stored int64
	packed bool // with zstd
}

func appendPieces(b []byte, list []piece) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, p := range list {
		b = append(b, p.sum[:]...)
		b = append(b, byte(0))
		if p.packed {
			b[len(b)-1] = 1
		}
		b = binary.AppendUvarint(b, uint64(p.length))
		b = binary.AppendUvarint(b, uint64(p.stored))
	}
	return b
}

// parsePieces reads what appendPieces wrote and returns what follows.
func parsePieces(b []byte) (list []piece, rest []byte, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > maxPieces || n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("index: %w", errFormat)
	}
	b = b[used:]
	list = make([]piece, 0, n)
	for range n {
		if len(b) < sha256.Size+1 || b[sha256.Size] > 1 {
			return nil, nil, fmt.Errorf("index: %w", errFormat)
		}
		p := piece{sum: Sum(b), packed: b[sha256.Size] == 1}
		b = b[sha256.Size+1:]
		for _, v := range []*int64{&p.length, &p.stored} {
			x, used := binary.Uvarint(b)
			if used <= 0 || x > maxPiece {
				return nil, nil, fmt.Errorf("index: %w", errFormat)
			}
			*v, b = int64(x), b[used:]
		}
		if !p.packed && p.length != p.stored {
			return nil, nil, fmt.Errorf("index: %w", errFormat)
		}
		list = append(list, p)
	}
	return list, b, nil
}

// packer makes the pieces small; one serves a whole run.
type packer struct {
	whole  *zstd.Encoder
	stream *zstd.Encoder
	buf    []byte
}

func newPacker() (*packer, error) {
	one, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	two, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return &packer{whole: one, stream: two}, err
}

// bundle is a bundle in the making: a file without a name, so that a crash leaves nothing behind.
type bundle struct {
	file    *os.File
	at      *offsetWriter
	payload io.WriteCloser
	to      []age.Recipient
	pieces  []piece
	octets  int64 // stored
}

// offsetWriter writes a file from its beginning and knows how far it is.
type offsetWriter struct {
	f   *os.File
	off int64
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}

func newBundle(dir string, to []age.Recipient) (b *bundle, err error) {
	f, err := nameless(dir)
	if err != nil {
		return nil, err
	}
	b = &bundle{file: f, at: &offsetWriter{f: f}, to: to}
	_, err = io.WriteString(b.at, bundleMagic)
	if err == nil {
		b.payload, err = age.Encrypt(b.at, to...)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return b, nil
}

// nameless makes a file that goes with its descriptor.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "backup-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// add puts a piece in. An error of the source leaves the bundle as it was: errors.Is errSource.
func (b *bundle) add(p *packer, sum Sum, size int64, open func() (io.ReadCloser, error)) error {
	if size > maxPiece {
		return fmt.Errorf("%w: %w: %d octets", errSource, errLarge, size)
	}
	var err error
	if size <= holdPiece {
		err = b.addSmall(p, sum, size, open)
	} else {
		err = b.addLarge(p, sum, size, open)
	}
	if err == nil {
		b.octets += b.pieces[len(b.pieces)-1].stored
	}
	return err
}

// errSource marks what is wrong with a piece before it is in a bundle.
var errSource = errors.New("can't be read from the store")

// errOther says that the store gives other octets than it was given.
var errOther = errors.New("its SHA-256 differs")

// errLarge says that a piece is longer than a bundle can say.
var errLarge = errors.New("it is more than a backup takes")

// damagedSource tells a piece that is damaged from a store that can't give it now: its bucket does not answer, say.
func damagedSource(err error) bool {
	for _, harm := range []error{store.ErrCorrupt, blob.ErrEncrypted, errOther, errLarge, syscall.EIO} {
		if errors.Is(err, harm) {
			return errors.Is(err, errSource)
		}
	}
	return false
}

func (b *bundle) addSmall(p *packer, sum Sum, size int64, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(r, data)
	if err = errors.Join(err, r.Close()); err == nil && sha256.Sum256(data) != sum {
		err = errOther
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	p.buf = p.whole.EncodeAll(data, p.buf[:0])
	out, packed := p.buf, true
	if len(out) >= len(data) {
		out, packed = data, false
	}
	if _, err := b.payload.Write(out); err != nil {
		return err
	}
	b.pieces = append(b.pieces, piece{sum, size, int64(len(out)), packed})
	return nil
}

// addLarge reads a piece twice: once to see that it is whole, and once to keep it.
func (b *bundle) addLarge(p *packer, sum Sum, size int64, open func() (io.ReadCloser, error)) error {
	if err := hashWhole(sum, size, open); err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	r, err := open()
	if err != nil {
		return fmt.Errorf("%w: %w", errSource, err)
	}
	defer r.Close()
	count := &counter{w: b.payload}
	p.stream.Reset(count)
	if _, err := io.CopyN(p.stream, r, size); err != nil {
		return err
	}
	if err := p.stream.Close(); err != nil {
		return err
	}
	b.pieces = append(b.pieces, piece{sum, size, count.n, true})
	return nil
}

// hashWhole reads a piece to its end and compares.
func hashWhole(sum Sum, size int64, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if n != size || Sum(h.Sum(nil)) != sum {
		return errOther
	}
	return nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// finish ends the bundle and returns its length.
func (b *bundle) finish() (int64, error) {
	if err := b.payload.Close(); err != nil {
		return 0, err
	}
	payload := b.at.off - int64(len(bundleMagic))
	index, err := age.Encrypt(b.at, b.to...)
	if err != nil {
		return 0, err
	}
	if _, err := index.Write(appendPieces(nil, b.pieces)); err != nil {
		return 0, err
	}
	if err := index.Close(); err != nil {
		return 0, err
	}
	end := binary.BigEndian.AppendUint64(nil, uint64(payload))
	end = binary.BigEndian.AppendUint64(end, uint64(b.at.off-payload-int64(len(bundleMagic))))
	if _, err := b.at.Write(append(end, bundleMagic...)); err != nil {
		return 0, err
	}
	return b.at.off, nil
}

// opened is a bundle of a target with its index read.
type opened struct {
	target  Target
	name    string
	payload int64
	pieces  []piece
}

// openBundle reads the index of a bundle.
func openBundle(ctx context.Context, t Target, name string, size int64, ids []age.Identity) (*opened, error) {
	if size < int64(len(bundleMagic)+trailerSize) || size > maxObject {
		return nil, fmt.Errorf("%s: %d octets: %w", name, size, errFormat)
	}
	end, err := getAll(ctx, t, name, size-int64(trailerSize), int64(trailerSize))
	if err != nil {
		return nil, err
	}
	payload, index := binary.BigEndian.Uint64(end), binary.BigEndian.Uint64(end[8:])
	whole := uint64(len(bundleMagic)+trailerSize) + payload + index
	if string(end[16:]) != bundleMagic || payload > maxObject || index > maxIndex || whole != uint64(size) {
		return nil, fmt.Errorf("%s: trailer: %w", name, errFormat)
	}
	sealed, err := getAll(ctx, t, name, int64(len(bundleMagic))+int64(payload), int64(index))
	if err != nil {
		return nil, err
	}
	plain, err := unseal(bytes.NewReader(sealed), ids, maxIndex)
	if err != nil && !errors.Is(err, ErrIdentity) {
		err = fmt.Errorf("%w: %w", errDiffers, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: index: %w", name, err)
	}
	pieces, rest, err := parsePieces(plain)
	if err == nil && len(rest) > 0 {
		err = errFormat
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &opened{t, name, int64(payload), pieces}, nil
}

// each reads the pieces that are wanted, in their order. What fn reads is checked at its end: an error there is told by
// the reader, and by each when fn reads no further.
func (o *opened) each(ctx context.Context, ids []age.Identity, want func(Sum) bool, fn func(p piece, r io.Reader) error) error {
	last := -1
	for i, p := range o.pieces {
		if want(p.sum) {
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	body, err := o.target.Get(ctx, o.name, int64(len(bundleMagic)), o.payload)
	if err != nil {
		return err
	}
	defer body.Close()
	plain, err := age.Decrypt(body, ids...)
	if err != nil {
		return fmt.Errorf("%s: %w", o.name, unsealError(err))
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return err
	}
	defer dec.Close()
	for _, p := range o.pieces[:last+1] {
		stored := io.LimitReader(plain, p.stored)
		if want(p.sum) {
			if err := readPiece(p, stored, dec, fn); err != nil {
				return fmt.Errorf("%s: piece %x: %w", o.name, p.sum[:8], err)
			}
		}
		if _, err := io.Copy(io.Discard, stored); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

func readPiece(p piece, stored io.Reader, dec *zstd.Decoder, fn func(p piece, r io.Reader) error) error {
	r := stored
	if p.packed {
		if err := dec.Reset(stored); err != nil {
			return err
		}
		r = dec
	}
	c := &checked{r: r, left: p.length, sum: p.sum, hash: sha256.New()}
	if err := fn(p, c); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// checked is a piece that is read: at its end its length and hash must be right.
type checked struct {
	r    io.Reader
	left int64
	sum  Sum
	hash interface {
		io.Writer
		Sum(b []byte) []byte
	}
	err error
}

var errDiffers = errors.New("the octets are not those that were backed up")

func (c *checked) Read(b []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		c.err = io.EOF
		if Sum(c.hash.Sum(nil)) != c.sum {
			c.err = errDiffers
		} else if n, _ := io.ReadFull(c.r, make([]byte, 1)); n > 0 {
			c.err = errDiffers
		}
		return 0, c.err
	}
	n, err := c.r.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	c.hash.Write(b[:n]) //nolint:errcheck // a hash takes everything
	if err == io.EOF && c.left > 0 {
		err = errDiffers
	}
	if err == io.EOF {
		err = nil
	}
	c.err = err
	return n, err
}

// getAll reads n octets of an object, all of which must be there.
func getAll(ctx context.Context, t Target, name string, off, n int64) ([]byte, error) {
	body, err := t.Get(ctx, name, off, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(body, b)
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// unseal decrypts at most limit octets.
func unseal(r io.Reader, ids []age.Identity, limit int64) ([]byte, error) {
	plain, err := age.Decrypt(r, ids...)
	if err != nil {
		return nil, unsealError(err)
	}
	return readAtMost(plain, limit)
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than %d octets: %w", limit, errFormat)
	}
	return b, err
}

// ErrIdentity means that none of the identities opens the backup.
var ErrIdentity = errors.New("none of the identities is one that the backup was made for")

func unsealError(err error) error {
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return ErrIdentity
	}
	return err
}
