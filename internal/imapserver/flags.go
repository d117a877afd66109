package imapserver

import (
	"context"
	"slices"
	"strings"

	"waxwing/internal/store"
)

// Bounds of the flags in one command.
const (
	maxKeywords      = 64
	maxKeywordLength = 100
)

// flag reads one flag: a system flag, or a keyword. \Recent is let through and left out: clients write back what they
// read. Other names with a backslash are refused, for the mailbox has no such flags (RFC 3501, section 2.3.2).
func (p *parser) flag(flags *store.Flags, keywords *[]string) {
	if !p.take('\\') {
		k := p.atom("a flag")
		switch {
		case len(k) > maxKeywordLength:
			p.fail("keyword too long before this")
		case len(*keywords) >= maxKeywords:
			p.fail("too many keywords")
		case !slices.ContainsFunc(*keywords, func(o string) bool { return strings.EqualFold(o, k) }):
			*keywords = append(*keywords, k)
		}
		return
	}
	name := p.word("a system flag")
	if name == "RECENT" {
		return
	}
	for _, f := range flagNames {
		if strings.EqualFold(f.name[1:], name) {
			*flags |= f.flag
			return
		}
	}
	p.fail("unknown system flag before this")
}

// flagList reads a parenthesised list of flags.
func (p *parser) flagList() (flags store.Flags, keywords []string) {
	p.list(maxKeywords+8, func() { p.flag(&flags, &keywords) })
	return flags, keywords
}

// storeRequest is STORE, RFC 3501, section 6.4.6, with UNCHANGEDSINCE (RFC 7162, section 3.1.3).
type storeRequest struct {
	uid    bool
	set    numSet
	silent bool
	change store.FlagChange
}

func (r *storeRequest) parse(p *parser) {
	p.space()
	r.set = p.numSet()
	p.space()
	if p.peek() == '(' {
		p.list(4, func() {
			if p.word("a STORE modifier") != "UNCHANGEDSINCE" {
				p.fail("unknown STORE modifier before this")
			}
			p.space()
			r.change.UnchangedSince = store.ModSeq(p.modSeq())
			r.change.Conditional = true
		})
		p.space()
	}
	r.change.Op = store.FlagsSet
	if p.take('+') {
		r.change.Op = store.FlagsAdd
	} else if p.take('-') {
		r.change.Op = store.FlagsRemove
	}
	switch p.word("FLAGS") {
	case "FLAGS":
	case "FLAGS.SILENT":
		r.silent = true
	default:
		p.fail("expected FLAGS or FLAGS.SILENT before this")
	}
	p.space()
	if p.peek() == '(' {
		r.change.Flags, r.change.Keywords = p.flagList()
	} else {
		for p.ok() {
			p.flag(&r.change.Flags, &r.change.Keywords)
			if !p.take(' ') || p.peek() == 0 {
				break
			}
		}
	}
	p.end()
}

func (r *storeRequest) run(ctx context.Context, s *session) (reply, error) {
	if err := s.writable(); err != nil {
		return reply{}, err
	}
	if r.change.Conditional {
		s.enableCondstore()
	}
	set, err := s.sequences(r.set, r.uid)
	if err != nil {
		return reply{}, err
	}
	// What others changed before is told first, so that what remains is this command's doing.
	s.tell(false)
	if s.ending {
		return reply{}, errEnd
	}
	uids, before := r.snapshot(s, set)
	if len(uids) == 0 {
		return reply{}, nil
	}
	_, failed, err := s.srv.opt.Store.StoreFlags(ctx, s.acct, s.mbox, uids, r.change)
	if err != nil {
		return reply{}, err
	}
	r.report(s, set, failed, func(e *store.Entry) bool {
		i, known := slices.BinarySearch(uids, e.UID)
		return known && i < len(before) && r.surprising(e, before[i])
	})
	if len(failed) > 0 {
		return r.modified(s, failed), nil
	}
	return reply{}, nil
}

// knownFlags is what a client knows of one message's flags.
type knownFlags struct {
	flags    store.Flags
	keywords []string
}

// snapshot lists the UIDs of the set. For a silent STORE it also gives what the client knows of each message: should
// another session have changed one in between, the client could not tell what it holds now, and must hear of it. What
// replaces all flags leaves no doubt.
func (r *storeRequest) snapshot(s *session, set numSet) (uids []store.UID, before []knownFlags) {
	if !r.silent || r.change.Op == store.FlagsSet {
		return s.uids(set), nil
	}
	n := set.size()
	uids, before = make([]store.UID, 0, n), make([]knownFlags, 0, n)
	for _, rg := range set {
		s.view.Entries(int(rg.lo), int(rg.hi), func(_ int, e *store.Entry) bool {
			uids = append(uids, e.UID)
			before = append(before, knownFlags{e.Flags, e.Keywords})
			return true
		})
	}
	return uids, before
}

// report tells what a client must hear after STORE: every message of the set, or with .SILENT only the MODSEQ that the
// client cannot know (RFC 7162, section 3.1.3) and surprises. The changes of other messages are told as ever.
func (r *storeRequest) report(s *session, set numSet, failed []store.UID, surprise func(e *store.Entry) bool) {
	u := s.view.Sync(false)
	if u.Gone {
		s.sendUpdate(&u, nil)
		return
	}
	s.tellKeywords()
	b := s.scratch()
	if !r.silent || s.condstore {
		for _, rg := range set {
			for lo := int(rg.lo); lo <= int(rg.hi); lo += fetchBatch {
				s.view.Entries(lo, min(lo+fetchBatch-1, int(rg.hi)), func(seq int, e *store.Entry) bool {
					if _, missed := slices.BinarySearch(failed, e.UID); missed {
						return true
					}
					if !r.silent || surprise(e) {
						b = s.appendFlagFetch(b, seq, e, r.uid || s.condstore)
					} else {
						b = appendModSeqFetch(b, seq, e)
					}
					return true
				})
				b = s.spill(b)
			}
		}
	}
	s.write(b)
	s.sendUpdate(&u, func(seq int) bool {
		if !set.contains(uint32(seq)) {
			return true
		}
		if !r.silent || s.condstore {
			return false
		}
		e, alive := s.view.Entry(seq)
		return alive && surprise(&e)
	})
}

// surprising tells whether a message has other flags than those that the client must expect.
func (r *storeRequest) surprising(e *store.Entry, old knownFlags) bool {
	flags, keywords := old.flags, old.keywords
	has := func(list []string, k string) bool {
		return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, k) })
	}
	want := 0
	switch r.change.Op {
	case store.FlagsAdd:
		flags |= r.change.Flags
		want = len(keywords)
		for _, k := range r.change.Keywords {
			if !has(keywords, k) {
				want++
			}
		}
	case store.FlagsRemove:
		flags &^= r.change.Flags
		for _, k := range keywords {
			if !has(r.change.Keywords, k) {
				want++
			}
		}
	}
	return e.Flags != flags || len(e.Keywords) != want
}

// appendModSeqFetch writes the answer to a silent STORE of a client that knows MODSEQ.
func appendModSeqFetch(b []byte, seq int, e *store.Entry) []byte {
	b = append(b, "* "...)
	b = appendUint(b, seq)
	b = append(b, " FETCH (UID "...)
	b = appendUint(b, uint32(e.UID))
	b = append(b, " MODSEQ ("...)
	b = appendUint(b, uint64(e.ModSeq))
	return append(b, "))\r\n"...)
}

// modified answers a conditional STORE that left some messages alone.
func (r *storeRequest) modified(s *session, failed []store.UID) reply {
	code := []byte("MODIFIED ")
	if r.uid {
		return ok(string(appendUIDs(code, failed)), "Conditional STORE failed for some")
	}
	var seqs numSet
	for _, uid := range failed {
		if seq, found := s.view.Seq(uid); found {
			seqs = seqs.add(uint32(seq))
		}
	}
	return ok(string(appendSet(code, seqs)), "Conditional STORE failed for some")
}
