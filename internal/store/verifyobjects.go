package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"waxwing/internal/store/blob"
)

// The ways between the rows and a bucket: objects without rows, rows without objects, and octets in the database that no
// content's row names.

// objects compares the objects of the bucket with the rows. Whatever looks wrong is looked for in the bucket once more: an
// object stands on one of the lists of the database from before its upload until after its removal.
func (v *verification) objects(ctx context.Context) error {
	f := v.s.fresh
	if f == nil {
		return nil
	}
	before, err := f.objects.List(ctx)
	if err != nil {
		return err
	}
	alive, known, err := f.known(ctx)
	if err != nil {
		return v.damagedRows(0, err)
	}
	there := make(map[blob.Segment]bool, len(before))
	strays := make([]blob.Segment, 0)
	for _, g := range before {
		there[g] = true
		if !known[g] {
			strays = append(strays, g)
		}
	}
	missing := slices.DeleteFunc(alive, func(g blob.Segment) bool { return there[g] })
	if len(strays) == 0 && len(missing) == 0 {
		return nil
	}
	after, err := f.objects.List(ctx)
	if err != nil {
		return err
	}
	for _, g := range strays {
		if slices.Contains(after, g) {
			v.found(Problem{Kind: ProblemStray, Place: g.String(), Text: "an object that no row names"})
		}
	}
	for _, g := range missing {
		if !slices.Contains(after, g) {
			v.found(Problem{Kind: ProblemMissing, Place: g.String(), Text: "the object is not in the bucket"})
		}
	}
	return nil
}

// known lists the objects that rows name, and is the set of all that the database knows of.
func (f *fresh) known(ctx context.Context) (alive []blob.Segment, known map[blob.Segment]bool, err error) {
	known = make(map[blob.Segment]bool)
	err = f.s.reads.each(ctx, func(rows *sql.Rows) error {
		var g blob.Segment
		var live int64
		if err := rows.Scan(&g, &live); err != nil {
			return err
		}
		known[g] = true
		if live > 0 {
			alive = append(alive, g)
		}
		return nil
	}, `SELECT segment, live FROM segment UNION ALL SELECT segment, 0 FROM object_garbage`)
	return alive, known, err
}

// strayFresh are octets in the database that no content's row names.
const strayFresh = `FROM fresh_content AS f WHERE NOT EXISTS (SELECT 1 FROM blob AS b WHERE b.blob_id = f.blob_id AND b.segment = 0)`

func (v *verification) freshRows(ctx context.Context) error {
	err := v.s.reads.each(ctx, func(rows *sql.Rows) error {
		p := Problem{Kind: ProblemStray, Text: "octets in the database that no row names"}
		err := rows.Scan(&p.Content)
		v.found(p)
		return err
	}, `SELECT f.blob_id `+strayFresh+` ORDER BY f.blob_id`)
	return v.damagedRows(0, err)
}

// strays has objects that no row names removed by and by, and drops octets in the database. What held something that could be
// given back has been looked through before.
func (r *repair) strays(ctx context.Context) error {
	for _, p := range r.of(ProblemStray) {
		how := "dropped"
		if p.Content == 0 {
			how = "removed in an hour"
		}
		if err := r.fix(ctx, p, how, func(tx *Tx) error { return tx.dropStray(p) }); err != nil {
			return err
		}
	}
	return nil
}

// dropStray drops octets that still nothing names.
func (tx *Tx) dropStray(p Problem) error {
	if p.Content != 0 {
		return tx.exec(`DELETE FROM fresh_content WHERE blob_id = $1 AND blob_id IN (SELECT f.blob_id `+strayFresh+`)
			AND NOT EXISTS (SELECT 1 FROM message AS m WHERE m.blob_id = $1)`, p.Content)
	}
	g, err := blob.ParseSegment(p.Place)
	if err != nil {
		return err
	}
	named, err := tx.numbers(`SELECT segment FROM segment WHERE segment = $1`, g)
	if err != nil || len(named) > 0 {
		return err
	}
	return tx.exec(`INSERT INTO object_garbage (segment, since) VALUES ($1, $2) ON CONFLICT (segment) DO NOTHING`, g, tx.now.Unix())
}

// Verify tells of every record in the bucket, and of those in the database that no row names.
func (f *fresh) Verify(ctx context.Context, fn func(blob.Ref, blob.ID, error) error) (err error) {
	list, err := f.objects.List(ctx)
	if err != nil {
		return err
	}
	r, err := f.objects.Audit()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for _, g := range list {
		if err := r.VerifySegment(ctx, g, fn); err != nil && !errors.Is(err, blob.ErrGone) {
			return err
		}
	}
	return f.verifyStrays(ctx, fn)
}

func (f *fresh) verifyStrays(ctx context.Context, fn func(blob.Ref, blob.ID, error) error) error {
	for after := int64(0); ; {
		var id int64
		var data []byte
		err := f.s.reads.row(ctx, []any{&id, &data}, `SELECT f.blob_id, f.data `+strayFresh+` AND f.blob_id > $1 ORDER BY f.blob_id LIMIT 1`, after)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		after = id
		ref, sum, bad := f.box.Look(id, data)
		if bad == nil {
			bad = hashContent(f.Open, stored{sum: sum, ref: ref})
		}
		if err := fn(ref, sum, bad); err != nil {
			return err
		}
	}
}

// adoptFound takes an object off the list of those that go, for a row that names a record in it again.
func (tx *Tx) adoptFound(ref blob.Ref) error {
	if tx.s.fresh == nil || ref.Segment == freshSegment {
		return nil
	}
	claimed, err := tx.numbers(`SELECT segment FROM object_garbage WHERE segment = $1 AND since < 0`, ref.Segment)
	if err != nil {
		return err
	}
	if len(claimed) > 0 {
		return errSwept
	}
	return tx.exec(`DELETE FROM object_garbage WHERE segment = $1`, ref.Segment)
}
