package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"waxwing/internal/build"
)

// The names of objects. Those of bundles and catalogs are random: what a bundle holds, nobody learns from its name.
const (
	headerName   = "waxwing-backup.json"
	leaseName    = "lease.json"
	bundleDir    = "bundles/"
	catalogDir   = "catalogs/"
	manifestDir  = "manifests/"
	manifestExt  = ".json"
	sealedSuffix = ".age"
)

// The bounds on what is read from a target.
const (
	maxHeader   = 64 << 10
	maxManifest = 64 << 20
	maxCatalog  = 1 << 30
	maxBundles  = 1 << 20
)

// format is the version of everything in a repository.
const format = 1

// header is the object that makes a target a repository.
type header struct {
	Format int    `json:"format"`
	ID     string `json:"id"`
	About  string `json:"about"`
}

// Kind is what a bundle holds.
type Kind string

// The kinds of bundles.
const (
	Mail Kind = "mail" // contents of messages
	Rows Kind = "rows" // rows of tables
)

// Part is an object that a backup consists of.
type Part struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // of the encrypted octets, in hexadecimal digits
	Kind   Kind   `json:"kind,omitempty"`
}

// Manifest is a backup as everybody may see it: which objects it consists of, and how much is in it. Its last octets
// become the backup's name, by which it proves itself and, through the hashes in it, all of the backup.
type Manifest struct {
	Format     int       `json:"format"`
	Created    time.Time `json:"created"` // the moment that the backup shows
	Finished   time.Time `json:"finished"`
	Host       string    `json:"host"`
	Program    string    `json:"program,omitempty"` // version that made it
	Schema     int64     `json:"schema,omitempty"`  // of the store's tables; 0: not written down
	Recipients []string  `json:"recipients"`
	Counts     Counts    `json:"counts"`
	Added      int64     `json:"added"` // octets that this backup added to the repository
	Catalog    Part      `json:"catalog"`
	Bundles    []Part    `json:"bundles"`
}

// Newer is the error of a backup whose tables this program, which knows schemas up to known, can't know all; nil for others.
func (b Backup) Newer(known int64) error {
	if b.Manifest.Schema <= known {
		return nil
	}
	return fmt.Errorf("backup %s was made by waxwing %s with schema %d; this is waxwing %s, which knows schemas up to %d: restore it with that version or a newer one, or take an older backup: %w",
		b.ID, b.Manifest.Program, b.Manifest.Schema, build.Version, known, ErrNewer)
}

// ErrNewer means that a newer program made a backup.
var ErrNewer = errors.New("made by a newer program")

// Counts is how much a backup holds.
type Counts struct {
	Accounts int64 `json:"accounts"`
	Messages int64 `json:"messages"`
	Rows     int64 `json:"rows"`
	Contents int64 `json:"contents"`
	Octets   int64 `json:"octets"`            // of all contents
	Damaged  int64 `json:"damaged,omitempty"` // contents that were damaged in the store: they are not in the backup
}

// catalog is a backup as only its recipients see it: which pieces make up which table.
type catalog struct {
	Format  int     `json:"format"`
	Tables  []table `json:"tables"`
	Damaged []Sum   `json:"damaged,omitempty"`
}

// table is one table of a backup.
type table struct {
	Name    string   `json:"name"`
	Columns []string `json:"columns"`
	Rows    int64    `json:"rows"`
	Pieces  []Sum    `json:"pieces"`
}

// MarshalText writes a sum in hexadecimal digits.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads a sum.
func (s *Sum) UnmarshalText(text []byte) error {
	if len(text) != 2*len(s) {
		return fmt.Errorf("sum: %w", errFormat)
	}
	_, err := hex.Decode(s[:], text)
	return err
}

// idTime is the first part of a backup's name.
const idTime = "20060102T150405.000Z"

// idDigits is how many hexadecimal digits of its hash are in a backup's name: enough that nobody finds another manifest
// with the same.
const idDigits = 32

func idOf(m *Manifest, raw []byte) string {
	sum := sha256.Sum256(raw)
	return m.Created.UTC().Format(idTime) + "-" + hex.EncodeToString(sum[:])[:idDigits]
}

// parseManifest reads a manifest and holds it against the name that it was found under.
func parseManifest(id string, raw []byte) (*Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("backup %s: %w: %w", id, errFormat, err)
	}
	if m.Format != format {
		return nil, fmt.Errorf("backup %s: format %d, this program knows %d: use a newer one", id, m.Format, format)
	}
	if idOf(&m, raw) != id {
		return nil, fmt.Errorf("backup %s: its manifest was changed: %w", id, errFormat)
	}
	if len(m.Bundles) > maxBundles {
		return nil, fmt.Errorf("backup %s: %d bundles: %w", id, len(m.Bundles), errFormat)
	}
	for i, p := range append([]Part{m.Catalog}, m.Bundles...) {
		dir := bundleDir
		if i == 0 {
			dir = catalogDir
		}
		if !validName(p.Name, dir) || p.Size <= 0 || p.Size > maxObject || len(p.SHA256) != 2*sha256.Size {
			return nil, fmt.Errorf("backup %s: object %.80q: %w", id, p.Name, errFormat)
		}
	}
	return &m, nil
}

// validName holds a name from a manifest: it must not lead anywhere else.
func validName(name, dir string) bool {
	base, ok := strings.CutPrefix(name, dir)
	base, ok2 := strings.CutSuffix(base, sealedSuffix)
	_, err := hex.DecodeString(base)
	return ok && ok2 && err == nil && len(base) == 2*nameOctets
}

// readManifest reads the manifest of a backup.
func readManifest(ctx context.Context, t Target, id string) (*Manifest, error) {
	if !validID(id) {
		return nil, fmt.Errorf("%.80q is no name of a backup: `waxwing backup list` shows them", id)
	}
	raw, err := getWhole(ctx, t, manifestDir+id+manifestExt, maxManifest)
	if err != nil {
		return nil, err
	}
	return parseManifest(id, raw)
}

func validID(id string) bool {
	at, digits, ok := strings.Cut(id, "-")
	_, terr := time.Parse(idTime, at)
	_, herr := hex.DecodeString(digits)
	return ok && terr == nil && herr == nil && len(digits) == idDigits
}

// getWhole reads an object of at most limit octets.
func getWhole(ctx context.Context, t Target, name string, limit int64) ([]byte, error) {
	body, err := t.Get(ctx, name, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b, err := readAtMost(body, limit)
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// sealCatalog writes a catalog for the recipients.
func sealCatalog(c *catalog, to []age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	sealed, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, err
	}
	packed, err := zstd.NewWriter(sealed, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if err := json.NewEncoder(packed).Encode(c); err != nil {
		return nil, err
	}
	if err := errors.Join(packed.Close(), sealed.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// openCatalog reads what sealCatalog wrote.
func openCatalog(r io.Reader, ids []age.Identity) (*catalog, error) {
	plain, err := age.Decrypt(r, ids...)
	if err != nil {
		return nil, unsealError(err)
	}
	dec, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	raw, err := readAtMost(dec, maxCatalog)
	if err != nil {
		return nil, err
	}
	var c catalog
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", errFormat, err)
	}
	if c.Format != format {
		return nil, fmt.Errorf("catalog of format %d: %w", c.Format, errFormat)
	}
	return &c, nil
}
