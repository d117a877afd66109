package fts

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
)

// proof is one run of Prove over the file that was open when it began.
type proof struct {
	*Index
	db    *database
	mark  store.MessageID // where the index stood when it began: it had claimed all up to there, and nothing above
	acct  store.AccountID
	found func(store.MessageRef, string)
}

// Prove implements store.SearchProver. An index that is being made anew claims nothing.
func (x *Index) Prove(ctx context.Context, acct store.AccountID, found func(store.MessageRef, string)) error {
	p := x.proof(acct, found)
	if p.db == nil {
		return nil
	}
	err := p.run(ctx)
	switch {
	case err == nil || p.db != x.current():
		return nil
	case mustDiscard(err):
		found(store.MessageRef{Account: acct}, err.Error())
		return nil
	}
	return err
}

// proof begins a proof. The mark is read before anything is looked up, since the index grows meanwhile.
func (x *Index) proof(acct store.AccountID, found func(store.MessageRef, string)) proof {
	return proof{x, x.current(), store.MessageID(x.upto.Load()), acct, found}
}

// current is the open file, nil while there is none or it is to be discarded.
func (x *Index) current() *database {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if x.damaged.Load() {
		return nil
	}
	return x.db
}

func (p proof) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{p.file, p.unknown, p.dead, follow.Proof{
		Source: p.src, Pick: p.opts.Pick, Log: p.log, Stem: p.opts.Stem, Account: p.acct, Has: p.has, Found: p.found,
	}.Sample} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("fts: prove: %w", err)
		}
	}
	return nil
}

// file has SQLite look through the pages, and FTS5 through the lists.
func (p proof) file(ctx context.Context) error {
	rows, err := p.db.reader.QueryContext(ctx, `PRAGMA quick_check`)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return fmt.Errorf("check: %w", err)
		}
		if line != "ok" {
			p.found(store.MessageRef{}, "the file of the search index: "+line)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if _, err := p.db.writer.ExecContext(ctx, `INSERT INTO term (term) VALUES ('integrity-check')`); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return nil
}

// unknown finds messages up to the mark without terms.
func (p proof) unknown(ctx context.Context) error {
	for last := store.MessageID(0); last < p.mark; {
		page, err := p.src.MessagesAfter(ctx, last, sweepStep)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, m := range page {
			last = m.Message
			row, ok := rowOf(m.Account, m.Message)
			if !ok || last > p.mark || p.acct != 0 && m.Account != p.acct {
				continue
			}
			if known, err := p.kept(ctx, row); err != nil {
				return err
			} else if known {
				continue
			}
			if gone, err := p.src.GoneMessages(ctx, []store.MessageID{m.Message}); err != nil {
				return err
			} else if len(gone) == 0 {
				p.found(m, "the search index does not know it")
			}
		}
	}
	return nil
}

// dead finds terms whose messages are gone, but for those that are about to be removed.
func (p proof) dead(ctx context.Context) error {
	for last := int64(0); ; {
		rows, err := rowsAfter(ctx, p.db.reader, last, sweepStep)
		if err != nil || len(rows) == 0 {
			return err
		}
		last = rows[len(rows)-1]
		ids := make([]store.MessageID, len(rows))
		byID := make(map[store.MessageID]int64, len(rows))
		for i, row := range rows {
			ids[i] = messageOf(row)
			byID[ids[i]] = row
		}
		gone, err := p.src.GoneMessages(ctx, ids)
		if err != nil {
			return err
		}
		for _, id := range gone {
			m := store.MessageRef{Account: store.AccountID(byID[id] >> messageBits), Message: id}
			if p.acct != 0 && m.Account != p.acct || p.leaving(m) {
				continue
			}
			if still, err := p.kept(ctx, byID[id]); err != nil {
				return err
			} else if still {
				p.found(m, "the search index has terms of it, and it is gone")
			}
		}
	}
}

// leaving tells a message that is gone and whose terms go soon.
func (x *Index) leaving(m store.MessageRef) bool {
	x.goneMu.Lock()
	defer x.goneMu.Unlock()
	return x.missed || slices.ContainsFunc(x.gone, func(g store.MessageRef) bool { return g.Account == m.Account && g.Message == m.Message })
}

// kept tells whether the index has a row.
func (p proof) kept(ctx context.Context, row int64) (known bool, err error) {
	err = p.db.reader.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM term_docsize WHERE id = $1)`, row).Scan(&known)
	if err != nil {
		err = fmt.Errorf("message %d: %w", messageOf(row), err)
	}
	return known, err
}

// lookupTerms is how many terms one lookup asks for.
const lookupTerms = 100

func (p proof) has(ctx context.Context, m store.MessageRef, d *search.Document) (bool, error) {
	row, ok := rowOf(m.Account, m.Message)
	if !ok || m.Message > p.mark {
		return true, nil
	}
	terms := strings.Fields(string(d.AppendTerms(appendAccountTerm(nil, m.Account, false))))
	for part := range slices.Chunk(terms, lookupTerms) {
		list := make([]search.Term, len(part))
		for i, t := range part {
			list[i].Text = t
		}
		if ok, err := p.holds(ctx, row, expression(nil).all(list)); err != nil {
			return false, err
		} else if !ok {
			return p.excused(ctx, m, row)
		}
	}
	return true, nil
}

func (p proof) holds(ctx context.Context, row int64, e expression) (ok bool, err error) {
	err = p.db.reader.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM term WHERE term MATCH $1 AND rowid = $2)`, string(e), row).Scan(&ok)
	if err != nil {
		err = fmt.Errorf("match: %w", err)
	}
	return ok, err
}

// excused tells a message of which the index does not claim to have all terms.
func (p proof) excused(ctx context.Context, m store.MessageRef, row int64) (bool, error) {
	if gone, err := p.src.GoneMessages(ctx, []store.MessageID{m.Message}); err != nil || len(gone) > 0 {
		return true, err
	}
	incomplete := strings.Fields(string(appendAccountTerm(nil, m.Account, true)))[1]
	return p.holds(ctx, row, expression(nil).term(search.Term{Text: incomplete}))
}

// Renew implements store.SearchProver.
func (x *Index) Renew(context.Context) error {
	x.damaged.Store(true)
	x.engine.Poke()
	return nil
}
