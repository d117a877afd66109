package pop3server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing/internal/cache"
	"waxwing/internal/store"
)

// BenchmarkRetr fetches messages of 10 KB in one session over TLS, pipelined by 20.
func BenchmarkRetr(b *testing.B) {
	r := newRig(b)
	text := "Subject: ten\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 140)
	const n = 200
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("X-Number: %d\r\n%s", i, text)
	}
	r.fill(texts...)
	p := r.dial("login")
	p.ok("STAT")
	if err := p.Conn.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		b.Fatal(err)
	}
	p.R = bufio.NewReaderSize(p.Conn, 64<<10)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		group := min(20, b.N-done)
		var commands strings.Builder
		for i := range group {
			fmt.Fprintf(&commands, "RETR %d\r\n", (done+i)%n+1)
		}
		p.Send(commands.String())
		for range group {
			for {
				line, err := p.R.ReadSlice('\n')
				if err != nil {
					b.Fatal(err)
				}
				if len(line) == 3 && line[0] == '.' {
					break
				}
			}
		}
		done += group
	}
}

// BenchmarkStat opens a maildrop of 1,000 messages of 10 KB and looks through all of it.
func BenchmarkStat(b *testing.B) {
	r := newRig(b)
	for i := range 10 {
		texts := make([]string, 100)
		for k := range texts {
			texts[k] = fmt.Sprintf("X-Number: %d.%d\r\n\r\n%s", i, k, strings.Repeat(strings.Repeat("x", 70)+"\r\n", 140))
		}
		r.fill(texts...)
	}
	for _, fresh := range []bool{true, false} {
		b.Run(fmt.Sprintf("first=%v", fresh), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if fresh {
					r.server.sizes = cache.New[store.AccountID, knownSizes](sizesMemory)
				}
				nc := &script{in: bytes.NewReader([]byte("STAT\r\nQUIT\r\n"))}
				s := r.server.newSession(nc, false)
				s.ctx = context.Background()
				drop, err := r.server.openDrop(s.ctx, testAccount)
				if err != nil {
					b.Fatal(err)
				}
				s.drop, s.state = drop, transaction
				if err := s.loop(); err != nil {
					b.Fatal(err)
				}
				if err := s.conn.Flush(); err != nil || !strings.HasPrefix(nc.out.String(), "+OK 1000 ") {
					b.Fatal(err, nc.out.String())
				}
				_ = s.conn.Close()
			}
		})
	}
}

func BenchmarkWireForm(b *testing.B) {
	text := []byte("Subject: ten\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 140))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		w := wireForm{left: unlimited}
		if _, err := w.Write(text); err != nil || w.repaired {
			b.Fatal(err)
		}
	}
}
