package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"waxwing/internal/config"
)

// Target keeps the objects of a repository. Objects are written once and never change. All methods may be called at the
// same time.
type Target interface {
	// Put stores the first n octets of r under a name that must be free, else fs.ErrExist. They are safe, and were seen to
	// be there, when it returns nil.
	Put(ctx context.Context, name string, r io.ReaderAt, n int64) error
	// Get reads n octets from off on, or with n below 0 all that follow. No such object is fs.ErrNotExist.
	Get(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)
	// List lists the objects of a directory: "bundles/", say.
	List(ctx context.Context, dir string) ([]Object, error)
	// Remove removes an object; one that is not there is no error.
	Remove(ctx context.Context, name string) error
	// String is the target as people write it.
	String() string
	Close() error
}

// errTarget marks errors of a target that doesn't answer: they say nothing about an object.
var errTarget = errors.New("the target does not answer as it should")

// Object is what a target knows of an object.
type Object struct {
	Name     string // whole, "bundles/..."
	Size     int64
	Modified time.Time
}

// Place is where a repository is, read from its text.
type Place struct {
	Dir      string // of a directory
	Endpoint string // of a bucket
	Bucket   string
	Prefix   string
	Region   string
	Plain    bool
}

// errPlace says how a target is written.
var errPlace = errors.New(`a target is the full path of a directory, or a bucket as "https://host/bucket/prefix?region=R" (http:// for loopback only)`)

// ParsePlace reads the text of a target: the full path of a directory, or the URL of a bucket.
func ParsePlace(text string) (Place, error) {
	if filepath.IsAbs(text) {
		return Place{Dir: filepath.Clean(text)}, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return Place{}, errPlace
	}
	p := Place{Endpoint: u.Host, Plain: u.Scheme == "http"}
	p.Bucket, p.Prefix, _ = strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	for key, values := range u.Query() {
		if key != "region" || len(values) != 1 {
			return Place{}, errPlace
		}
		p.Region = values[0]
	}
	if p.Prefix = strings.Trim(p.Prefix, "/"); p.Prefix != "" {
		p.Prefix += "/"
	}
	switch {
	case p.Bucket == "" || strings.Contains(p.Prefix, "//") || strings.Contains("/"+p.Prefix, "/../"):
		return Place{}, errPlace
	case p.Plain && !config.Loopback(loopbackPort(u)):
		return Place{}, fmt.Errorf("http:// would send to %s without TLS: only for loopback", u.Host)
	}
	return p, nil
}

// loopbackPort is the host of a URL with a port, as config.Loopback wants it.
func loopbackPort(u *url.URL) string {
	if u.Port() == "" {
		return u.Host + ":80"
	}
	return u.Host
}
