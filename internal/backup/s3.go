package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"waxwing/internal/store/objects"
)

// bucketTarget keeps objects in a bucket, below a prefix.
type bucketTarget struct {
	bucket *objects.Bucket
	place  Place
}

// The bounds on the time of requests: a small one, and what an upload may need at least.
const (
	requestTime = 2 * time.Minute
	uploadTime  = 10 * time.Minute
	slowest     = 16 << 10 // octets a second that an upload must come up to
)

// openBucket is the target in a bucket.
func openBucket(ctx context.Context, p Place, o objects.Options) (Target, error) {
	o.Endpoint, o.Bucket, o.Region, o.Insecure = p.Endpoint, p.Bucket, p.Region, p.Plain
	b, err := objects.OpenBucket(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("backup: target: %w", err)
	}
	return &bucketTarget{b, p}, nil
}

func (b *bucketTarget) String() string {
	scheme := "https://"
	if b.place.Plain {
		scheme = "http://"
	}
	return scheme + b.place.Endpoint + "/" + b.place.Bucket + "/" + strings.TrimSuffix(b.place.Prefix, "/")
}

// Close implements Target.
func (b *bucketTarget) Close() error {
	b.bucket.Close()
	return nil
}

// Put implements Target.
func (b *bucketTarget) Put(ctx context.Context, name string, r io.ReaderAt, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, uploadTime+time.Duration(n/slowest)*time.Second)
	defer cancel()
	return b.bucket.Put(ctx, b.place.Prefix+name, r, n)
}

// boundBody ends the time of a request with its body.
type boundBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b boundBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", errTarget, err)
	}
	return n, err
}

func (b boundBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// Get implements Target.
func (b *bucketTarget) Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, uploadTime+time.Duration(max(n, maxObject)/slowest)*time.Second)
	body, err := b.bucket.Get(ctx, b.place.Prefix+name, off, n)
	if err != nil {
		cancel()
		if !errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errTarget, err)
		}
		return nil, err
	}
	return boundBody{body, cancel}, nil
}

// List implements Target.
func (b *bucketTarget) List(ctx context.Context, dir string) ([]Object, error) {
	list, err := b.bucket.List(ctx, b.place.Prefix+dir)
	if err != nil {
		return nil, err
	}
	out := make([]Object, len(list))
	for i, o := range list {
		out[i] = Object{Name: strings.TrimPrefix(o.Key, b.place.Prefix), Size: o.Size, Modified: o.Modified}
	}
	return out, nil
}

// Remove implements Target.
func (b *bucketTarget) Remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return b.bucket.Remove(ctx, b.place.Prefix+name)
}
