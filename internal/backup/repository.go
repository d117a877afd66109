package backup

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"filippo.io/age"
)

// Repository is a target that holds backups.
type Repository struct {
	target Target
	id     string
}

// nameOctets is the length of random names.
const nameOctets = 16

func randomName() (string, error) {
	var b [nameOctets]byte
	_, err := rand.Read(b[:])
	return hex.EncodeToString(b[:]), err
}

// ErrNoRepository means that nothing was ever backed up to a target.
var ErrNoRepository = errors.New("no backups are there")

// Open opens the repository in a target.
func Open(ctx context.Context, t Target) (*Repository, error) {
	raw, err := getWhole(ctx, t, headerName, maxHeader)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("backup: %s: %w", t, ErrNoRepository)
	}
	if err != nil {
		return nil, fmt.Errorf("backup: %s: %w", t, err)
	}
	var h header
	if err := json.Unmarshal(raw, &h); err != nil || !validName(bundleDir+h.ID+sealedSuffix, bundleDir) {
		return nil, fmt.Errorf("backup: %s: %s: %w", t, headerName, errFormat)
	}
	if h.Format != format {
		return nil, fmt.Errorf("backup: %s has format %d, this program knows %d: use a newer one", t, h.Format, format)
	}
	return &Repository{t, h.ID}, nil
}

// create opens the repository in a target, and makes it in one that is empty.
func create(ctx context.Context, t Target) (*Repository, error) {
	r, err := Open(ctx, t)
	if !errors.Is(err, ErrNoRepository) {
		return r, err
	}
	name, err := randomName()
	if err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(header{format, name, "backups of a Waxwing mail server; what is in them is encrypted with age"}, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := t.Put(ctx, headerName, bytes.NewReader(raw), int64(len(raw))); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("backup: make a repository in %s: %w", t, err)
	}
	return Open(ctx, t)
}

// Backup is one backup of a repository.
type Backup struct {
	ID       string
	Manifest *Manifest
}

// List lists the backups, the oldest first. One whose manifest can't be read stands in problems.
func (r *Repository) List(ctx context.Context) (list []Backup, problems []error, err error) {
	objects, err := r.target.List(ctx, manifestDir)
	if err != nil {
		return nil, nil, fmt.Errorf("backup: list %s: %w", r.target, err)
	}
	for _, o := range objects {
		id, ok := strings.CutSuffix(strings.TrimPrefix(o.Name, manifestDir), manifestExt)
		if !ok || !validID(id) {
			continue
		}
		m, err := readManifest(ctx, r.target, id)
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("backup %s: %w", id, err))
			continue
		}
		list = append(list, Backup{id, m})
	}
	slices.SortFunc(list, func(a, b Backup) int { return a.Manifest.Created.Compare(b.Manifest.Created) })
	return list, problems, nil
}

// Find finds a backup by its name; "" or "latest" is the newest. A name proves the backup, the newest proves nothing.
func (r *Repository) Find(ctx context.Context, id string) (Backup, error) {
	if id != "" && id != "latest" {
		m, err := readManifest(ctx, r.target, id)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("no backup %s in %s: %w", id, r.target, fs.ErrNotExist)
		}
		return Backup{id, m}, err
	}
	list, problems, err := r.List(ctx)
	if err != nil {
		return Backup{}, err
	}
	if len(list) == 0 {
		return Backup{}, errors.Join(fmt.Errorf("backup: %s: %w", r.target, ErrNoRepository), errors.Join(problems...))
	}
	return list[len(list)-1], nil
}

// ErrNoRecipients means that nobody is named who could read a backup.
var ErrNoRecipients = errors.New("no recipients: backups are always encrypted, for a key that is kept elsewhere. " +
	"`waxwing backup key --out FILE` makes one, away from this server; give its public half with --recipient")

// ParseRecipients reads age recipients: of X25519 ("age1...") or hybrid ("age1pq1..."), not both kinds together.
func ParseRecipients(list []string) ([]age.Recipient, error) {
	if len(list) == 0 {
		return nil, ErrNoRecipients
	}
	var out []age.Recipient
	hybrid := 0
	for _, text := range list {
		got, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(got) != 1 {
			return nil, fmt.Errorf("%.80q is no age recipient: one begins with age1 and is the public half of a key", text)
		}
		if _, ok := got[0].(*age.HybridRecipient); ok {
			hybrid++
		}
		out = append(out, got[0])
	}
	if hybrid != 0 && hybrid != len(out) {
		return nil, errors.New("recipients that withstand quantum computers (age1pq1) don't go together with others (age1): the others would be the weak end")
	}
	return out, nil
}

// maxIdentities bounds a file of identities.
const maxIdentities = 1 << 20

// ReadIdentities reads the identities in a file, as age-keygen writes it.
func ReadIdentities(file string) ([]age.Identity, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	raw, err := readAtMost(f, maxIdentities)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(raw))
	if err != nil {
		// The error of the library could show a part of the key.
		return nil, fmt.Errorf("%s holds no age identities: a line begins with AGE-SECRET-KEY-", file)
	}
	return ids, nil
}
