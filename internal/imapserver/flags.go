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
		case !hasKeyword(*keywords, k):
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
	before, err := r.snapshot(s, set)
	if err != nil {
		return reply{}, err
	}
	if len(before.uids) == 0 {
		return reply{}, nil
	}
	_, failed, err := s.srv.opt.Store.StoreFlags(ctx, s.acct, s.mbox, before.uids, r.change)
	if err != nil {
		return reply{}, err
	}
	if err := r.report(s, set, before, failed); err != nil {
		return reply{}, err
	}
	if len(failed) > 0 {
		return r.modified(s, failed), nil
	}
	return reply{}, nil
}

// flagSnapshot is what a client knows of the messages that a STORE names, before it.
type flagSnapshot struct {
	uids  []store.UID
	known []knownFlags // of each, for a silent STORE
	stale numSet       // sequence numbers of those that changed since the client was told
}

type knownFlags struct {
	flags    store.Flags
	keywords []string
}

// snapshot lists the messages of the set. What the client must have of each to know, without being told, what a silent
// STORE makes of it: should another session have changed one in between, the client could not tell, and must hear of it.
func (r *storeRequest) snapshot(s *session, set numSet) (*flagSnapshot, error) {
	n := set.size()
	before := &flagSnapshot{uids: make([]store.UID, 0, n)}
	if r.silent {
		before.known = make([]knownFlags, 0, n)
	}
	told := s.view.Mailbox().HighestModSeq
	for _, rg := range set {
		err := s.view.Entries(int(rg.lo), int(rg.hi), func(seq int, e *store.Entry) bool {
			before.uids = append(before.uids, e.UID)
			if r.silent {
				before.known = append(before.known, knownFlags{e.Flags, e.Keywords})
			}
			if e.ModSeq > told {
				before.stale = before.stale.add(uint32(seq))
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return before, nil
}

// report tells what a client must hear after STORE: every message of the set, or with .SILENT only the MODSEQ that the
// client cannot know (RFC 7162, section 3.1.3) and surprises. Each is told once, as it is after the command, so that a
// client which takes its own change for done when it sends the command ends up with the truth. The changes of other
// messages are told as ever.
func (r *storeRequest) report(s *session, set numSet, before *flagSnapshot, failed []store.UID) error {
	u := s.view.Sync(false)
	if u.Gone {
		s.sendUpdate(&u, nil)
		return nil
	}
	s.tellKeywords()
	b := s.scratch()
	at := 0 // in before: both ascend
	for _, rg := range set {
		for lo := int(rg.lo); lo <= int(rg.hi); lo += fetchBatch {
			err := s.view.Entries(lo, min(lo+fetchBatch-1, int(rg.hi)), func(seq int, e *store.Entry) bool {
				for at < len(before.uids)-1 && before.uids[at] < e.UID {
					at++
				}
				_, missed := slices.BinarySearch(failed, e.UID)
				switch {
				case before.stale.contains(uint32(seq)), !missed && (!r.silent || r.surprising(e, &before.known[at])):
					b = s.appendFlagFetch(b, seq, e, r.uid || s.condstore)
				case s.condstore && !missed:
					b = appendModSeqFetch(b, seq, e)
				}
				return true
			})
			if err != nil {
				return err
			}
			b = s.spill(b)
		}
	}
	s.write(b)
	s.sendUpdate(&u, func(seq int) bool { return !set.contains(uint32(seq)) })
	return nil
}

// surprising tells whether a message has other flags than those that the client must expect.
func (r *storeRequest) surprising(e *store.Entry, old *knownFlags) bool {
	ch := &r.change
	flags, kept, wanted := ch.Flags, []string(nil), ch.Keywords
	switch ch.Op {
	case store.FlagsAdd:
		flags, kept = old.flags|ch.Flags, old.keywords
	case store.FlagsRemove:
		flags, kept, wanted = old.flags&^ch.Flags, old.keywords, nil
	}
	if e.Flags != flags {
		return true
	}
	if len(e.Keywords)+len(kept)+len(wanted) == 0 {
		return false
	}
	expected := func(k string) bool {
		return hasKeyword(wanted, k) || hasKeyword(kept, k) && (ch.Op == store.FlagsAdd || !hasKeyword(ch.Keywords, k))
	}
	for _, k := range e.Keywords {
		if !expected(k) {
			return true
		}
	}
	for _, list := range [][]string{kept, wanted} {
		for _, k := range list {
			if expected(k) && !hasKeyword(e.Keywords, k) {
				return true
			}
		}
	}
	return false
}

func hasKeyword(list []string, k string) bool {
	return slices.ContainsFunc(list, func(o string) bool { return strings.EqualFold(o, k) })
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
