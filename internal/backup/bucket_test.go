package backup

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"waxwing/internal/store"
	"waxwing/internal/store/objects"
	"waxwing/internal/store/objects/s3test"
)

// faulty is a bucket behind a proxy that can fail, with one backup in it.
type faulty struct {
	*rig
	proxy  *s3test.Proxy
	bucket Target
	first  *Result
}

func newFaulty(t *testing.T, s *s3test.Service, name string) *faulty {
	t.Helper()
	f := &faulty{rig: newRig(t), proxy: s.NewProxy(t)}
	o := s.Bucket(t, name, f.proxy.Address)
	b, err := openBucket(t.Context(), Place{Endpoint: o.Endpoint, Bucket: o.Bucket, Region: o.Region, Plain: o.Insecure, Prefix: "mx/"},
		objects.Options{AccessKey: o.AccessKey, SecretKey: o.SecretKey, Transport: o.Transport})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	f.bucket = b
	if f.first, err = f.run(t.Context(), t, filled(20)); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *faulty) run(ctx context.Context, t *testing.T, m *memory) (*Result, error) {
	t.Helper()
	o := f.options(t, m)
	o.Target = f.bucket
	return Run(ctx, o)
}

// goesOn looks that only the first backup is listed, and that the next run is whole.
func (f *faulty) goesOn(t *testing.T, m *memory) {
	t.Helper()
	f.proxy.Set(nil)
	repo, err := Open(t.Context(), f.bucket)
	if err != nil {
		t.Fatal(err)
	}
	list, problems, err := repo.List(t.Context())
	if err != nil || len(list) != 1 || len(problems) > 0 {
		t.Fatalf("%d backups are listed, %v, %v", len(list), problems, err)
	}
	out, err := f.run(t.Context(), t, m)
	if err != nil {
		t.Fatalf("the next run: %v", err)
	}
	if v := f.verified(t, out.ID); len(v.Problems) > 0 || v.Contents != int64(len(m.contents)) {
		t.Errorf("what the next run made: %+v", v)
	}
}

// verified decrypts and compares a backup.
func (f *faulty) verified(t *testing.T, id string) *Verified {
	t.Helper()
	repo, err := Open(t.Context(), f.bucket)
	if err != nil {
		t.Fatal(err)
	}
	b, err := repo.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	v, err := repo.Verify(t.Context(), b, VerifyOptions{Identities: []age.Identity{f.key.id}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// changeReads changes what is read of objects.
func changeReads(suffix string, change func([]byte) []byte) s3test.Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, suffix) {
			next.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		body := change(bytes.Clone(rec.Body.Bytes()))
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Del("Content-Length")
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body) // the reader may leave
	}
}

// TestABucketThatFailsHarmsNothing has a bucket refuse, lose, change and delay, while a backup is made, verified and read.
func TestABucketThatFailsHarmsNothing(t *testing.T) {
	t.Parallel()
	s, err := s3test.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	m := filled(120)
	t.Run("uploads fail", func(t *testing.T) {
		f := newFaulty(t, s, "fail")
		for _, n := range []int32{1, 2, 3, 4} { // the lease, bundles
			f.proxy.Set(s3test.FailUploads(n))
			if _, err := f.run(t.Context(), t, m); err == nil {
				t.Errorf("upload %d failed, and a backup was made", n)
			}
		}
		f.goesOn(t, m)
	})
	t.Run("it goes away and leaves the lease behind", func(t *testing.T) {
		f := newFaulty(t, s, "away")
		var uploads atomic.Int32
		f.proxy.Set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Method == http.MethodPut {
				uploads.Add(1)
			}
			if uploads.Load() > 2 {
				s3test.Refuse(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
		if _, err := f.run(t.Context(), t, m); err == nil {
			t.Error("a backup was made")
		}
		f.goesOn(t, m) // at once: the lease is known to be nobody's
	})
	t.Run("uploads are lost", func(t *testing.T) {
		f := newFaulty(t, s, "lose")
		f.proxy.Set(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if strings.HasSuffix(r.URL.Path, sealedSuffix) {
				s3test.LoseUploads(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
		if _, err := f.run(t.Context(), t, m); err == nil || !strings.Contains(err.Error(), "read back") {
			t.Errorf("error %v", err)
		}
		f.goesOn(t, m)
	})
	t.Run("answers are lost", func(t *testing.T) {
		f := newFaulty(t, s, "answers")
		f.proxy.Set(s3test.LoseAnswers())
		out, err := f.run(t.Context(), t, m) // what was asked again is found to be there
		if err != nil {
			t.Fatal(err)
		}
		if v := f.verified(t, out.ID); len(v.Problems) > 0 {
			t.Errorf("what was made: %+v", v)
		}
	})
	t.Run("it is slow", func(t *testing.T) {
		f := newFaulty(t, s, "slow")
		f.proxy.Set(s3test.Hold(make(chan struct{})))
		ctx, cancel := context.WithCancel(t.Context())
		seen := f.proxy.Requests()
		ended := make(chan error, 1)
		go func() {
			_, err := f.run(ctx, t, m)
			ended <- err
		}()
		f.proxy.Await(t, seen+1)
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("who waits for it can't be stopped")
		}
		f.goesOn(t, m)
	})
	t.Run("reading", func(t *testing.T) { f := newFaulty(t, s, "reading"); f.reading(t) })
}

// reading verifies and reads the backup while the bucket doesn't give what it was given.
func (f *faulty) reading(t *testing.T) {
	repo, err := Open(t.Context(), f.bucket)
	if err != nil {
		t.Fatal(err)
	}
	b, err := repo.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	o := VerifyOptions{Identities: []age.Identity{f.key.id}}
	f.proxy.Set(s3test.Refuse)
	if v, err := repo.Verify(t.Context(), b, o); err == nil || len(v.Bad) > 0 {
		t.Errorf("a bucket that refuses says about the backup: %+v, %v", v, err)
	}
	flip := changeReads(sealedSuffix, func(b []byte) []byte {
		if len(b) > 0 {
			b[len(b)/2] ^= 1
		}
		return b
	})
	short := changeReads(sealedSuffix, func(b []byte) []byte { return b[:len(b)/2] })
	for name, fault := range map[string]s3test.Fault{"flipped": flip, "cut": short} {
		f.proxy.Set(fault)
		if v, err := repo.Verify(t.Context(), b, o); err != nil || len(v.Problems) == 0 {
			t.Errorf("%s reads: %+v, %v", name, v, err)
		}
		f.proxy.Set(nil)
		rd, err := repo.Read(t.Context(), b, o.Identities, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		contents := []store.ContentInfo{}
		for c, err := range rd.Contents(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			contents = append(contents, c)
		}
		f.proxy.Set(fault)
		if _, err := rd.Open(t.Context(), contents[0]); err == nil {
			t.Errorf("%s: a content was read", name)
		}
		f.proxy.Set(s3test.Refuse)
		if _, err := rd.Open(t.Context(), contents[len(contents)-1]); errors.Is(err, store.ErrCorrupt) && name == "cut" {
			t.Errorf("a bucket that refuses is taken for a damaged backup: %v", err)
		}
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	}
	f.proxy.Set(nil)
	if v, err := repo.Verify(t.Context(), b, o); err != nil || len(v.Problems) > 0 {
		t.Errorf("afterwards: %+v, %v", v, err)
	}
}
