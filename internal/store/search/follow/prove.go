package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// Shared makes a Pick that several may call.
func Shared(pick Pick) Pick {
	var mu sync.Mutex
	return func(d *search.Document, r io.ReaderAt, size int64) error {
		mu.Lock()
		defer mu.Unlock()
		return pick(d, r, size)
	}
}

// Proof is what a proof of an index needs. All but Account are required.
type Proof struct {
	Source  store.SearchSource
	Pick    Pick // Shared
	Log     *slog.Logger
	Stem    bool
	Account store.AccountID // only this one; 0: all
	// Has tells whether all terms of the document are in the lists of the message, or the index does not claim so: because the
	// message is gone, not indexed yet, or incomplete there.
	Has   func(ctx context.Context, m store.MessageRef, d *search.Document) (bool, error)
	Found func(m store.MessageRef, text string)
}

// sampleSize is how many messages of a proof are looked up term by term; proofPage, how many one query lists.
const (
	sampleSize = 1000
	proofPage  = 5000
)

// Sample looks up the terms of some messages, at random so that each proof takes others.
func (p Proof) Sample(ctx context.Context) error {
	list, err := p.choose(ctx)
	if err != nil {
		return err
	}
	r := Reader{Source: p.Source, Pick: p.Pick, Log: p.Log, Doc: search.Document{Analyzer: search.Analyzer{Stem: p.Stem}}}
	for _, m := range list {
		r.tries = maxTries // not again: it is no candidate for a proof
		if err := r.Read(ctx, m); errors.Is(err, store.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if r.Doc.Incomplete() {
			continue // whatever the index has of it excludes nothing that could be read
		}
		ok, err := p.Has(ctx, m, &r.Doc)
		if err != nil {
			return fmt.Errorf("message %d of account %d: %w", m.Message, m.Account, err)
		}
		if !ok {
			p.Found(m, "the search index lacks terms of it")
		}
	}
	return nil
}

// choose draws the sample.
func (p Proof) choose(ctx context.Context) ([]store.MessageRef, error) {
	var chosen []store.MessageRef
	n := 0
	for last := store.MessageID(0); ; {
		page, err := p.Source.MessagesAfter(ctx, last, proofPage)
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			last = m.Message
			if p.Account != 0 && m.Account != p.Account {
				continue
			}
			n++
			if len(chosen) < sampleSize {
				chosen = append(chosen, m)
			} else if i := rand.IntN(n); i < sampleSize {
				chosen[i] = m
			}
		}
		if len(page) < proofPage {
			return chosen, ctx.Err()
		}
	}
}
