package searchtest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// Writer writes text that looks like mail to an index: some 600 words, from a vocabulary in which few words are frequent and
// many rare, and one in twenty that stands nowhere else.
type Writer struct{ words []string }

// NewWriter makes the vocabulary, always the same.
func NewWriter() *Writer {
	rnd := rand.New(rand.NewPCG(7, 11))
	w := &Writer{}
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

// Letter writes one.
func (w *Writer) Letter(rnd *rand.Rand) string {
	zipf := rand.NewZipf(rnd, 1.1, 4, uint64(len(w.words)-1))
	var b strings.Builder
	for i := range 600 {
		if i%20 == 0 {
			fmt.Fprintf(&b, "%07x ", rnd.Uint32())
			continue
		}
		b.WriteString(w.words[zipf.Uint64()])
		b.WriteByte(' ')
	}
	return b.String()
}

// Rare is what one letter of account 1 must hold.
const Rare = " xylophone 会议纪要"

// PickAll takes the whole message as its body.
func PickAll(d *search.Document, r io.ReaderAt, size int64) error {
	b := make([]byte, size)
	n, err := r.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	d.Text(search.Body, b[:n])
	d.Words(search.Body, string(b[:n]))
	return nil
}

// BenchmarkCandidates asks an index of many letters of account 1, one of which has Rare.
func BenchmarkCandidates(b *testing.B, idx store.Searcher, w *Writer) {
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
				hits, err := idx.Candidates(b.Context(), 1, needle, c.fields...)
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
			if ids, _, err := idx.Words(b.Context(), 1, search.Body, "xylophone", 50); err != nil || len(ids) != 1 {
				b.Fatal(ids, err)
			}
		}
	})
}
