package surge

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/guard/batch"
	"waxwing/internal/store"
)

const (
	saveEvery  = 30 * time.Minute // of one account
	lookEvery  = 10 * time.Second // whether an account has chosen anew while its mail surges
	savesAtOne = 500              // accounts a beat
)

// hash is of a domain, in this process only.
func (w *Watch) hash(domain string) uint64 { return digest("domain", domain) }

// sender is the hash of a sender, which is written down.
func (w *Watch) sender(a address.Address) uint64 { return digest("sender", a.Key()) }

func digest(what, text string) uint64 {
	sum := sha256.Sum256([]byte(what + "\x00" + text))
	return binary.BigEndian.Uint64(sum[:])
}

// Run reads what was usual, tells of surges and writes down what has become usual until ctx ends, and then once more.
func (w *Watch) Run(ctx context.Context) {
	batch.Run(ctx, batch.Work{
		Name: "mail bombs", Logger: w.opts.Logger, Every: lookEvery, Expire: w.look,
		Flush: func(beat context.Context) error { return w.beat(beat, ctx.Err() != nil) },
	})
}

// Flush does what Run does at each beat, and saves all accounts.
func (w *Watch) Flush(ctx context.Context) error { return w.beat(ctx, true) }

func (w *Watch) beat(ctx context.Context, all bool) error {
	w.mu.Lock()
	events := w.events
	w.events = nil
	var load []store.AccountID
	for id := range w.load {
		load = append(load, id)
	}
	clear(w.load)
	w.mu.Unlock()
	for _, e := range events {
		w.opts.Happened(ctx, e)
	}
	return errors.Join(w.read(ctx, load), w.save(ctx, all))
}

// read takes over what the store knows of accounts.
func (w *Watch) read(ctx context.Context, ids []store.AccountID) error {
	for i, id := range ids {
		row, err := w.opts.Store.SurgeRow(ctx, id)
		w.mu.Lock()
		if err != nil {
			for _, later := range ids[i:] {
				w.load[later] = true
			}
			w.mu.Unlock()
			return err
		}
		if a := w.accounts[id]; a != nil {
			a.action, a.told = Action(row.Action), row.Told
			if !a.loaded {
				a.loaded = true
				a.saved = w.opts.Clock()
				a.adopt(row.Usual, w.opts.Clock())
			}
		}
		w.mu.Unlock()
	}
	return nil
}

// look asks again for what surging accounts have chosen, and ends the surges of those that get no mail any more.
func (w *Watch) look(ctx context.Context) error {
	w.mu.Lock()
	var ids []store.AccountID
	now, p := w.opts.Clock(), w.opts.Policy()
	for id, a := range w.accounts {
		if a.quiet() {
			continue
		}
		ids = append(ids, id)
		a.decay(now)
		for k := range a.surging {
			if a.surging[k] && a.lately[k] < a.limit(Kind(k), p)/2 {
				w.ends(id, a, Kind(k))
			}
		}
	}
	w.mu.Unlock()
	return w.read(ctx, ids)
}

// Reload has an account's choice be read anew at the next beat.
func (w *Watch) Reload(id store.AccountID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.accounts[id] != nil {
		w.load[id] = true
	}
}

// save writes down the accounts whose time has come, or all.
func (w *Watch) save(ctx context.Context, all bool) error {
	w.mu.Lock()
	now := w.opts.Clock()
	var rows []store.SurgeRow
	for id, a := range w.accounts {
		if !a.dirty || !a.loaded || !all && (len(rows) >= savesAtOne || now.Sub(a.saved) < saveEvery && !now.Before(a.saved)) {
			continue
		}
		a.dirty, a.saved = false, now
		rows = append(rows, store.SurgeRow{Account: id, Usual: a.bytes(), Saved: now})
	}
	w.mu.Unlock()
	left, err := batch.InParts(rows, func(part []store.SurgeRow) error { return w.opts.Store.SaveSurges(ctx, part) })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range left {
		if a := w.accounts[r.Account]; a != nil {
			a.dirty = true
		}
	}
	return err
}

// The form of what is usual: a version, when it held, the averages, what was sent, and the senders.
const (
	formVersion = 1
	formHead    = 1 + 8 + 8*int(kinds) + 8
	formSender  = 8 + 8
)

func (a *account) bytes() []byte {
	b := make([]byte, 0, formHead+formSender*len(a.heard))
	b = append(b, formVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(a.at.Unix()))
	for _, u := range a.usually {
		b = binary.BigEndian.AppendUint64(b, math.Float64bits(u))
	}
	b = binary.BigEndian.AppendUint64(b, math.Float64bits(a.sent))
	for _, h := range a.heard {
		b = binary.BigEndian.AppendUint64(b, h.sender)
		b = binary.BigEndian.AppendUint64(b, uint64(h.first))
	}
	return b
}

// adopt adds what was written down to what came since. What can't be read is as if it weren't there.
func (a *account) adopt(b []byte, now time.Time) {
	if len(b) < formHead || b[0] != formVersion {
		return
	}
	b = b[1:]
	next := func() (v uint64) {
		v, b = binary.BigEndian.Uint64(b), b[8:]
		return v
	}
	old := account{at: time.Unix(int64(next()), 0), cleared: now}
	for k := range old.usually {
		old.usually[k] = finite(next())
	}
	old.sent = finite(next())
	for len(b) >= formSender && len(old.heard) < ringSize {
		old.heard = append(old.heard, heard{next(), int64(next())})
	}
	old.decay(now)
	for k := range a.usually {
		a.usually[k] += old.usually[k]
	}
	a.sent += old.sent
	since := a.heard
	a.heard = old.heard
	for _, h := range since {
		a.hear(h.sender, time.Unix(h.first, 0))
	}
}

// finite reads a number that is 0 or more.
func finite(bits uint64) float64 {
	f := math.Float64frombits(bits)
	if math.IsNaN(f) || f < 0 || f > 1e12 {
		return 0
	}
	return f
}
