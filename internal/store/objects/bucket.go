package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Bucket is a bucket as it is: names with octets. All methods may be called at the same time.
type Bucket struct {
	name      string
	client    *minio.Client
	transport http.RoundTripper
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time // by the clock of the service
}

// OpenBucket makes a Bucket, and asks whether it is there. Of the options those of the service and the bucket count, but
// for the prefix: names are whole.
func OpenBucket(ctx context.Context, o Options) (*Bucket, error) {
	o.setDefaults()
	client, err := minio.New(o.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKey, o.SecretKey, ""), Secure: !o.Insecure, Region: o.Region,
		Transport: o.Transport, MaxRetries: tries,
	})
	if err != nil {
		return nil, fmt.Errorf("objects: open %s: %w", o.Endpoint, err)
	}
	ask, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	there, err := client.BucketExists(ask, o.Bucket)
	if err == nil && !there {
		err = errors.New("there is no such bucket")
	}
	if err != nil {
		return nil, fmt.Errorf("objects: bucket %s at %s: %w", o.Bucket, o.Endpoint, err)
	}
	return &Bucket{name: o.Bucket, client: client, transport: o.Transport}, nil
}

// Put puts the first n octets of r into the bucket under a name that must be free, else fs.ErrExist, and reads them back: a
// service that says "done" of what it has lost is found out while the octets are still elsewhere.
func (b *Bucket) Put(ctx context.Context, key string, r io.ReaderAt, n int64) error {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", SendContentMd5: true}
	o.SetMatchETagExcept("*")
	_, err := b.client.PutObject(ctx, b.name, key, io.NewSectionReader(r, 0, n), n, o)
	// A name that is taken may be our own: the answer to the first try got lost, and the client tried again.
	taken := minio.ToErrorResponse(err).Code == minio.PreconditionFailed
	if err != nil && !taken {
		return fmt.Errorf("upload: %w", err)
	}
	body, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	same, err := equal(body, io.NewSectionReader(r, 0, n))
	if err = errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	switch {
	case !same && taken:
		return fmt.Errorf("upload: %w", fs.ErrExist)
	case !same:
		return fmt.Errorf("read back: %w", errOther)
	}
	return nil
}

// errOther says that the bucket gives other octets than it was given.
var errOther = errors.New("the bucket gives other octets than it was given")

// Get reads n octets of an object from off on, or with n below 0 all that follow; fewer when it ends before. The caller
// closes what it returns. No such object is fs.ErrNotExist.
func (b *Bucket) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	var o minio.GetObjectOptions
	if off > 0 || n >= 0 {
		end := off + n - 1
		if n < 0 {
			end = 0
		}
		if err := o.SetRange(off, end); err != nil {
			return nil, err
		}
	}
	core := minio.Core{Client: b.client}
	body, _, _, err := core.GetObject(ctx, b.name, key, o)
	return body, known(err)
}

// Size is the length of an object; fs.ErrNotExist when there is none.
func (b *Bucket) Size(ctx context.Context, key string) (int64, error) {
	info, err := b.client.StatObject(ctx, b.name, key, minio.StatObjectOptions{})
	return info.Size, known(err)
}

// List lists the objects whose names begin with prefix, in order of name.
func (b *Bucket) List(ctx context.Context, prefix string) ([]Info, error) {
	ctx, cancel := context.WithCancel(ctx) // ends the listing on an error
	defer cancel()
	var out []Info
	for o := range b.client.ListObjects(ctx, b.name, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("objects: list %s: %w", prefix, o.Err)
		}
		out = append(out, Info{Key: o.Key, Size: o.Size, Modified: o.LastModified})
	}
	return out, nil
}

// Remove removes an object; one that is not there is no error.
func (b *Bucket) Remove(ctx context.Context, key string) error {
	err := b.client.RemoveObject(ctx, b.name, key, minio.RemoveObjectOptions{})
	if err != nil && !missing(err) {
		return fmt.Errorf("objects: remove %s: %w", key, err)
	}
	return nil
}

// Close lets go of idle connections.
func (b *Bucket) Close() {
	if t, ok := b.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// known gives the error of an object that isn't there its sentinel.
func known(err error) error {
	if err != nil && missing(err) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// missing tells that there is no such object.
func missing(err error) bool {
	r := minio.ToErrorResponse(err)
	return r.Code == minio.NoSuchKey || r.StatusCode == http.StatusNotFound
}

// equal compares two streams to their ends.
func equal(a, b io.Reader) (bool, error) {
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, p)
		m, errB := io.ReadFull(b, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		endA, endB := ended(errA), ended(errB)
		switch {
		case errA != nil && !endA:
			return false, errA
		case errB != nil && !endB:
			return false, errB
		case endA || endB:
			return endA == endB, nil
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
