package objects_test

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/durable"
	"waxwing/internal/store/blob"
	"waxwing/internal/store/keyring"
	"waxwing/internal/store/objects"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
)

// The services that the tests of this package share; each has a bucket and a schema of its own.
var (
	service *s3test.Service
	cluster *pgtest.Cluster

	masterFile string // holds the master key of all tests
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	failed := func(err error) bool {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return err != nil
	}
	var err error
	if service, err = s3test.Start(); failed(err) {
		return code
	}
	defer func() {
		failed(service.Close())
		failed(goleak.Find())
	}()
	if cluster, err = pgtest.Start(); failed(err) {
		return code
	}
	defer func() { failed(cluster.Close()) }()
	dir, err := os.MkdirTemp("", "waxwing-keys-")
	if failed(err) {
		return code
	}
	defer func() { failed(os.RemoveAll(dir)) }()
	masterFile = filepath.Join(dir, "master.key")
	master, err := keyring.NewMaster(cryptorand.Reader)
	if failed(err) || failed(keyring.WriteMaster(durable.OS, masterFile, master, time.Now())) {
		return 1
	}
	return m.Run()
}

func openBucket(t *testing.T, o objects.Options) *objects.Store {
	t.Helper()
	s, err := objects.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// some makes n contents of all kinds: empty, short, and some that shrink.
func some(n int) (list []blob.Content, ids []blob.ID, texts [][]byte) {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		b := bytes.Repeat([]byte(fmt.Sprintf("line %d of a letter\r\n", i)), r.IntN(4000))
		if i%3 == 0 {
			for j := range b {
				b[j] = byte(r.Uint32())
			}
		}
		list, ids, texts = append(list, bytes.NewReader(b)), append(ids, sha256.Sum256(b)), append(texts, b)
	}
	return list, ids, texts
}

func TestWhatIsPutIsReadBack(t *testing.T) {
	t.Parallel()
	o := service.Bucket(t, "round-trip", "")
	o.Prefix, o.Cache = "mail/one", 1<<20
	s := openBucket(t, o)
	list, ids, texts := some(40)
	refs, _, err := s.PutPack(t.Context(), 7, list, ids)
	if err != nil {
		t.Fatal(err)
	}
	large := make([]byte, 3<<20)
	for i := range large {
		large[i] = byte(i * i >> 7)
	}
	ref, _, err := s.PutLarge(t.Context(), 1<<31|9, bytes.NewReader(large), sha256.Sum256(large))
	if err != nil {
		t.Fatal(err)
	}
	refs, texts = append(refs, ref), append(texts, large)
	for i, ref := range refs {
		b, err := s.ReadInto(ref, nil)
		if err != nil || !bytes.Equal(b, texts[i]) {
			t.Fatalf("content %d: %d octets, want %d: %v", i, len(b), len(texts[i]), err)
		}
		r, err := s.Open(ref)
		if err != nil {
			t.Fatal(err)
		}
		b, err = io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(b, texts[i]) {
			t.Fatalf("content %d in parts: %v", i, err)
		}
	}
	if got := fmt.Sprint(service.Keys(t, "round-trip")); got != "[mail/one/large/00000009.blob mail/one/packs/00000007.blob]" {
		t.Errorf("objects %s", got)
	}
	left, err := os.ReadDir(o.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the directory for staging: %v, %v", left, err)
	}
}

func TestAnObjectIsNeverWrittenOver(t *testing.T) {
	t.Parallel()
	s := openBucket(t, service.Bucket(t, "never-over", ""))
	list, ids, texts := some(5)
	refs, _, err := s.PutPack(t.Context(), 1, list, ids)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.PutPack(t.Context(), 1, list[:2], ids[:2]); err == nil {
		t.Fatal("the number was used twice")
	}
	if b, err := s.ReadInto(refs[4], nil); err != nil || !bytes.Equal(b, texts[4]) {
		t.Fatalf("the first object: %v", err)
	}
}

func TestAnObjectThatIsGoneIsTold(t *testing.T) {
	t.Parallel()
	s := openBucket(t, service.Bucket(t, "gone", ""))
	list, ids, _ := some(2)
	refs, _, err := s.PutPack(t.Context(), 1, list, ids)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // removing it again is no error
		if err := s.Remove(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.ReadInto(refs[1], nil); !errors.Is(err, blob.ErrGone) {
		t.Fatalf("error %v, want ErrGone", err)
	}
}

func TestAServiceThatFailsOrLiesIsNotBelieved(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]s3test.Fault{
		"refuses": s3test.Refuse, "loses uploads": s3test.LoseUploads, "flips an octet": s3test.FlipReads,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := service.NewProxy(t)
			s := openBucket(t, service.Bucket(t, "liar", p.Address))
			list, ids, texts := some(6)
			p.Set(fault)
			if _, _, err := s.PutPack(t.Context(), 1, list, ids); err == nil {
				t.Fatal("the pack was taken for stored")
			}
			p.Set(nil)
			g := blob.Segment(len(name)) // of its own: what is left of the first may stand there
			refs, _, err := s.PutPack(t.Context(), g, list, ids)
			if err != nil {
				t.Fatal(err)
			}
			p.Set(s3test.FlipReads)
			damaged := 0
			for i, ref := range refs {
				b, err := s.ReadInto(ref, nil)
				switch {
				case errors.Is(err, blob.ErrCorrupt):
					damaged++
				case err != nil || !bytes.Equal(b, texts[i]):
					t.Errorf("content %d: %v", i, err)
				}
			}
			if damaged > 1 {
				t.Errorf("one octet damaged %d contents", damaged)
			}
		})
	}
}

func TestAnAnswerThatGetsLostIsNoFailure(t *testing.T) {
	t.Parallel()
	p := service.NewProxy(t)
	s := openBucket(t, service.Bucket(t, "lost-answer", p.Address))
	list, ids, texts := some(4)
	p.Set(s3test.LoseAnswers())
	refs, _, err := s.PutPack(t.Context(), 1, list, ids)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := s.ReadInto(refs[3], nil); err != nil || !bytes.Equal(b, texts[3]) {
		t.Fatal(err)
	}
}

func TestASlowServiceIsGivenUpInTime(t *testing.T) {
	t.Parallel()
	p := service.NewProxy(t)
	s := openBucket(t, service.Bucket(t, "slow", p.Address))
	release := make(chan struct{})
	p.Set(s3test.Hold(release))
	ctx, cancel := context.WithCancel(t.Context())
	list, ids, _ := some(2)
	done := make(chan error, 1)
	go func() {
		_, _, err := s.PutPack(ctx, 1, list, ids)
		done <- err
	}()
	p.Await(t, 2) // the question for the bucket, and the upload that hangs
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	close(release)
}

func TestWhatWasReadIsNotFetchedAgain(t *testing.T) {
	t.Parallel()
	p := service.NewProxy(t)
	s := openBucket(t, service.Bucket(t, "cache", p.Address))
	list, ids, _ := some(8)
	refs, _, err := s.PutPack(t.Context(), 1, list, ids)
	if err != nil {
		t.Fatal(err)
	}
	read := func() {
		for _, ref := range refs {
			if _, err := s.ReadInto(ref, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	read()
	before := p.Requests()
	read()
	if n := p.Requests() - before; n != 0 {
		t.Errorf("%d requests for what was read before", n)
	}
}

// TestWhatCameDamagedIsFetchedAnew reads through a line that changes octets, and again when it doesn't any more.
func TestWhatCameDamagedIsFetchedAnew(t *testing.T) {
	t.Parallel()
	list, ids, _ := some(8)
	readers := map[string]func(*objects.Store, blob.Ref) error{
		"whole": func(s *objects.Store, ref blob.Ref) error {
			_, err := s.ReadInto(ref, nil)
			return err
		},
		"in parts": func(s *objects.Store, ref blob.Ref) error {
			r, err := s.Open(ref)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, io.NewSectionReader(r, 0, r.Size()))
			return errors.Join(err, r.Close())
		},
	}
	for name, read := range readers {
		p := service.NewProxy(t)
		s := openBucket(t, service.Bucket(t, "line", p.Address))
		refs, _, err := s.PutPack(t.Context(), 1, list, ids)
		if err != nil {
			t.Fatal(err)
		}
		p.Set(s3test.FlipReads)
		damaged := 0
		for _, ref := range refs {
			if err := read(s, ref); errors.Is(err, blob.ErrCorrupt) {
				damaged++
			}
		}
		p.Set(nil)
		for _, ref := range refs {
			if err := read(s, ref); err != nil {
				t.Errorf("%s, on a sound line: %v", name, err)
			}
		}
		if damaged == 0 {
			t.Errorf("%s: nothing came damaged", name)
		}
		if err := s.Remove(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
}
