package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Errors of loading.
var (
	// ErrLoading says that the store holds an unfinished load: it is not opened for anything else.
	ErrLoading = errors.New("store: a load into this store was begun and is not finished: it holds a part of another store")
	// ErrNotEmpty says that a store that is to be loaded holds something.
	ErrNotEmpty = errors.New("store: not empty")
	// ErrOtherSource says that the load was begun from something else, or that this has changed since.
	ErrOtherSource = errors.New("store: the load was begun from another state of the source")
)

// Loading is how far a load is. It stands in the store that is loaded, and changes with each transaction of the load.
type Loading struct {
	Source   string `json:"source"`   // what is loaded, as the caller names it
	Contents int64  `json:"contents"` // loaded, with those that are damaged in the source
	Octets   int64  `json:"octets"`   // of them
	Damaged  int64  `json:"damaged"`  // contents of which only the name could be loaded
	Last     int64  `json:"last"`     // id of the last content
	Table    string `json:"table"`    // whose rows come now, "" before the first
	Rows     int64  `json:"rows"`     // of that table that are in
	AllRows  int64  `json:"all_rows"` // of all tables
	Filled   bool   `json:"filled"`   // everything is in
}

// Bounds of one transaction of a load.
const (
	loadRows     = 1000
	loadAtOnce   = 64 // rows of one statement
	loadContents = 256
	loadOctets   = 16 << 20
	loadPuts     = 8       // contents put at the same time
	loadWhole    = 1 << 20 // contents up to here are held in memory
	loadName     = "load"  // in house_state
)

// Loader fills an empty store with all that a Source has: contents first, through the way that every delivery takes, then the
// rows with their ids, UIDs, UIDVALIDITY and MODSEQ as they are. It records in the store how far it is, in the transaction
// that brings it there, so that it goes on after a crash or an error: from the store's own record, not from the caller's.
//
//	s, err := store.Open(ctx, store.Options{..., Load: true})
//	l, err := s.Load(ctx, tally.String()) // begins, or goes on
//	err = l.Fill(ctx, src, nil)
//	err = l.Verify(ctx, src, tally, nil)
//	err = l.Finish(ctx)
//	err = s.Close()
//
// Until Finish the store opens with Options.Load alone. A store whose load is given up must be made anew.
type Loader struct {
	s  *Store
	at Loading

	// Damaged is asked about a content that the source can't give whole. When it returns nil the content keeps its name, and
	// its messages what else is known of them, until the same content is delivered again; otherwise the load ends with its
	// error. None: the load ends.
	Damaged func(c ContentInfo, err error) error
	// Progress is told how far the load is, after each transaction. May be nil.
	Progress func(at Loading)
}

// loading reads the record of a load; ok is false when there is none.
func loading(q Querier) (at Loading, ok bool, err error) {
	var text string
	err = q.QueryRow(`SELECT value FROM house_state WHERE name = $1`, loadName).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return at, false, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &at)
	}
	return at, err == nil, err
}

// refuseLoading keeps a half loaded store from being used.
func (s *Store) refuseLoading(q Querier) error {
	_, under, err := loading(q)
	if err == nil && under && !s.opts.Load {
		err = ErrLoading
	}
	return err
}

// Load begins to fill this empty store, or goes on. source names the state of what is loaded, a Tally say: to go on it must be
// the same.
func (s *Store) Load(ctx context.Context, source string) (*Loader, error) {
	if !s.opts.Load {
		return nil, errors.New("store: load: the store was not opened for it")
	}
	l := &Loader{s: s}
	err := s.Write(ctx, func(tx *Tx) error {
		at, under, err := loading(tx)
		switch {
		case err != nil:
			return err
		case !under:
			at = Loading{Source: source}
			if err := tx.beginLoad(at); err != nil {
				return err
			}
		case at.Source != source:
			return ErrOtherSource
		}
		l.at = at
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store: load: %w", err)
	}
	return l, nil
}

// beginLoad makes sure that the store is empty.
func (tx *Tx) beginLoad(at Loading) error {
	for _, t := range append(Tables(), Table{Name: "blob"}) {
		if t.Name == lastIDs {
			continue
		}
		var where []string
		if t.where != "" {
			where = append(where, t.where)
		}
		if t.seeds != "" {
			where = append(where, "NOT ("+t.seeds+")")
		}
		query := "SELECT 1 FROM " + t.Name
		if len(where) > 0 {
			query += " WHERE " + strings.Join(where, " AND ")
		}
		var n int
		if err := tx.QueryRow("SELECT count(*) FROM (" + query + " LIMIT 1) AS found").Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("table %s: %w", t.Name, ErrNotEmpty)
		}
	}
	for i := range tables {
		if tables[i].seeds == "" {
			continue
		}
		if err := tx.exec("DELETE FROM " + tables[i].Name); err != nil {
			return err
		}
	}
	return tx.loadReached(at)
}

func (tx *Tx) loadReached(at Loading) error {
	text, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return tx.exec(`INSERT INTO house_state (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, loadName, string(text))
}

// At is how far the load is.
func (l *Loader) At() Loading { return l.at }

// reached takes up what a transaction has recorded.
func (l *Loader) reached(at Loading) {
	l.at = at
	if l.Progress != nil {
		l.Progress(at)
	}
}

// Fill loads what is missing. It may be stopped at any point.
func (l *Loader) Fill(ctx context.Context, src Source) error {
	if l.at.Filled {
		return nil
	}
	if l.at.Table == "" {
		if err := l.fillContents(ctx, src); err != nil {
			return fmt.Errorf("store: load contents: %w", err)
		}
	}
	begin := 0
	if l.at.Table != "" {
		begin = slices.IndexFunc(tables, func(t Table) bool { return t.Name == l.at.Table })
		if begin < 0 {
			return fmt.Errorf("store: load: table %q: %w", l.at.Table, ErrNotFound)
		}
	}
	for i := range tables[begin:] {
		t := &tables[begin+i]
		if err := l.fillTable(ctx, src, t); err != nil {
			return fmt.Errorf("store: load %s: %w", t.Name, err)
		}
	}
	at := l.at
	at.Filled = true
	if err := l.s.Write(ctx, func(tx *Tx) error { return tx.loadReached(at) }); err != nil {
		return fmt.Errorf("store: load: %w", err)
	}
	l.reached(at)
	return nil
}

// loadItem is a content on its way.
type loadItem struct {
	info ContentInfo
	lost error // it is damaged in the source
	*settled
}

// fillContents loads the contents behind the last one.
func (l *Loader) fillContents(ctx context.Context, src Source) error {
	var batch []*loadItem
	octets := int64(0)
	for c, err := range src.Contents(ctx) {
		if err != nil {
			return err
		}
		if c.ID <= l.at.Last {
			continue
		}
		batch = append(batch, &loadItem{info: c})
		octets += c.Size
		if len(batch) < loadContents && octets < loadOctets {
			continue
		}
		if err := l.contents(ctx, src, batch); err != nil {
			return err
		}
		batch, octets = nil, 0
	}
	if len(batch) == 0 {
		return nil
	}
	return l.contents(ctx, src, batch)
}

// contents loads some contents: all are put, then one transaction gives them their rows.
func (l *Loader) contents(ctx context.Context, src Source, batch []*loadItem) error {
	g, putting := errgroup.WithContext(ctx)
	g.SetLimit(loadPuts)
	for _, c := range batch {
		g.Go(func() error { return l.put(putting, src, c) })
	}
	err := g.Wait()
	var list []*settled
	at := l.at
	for _, c := range batch {
		at.Contents++
		at.Octets += c.info.Size
		at.Last = c.info.ID
		if c.settled != nil {
			list = append(list, c.settled)
		}
		if err == nil && c.lost != nil {
			at.Damaged++
			err = l.mayLose(c)
		}
	}
	if err != nil {
		l.s.settleAll(list, err)
		return err
	}
	err = l.s.withContents(ctx, list, func(tx *Tx) error {
		for _, c := range batch {
			if err := tx.loadContent(c); err != nil {
				return err
			}
		}
		return tx.loadReached(at)
	})
	if err == nil {
		l.reached(at)
	}
	return err
}

func (l *Loader) mayLose(c *loadItem) error {
	if l.Damaged == nil {
		return fmt.Errorf("content %d: %w", c.info.ID, c.lost)
	}
	return l.Damaged(c.info, c.lost)
}

// put reads a content, compares it with its SHA-256 and puts it on stable storage.
func (l *Loader) put(ctx context.Context, src Source, c *loadItem) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, ErrCorrupt) {
			c.lost, err = err, nil
		}
	}()
	b := inMemory(nil) // nothing can be lost of an empty one
	if c.info.Size > 0 {
		if b, err = src.Open(ctx, c.info); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.Size() != c.info.Size {
		return fmt.Errorf("%w: %d octets, not %d", ErrCorrupt, b.Size(), c.info.Size)
	}
	content := Content(b)
	if b.Size() <= loadWhole {
		whole := make([]byte, b.Size())
		if _, err := io.ReadFull(io.NewSectionReader(b, 0, b.Size()), whole); err != nil {
			return err
		}
		content = bytes.NewReader(whole)
	}
	t, err := l.s.settle(ctx, uint32(c.info.ID), content, false)
	if err != nil {
		return err
	}
	if t.sum != c.info.Sum {
		l.s.settleAll([]*settled{t}, ErrCorrupt)
		return fmt.Errorf("%w: its SHA-256 is another one", ErrCorrupt)
	}
	c.settled = t
	return nil
}

// loadContent gives a content its row. One that is lost has a place where nothing can be: segment 0, with no octets stored.
func (tx *Tx) loadContent(c *loadItem) error {
	if c.lost == nil {
		return tx.insertBlob(c.settled, c.info.ID, c.info.Refs)
	}
	err := tx.exec(`INSERT INTO blob (blob_id, hash, hash_key, segment, place, stored, length, refs) VALUES ($1, $2, $3, $4, $1, 0, $5, $6)`,
		c.info.ID, c.info.Sum[:], hashKey(c.info.Sum), freshSegment, c.info.Size, c.info.Refs)
	if err != nil {
		return fmt.Errorf("content: %w", err)
	}
	return tx.exec(`INSERT INTO damaged_content (blob_id, place, reason, found) VALUES ($1, $2, $3, $4)`,
		c.info.ID, "lost before the move", c.lost.Error(), tx.now.Unix())
}

// lost tells a content that loadContent could give no octets.
func (c *ContentInfo) lost() bool {
	return c.known && c.ref.Segment == freshSegment && c.ref.StoredLen == 0 && c.Size > 0
}

// fillTable loads the rows of one table, from where the load is.
func (l *Loader) fillTable(ctx context.Context, src Source, t *Table) error {
	skip := int64(0)
	if l.at.Table == t.Name {
		skip = l.at.Rows
	}
	var batch []Record
	at := l.at
	at.Table, at.Rows = t.Name, skip
	for r, err := range src.Rows(ctx, t.Name, 0) {
		if err != nil {
			return err
		}
		if skip > 0 {
			skip--
			continue
		}
		batch = append(batch, r)
		if len(batch) < loadRows {
			continue
		}
		if err := l.rows(ctx, t, at, batch); err != nil {
			return err
		}
		at, batch = l.at, nil
	}
	if skip > 0 {
		return fmt.Errorf("%w: it has fewer rows", ErrOtherSource)
	}
	return l.rows(ctx, t, at, batch)
}

// rows loads some rows and records it.
func (l *Loader) rows(ctx context.Context, t *Table, at Loading, batch []Record) error {
	at.Rows += int64(len(batch))
	at.AllRows += int64(len(batch))
	err := l.s.Write(ctx, func(tx *Tx) error {
		if err := tx.loadRecords(t, batch); err != nil {
			return err
		}
		return tx.loadReached(at)
	})
	if err == nil {
		l.reached(at)
	}
	return err
}

// loadRecords inserts rows, many with one statement.
func (tx *Tx) loadRecords(t *Table, list []Record) error {
	if t.Name == lastIDs {
		return tx.loadLastIDs(list)
	}
	if len(list) == 0 {
		return nil
	}
	allowed, err := tx.columnsOf(t)
	if err != nil {
		return err
	}
	for len(list) > 0 {
		first := list[0].Columns
		for _, c := range first {
			if !slices.Contains(allowed, c) {
				return fmt.Errorf("column %q: %w", c, ErrNotFound)
			}
		}
		n := 1
		if len(list) >= loadAtOnce && !slices.ContainsFunc(list[:loadAtOnce], func(r Record) bool { return !slices.Equal(r.Columns, first) }) {
			n = loadAtOnce
		}
		args := make([]any, 0, n*len(first))
		for _, r := range list[:n] {
			if len(r.Values) != len(first) {
				return fmt.Errorf("a row of %d values for %d columns: %w", len(r.Values), len(first), ErrCorrupt)
			}
			args = append(args, r.Values...)
		}
		if err := tx.exec(insertion(t.Name, first, n), args...); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// columnsOf lists the columns that a table has here.
func (tx *Tx) columnsOf(t *Table) ([]string, error) {
	rows, err := tx.Query("SELECT * FROM " + t.Name + " WHERE 1 = 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	return columns, tx.failed(rows.Err())
}

// insertion is the statement that inserts n rows.
func insertion(table string, columns []string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO %s (%s) VALUES ", table, strings.Join(columns, ", "))
	for i := range n * len(columns) {
		switch {
		case i == 0:
			b.WriteByte('(')
		case i%len(columns) == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", i+1)
	}
	b.WriteByte(')')
	return b.String()
}

func (tx *Tx) loadLastIDs(list []Record) error {
	for _, r := range list {
		name, id := slices.Index(r.Columns, "name"), slices.Index(r.Columns, "id")
		if name < 0 || id < 0 || len(r.Values) != len(r.Columns) {
			return fmt.Errorf("columns %v: %w", r.Columns, ErrNotFound)
		}
		table, _ := r.Values[name].(string)
		last, ok := r.Values[id].(int64)
		if t, err := tableNamed(table); err != nil || !t.counted || !ok {
			return fmt.Errorf("table %q: %w", table, errors.Join(ErrNotFound, err))
		}
		tx.wrote = true
		if err := tx.s.db.Dialect.RaiseLastID(tx, table, last); err != nil {
			return err
		}
	}
	return nil
}

// Finish ends the load: the store is an ordinary one from its next opening on. Close it after that.
func (l *Loader) Finish(ctx context.Context) error {
	if !l.at.Filled {
		return fmt.Errorf("store: load: %w", ErrLoading)
	}
	if _, err := l.s.MoveContents(ctx); err != nil {
		return err
	}
	err := l.s.Write(ctx, func(tx *Tx) error {
		return tx.exec(`DELETE FROM house_state WHERE name = $1`, loadName)
	})
	if err != nil {
		return fmt.Errorf("store: load: %w", err)
	}
	return nil
}
