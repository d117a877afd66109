package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// TallyKey is what one sum of a Tally is over: the rows of an account in a table, 0 for rows of none.
type TallyKey struct {
	Table   string
	Account AccountID
}

// RowSum is a digest of rows, whatever their order: the sum of their SHA-256, as numbers modulo 2^256.
type RowSum struct {
	Rows int64
	Sum  [4]uint64
}

// Tally is the digests of all rows of a Source. Two stores that have the same hold the same rows.
type Tally map[TallyKey]RowSum

// TallyRows reads all rows. progress may be nil; it is told how many were read.
func TallyRows(ctx context.Context, src Source, progress func(rows int64)) (Tally, error) {
	t := make(Tally)
	total := int64(0)
	for i := range tables {
		var e rowEncoder
		for r, err := range src.Rows(ctx, tables[i].Name, 0) {
			if err != nil {
				return nil, err
			}
			key := TallyKey{Table: tables[i].Name, Account: accountOf(&tables[i], r)}
			sum := t[key]
			sum.add(e.hash(r))
			t[key] = sum
			if total++; progress != nil && total%1000 == 0 {
				progress(total)
			}
		}
	}
	return t, nil
}

func accountOf(t *Table, r Record) AccountID {
	if i := slices.Index(r.Columns, t.Account); t.Account != "" && i >= 0 {
		if id, ok := r.Values[i].(int64); ok {
			return AccountID(id)
		}
	}
	return 0
}

func (s *RowSum) add(h [32]byte) {
	s.Rows++
	var carry uint64
	for i := range s.Sum {
		s.Sum[i], carry = bits.Add64(s.Sum[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
}

// rowEncoder writes rows of one table for their digest: columns in the order of their names.
type rowEncoder struct {
	columns []string // that order is for
	order   []int
	buf     []byte
}

func (e *rowEncoder) hash(r Record) [32]byte {
	if !slices.Equal(e.columns, r.Columns) {
		e.columns = r.Columns
		e.order = e.order[:0]
		for i := range r.Columns {
			e.order = append(e.order, i)
		}
		slices.SortFunc(e.order, func(a, b int) int { return strings.Compare(r.Columns[a], r.Columns[b]) })
	}
	e.buf = e.buf[:0]
	for _, i := range e.order {
		e.text(r.Columns[i])
		switch v := r.Values[i].(type) {
		case nil:
			e.buf = append(e.buf, 'n')
		case int64:
			e.buf = binary.BigEndian.AppendUint64(append(e.buf, 'i'), uint64(v))
		case string:
			e.buf = append(e.buf, 's')
			e.text(v)
		case []byte:
			e.buf = append(e.buf, 'b')
			e.text(string(v))
		}
	}
	return sha256.Sum256(e.buf)
}

func (e *rowEncoder) text(s string) {
	e.buf = append(binary.AppendUvarint(e.buf, uint64(len(s))), s...)
}

// Rows is how many rows there are.
func (t Tally) Rows() (n int64) {
	for _, s := range t {
		n += s.Rows
	}
	return n
}

// Difference lists where two tallies differ, in order.
func (t Tally) Difference(other Tally) []TallyKey {
	var out []TallyKey
	for k, s := range t {
		if other[k] != s {
			out = append(out, k)
		}
	}
	for k := range other {
		if _, ok := t[k]; !ok {
			out = append(out, k)
		}
	}
	sortKeys(out)
	return out
}

func sortKeys(list []TallyKey) {
	slices.SortFunc(list, func(a, b TallyKey) int {
		if c := strings.Compare(a.Table, b.Table); c != 0 {
			return c
		}
		return int(a.Account - b.Account)
	})
}

// String is a digest of the whole, in hexadecimal.
func (t Tally) String() string {
	keys := make([]TallyKey, 0, len(t))
	for k := range t {
		keys = append(keys, k)
	}
	sortKeys(keys)
	h := sha256.New()
	for _, k := range keys {
		fmt.Fprintf(h, "%s %d %d %x\n", k.Table, k.Account, t[k].Rows, t[k].Sum)
	}
	return hex.EncodeToString(h.Sum(nil))
}
