package intake

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// sinkhole takes deliveries and keeps nothing, but reads the octets as a store does.
type sinkhole struct{ buf []byte }

func (s *sinkhole) Deliver(_ context.Context, d store.Delivery) (store.Delivered, error) {
	_, err := d.Content.ReadAt(s.buf[:d.Content.Size()], 0)
	return store.Delivered{}, err
}

func (*sinkhole) Usage(context.Context, store.AccountID) (store.Usage, error) {
	return store.Usage{}, nil
}

func benchMessage(octets int) []byte {
	var b strings.Builder
	b.WriteString("Received: from a.remote.test by b.remote.test with ESMTPS id X; Sat, 21 Nov 2026 11:59:59 +0000\r\n" +
		"From: Someone <x@remote.test>\r\nTo: Anna <anna@example.test>\r\nSubject: A subject of usual length\r\n" +
		"Date: Sat, 21 Nov 2026 11:59:58 +0000\r\nMessage-ID: <id.1234567890@remote.test>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n\r\n")
	for b.Len() < octets {
		b.WriteString("The quick brown fox jumps over the lazy dog, and then it does it all again.\r\n")
	}
	return []byte(b.String())
}

// transaction runs one whole transaction from the stranger to anna.
func transaction(ctx context.Context, in *Intake, from smtp.Mail, to smtp.Rcpt, raw []byte) error {
	tx := in.Begin(stranger())
	defer tx.Abort()
	if err := tx.Mail(ctx, from); err != nil {
		return err
	}
	if err := tx.Rcpt(ctx, to); err != nil {
		return err
	}
	sp, err := tx.Spool()
	if err != nil {
		return err
	}
	if _, err := sp.ReadFrom(bytes.NewReader(raw)); err != nil {
		return err
	}
	_, err = tx.Commit(ctx)
	return err
}

func BenchmarkTransaction(b *testing.B) {
	for name, octets := range map[string]int{"10KB": 10 << 10, "200KB": 200 << 10, "1MB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			raw := benchMessage(octets)
			h := newHouse(b, func(o *Options) { o.Store = &sinkhole{buf: make([]byte, len(raw)+4096)} })
			ctx := context.Background()
			from, to := from(b, "x@remote.test"), smtp.Rcpt{To: addr(b, "anna@example.test")}
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := transaction(ctx, h.Intake, from, to, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestTransactionAllocatesLittle(t *testing.T) {
	raw := benchMessage(10 << 10)
	h := newHouse(t, func(o *Options) { o.Store = &sinkhole{buf: make([]byte, len(raw)+4096)} })
	ctx := context.Background()
	from, to := from(t, "x@remote.test"), smtp.Rcpt{To: addr(t, "anna@example.test")}
	n := testing.AllocsPerRun(100, func() {
		if err := transaction(ctx, h.Intake, from, to, raw); err != nil {
			t.Fatal(err)
		}
	})
	// Most of them are the digest's.
	if n > 120 {
		t.Errorf("%.0f allocations for a message of 10 KB", n)
	}
}
