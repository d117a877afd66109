package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Verified is what a verification saw.
type Verified struct {
	Objects  int64    `json:"objects"` // read whole, and found to be what the manifest says
	Octets   int64    `json:"octets"`  // of these
	Contents int64    `json:"contents"`
	Rows     int64    `json:"rows"`
	Deep     bool     `json:"deep"`     // everything was decrypted, and its hashes were compared
	Problems []string `json:"problems"` // the first of them
	Bad      []string `json:"bad"`      // objects that are not what they should be
}

// maxBad bounds the lists of a Verified.
const maxBad = 1000

func (v *Verified) problem(format string, args ...any) {
	if len(v.Problems) < maxBad {
		v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
	}
}

// VerifyOptions of Verify.
type VerifyOptions struct {
	Identities []age.Identity // none: what can be seen from outside
	Rate       int64          // octets a second that are read at most; 0: no bound
	Progress   func(v Verified, total int64)
}

// Verify reads all objects of a backup and compares their hashes with the manifest, whose own hash is in the backup's name.
// With an identity it also decrypts everything and compares the hash of each content and the number of rows of each table.
// Problems are no error: an error means that it could not be carried out.
func (r *Repository) Verify(ctx context.Context, b Backup, o VerifyOptions) (*Verified, error) {
	v := &Verified{Deep: len(o.Identities) > 0, Problems: []string{}, Bad: []string{}}
	if o.Progress == nil {
		o.Progress = func(Verified, int64) {}
	}
	parts := append([]Part{b.Manifest.Catalog}, b.Manifest.Bundles...)
	total := int64(0)
	for _, p := range parts {
		total += p.Size
	}
	var found map[Sum]struct{}
	if v.Deep {
		found = make(map[Sum]struct{})
	}
	for i, p := range parts {
		if err := r.verifyObject(ctx, p, o.Rate); err != nil {
			if ctx.Err() != nil {
				return v, ctx.Err()
			}
			if errors.Is(err, errTarget) {
				return v, fmt.Errorf("backup: verify %s: %s: %w", b.ID, p.Name, err)
			}
			v.problem("%s: %v", p.Name, err)
			v.Bad = append(v.Bad, p.Name)
			continue
		}
		v.Objects++
		v.Octets += p.Size
		if v.Deep && i > 0 {
			if err := r.verifyBundle(ctx, p, o.Identities, found, v); err != nil {
				return v, err
			}
		}
		o.Progress(*v, total)
	}
	if !v.Deep {
		return v, nil
	}
	return v, r.verifyRows(ctx, b, o.Identities, found, v)
}

// verifyObject compares the octets of an object with what the manifest says.
func (r *Repository) verifyObject(ctx context.Context, p Part, rate int64) error {
	body, err := r.target.Get(ctx, p.Name, 0, -1)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, newPacedReader(ctx, io.LimitReader(body, p.Size+1), rate))
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	if n != p.Size || hex.EncodeToString(h.Sum(nil)) != p.SHA256 {
		return errDiffers
	}
	return nil
}

// verifyBundle decrypts a bundle and reads each of its pieces. An identity that doesn't fit is an error.
func (r *Repository) verifyBundle(ctx context.Context, p Part, ids []age.Identity, found map[Sum]struct{}, v *Verified) error {
	o, err := openBundle(ctx, r.target, p.Name, p.Size, ids)
	if err == nil {
		err = o.each(ctx, ids, func(Sum) bool { return true }, func(x piece, src io.Reader) error {
			_, err := io.Copy(io.Discard, src)
			if err == nil {
				found[x.sum] = struct{}{}
			}
			return err
		})
	}
	if errors.Is(err, ErrIdentity) || errors.Is(err, errTarget) || ctx.Err() != nil {
		return err
	}
	if err != nil {
		v.problem("%s: %v", p.Name, err)
		v.Bad = append(v.Bad, p.Name)
	}
	return nil
}

// unread notes what could not be read as a problem of the backup. What is not the backup's is returned.
func (v *Verified) unread(ctx context.Context, err error) error {
	if errors.Is(err, ErrIdentity) || errors.Is(err, errTarget) || ctx.Err() != nil {
		return err
	}
	v.problem("%v", err)
	return nil
}

// verifyRows reads all rows, and looks whether each content that they name was found.
func (r *Repository) verifyRows(ctx context.Context, b Backup, ids []age.Identity, found map[Sum]struct{}, v *Verified) error {
	rd, err := r.Read(ctx, b, ids, "")
	if err != nil {
		return v.unread(ctx, err)
	}
	defer rd.Close() //nolint:errcheck // it was only read
	for c, err := range rd.Contents(ctx) {
		if err != nil {
			if err := v.unread(ctx, err); err != nil {
				return err
			}
			break
		}
		v.Contents++
		if _, ok := found[Sum(c.Sum)]; !ok && !rd.Damaged(c.Sum) {
			v.problem("content %d (SHA-256 %x) is in no sound bundle", c.ID, c.Sum)
		}
	}
	for _, t := range rd.catalog.Tables { // of a newer program too
		if t.Name == contentTable {
			continue
		}
		for _, err := range rd.Rows(ctx, t.Name, 0) {
			if err != nil {
				if err := v.unread(ctx, err); err != nil {
					return err
				}
				break
			}
			v.Rows++
		}
	}
	want := b.Manifest.Counts
	contents := int64(0)
	if t := rd.table(contentTable); t != nil {
		contents = t.Rows
	}
	if len(v.Problems) == 0 && (v.Contents != want.Contents || v.Rows+contents != want.Rows) {
		v.problem("%d contents and %d rows are there, the manifest says %d and %d", v.Contents, v.Rows+contents, want.Contents, want.Rows)
	}
	return nil
}
