package trace

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"waxwing/internal/store"
)

// A row of the index has the ids of its traces, a line each, and pairs of a word's hash and the place of an id among them,
// in ascending order: 4 and 2 octets, the highest first.
const (
	pairOctets = 6
	maxIndexed = 4096           // traces of one row
	scattered  = 16             // rows of a bucket that are few enough to be left alone
	smallRow   = maxIndexed / 2 // a row with fewer traces is joined with others
)

// indexer gathers words for rows of the index.
type indexer struct {
	buckets map[int64]*indexRow
	full    []store.TraceIndex
}

type indexRow struct {
	ids   []string
	place map[string]int
	pairs []uint64 // hash << 16 | place
}

// row is the row under way that takes the words of a trace.
func (x *indexer) row(bucket int64, id string) (*indexRow, uint64) {
	if x.buckets == nil {
		x.buckets = make(map[int64]*indexRow, 1)
	}
	r := x.buckets[bucket]
	if r != nil && len(r.ids) >= maxIndexed && r.place[id] == 0 {
		x.full = append(x.full, r.finish(bucket))
		r = nil
	}
	if r == nil {
		r = &indexRow{place: map[string]int{}}
		x.buckets[bucket] = r
	}
	n, ok := r.place[id]
	if !ok {
		n = len(r.ids)
		r.ids, r.place[id] = append(r.ids, id), n
	}
	return r, uint64(n)
}

// add adds the words of a row of a trace.
func (x *indexer) add(row store.TraceRow) {
	r, place := x.row(bucketOfRow(row), row.ID)
	eachWord(row, func(word uint32) { r.pairs = append(r.pairs, uint64(word)<<16|place) })
}

// join adds a row of the index.
func (x *indexer) join(index store.TraceIndex) {
	ids := strings.Split(string(index.IDs), "\n")
	for w := index.Words; len(w) >= pairOctets; w = w[pairOctets:] {
		if at := int(binary.BigEndian.Uint16(w[4:])); at < len(ids) {
			r, place := x.row(index.Bucket, ids[at])
			r.pairs = append(r.pairs, uint64(binary.BigEndian.Uint32(w))<<16|place)
		}
	}
}

// rows ends the gathering.
func (x *indexer) rows() []store.TraceIndex {
	out := x.full
	for bucket, r := range x.buckets {
		out = append(out, r.finish(bucket))
	}
	return out
}

func (r *indexRow) finish(bucket int64) store.TraceIndex {
	slices.Sort(r.pairs)
	r.pairs = slices.Compact(r.pairs)
	words := make([]byte, 0, pairOctets*len(r.pairs))
	for _, p := range r.pairs {
		words = binary.BigEndian.AppendUint32(words, uint32(p>>16))
		words = binary.BigEndian.AppendUint16(words, uint16(p))
	}
	return store.TraceIndex{
		Bucket: bucket, Part: randomPart(), Traces: len(r.ids), IDs: []byte(strings.Join(r.ids, "\n")), Words: words,
	}
}

// lookUp calls found with the ids that have a word.
func lookUp(index store.TraceIndex, word uint32, found func(id string)) {
	n := len(index.Words) / pairOctets
	at := func(i int) []byte { return index.Words[i*pairOctets:] }
	i := sort.Search(n, func(i int) bool { return binary.BigEndian.Uint32(at(i)) >= word })
	if i == n || binary.BigEndian.Uint32(at(i)) != word {
		return
	}
	ids := bytes.Split(index.IDs, []byte("\n"))
	for ; i < n && binary.BigEndian.Uint32(at(i)) == word; i++ {
		if place := int(binary.BigEndian.Uint16(at(i)[4:])); place < len(ids) {
			found(string(ids[place]))
		}
	}
}

// Tidy joins small rows of the index, which a server with little to do leaves one for each message. It may be stopped at any
// point.
func (r *Recorder) Tidy(ctx context.Context) error {
	buckets, err := r.o.Store.TraceScattered(ctx, scattered, smallRow)
	if err != nil {
		return err
	}
	for _, bucket := range buckets {
		if err := ctx.Err(); err != nil {
			return err
		}
		var old []store.TraceIndex
		var x indexer
		traces := 0
		err := r.o.Store.TraceIndexes(ctx, bucket, smallRow, func(index store.TraceIndex) {
			if traces += index.Traces; traces > 4*maxIndexed { // the rest comes next time
				return
			}
			x.join(index)
			index.IDs, index.Words = nil, nil
			old = append(old, index)
		})
		if err != nil {
			return err
		}
		if err := r.o.Store.TraceIndexReplace(ctx, old, x.rows()); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}
