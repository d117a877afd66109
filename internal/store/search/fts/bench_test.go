package fts

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// letterWriter writes text that looks like mail to an index: some 600 words, from a vocabulary in which few words are frequent
// and many rare, and one in twenty that stands nowhere else.
type letterWriter struct {
	rnd   *rand.Rand
	zipf  *rand.Zipf
	words []string
}

func newLetterWriter() *letterWriter {
	rnd := rand.New(rand.NewPCG(7, 11))
	w := &letterWriter{rnd: rnd, zipf: rand.NewZipf(rnd, 1.1, 4, 30_000-1)}
	const frequent = "etaoinshrdlucmfwypvbgkjqxz"
	for range 30_000 {
		var b strings.Builder
		for range 2 + rnd.IntN(9) {
			b.WriteByte(frequent[min(rnd.IntN(26), rnd.IntN(26))])
		}
		w.words = append(w.words, b.String())
	}
	return w
}

func (w *letterWriter) letter() string {
	var b strings.Builder
	for i := range 600 {
		if i%20 == 0 {
			fmt.Fprintf(&b, "%07x ", w.rnd.Uint32())
			continue
		}
		b.WriteString(w.words[w.zipf.Uint64()])
		b.WriteByte(' ')
	}
	return b.String()
}

// BenchmarkIndex is what one message of 4 KB costs, in the background.
func BenchmarkIndex(b *testing.B) {
	r := newRig(b, func(o *Options) { o.Sleep = sleep })
	w := newLetterWriter()
	texts := make([]string, b.N)
	size := 0
	for i := range texts {
		texts[i] = w.letter()
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
	r := newRig(b, func(o *Options) { o.Sleep = sleep })
	w := newLetterWriter()
	r.start()
	var last store.MessageID
	for i := range messages {
		text := w.letter()
		switch i {
		case 70_000:
			text += " xylophone 会议纪要"
		case 80_000:
			text += " quartz"
		}
		last = r.mail.add(1, text)
		if i%5 == 0 {
			last = r.mail.add(2, text)
		}
	}
	r.reach(last)
	for _, c := range []struct {
		name, needle string
		fields       []search.Field
	}{
		{"rare word", "xylophone", []search.Field{search.Body}},
		{"rare word, text", "xylophone", []search.Field{search.Header, search.Body}},
		{"two characters", "会议", []search.Field{search.Body}},
		{"one character", "议", []search.Field{search.Body}},
		{"no such word", "wonderland", []search.Field{search.Body}},
		{"frequent letters", "tatoe", []search.Field{search.Body}},
		{"frequent three letters", "eto", []search.Field{search.Body}},
		{"long", strings.Join(w.words[5000:5008], " "), []search.Field{search.Body}},
	} {
		b.Run(c.name, func(b *testing.B) {
			needle := search.AppendFold(nil, []byte(c.needle))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				hits, err := r.idx.Candidates(b.Context(), 1, needle, c.fields...)
				if err != nil || hits == nil {
					b.Fatal(hits, err)
				}
				n = len(hits.IDs)
			}
			b.ReportMetric(float64(n), "candidates")
		})
	}
	b.Run("words", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ids, _, err := r.idx.Words(b.Context(), 1, search.Body, "xylophone", 50); err != nil || len(ids) != 1 {
				b.Fatal(ids, err)
			}
		}
	})
}
