package imapserver

import (
	"context"
	"slices"

	"waxwing/internal/store"
)

// selectRequest is SELECT and EXAMINE, RFC 3501, sections 6.3.1 and 6.3.2, with CONDSTORE (RFC 7162, section 3.1.8).
type selectRequest struct {
	examine   bool
	name      string
	condstore bool
}

func (r *selectRequest) parse(p *parser) {
	p.space()
	r.name = p.mailbox()
	if p.ok() && p.pos < len(p.line) && p.take(' ') && p.peek() != 0 {
		p.list(8, func() {
			if p.word("a SELECT parameter") != "CONDSTORE" {
				p.fail("unknown SELECT parameter before this")
			}
			r.condstore = true
		})
	}
	p.end()
}

func (r *selectRequest) run(ctx context.Context, s *session) (reply, error) {
	// Whatever comes of it, the mailbox that was selected is so no more (RFC 7162, section 3.2.11).
	if s.view != nil {
		s.put("* OK [CLOSED] Previous mailbox closed\r\n")
	}
	s.closeView()
	s.state = authenticated
	if r.condstore {
		s.condstore = true
	}
	m, err := s.srv.opt.Store.Mailbox(ctx, s.acct, r.name)
	if err != nil {
		return reply{}, err
	}
	var options []store.ViewOption
	if r.examine {
		options = append(options, store.Peek())
	}
	view, err := s.srv.opt.Store.View(ctx, s.acct, m.ID, s.notice, options...)
	if err != nil {
		return reply{}, err
	}
	s.view, s.mbox, s.readOnly, s.state = view, m.ID, r.examine, selected
	if err := s.announce(); err != nil {
		s.closeView()
		s.state = authenticated
		return reply{}, err
	}
	if r.examine {
		return ok("READ-ONLY", "Mailbox opened for reading"), nil
	}
	return ok("READ-WRITE", "Mailbox opened"), nil
}

// announce tells what a client must know of the mailbox just selected.
func (s *session) announce() error {
	v := s.view
	first, err := v.FirstUnseen()
	if err != nil {
		return err
	}
	m := v.Mailbox()
	s.exists, s.recent = v.Len(), v.RecentCount()
	b := append(s.appendFlagNames(s.scratch()), "* "...)
	b = appendUint(b, s.exists)
	b = append(b, " EXISTS\r\n* "...)
	b = appendUint(b, s.recent)
	b = append(b, " RECENT\r\n"...)
	if first > 0 {
		b = append(b, "* OK [UNSEEN "...)
		b = appendUint(b, first)
		b = append(b, "] First unseen\r\n"...)
	}
	b = append(b, "* OK [UIDVALIDITY "...)
	b = appendUint(b, m.UIDValidity)
	b = append(b, "] UIDs valid\r\n* OK [UIDNEXT "...)
	b = appendUint(b, uint32(m.UIDNext))
	b = append(b, "] Next UID\r\n* OK [HIGHESTMODSEQ "...)
	b = appendUint(b, uint64(max(m.HighestModSeq, 1)))
	s.write(append(b, "] Highest\r\n"...))
	return nil
}

// appendFlagNames writes which flags there are in the selected mailbox, and which can be changed.
func (s *session) appendFlagNames(b []byte) []byte {
	const all = store.Answered | store.Flagged | store.Deleted | store.Seen | store.Draft
	keywords := s.view.Keywords()
	b = append(b, "* FLAGS "...)
	b = appendFlags(b, all, keywords, false)
	if s.readOnly {
		return append(b, "\r\n* OK [PERMANENTFLAGS ()] No flag can be changed\r\n"...)
	}
	b = append(b, "\r\n* OK [PERMANENTFLAGS "...)
	b = appendFlags(b, all, append(slices.Clip(keywords), `\*`), false)
	return append(b, "] Flags that stay\r\n"...)
}

// tellKeywords tells the flags again when a keyword has come or gone, so that the client knows each before it meets it on
// a message (RFC 3501, section 7.2.6).
func (s *session) tellKeywords() {
	if s.view.KeywordsChanged() {
		s.write(s.appendFlagNames(s.scratch()))
	}
}

// notice is called by the store, from any goroutine, when the mailbox has changed.
func (s *session) notice() {
	if s.idling.Load() {
		s.conn.Wake()
	}
}

func (s *session) closeView() {
	if s.view != nil {
		s.view.Close()
		s.view, s.mbox, s.readOnly, s.exists, s.recent = nil, 0, false, 0, 0
	}
}

// enableCondstore notes that the client knows MODSEQ. With a mailbox selected it learns the highest one then
// (RFC 7162, section 3.1).
func (s *session) enableCondstore() {
	if s.condstore {
		return
	}
	s.condstore = true
	if s.view != nil {
		b := append(s.scratch(), "* OK [HIGHESTMODSEQ "...)
		b = appendUint(b, uint64(max(s.view.Mailbox().HighestModSeq, 1)))
		s.write(append(b, "] Highest\r\n"...))
	}
}

// tell reports what changed in the selected mailbox; with expunge also what vanished.
func (s *session) tell(expunge bool) {
	u := s.view.Sync(expunge)
	s.sendUpdate(&u, func(int) bool { return true })
}

// sendUpdate writes an update; show tells whether the flags of a message, given by its sequence number, are news.
func (s *session) sendUpdate(u *store.Update, show func(seq int) bool) {
	if u.Gone {
		s.untagged(reply{statusBye, "NONEXISTENT", "The mailbox was deleted"})
		s.ending = true
		return
	}
	s.tellKeywords()
	b := s.scratch()
	for _, seq := range u.Expunged {
		b = append(b, "* "...)
		b = appendUint(b, seq)
		b = append(b, " EXPUNGE\r\n"...)
		b = s.spill(b)
	}
	s.exists -= len(u.Expunged)
	recent := s.recent
	if u.NewRecent > 0 || recent > 0 && len(u.Expunged) > 0 {
		recent = s.view.RecentCount()
	}
	more := u.Exists > s.exists
	if more {
		b = append(b, "* "...)
		b = appendUint(b, u.Exists)
		b = append(b, " EXISTS\r\n"...)
	}
	if more || recent != s.recent {
		b = append(b, "* "...)
		b = appendUint(b, recent)
		b = append(b, " RECENT\r\n"...)
	}
	s.exists, s.recent = u.Exists, recent
	for _, seq := range u.Changed {
		if !show(seq) {
			continue
		}
		if e, alive := s.view.Entry(seq); alive {
			b = s.appendFlagFetch(b, seq, &e, s.condstore)
			b = s.spill(b)
		}
	}
	s.write(b)
}

// spill sends what has been written when it has become much, and gives the empty buffer back.
func (s *session) spill(b []byte) []byte {
	if len(b) < 16<<10 {
		return b
	}
	s.write(b)
	return b[:0]
}

// appendFlagFetch writes an unsolicited FETCH: the UID is there so that a client of UID commands can use it (RFC 7162,
// section 3.2).
func (s *session) appendFlagFetch(b []byte, seq int, e *store.Entry, uid bool) []byte {
	b = append(b, "* "...)
	b = appendUint(b, seq)
	b = append(b, " FETCH ("...)
	if uid {
		b = append(b, "UID "...)
		b = appendUint(b, uint32(e.UID))
		b = append(b, ' ')
	}
	if s.condstore {
		b = append(b, "MODSEQ ("...)
		b = appendUint(b, uint64(e.ModSeq))
		b = append(b, ") "...)
	}
	b = append(b, "FLAGS "...)
	b = appendFlags(b, e.Flags, e.Keywords, s.view.Recent(e.UID))
	return append(b, ")\r\n"...)
}

// closeRequest is CLOSE (RFC 3501, section 6.4.2), which expunges without a word, and UNSELECT (RFC 3691).
type closeRequest struct{ expunge bool }

func (*closeRequest) parse(p *parser) { p.end() }

func (r *closeRequest) run(ctx context.Context, s *session) (reply, error) {
	var err error
	if r.expunge && !s.readOnly {
		var uids []store.UID
		if uids, err = s.view.Deleted(); len(uids) > 0 {
			_, err = s.srv.opt.Store.Expunge(ctx, s.acct, s.mbox, uids, true)
		}
	}
	s.closeView()
	s.state = authenticated
	return reply{}, err
}

// expungeRequest is EXPUNGE (RFC 3501, section 6.4.3) and UID EXPUNGE (RFC 4315, section 2.1).
type expungeRequest struct {
	uid bool
	set numSet
}

func (r *expungeRequest) parse(p *parser) {
	if r.uid {
		p.space()
		r.set = p.numSet()
	}
	p.end()
}

func (r *expungeRequest) run(ctx context.Context, s *session) (reply, error) {
	if err := s.writable(); err != nil {
		return reply{}, err
	}
	var within numSet
	if r.uid {
		within = r.set.resolve(s.lastUID())
		if len(within) == 0 {
			return reply{}, nil
		}
	}
	uids, err := s.view.Deleted()
	if err != nil {
		return reply{}, err
	}
	if within != nil {
		uids = slices.DeleteFunc(uids, func(uid store.UID) bool { return !within.contains(uint32(uid)) })
	}
	if len(uids) == 0 {
		return reply{}, nil
	}
	_, err = s.srv.opt.Store.Expunge(ctx, s.acct, s.mbox, uids, true)
	return reply{}, err
}

// writable refuses a change of a mailbox that was opened by EXAMINE.
func (s *session) writable() error {
	if s.readOnly {
		return no("CANNOT", "Mailbox is open for reading only")
	}
	return nil
}

// lastUID is what "*" stands for in a set of UIDs; 0 in an empty mailbox.
func (s *session) lastUID() uint32 {
	if n := s.view.Len(); n > 0 {
		return uint32(s.view.UID(n))
	}
	return 0
}

// sequences resolves the set of a command to ranges of sequence numbers. A sequence number beyond the mailbox is an
// error of the client (RFC 3501, section 9: seq-number); a UID that is not there is none.
func (s *session) sequences(set numSet, uid bool) (numSet, error) {
	if !uid {
		if n := s.view.Len(); n == 0 || set.largest() > uint32(n) { // "*" too names no message in an empty mailbox
			return nil, bad("No message with this sequence number")
		}
		return set.resolve(uint32(s.view.Len())), nil
	}
	out := make(numSet, 0, len(set))
	for _, r := range set.resolve(s.lastUID()) {
		first, last := s.view.SeqRange(store.UID(r.lo), store.UID(r.hi))
		if first > 0 && first <= last {
			out = append(out, numRange{uint32(first), uint32(last)})
		}
	}
	return out.merge(), nil
}

// uids lists the UIDs at a resolved set of sequence numbers, ascending, those only that are still there.
func (s *session) uids(set numSet) ([]store.UID, error) {
	uids := make([]store.UID, 0, set.size())
	for _, r := range set {
		err := s.view.Entries(int(r.lo), int(r.hi), func(_ int, e *store.Entry) bool {
			uids = append(uids, e.UID)
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return uids, nil
}
