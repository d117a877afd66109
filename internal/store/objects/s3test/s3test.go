// Package s3test runs a service of its own that speaks S3's protocol for tests: versitygw, which make deps builds, over a
// directory that nobody else reads, on a free port of loopback. A Proxy in front of it fails, lies and waits as told.
//
// It is for test code alone.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"waxwing/internal/porttest"
	"waxwing/internal/store/objects"
)

// The service's one user.
const (
	accessKey = "waxwing-test"
	secretKey = "not-a-secret-at-all"
)

// startTime bounds how long the service may take to start.
const startTime = 2 * time.Minute

// Service is a running service.
type Service struct {
	Address string

	dir   string
	ended chan error
	end   func(os.Signal) error
}

// Start starts a service without buckets.
func Start() (*Service, error) {
	bin, err := binary()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "waxwing-s3-")
	if err != nil {
		return nil, err
	}
	s := &Service{dir: dir}
	if err := s.run(bin); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

// binary finds versitygw where make deps puts it.
func binary() (string, error) {
	const name = "versitygw"
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".tools", "bin", name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("s3test: versitygw is not there: run make deps")
}

func (s *Service) run(bin string) error {
	ports, err := porttest.Reserve(1)
	if err != nil {
		return err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	s.Address = addr
	data := filepath.Join(s.dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	cmd := exec.Command(bin, "--port", addr, "--access", accessKey, "--secret", secretKey, "--quiet", "posix", data)
	cmd.Dir = s.dir
	cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	// It must not outlive the tests, whatever ends them. The signal comes when the thread ends that started it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.ended = make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			s.ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("s3test: %w", err)
	}
	s.end = cmd.Process.Signal
	if err := s.ready(); err != nil {
		return errors.Join(fmt.Errorf("s3test: %w: %s", err, log.String()), s.stop())
	}
	return nil
}

// ready asks until there is an answer.
func (s *Service) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		err := ask(ctx, s.Address)
		if err == nil {
			tick.Stop()
			return nil
		}
		select {
		case e := <-s.ended:
			s.ended <- e
			return errors.Join(err, e)
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, addr string) error {
	c, transport, err := client(addr)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	_, err = c.ListBuckets(ctx)
	return err
}

func client(addr string) (*minio.Client, *http.Transport, error) {
	transport := &http.Transport{}
	c, err := minio.New(addr, &minio.Options{
		Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: "us-east-1", Transport: transport, MaxRetries: 1,
	})
	return c, transport, err
}

func (s *Service) stop() error {
	err := s.end(os.Kill)
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	if e := <-s.ended; e == nil { // it was killed: an orderly end is one of its own
		err = errors.Join(err, errors.New("s3test: the service had ended before"))
	}
	return err
}

// Close ends the service and removes what it holds.
func (s *Service) Close() error { return errors.Join(s.stop(), os.RemoveAll(s.dir)) }

// Bucket makes a bucket unless it is there, and returns the options to open it with. address may be that of a Proxy; ""
// is the service itself.
func (s *Service) Bucket(tb testing.TB, name, address string) objects.Options {
	tb.Helper()
	c, transport, err := client(s.Address)
	if err != nil {
		tb.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	there, err := c.BucketExists(tb.Context(), name)
	if err == nil && !there {
		err = c.MakeBucket(tb.Context(), name, minio.MakeBucketOptions{Region: "us-east-1"})
	}
	if err != nil {
		tb.Fatal(err)
	}
	if address == "" {
		address = s.Address
	}
	return objects.Options{
		Endpoint: address, Insecure: true, Region: "us-east-1", Bucket: name, AccessKey: accessKey, SecretKey: secretKey,
		Dir: tb.TempDir(), Transport: &http.Transport{},
	}
}

// Keys lists the objects of a bucket.
func (s *Service) Keys(tb testing.TB, bucket string) []string {
	tb.Helper()
	c, transport, err := client(s.Address)
	if err != nil {
		tb.Fatal(err)
	}
	defer transport.CloseIdleConnections()
	var out []string
	for o := range c.ListObjects(tb.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			tb.Fatal(o.Err)
		}
		out = append(out, o.Key)
	}
	return out
}

// Path is the file in which the service keeps an object: for tests that damage it.
func (s *Service) Path(bucket, key string) string {
	return filepath.Join(s.dir, "data", bucket, filepath.FromSlash(key))
}
