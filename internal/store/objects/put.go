package objects

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"waxwing/internal/durable"
	"waxwing/internal/store/blob"
)

// PutPack puts contents, given with their ids, into the sealed pack of a number that was never used, and returns where each
// is, and the key that all of them are sealed with: 0 when there is none, or a new one came between. After an error there
// may be an object of this number, whole or not; nobody may rely on it.
func (s *Store) PutPack(ctx context.Context, g blob.Segment, list []blob.Content, ids []blob.ID) (refs []blob.Ref, key uint32, err error) {
	defer func() {
		if err != nil {
			refs, err = nil, fmt.Errorf("objects: put %s: %w", g, err)
		}
	}()
	dir, err := os.MkdirTemp(s.opt.Dir, "put-")
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	keys := watch(s.opt.Keys)
	if refs, err = s.stage(ctx, dir, g, list, ids, keys); err != nil {
		return nil, 0, err
	}
	var end int64
	for _, r := range refs {
		if r.Segment != g {
			return nil, 0, fmt.Errorf("content went to %s", r.Segment)
		}
		end = max(end, r.End())
	}
	f, err := os.Open(filepath.Join(dir, fileName(g)))
	if err != nil {
		return nil, 0, err
	}
	err = s.upload(ctx, s.key(g), f, end)
	return refs, keys.only(), errors.Join(err, f.Close())
}

// PutLarge puts one content into an object of its own, as PutPack does. Its number must be that of a large segment.
func (s *Store) PutLarge(ctx context.Context, g blob.Segment, c blob.Content, id blob.ID) (blob.Ref, uint32, error) {
	refs, key, err := s.PutPack(ctx, g, []blob.Content{c}, []blob.ID{id})
	if err != nil {
		return blob.Ref{}, 0, err
	}
	return refs[0], key, nil
}

// watched keys remember what they sealed with. nil is none.
type watched struct {
	blob.Keys
	begin uint32 // the current key before the first record
	other bool
}

func watch(keys blob.Keys) *watched {
	if keys == nil {
		return nil
	}
	w := &watched{Keys: keys}
	w.begin, _ = keys.Current()
	return w
}

// Seal implements blob.Keys. One goroutine calls it.
func (w *watched) Seal(blocks int64) (uint32, cipher.AEAD, error) {
	id, key, err := w.Keys.Seal(blocks)
	w.other = w.other || id != w.begin
	return id, key, err
}

// only is the key of all records, 0 when there is none or more than one.
func (w *watched) only() uint32 {
	if w == nil || w.other {
		return 0
	}
	return w.begin
}

// stage has package blob write the segment into a directory.
func (s *Store) stage(ctx context.Context, dir string, g blob.Segment, list []blob.Content, ids []blob.ID, keys *watched) (refs []blob.Ref, err error) {
	number := uint32(g) & (1<<31 - 1)
	// Both kinds of segments go on from this number: only the one that is wanted is written.
	if err := durable.WriteFile(unsynced{durable.OS}, filepath.Join(dir, "next"), fmt.Appendf(nil, "packs %d\nlarge %d\n", number, number), 0o600); err != nil {
		return nil, err
	}
	largeFrom, total := int64(1<<62), int64(1<<20)
	if g.Large() {
		largeFrom = -1
	}
	for _, c := range list {
		total += 2*c.Size() + 1<<10
	}
	o := blob.Options{
		FS: unsynced{durable.OS}, Dir: dir, Reserve: -1, Logger: s.opt.Logger,
		SegmentSize: 2 * total, Step: 1 << 20, LargeFrom: largeFrom, Writers: 1, OpenFiles: 1,
	}
	if keys != nil {
		o.Keys = keys
	}
	b, err := blob.Open(o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if _, err := b.Recover(ctx, nil, nil); err != nil {
		return nil, err
	}
	for i, c := range list {
		ref, err := b.Put(ctx, 0, c, ids[i])
		if err != nil {
			return nil, err
		}
		b.Settle(ref, true)
		refs = append(refs, ref)
	}
	return refs, nil
}

// upload puts the first n octets of a file into the bucket.
func (s *Store) upload(ctx context.Context, key string, f *os.File, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, uploadTimes*s.opt.Timeout)
	defer cancel()
	return s.bucket.Put(ctx, key, f, n)
}

// unsynced is a file system whose syncs do nothing: what is staged is worth nothing after a crash.
type unsynced struct{ durable.FS }

// OpenFile implements durable.FS.
func (u unsynced) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

// SyncDir implements durable.FS.
func (unsynced) SyncDir(string) error { return nil }

type unsyncedFile struct{ durable.File }

// Sync implements durable.File.
func (unsyncedFile) Sync() error { return nil }
