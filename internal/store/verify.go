package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"waxwing/internal/store/blob"
)

// ProblemKind says what a Problem is about.
type ProblemKind string

const (
	ProblemDatabase ProblemKind = "database" // the database's own check finds fault
	ProblemCounts   ProblemKind = "counts"   // counts or marks of a mailbox or an account differ from its entries
	ProblemEntry    ProblemKind = "entry"    // an entry has no message, or another size than its message
	ProblemSharing  ProblemKind = "sharing"  // the number of a message's entries is recorded wrongly
	ProblemMessage  ProblemKind = "message"  // the row of a message is damaged, or its content has no row
	ProblemOrphan   ProblemKind = "orphan"   // a message has no entry
	ProblemRefs     ProblemKind = "refs"     // the references of a content are recorded wrongly
	ProblemContent  ProblemKind = "content"  // the octets of a message are damaged
	ProblemSegment  ProblemKind = "segment"  // the octets of a segment are accounted wrongly
	ProblemSearch   ProblemKind = "search"   // the index of text lacks something, or has what is gone
	ProblemMissing  ProblemKind = "missing"  // an object that rows name is not in the bucket
	ProblemMap      ProblemKind = "map"      // the map of a large mailbox's UIDs differs from its entries
	ProblemStray    ProblemKind = "stray"    // octets in the database, or an object in the bucket, that no row names
)

// Problem is one thing that is not as it should be, with as much of whose it is as is known.
type Problem struct {
	Kind    ProblemKind
	Account AccountID // 0: not known, or nobody's
	Mailbox MailboxID
	Name    string // of the mailbox
	UID     UID
	Message MessageID
	Content int64  // id of the content
	Place   string // in the packs
	Text    string
}

// VerifyOptions of Verify.
type VerifyOptions struct {
	Account  AccountID           // only this one; 0: all
	RowsOnly bool                // leave the octets of messages unread
	Rate     int64               // octets of messages a second at most; 0: as fast as it goes
	Found    func(Problem)       // called for each problem, may be nil
	Progress func(Verified)      // called now and then, may be nil
	wait     func(time.Duration) // for tests
}

// Verified is what Verify has looked at.
type Verified struct {
	Accounts, Mailboxes, Entries, Messages, Contents int64
	Octets                                           int64 // of contents read
	Total                                            int64 // octets of contents to read
	Problems                                         int64
}

// verification is one run of Verify.
type verification struct {
	s     *Store
	opts  VerifyOptions
	done  Verified
	seen  bitmap          // messages that entries name
	refs  map[int64]int64 // contents that messages name another number of times than once
	named bitmap          // contents that messages name at least once
	marks [2]int64        // ids of messages and contents from here on are younger than the run
	pace  pace
}

// Verify compares everything that the store keeps with everything else, while it is in use: counts with entries, entries with
// messages, messages with contents, contents with their checksums and SHA-256, segments with rows, the index of text with messages. It changes nothing.
// Problems go to Found; the error says only that it could not go on.
func (s *Store) Verify(ctx context.Context, opts VerifyOptions) (Verified, error) {
	v := &verification{s: s, opts: opts, refs: make(map[int64]int64), pace: newPace(opts.Rate, opts.wait)}
	steps := []func(context.Context) error{v.database, v.accounts, v.messages, v.references, v.segments, v.objects, v.freshRows}
	if opts.Account != 0 {
		steps = []func(context.Context) error{v.accounts}
	}
	if !opts.RowsOnly {
		steps = append(steps, v.contents, v.search)
	}
	if err := v.begin(ctx); err != nil {
		return v.done, fmt.Errorf("store: verify: %w", err)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return v.done, fmt.Errorf("store: verify: %w", err)
		}
	}
	return v.done, nil
}

func (v *verification) begin(ctx context.Context) error {
	return v.s.reads.with(ctx, func(q *reader) error {
		for i, name := range []string{"message", "blob"} {
			err := q.QueryRow(`SELECT COALESCE(MAX(next), 1) FROM sequence WHERE name = $1`, name).Scan(&v.marks[i])
			if err != nil {
				return err
			}
		}
		v.seen.limit, v.named.limit = v.marks[0], v.marks[1]
		return q.QueryRow(`SELECT COALESCE(SUM(length), 0) FROM blob`).Scan(&v.done.Total)
	})
}

func (v *verification) found(p Problem) {
	v.done.Problems++
	if v.opts.Found != nil {
		v.opts.Found(p)
	}
}

func (v *verification) progress() {
	if v.opts.Progress != nil {
		v.opts.Progress(v.done)
	}
}

// IntegrityChecker is a Dialect that can check the database by itself: its pages, its indexes. It gives a line for each fault.
type IntegrityChecker interface {
	CheckIntegrity(q Querier) ([]string, error)
}

func (v *verification) database(ctx context.Context) error {
	if err := v.pages(ctx); err != nil {
		return err
	}
	c, ok := v.s.db.Dialect.(IntegrityChecker)
	if !ok {
		return nil
	}
	return v.s.reads.with(ctx, func(q *reader) error {
		lines, err := c.CheckIntegrity(q)
		if faultOf(v.s.db.dbError(err)) == FaultCorrupt {
			lines, err = append(lines, err.Error()), nil
		}
		for _, line := range lines {
			v.found(Problem{Kind: ProblemDatabase, Text: line})
		}
		return err
	})
}

// pages looks at the pages of a database that has sums of them.
func (v *verification) pages(ctx context.Context) error {
	for next := int64(1); next > 0; {
		r, err := v.s.scrubPages(ctx, next)
		if faultOf(err) == FaultCorrupt { // not even the tables can be listed
			v.found(Problem{Kind: ProblemDatabase, Text: err.Error()})
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range r.Broken {
			v.found(Problem{Kind: ProblemDatabase, Text: fmt.Sprintf("page %d has wrong sums", n)})
		}
		next = r.Next
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// damagedRows turns an error of damaged pages into a problem, so that the rest is still looked at.
func (v *verification) damagedRows(acct AccountID, err error) error {
	if err == nil || faultOf(v.s.db.dbError(err)) != FaultCorrupt && !errors.Is(err, ErrCorrupt) {
		return err
	}
	v.found(Problem{Kind: ProblemDatabase, Account: acct, Text: err.Error()})
	return nil
}

func (v *verification) accounts(ctx context.Context) error {
	for last := v.opts.Account - 1; ; {
		var next sql.NullInt64
		if err := v.s.reads.row(ctx, []any{&next}, `SELECT MIN(account_id) FROM mail_account WHERE account_id > $1`, last); err != nil {
			return err
		}
		if v.opts.Account != 0 && next.Int64 != int64(v.opts.Account) {
			return fmt.Errorf("account %d: %w", v.opts.Account, ErrNotFound)
		}
		if !next.Valid {
			return nil
		}
		last = AccountID(next.Int64)
		if err := v.damagedRows(last, v.account(ctx, last)); err != nil {
			return fmt.Errorf("account %d: %w", last, err)
		}
		v.done.Accounts++
		v.progress()
		if err := ctx.Err(); err != nil || v.opts.Account != 0 {
			return err
		}
	}
}

// account looks at the rows of one account in one snapshot: what commits meanwhile is not seen, and confuses nothing.
func (v *verification) account(ctx context.Context, acct AccountID) error {
	return v.s.reads.snapshot(ctx, func(q *reader) error {
		a := &accountCheck{v: v, q: q, id: acct, sums: make(map[MailboxID]*boxSums), names: make(map[MailboxID]string)}
		for _, step := range []func() error{a.readMaps, a.entries, a.expunged, a.mailboxes, a.compareMaps, a.sharing} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}

// verifyPage is how many rows one query of a walk reads.
const verifyPage = 500

// messages walks through all messages: their summaries, their contents' rows, and whether an entry names them.
func (v *verification) messages(ctx context.Context) error {
	var orphans []Problem
	for last := MessageID(0); ctx.Err() == nil; {
		n := 0
		err := v.s.reads.each(ctx, func(rows *sql.Rows) error {
			n++
			var p Problem
			var size int64
			var length sql.NullInt64
			var raw sql.RawBytes
			if err := rows.Scan(&p.Account, &p.Message, &p.Content, &size, &raw, &length); err != nil {
				return err
			}
			last = p.Message
			v.message(p, size, length, raw)
			if !v.seen.has(int64(p.Message)) && int64(p.Message) < v.marks[0] {
				orphans = append(orphans, p)
			}
			return nil
		}, `SELECT m.account_id, m.message_id, m.blob_id, m.size, m.summary, b.length FROM message AS m
			LEFT JOIN blob AS b ON b.blob_id = m.blob_id WHERE m.message_id > $1 ORDER BY m.message_id LIMIT $2`, last, verifyPage)
		if err != nil {
			return v.damagedRows(0, err)
		}
		v.progress()
		if n < verifyPage {
			break
		}
	}
	for _, p := range orphans {
		if err := v.orphan(ctx, p); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (v *verification) message(p Problem, size int64, length sql.NullInt64, raw []byte) {
	v.done.Messages++
	v.name(p.Content)
	p.Kind = ProblemMessage
	var m Summary
	if err := decodeSummary(raw, &m); err != nil {
		p.Text = err.Error()
		v.found(p)
	}
	switch {
	case !length.Valid:
		p.Text = "its content has no row"
		v.found(p)
	case length.Int64 != size:
		p.Text = fmt.Sprintf("it has %d octets, its content %d", size, length.Int64)
		v.found(p)
	}
}

// name counts a reference to a content.
func (v *verification) name(content int64) {
	if !v.named.has(content) {
		v.named.set(content)
		return
	}
	v.refs[content]++
}

// orphan looks once more at a message that no entry named: it may have been moved between the looks.
func (v *verification) orphan(ctx context.Context, p Problem) error {
	var rows, entries int64
	err := v.s.reads.snapshot(ctx, func(q *reader) error {
		return q.QueryRow(`SELECT (SELECT count(*) FROM message WHERE message_id = $2 AND account_id = $1),
			(SELECT count(*) FROM entry WHERE account_id = $1 AND message_id = $2) +
			(SELECT count(*) FROM expunged_entry WHERE account_id = $1 AND message_id = $2)`, p.Account, p.Message).Scan(&rows, &entries)
	})
	if err == nil && rows > 0 && entries == 0 {
		p.Kind, p.Text = ProblemOrphan, "no mailbox has it"
		v.found(p)
	}
	return err
}

// references compares the references of contents with the messages and queued messages that name them.
func (v *verification) references(ctx context.Context) error {
	err := v.s.reads.each(ctx, func(rows *sql.Rows) error {
		var id int64
		err := rows.Scan(&id)
		v.name(id)
		return err
	}, `SELECT blob_id FROM queue_message`)
	if err != nil {
		return v.damagedRows(0, err)
	}
	var suspects []int64
	for last := int64(0); ctx.Err() == nil; {
		n := 0
		err := v.s.reads.each(ctx, func(rows *sql.Rows) error {
			n++
			var refs int64
			if err := rows.Scan(&last, &refs); err != nil {
				return err
			}
			want := v.refs[last]
			if v.named.has(last) {
				want++
			}
			if want != refs && last < v.marks[1] {
				suspects = append(suspects, last)
			}
			return nil
		}, `SELECT blob_id, refs FROM blob WHERE blob_id > $1 ORDER BY blob_id LIMIT $2`, last, verifyPage)
		if err != nil {
			return v.damagedRows(0, err)
		}
		if n < verifyPage {
			break
		}
	}
	for part := range slices.Chunk(suspects, verifyPage) {
		if err := v.recount(ctx, part); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// recount counts the references of some contents in one snapshot.
func (v *verification) recount(ctx context.Context, ids []int64) error {
	return v.s.reads.snapshot(ctx, func(q *reader) error {
		counts, err := countRefs(q, v.s.db.Dialect, ids)
		if err != nil {
			return err
		}
		d := v.s.db.Dialect
		return q.each(func(rows *sql.Rows) error {
			var id, refs int64
			if err := rows.Scan(&id, &refs); err != nil {
				return err
			}
			if counts[id] != refs {
				v.found(Problem{Kind: ProblemRefs, Content: id, Text: fmt.Sprintf("%d references are recorded, there are %d", refs, counts[id])})
			}
			return nil
		}, `SELECT blob_id, refs FROM blob WHERE `+d.In("blob_id", "$1"), d.Numbers(ids))
	})
}

// countRefs counts what names contents. It reads all messages: there is no index for it.
func countRefs(q Querier, d Dialect, ids []int64) (map[int64]int64, error) {
	counts := make(map[int64]int64, len(ids))
	for _, table := range []string{"message", "queue_message"} {
		rows, err := q.Query(`SELECT blob_id, count(*) FROM `+table+` WHERE `+d.In("blob_id", "$1")+` GROUP BY blob_id`, d.Numbers(ids))
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var id, n int64
			if err := rows.Scan(&id, &n); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			counts[id] += n
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// segmentQuery gives for each segment what is recorded and what its rows come to.
const segmentQuery = `SELECT s.segment, s.live, s.tail, COALESCE(SUM(b.stored), 0), COALESCE(MAX(b.place + b.stored), 0)
	FROM segment AS s LEFT JOIN blob AS b ON b.segment = s.segment GROUP BY s.segment, s.live, s.tail`

func (v *verification) segments(ctx context.Context) error {
	err := v.s.reads.each(ctx, func(rows *sql.Rows) error {
		var g blob.Segment
		var live, tail, sum, end int64
		if err := rows.Scan(&g, &live, &tail, &sum, &end); err != nil {
			return err
		}
		if live != sum || tail < end {
			v.found(Problem{Kind: ProblemSegment, Place: g.String(), Text: fmt.Sprintf("%d octets alive up to %d are recorded, rows name %d up to %d", live, tail, sum, end)})
		}
		return nil
	}, segmentQuery)
	return v.damagedRows(0, err)
}

// search has the index of text prove itself, if there is one that can.
func (v *verification) search(ctx context.Context) error {
	index, ok := v.s.opts.Search.(SearchProver)
	if !ok {
		return nil
	}
	err := index.Prove(ctx, v.opts.Account, func(m MessageRef, text string) {
		v.found(Problem{Kind: ProblemSearch, Account: m.Account, Message: m.Message, Text: text})
	})
	v.progress()
	return err
}
