// Package objects keeps contents in a bucket that speaks S3's protocol: sealed packs of many, and an object for each large
// one. An object is written once, read back and compared before anyone relies on it, and never changes.
//
// It knows neither rows nor which objects are needed: package store numbers them, decides what goes where, and has those
// removed that no row names. The octets of an object are those of a pack file of package blob, which writes them here
// through a directory for staging and reads them through a file system whose files are objects. Reads fetch ranges and go
// through a cache in memory that is bounded in octets.
//
//	s, err := objects.Open(objects.Options{Endpoint: "s3.example.net", Bucket: "mail", ...})
//	refs, err := s.PutPack(ctx, segment, contents) // in the bucket, and seen there, when err is nil
package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"waxwing/internal/store/blob"
)

// Options of Open. Zero values mean the defaults given here.
type Options struct {
	Endpoint  string // host, or host and port; required
	Insecure  bool   // plain HTTP: for loopback
	Region    string
	Bucket    string // required; it must be there
	Prefix    string // of all names in the bucket
	AccessKey string
	SecretKey string

	Dir       string            // for staging, what is in it is worthless; required
	Keys      blob.Keys         // none: new records are not encrypted
	Cache     int64             // octets of memory for what was read, 128 MiB
	LargeFrom int64             // contents longer than this get an object of their own, 1 MiB
	Timeout   time.Duration     // of one request that reads, a minute; an upload may take ten times as long
	Transport http.RoundTripper // none: that of the client
	Logger    *slog.Logger      // none
}

func (o *Options) setDefaults() {
	if o.Cache == 0 {
		o.Cache = 128 << 20
	}
	if o.LargeFrom == 0 {
		o.LargeFrom = 1 << 20
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Prefix != "" && !strings.HasSuffix(o.Prefix, "/") {
		o.Prefix += "/"
	}
}

// uploadTimes is how much longer than a read an upload may take.
const uploadTimes = 10

// tries is how often the client sends a request that failed on the way.
const tries = 3

// Store is a bucket. All methods may be called at the same time.
type Store struct {
	opt    Options
	bucket *Bucket
	reader *blob.Store
	box    *blob.Box
}

// Open makes a Store, and asks whether the bucket is there.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Endpoint == "" || o.Bucket == "" || o.Dir == "" {
		return nil, errors.New("objects: open: endpoint, bucket and directory for staging are required")
	}
	o.setDefaults()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("objects: open: %w", err)
	}
	bucket, err := OpenBucket(ctx, o)
	if err != nil {
		return nil, err
	}
	box, err := blob.NewBox(o.Keys)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	s := &Store{opt: o, bucket: bucket, box: box}
	if s.reader, err = s.newReader(o.Cache); err != nil {
		return nil, err
	}
	return s, nil
}

// newReader makes a reader of the bucket with a cache of its own.
func (s *Store) newReader(cache int64) (*blob.Store, error) {
	fs := bucketFS{s, newCache(cache, s.fetch)}
	r, err := blob.Open(blob.Options{FS: fs, Dir: root, Reserve: -1, Keys: s.opt.Keys, Logger: s.opt.Logger, Doubt: func(g blob.Segment) bool {
		return fs.cache.forget(s.key(g))
	}})
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	return r, nil
}

// auditCache is the octets of cache of Audit: neighbours lie in one chunk.
const auditCache = 8 * chunkSize

// Audit returns a reader that sees what the bucket has now, whatever was read before. The caller closes it.
func (s *Store) Audit() (*blob.Store, error) { return s.newReader(auditCache) }

// List lists the segments that there are objects of. Other names are not ours.
func (s *Store) List(ctx context.Context) ([]blob.Segment, error) {
	list, err := s.bucket.List(ctx, s.opt.Prefix)
	if err != nil {
		return nil, err
	}
	var out []blob.Segment
	for _, o := range list {
		if g, ok := s.segmentOf(o.Key); ok {
			out = append(out, g)
		}
	}
	return out, nil
}

// LargeFrom is the length up to which contents go into packs.
func (s *Store) LargeFrom() int64 { return s.opt.LargeFrom }

// Keys are what records are encrypted with, nil for none.
func (s *Store) Keys() blob.Keys { return s.opt.Keys }

// Box makes records of contents that don't stand in the bucket yet, in the form and under the keys of those that do.
func (s *Store) Box() *blob.Box { return s.box }

// ReadInto returns a whole content, checked: see blob.Store.
func (s *Store) ReadInto(ref blob.Ref, buf []byte) ([]byte, error) {
	return s.reader.ReadInto(ref, buf)
}

// Open opens a content for reading in parts: see blob.Store.
func (s *Store) Open(ref blob.Ref) (*blob.Reader, error) { return s.reader.Open(ref) }

// Remove removes the object of a segment; one that is not there is no error.
func (s *Store) Remove(ctx context.Context, g blob.Segment) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	return s.bucket.Remove(ctx, s.key(g))
}

// Close ends the store. Open Readers stay usable until they are closed.
func (s *Store) Close() error {
	s.bucket.Close()
	return s.reader.Close()
}
