package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"waxwing/internal/store/blob"
)

// stored is a content as its row has it.
type stored struct {
	id  int64
	sum blob.ID
	ref blob.Ref
}

// contents reads all contents in the order in which they lie on the disk.
func (v *verification) contents(ctx context.Context) (err error) {
	open, end, err := v.s.audit()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	at := blob.Ref{Offset: -1}
	for ctx.Err() == nil {
		list, err := v.s.contentsAfter(ctx, at, verifyPage)
		if err != nil {
			return v.damagedRows(0, err)
		}
		for _, c := range list {
			at = c.ref
			if v.opts.Account != 0 && !v.named.has(c.id) {
				continue
			}
			if err := v.content(ctx, open, c); err != nil {
				return err
			}
		}
		if len(list) < verifyPage {
			break
		}
	}
	return ctx.Err()
}

func (v *verification) content(ctx context.Context, open opener, c stored) error {
	bad, err := v.s.inspect(ctx, open, c)
	v.done.Contents++
	v.done.Octets += c.ref.Len
	v.progress()
	if err != nil {
		return err
	}
	if bad != nil {
		owners, err := v.s.ownersOf(ctx, c.id)
		if err != nil {
			return err
		}
		for _, p := range owners {
			p.Kind, p.Content, p.Place, p.Text = ProblemContent, c.id, c.ref.String(), bad.Error()
			v.found(p)
		}
	}
	return v.pace.spend(ctx, c.ref.Len)
}

// contentsAfter lists contents behind a place.
func (s *Store) contentsAfter(ctx context.Context, at blob.Ref, limit int) ([]stored, error) {
	var out []stored
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var c stored
		var hash []byte
		if err := rows.Scan(append([]any{&c.id, &hash}, scanRef(&c.ref)...)...); err != nil {
			return err
		}
		copy(c.sum[:], hash)
		out = append(out, c)
		return nil
	}, `SELECT blob_id, hash, segment, place, stored, length, hash_key FROM blob WHERE segment > $1 OR (segment = $1 AND place > $2)
		ORDER BY segment, place LIMIT $3`, int64(at.Segment), at.Offset, limit)
	return out, err
}

// inspect reads a content whole and compares it with its SHA-256. bad says what is wrong with it; err, that it can't be said.
// A content that moved or went meanwhile is looked up again.
func (s *Store) inspect(ctx context.Context, open opener, c stored) (bad, err error) {
	for range 4 {
		bad = hashContent(open, c)
		if bad == nil {
			return nil, ctx.Err()
		}
		var now blob.Ref
		err := s.reads.row(ctx, scanRef(&now), `SELECT segment, place, stored, length, hash_key FROM blob WHERE blob_id = $1`, c.id)
		if errors.Is(err, sql.ErrNoRows) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if now == c.ref {
			break
		}
		c.ref = now
	}
	if !lastingDamage(bad) {
		return nil, blobError(bad)
	}
	return bad, nil
}

// opener opens a content.
type opener func(ref blob.Ref) (Blob, error)

// audit returns an opener that sees what is stored now: what a cache remembers of a bucket proves nothing.
func (s *Store) audit() (open opener, end func() error, err error) {
	if s.fresh == nil {
		return s.blobs.Open, func() error { return nil }, nil
	}
	r, err := s.fresh.objects.Audit()
	if err != nil {
		return nil, nil, err
	}
	open = func(ref blob.Ref) (Blob, error) {
		if ref.Segment == freshSegment {
			return s.fresh.Open(ref)
		}
		return r.Open(ref)
	}
	return open, r.Close, nil
}

func hashContent(open opener, c stored) error {
	b, err := open(c.ref)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(b, 0, b.Size()))
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	if blob.ID(h.Sum(nil)) != c.sum {
		return fmt.Errorf("%w: %s: SHA-256 differs", blob.ErrCorrupt, c.ref)
	}
	return nil
}

// ownersOf lists the entries of the messages that have a content; a message without an entry, or a queued one, counts too.
func (s *Store) ownersOf(ctx context.Context, content int64) ([]Problem, error) {
	var out []Problem
	err := s.reads.snapshot(ctx, func(q *reader) error {
		return q.each(func(rows *sql.Rows) error {
			var p Problem
			var box, uid sql.NullInt64
			var name sql.NullString
			err := rows.Scan(&p.Account, &p.Message, &box, &uid, &name)
			p.Mailbox, p.UID, p.Name = MailboxID(box.Int64), UID(uid.Int64), name.String
			out = append(out, p)
			return err
		}, `SELECT m.account_id, m.message_id, e.mailbox_id, e.uid, x.name FROM message AS m
			LEFT JOIN entry AS e ON e.account_id = m.account_id AND e.message_id = m.message_id
			LEFT JOIN mailbox AS x ON x.account_id = e.account_id AND x.mailbox_id = e.mailbox_id WHERE m.blob_id = $1`, content)
	})
	if err == nil && len(out) == 0 {
		out = []Problem{{}}
	}
	return out, err
}

// bitmap is a set of numbers below a limit, which takes no others: ids ascend, so a bit each is little, and a damaged one
// must not cost memory.
type bitmap struct {
	limit int64
	words []uint64
}

func (b *bitmap) set(n int64) {
	if n < 0 || n >= b.limit {
		return
	}
	i := int(n / 64)
	if i >= len(b.words) {
		b.words = slices.Grow(b.words, i+1-len(b.words))[:i+1]
	}
	b.words[i] |= 1 << (n % 64)
}

func (b *bitmap) has(n int64) bool {
	i := n / 64
	return n >= 0 && i < int64(len(b.words)) && b.words[i]&(1<<(n%64)) != 0
}

// pace keeps reading below a rate.
type pace struct {
	rate int64
	owed time.Duration
	wait func(time.Duration)
}

func newPace(rate int64, wait func(time.Duration)) pace { return pace{rate: rate, wait: wait} }

// spend waits until n octets more may be read.
func (p *pace) spend(ctx context.Context, n int64) error {
	if p.rate <= 0 {
		return nil
	}
	const least = 10 * time.Millisecond
	p.owed += time.Duration(float64(n) / float64(p.rate) * float64(time.Second))
	if p.owed < least {
		return nil
	}
	d := p.owed
	p.owed = 0
	if p.wait != nil {
		p.wait(d)
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
