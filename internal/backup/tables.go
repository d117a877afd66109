package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"slices"

	"waxwing/internal/store"
)

// contentTable is the list of contents among the tables of a catalog; the store knows no table of this name.
const contentTable = "content"

var contentColumns = []string{"blob_id", "sum", "size", "refs"}

// contentRecords is the list of contents as rows.
func contentRecords(list iter.Seq2[store.ContentInfo, error]) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		for c, err := range list {
			if !yield(store.Record{Columns: contentColumns, Values: []any{c.ID, c.Sum[:], c.Size, c.Refs}}, err) || err != nil {
				return
			}
		}
	}
}

// contentOf reads a row of the list.
func contentOf(r store.Record) (store.ContentInfo, error) {
	if slices.Equal(r.Columns, contentColumns) {
		id, ok1 := r.Values[0].(int64)
		sum, ok2 := r.Values[1].([]byte)
		size, ok3 := r.Values[2].(int64)
		refs, ok4 := r.Values[3].(int64)
		if ok1 && ok2 && ok3 && ok4 && len(sum) == sha256.Size && size >= 0 {
			c := store.ContentInfo{ID: id, Size: size, Refs: refs}
			copy(c.Sum[:], sum)
			return c, nil
		}
	}
	return store.ContentInfo{}, fmt.Errorf("list of contents: %w", errFormat)
}

// table puts the rows of a table in.
func (r *run) table(ctx context.Context, name string, rows iter.Seq2[store.Record, error]) error {
	r.kind = Rows
	t := table{Name: name, Pieces: []Sum{}}
	var buf []byte
	flush := func() error {
		if len(buf) == 0 {
			return nil
		}
		sum := Sum(sha256.Sum256(buf))
		data := buf
		err := r.piece(ctx, sum, int64(len(data)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		t.Pieces = append(t.Pieces, sum)
		buf = buf[:0]
		return err
	}
	for row, err := range rows {
		if err != nil {
			return err
		}
		if t.Columns == nil {
			t.Columns = slices.Clone(row.Columns)
		} else if len(row.Columns) != len(t.Columns) || len(row.Values) != len(t.Columns) {
			return fmt.Errorf("a row of %d columns among those of %d", len(row.Values), len(t.Columns))
		}
		before := len(buf)
		if buf, err = appendRow(buf, row.Values); err != nil {
			return err
		}
		t.Rows++
		r.count.Rows++
		switch name {
		case "directory_account":
			r.count.Accounts++
		case "entry":
			r.count.Messages++
		}
		if cut(buf[before:], len(buf)) {
			if err := flush(); err != nil {
				return err
			}
			r.done.Rows = r.count.Rows
			r.opts.Progress(r.done)
		}
	}
	if err := flush(); err != nil {
		return err
	}
	r.cat.Tables = append(r.cat.Tables, t)
	return nil
}
