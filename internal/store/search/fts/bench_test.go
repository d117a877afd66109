package fts

import (
	"math/rand/v2"
	"os"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/search/follow"
	"waxwing/internal/store/search/searchtest"
)

// BenchmarkIndex is what one message of 4 KB costs, in the background.
func BenchmarkIndex(b *testing.B) {
	r := newRig(b, func(o *Options) { o.Sleep = follow.Sleep })
	w, rnd := searchtest.NewWriter(), rand.New(rand.NewPCG(7, 11))
	texts := make([]string, b.N)
	size := 0
	for i := range texts {
		texts[i] = w.Letter(rnd)
		size += len(texts[i])
	}
	last := r.mail.add(1, texts...)
	b.SetBytes(int64(size / b.N))
	b.ReportAllocs()
	b.ResetTimer()
	r.start()
	r.reach(last)
	b.StopTimer()
	r.stop()
	fi, err := os.Stat(r.path)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(fi.Size())/float64(b.N), "file-octets/message")
}

// BenchmarkCandidates asks an index of 100,000 messages of one account and 20,000 of another.
func BenchmarkCandidates(b *testing.B) {
	const messages = 100_000
	r := newRig(b, func(o *Options) { o.Sleep = follow.Sleep })
	w, rnd := searchtest.NewWriter(), rand.New(rand.NewPCG(7, 11))
	r.start()
	var last store.MessageID
	for i := range messages {
		text := w.Letter(rnd)
		if i == 70_000 {
			text += searchtest.Rare
		}
		last = r.mail.add(1, text)
		if i%5 == 0 {
			last = r.mail.add(2, text)
		}
	}
	r.reach(last)
	searchtest.BenchmarkCandidates(b, r.idx, w)
}
