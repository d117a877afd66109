package imapserver

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"waxwing/internal/store"
)

// verdict is what is known of a key without looking into the message.
type verdict uint8

const (
	verdictNo verdict = iota
	verdictYes
	verdictMaybe
)

// found is one message of the result.
type found struct {
	seq    int
	uid    store.UID
	modSeq store.ModSeq
}

// searcher is one SEARCH under way.
type searcher struct {
	*searchRequest
	s       *session
	ctx     context.Context
	results []found
	batch   []searchEntry
}

// searchEntry is a message that may match; sure tells that the index has decided already.
type searchEntry struct {
	fetchEntry
	sure bool
}

func (r *searchRequest) run(_ context.Context, s *session) (reply, error) {
	if r.modSeq {
		s.enableCondstore()
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	r.key.resolve(uint32(s.view.Len()), s.lastUID())
	q := &searcher{searchRequest: r, s: s, ctx: ctx}
	ranges := r.candidates(s)
	if ranges.count() >= narrowFrom {
		q.narrow(&r.key)
	}
	for _, rg := range ranges {
		if err := q.scan(int(rg.lo), int(rg.hi)); err != nil {
			return reply{}, err
		}
	}
	q.answer()
	return reply{}, nil
}

// resolve puts the numbers of the mailbox in the place of "*" in all sets.
func (k *searchKey) resolve(last, lastUID uint32) {
	switch k.op {
	case keySeq:
		k.set = k.set.resolve(last)
	case keyUID:
		k.set = k.set.resolve(lastUID)
	}
	for i := range k.kids {
		k.kids[i].resolve(last, lastUID)
	}
}

// candidates narrows the search to the numbers that a set at the top of the program allows.
func (r *searchRequest) candidates(s *session) numSet {
	n := uint32(s.view.Len())
	if n == 0 {
		return nil
	}
	for i := range r.key.kids {
		switch k := &r.key.kids[i]; k.op {
		case keySeq:
			var out numSet
			for _, rg := range k.set {
				if rg.lo <= n {
					out = append(out, numRange{rg.lo, min(rg.hi, n)})
				}
			}
			return out
		case keyUID:
			out, err := s.sequences(k.set, true)
			if err == nil {
				return out
			}
		}
	}
	return numSet{{1, n}}
}

// searchBatch is how many entries are judged under one lock; a body search hands a batch to its workers.
const searchBatch = 512

// scan judges a range of sequence numbers.
func (q *searcher) scan(first, last int) error {
	for lo := first; lo <= last; lo += searchBatch {
		q.batch = q.batch[:0]
		err := q.s.view.Entries(lo, min(lo+searchBatch-1, last), func(seq int, e *store.Entry) bool {
			switch q.key.judge(q.s, seq, e) {
			case verdictYes:
				if q.key.cost == costIndex {
					q.results = append(q.results, found{seq, e.UID, e.ModSeq})
					return true
				}
				q.batch = append(q.batch, searchEntry{fetchEntry{seq, *e}, true})
			case verdictMaybe:
				q.batch = append(q.batch, searchEntry{fetchEntry{seq, *e}, false})
			}
			return true
		})
		if err != nil {
			return err
		}
		if err := q.read(); err != nil {
			return err
		}
		if err := q.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// read looks into the messages of the batch, on more than one core when there are many.
func (q *searcher) read() error {
	n := len(q.batch)
	if n == 0 {
		return nil
	}
	hits := make([]bool, n)
	workers := min(runtime.GOMAXPROCS(0), 4, (n+15)/16)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	work := func() {
		defer func() {
			// Like a session's own: a defect met in one message ends this session, not the server.
			if p := recover(); p != nil {
				err := fmt.Errorf("imapserver: panic in SEARCH: %v\n%s", p, debug.Stack())
				failed.CompareAndSwap(nil, &err)
			}
		}()
		t := newTextSearch(q.s, q.ctx)
		defer t.close()
		for failed.Load() == nil && q.ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			e := &q.batch[i]
			if e.sure {
				hits[i] = true
				continue
			}
			hit, err := t.message(&q.key, &e.fetchEntry)
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				return
			}
			hits[i] = hit
		}
	}
	var others sync.WaitGroup
	for range workers - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	for i := range q.batch {
		if e := &q.batch[i]; hits[i] {
			q.results = append(q.results, found{e.seq, e.UID, e.ModSeq})
		}
	}
	return nil
}

// judge asks what the index knows. A key that needs the message is a maybe, unless the others decide.
func (k *searchKey) judge(s *session, seq int, e *store.Entry) verdict {
	if k.cost == costIndex {
		if k.holds(s, seq, e) {
			return verdictYes
		}
		return verdictNo
	}
	switch k.op {
	case keyAnd, keyOr:
		decisive := verdictNo
		if k.op == keyOr {
			decisive = verdictYes
		}
		out := verdictYes - decisive
		for i := range k.kids {
			switch k.kids[i].judge(s, seq, e) {
			case decisive:
				return decisive
			case verdictMaybe:
				out = verdictMaybe
			}
		}
		return out
	case keyNot:
		if v := k.kids[0].judge(s, seq, e); v != verdictMaybe {
			return verdictYes - v
		}
	case keyHeader, keyBody, keyText:
		if k.hits.Excludes(int64(e.Message)) {
			return verdictNo
		}
	}
	return verdictMaybe
}

// holds decides a key that needs no look into the message.
func (k *searchKey) holds(s *session, seq int, e *store.Entry) bool {
	switch k.op {
	case keyAll:
		return true
	case keyFlag:
		return e.Flags&k.flag != 0
	case keyKeyword:
		return hasKeyword(e.Keywords, k.text)
	case keyRecent:
		return s.view.Recent(e.UID)
	case keyBefore, keyOn, keySince:
		return k.dateHolds(dayNumber(e.InternalDate))
	case keyLarger:
		return e.Size > int64(k.number)
	case keySmaller:
		return e.Size < int64(k.number)
	case keySeq:
		return k.set.contains(uint32(seq))
	case keyUID:
		return k.set.contains(uint32(e.UID))
	case keyModSeq:
		return uint64(e.ModSeq) >= k.number
	case keyAnd:
		for i := range k.kids {
			if !k.kids[i].holds(s, seq, e) {
				return false
			}
		}
		return true
	case keyOr:
		return k.kids[0].holds(s, seq, e) || k.kids[1].holds(s, seq, e)
	case keyNot:
		return !k.kids[0].holds(s, seq, e)
	}
	return false
}

func (k *searchKey) dateHolds(day int64) bool {
	switch k.op {
	case keyBefore:
		return day < int64(k.number)
	case keyOn:
		return day == int64(k.number)
	}
	return day >= int64(k.number)
}

// answer writes the result.
func (q *searcher) answer() {
	if q.extended {
		q.answerExtended()
		return
	}
	b := append(q.s.scratch(), "* SEARCH"...)
	for i := range q.results {
		b = append(b, ' ')
		b = appendUint(b, q.number(&q.results[i]))
		b = q.s.spill(b)
	}
	if q.modSeq && len(q.results) > 0 {
		b = append(b, " (MODSEQ "...)
		b = appendUint(b, uint64(highest(q.results)))
		b = append(b, ')')
	}
	q.s.write(append(b, '\r', '\n'))
}

// number is how the command counts messages.
func (q *searcher) number(f *found) uint32 {
	if q.uid {
		return uint32(f.uid)
	}
	return uint32(f.seq)
}

func highest(results []found) (m store.ModSeq) {
	for i := range results {
		m = max(m, results[i].modSeq)
	}
	return m
}

// answerExtended writes ESEARCH (RFC 4731, section 3.1).
func (q *searcher) answerExtended() {
	b := append(q.s.scratch(), "* ESEARCH (TAG "...)
	b = appendString(b, q.tag)
	b = append(b, ')')
	if q.uid {
		b = append(b, " UID"...)
	}
	if n := len(q.results); n > 0 {
		first, last := &q.results[0], &q.results[n-1]
		if q.returns&returnMin != 0 {
			b = append(b, " MIN "...)
			b = appendUint(b, q.number(first))
		}
		if q.returns&returnMax != 0 {
			b = append(b, " MAX "...)
			b = appendUint(b, q.number(last))
		}
		if q.returns&returnAll != 0 {
			var set numSet
			for i := range q.results {
				set = set.add(q.number(&q.results[i]))
			}
			b = appendSet(append(b, " ALL "...), set)
		}
		if q.modSeq {
			b = append(b, " MODSEQ "...)
			b = appendUint(b, uint64(q.returnedModSeq(first, last)))
		}
	}
	if q.returns&returnCount != 0 {
		b = append(b, " COUNT "...)
		b = appendUint(b, len(q.results))
	}
	q.s.write(append(b, '\r', '\n'))
}

// returnedModSeq is the highest MODSEQ of the messages that the answer names (RFC 7162, section 3.1.10).
func (q *searcher) returnedModSeq(first, last *found) store.ModSeq {
	if q.returns&(returnAll|returnCount) != 0 {
		return highest(q.results)
	}
	var m store.ModSeq
	if q.returns&returnMin != 0 {
		m = first.modSeq
	}
	if q.returns&returnMax != 0 {
		m = max(m, last.modSeq)
	}
	return m
}

// skippable tells whether a message that can't be read is left out of the result instead of failing the search.
func skippable(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt)
}
