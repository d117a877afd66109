package system

import (
	"bytes"
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/test/rig"
)

// TestPromise5BucketFailsUnderLoad has the bucket be slow, refuse, lose what it says that it took, break off after an upload,
// and change what it gives, each under a mixed load with contents that go there first and contents that go there later. Mail
// that needs the bucket is put off, the rest goes on, and in the end nothing is lost or damaged.
func TestPromise5BucketFailsUnderLoad(t *testing.T) {
	cluster, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	service, err := s3test.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	proxy := service.NewProxy(t)
	bucket := service.Bucket(t, "mail", proxy.Address)
	o, j := ordeal.Begin(t), newJournal()
	sink := j.sink(t, o)
	inBucket := inCluster(t, cluster.DSN(""), bucket.Endpoint, "mail", credentials(t, bucket.AccessKey, bucket.SecretKey))
	n := node(t, rig.WaxwingOptions{Relay: sink.Address, Empty: true, Edit: func(toml string) string { return quickRetries(inBucket(toml)) }})
	_, stop := j.load(t, n, rotateWork, sizeableWork)
	defer stop()
	j.awaitWork(t)
	faults := []struct {
		name  string
		fault s3test.Fault
		loses bool // an upload can't succeed
	}{
		{"slow", slowly, false},
		{"refuses", s3test.Refuse, true},
		{"loses", s3test.LoseUploads, true},
		{"breaks off", s3test.LoseAnswers(), false},
		{"changes", s3test.FlipReads, true},
	}
	for _, f := range faults {
		t.Log(f.name)
		proxy.Set(f.fault)
		o.Fault(1)
		j.awaitWork(t) // small mail goes on whatever the bucket does
		code, text := trySend(t, n.SMTP, "sender@far.test", bob.Address, sealedAfter("sender@far.test", bob.Address, "probe", largeLines))
		if code/100 == 5 || code == 250 && f.loses {
			t.Errorf("while the bucket %s the server says %d %s to a large message", f.name, code, text)
		}
		proxy.Set(nil)
		waitFor(t, "large mail is taken again", func() bool {
			code, _ := trySend(t, n.SMTP, "sender@far.test", bob.Address, sealedAfter("sender@far.test", bob.Address, "probe", largeLines))
			return code == 250
		})
	}
	j.awaitChanges(t)
	stop()
	j.check(t, o, n, len(faults))
	if out, err := n.Command(t.Context(), nil, "store", "verify", "--dir", n.Dir); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if len(service.Keys(t, "mail")) == 0 {
		t.Error("nothing is in the bucket")
	}
}

// slowly lets each request wait.
func slowly(w http.ResponseWriter, r *http.Request, next http.Handler) {
	select {
	case <-time.After(300 * time.Millisecond): // the fault itself
		next.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// largeLines make a message that goes into an object of its own.
const largeLines = 30_000

// sizeableWork delivers messages of which one is large and many come to a pack.
func sizeableWork(ctx context.Context, _ *testing.T, n *rig.Node, j *journal) error {
	c, err := smtp.Dial(n.SMTP)
	if err != nil {
		return err
	}
	defer c.Close()
	for round := 0; ctx.Err() == nil; round++ {
		token := j.token("in")
		lines := largeLines
		if round%4 != 0 {
			lines /= 4
		}
		body := sealedAfter("sender@far.test", ada.Address, token, lines)
		if err := c.SendMail("sender@far.test", []string{ada.Address}, bytes.NewReader(body)); err != nil {
			return err
		}
		j.note(func() { j.delivered[token] = true })
	}
	return nil
}
