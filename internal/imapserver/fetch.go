package imapserver

import (
	"context"
	"errors"

	"waxwing/internal/store"
)

// fetchBatch is how many entries are looked at under one lock of the store; the network is written between batches.
const fetchBatch = 256

// fetcher is one FETCH under way.
type fetcher struct {
	*fetchRequest
	s       *session
	ctx     context.Context
	seen    numSet // sequence numbers whose \Seen this command has set: their FLAGS are news
	batch   []fetchEntry
	ids     []store.MessageID
	kept    map[store.MessageID]keptItems
	arena   []byte // what kept points into
	out     []byte
	body    bodyReader
	missing int  // messages that are gone
	damaged int  // messages that can't be read
	begun   bool // a part of the answer for the present message has been sent
}

// fetchEntry is one message of a batch.
type fetchEntry struct {
	seq int
	store.Entry
}

// keptItems are the wire texts made at delivery: ends in fetcher.arena.
type keptItems struct{ start, envelope, structure int }

func (r *fetchRequest) run(_ context.Context, s *session) (reply, error) {
	set, err := s.sequences(r.set, r.uid)
	if err != nil {
		return reply{}, err
	}
	if r.items&fetchModSeq != 0 {
		s.enableCondstore()
	}
	if r.items&fetchFlags != 0 {
		s.tellKeywords()
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	if r.conditional {
		if set, err = s.changed(set, r.changedSince); err != nil {
			return reply{}, err
		}
	}
	f := &fetcher{fetchRequest: r, s: s, ctx: ctx}
	if err := f.setSeen(set); err != nil {
		return reply{}, err
	}
	if s.ending {
		return reply{}, errEnd
	}
	f.out = s.scratch()
	if r.items&fetchSummary == 0 && r.items&fetchBody == 0 && len(r.sections) == 0 {
		err = f.metadata(set)
	} else {
		f.body.open(s, ctx)
		err = f.messages(set)
		f.body.close()
	}
	if err != nil {
		return reply{}, err
	}
	switch {
	case f.damaged > 0:
		return reply{}, no("CORRUPTION", "Some messages are damaged and were left out")
	case f.missing > 0 && !r.uid:
		return reply{}, no("EXPUNGEISSUED", "Some messages are gone")
	}
	return reply{}, nil
}

// setSeen sets \Seen on all messages of the set whose body is asked for, in one transaction. When it fails the
// messages are served all the same: reading goes on where writing does not.
func (f *fetcher) setSeen(set numSet) error {
	implicit := false
	for i := range f.sections {
		implicit = implicit || !f.sections[i].peek
	}
	if !implicit || f.s.readOnly {
		return nil
	}
	var uids []store.UID
	for _, r := range set {
		err := f.s.view.Entries(int(r.lo), int(r.hi), func(seq int, e *store.Entry) bool {
			if e.Flags&store.Seen == 0 && !f.unchanged(e) {
				uids = append(uids, e.UID)
				f.seen = f.seen.add(uint32(seq))
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	if len(uids) == 0 {
		return nil
	}
	change := store.FlagChange{Op: store.FlagsAdd, Flags: store.Seen}
	if _, _, err := f.s.srv.opt.Store.StoreFlags(f.ctx, f.s.acct, f.s.mbox, uids, change); err != nil {
		f.seen = nil
		f.s.log.Warn("messages could not be marked as seen", "mailbox", f.s.mbox, "messages", len(uids), "error", err)
		return nil
	}
	u := f.s.view.Sync(false)
	f.s.sendUpdate(&u, func(seq int) bool { return !f.seen.contains(uint32(seq)) })
	return nil
}

// changed leaves of a set the messages that changed after since: the store knows them without reading the others.
func (s *session) changed(set numSet, since store.ModSeq) (out numSet, err error) {
	err = s.view.ChangedSince(since, func(seq int, _ *store.Entry) bool {
		if n := uint32(seq); set.contains(n) {
			out = out.add(n)
		}
		return true
	})
	return out, err
}

// unchanged tells whether CHANGEDSINCE leaves a message out.
func (f *fetcher) unchanged(e *store.Entry) bool {
	return f.conditional && e.ModSeq <= f.changedSince
}

// metadata answers from the index alone: the text is made while the index is locked, and written after it.
func (f *fetcher) metadata(set numSet) error {
	for _, r := range set {
		for lo := int(r.lo); lo <= int(r.hi); lo += fetchBatch {
			hi := min(lo+fetchBatch-1, int(r.hi))
			b, found := f.out[:0], 0
			err := f.s.view.Entries(lo, hi, func(seq int, e *store.Entry) bool {
				found++
				if f.unchanged(e) {
					return true
				}
				b = append(b, "* "...)
				b = appendUint(b, seq)
				b = append(b, " FETCH ("...)
				b = f.appendItems(b, seq, e)
				b = append(b, ")\r\n"...)
				return true
			})
			if err != nil {
				return err
			}
			f.missing += hi - lo + 1 - found
			f.flush(b)
			if err := f.broken(); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes b and keeps its room.
func (f *fetcher) flush(b []byte) {
	f.s.write(b)
	f.out = b[:0]
}

// broken tells whether it is of no use to go on.
func (f *fetcher) broken() error {
	if f.s.werr != nil {
		return f.s.werr
	}
	return f.ctx.Err()
}

// appendItems writes the items that the index knows, a space between them and none behind the last.
func (f *fetcher) appendItems(b []byte, seq int, e *store.Entry) []byte {
	items := f.items
	if f.seen != nil && f.seen.contains(uint32(seq)) {
		items |= fetchFlags
		if f.s.condstore {
			items |= fetchModSeq
		}
	}
	start := len(b)
	if items&fetchUID != 0 {
		b = append(b, "UID "...)
		b = appendUint(b, uint32(e.UID))
	}
	if items&fetchFlags != 0 {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, "FLAGS "...)
		b = appendFlags(b, e.Flags, e.Keywords, f.s.view.Recent(e.UID))
	}
	if items&fetchModSeq != 0 {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, "MODSEQ ("...)
		b = appendUint(b, uint64(e.ModSeq))
		b = append(b, ')')
	}
	if items&fetchInternalDate != 0 {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, "INTERNALDATE "...)
		b = appendDateTime(b, e.InternalDate)
	}
	if items&fetchSize != 0 {
		if len(b) > start {
			b = append(b, ' ')
		}
		b = append(b, "RFC822.SIZE "...)
		b = appendUint(b, e.Size)
	}
	return b
}

// messages answers with items that need what is kept beside the messages, or their octets.
func (f *fetcher) messages(set numSet) error {
	for _, r := range set {
		for lo := int(r.lo); lo <= int(r.hi); lo += fetchBatch {
			hi := min(lo+fetchBatch-1, int(r.hi))
			f.batch = f.batch[:0]
			found := 0
			err := f.s.view.Entries(lo, hi, func(seq int, e *store.Entry) bool {
				found++
				if !f.unchanged(e) {
					f.batch = append(f.batch, fetchEntry{seq, *e})
				}
				return true
			})
			if err != nil {
				return err
			}
			f.missing += hi - lo + 1 - found
			if f.items&fetchSummary != 0 && len(f.batch) > 0 {
				if err := f.summaries(); err != nil {
					return err
				}
			}
			for i := range f.batch {
				if err := f.message(&f.batch[i]); err != nil {
					return err
				}
				if err := f.broken(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// summaries reads what is kept beside the messages of the batch.
func (f *fetcher) summaries() error {
	if f.kept == nil {
		f.kept = make(map[store.MessageID]keptItems, fetchBatch)
	}
	clear(f.kept)
	f.ids, f.arena = f.ids[:0], f.arena[:0]
	for i := range f.batch {
		f.ids = append(f.ids, f.batch[i].Message)
	}
	return f.s.srv.opt.Store.Summaries(f.ctx, f.s.acct, f.ids, func(id store.MessageID, sum *store.Summary) error {
		k := keptItems{start: len(f.arena)}
		if f.items&fetchEnvelope != 0 {
			f.arena = append(f.arena, sum.Envelope...)
		}
		k.envelope = len(f.arena)
		if f.items&fetchBodyStructure != 0 {
			f.arena = append(f.arena, sum.BodyStructure...)
		}
		k.structure = len(f.arena)
		f.kept[id] = k
		return nil
	})
}

// message writes the answer for one message. One that can't be read is left out as a whole, unless a large part of the
// answer has been sent already: then only the end of the connection tells the peer.
func (f *fetcher) message(e *fetchEntry) error {
	f.body.reset(e.Message, e.Size)
	f.begun = false
	b := append(f.out[:0], "* "...)
	b = appendUint(b, e.seq)
	b = append(b, " FETCH ("...)
	start := len(b)
	b = f.appendItems(b, e.seq, &e.Entry)
	if f.items&fetchSummary != 0 {
		k, known := f.kept[e.Message]
		if !known {
			f.missing++
			return nil
		}
		if f.items&fetchEnvelope != 0 {
			b = separate(b, start)
			b = append(b, "ENVELOPE "...)
			b = append(b, f.arena[k.start:k.envelope]...)
		}
		if f.items&fetchBodyStructure != 0 {
			b = separate(b, start)
			b = append(b, "BODYSTRUCTURE "...)
			b = append(b, f.arena[k.envelope:k.structure]...)
		}
	}
	var err error
	if f.items&fetchBody != 0 {
		b = separate(b, start)
		b, err = f.body.appendStructure(append(b, "BODY "...))
	}
	for i := range f.sections {
		if err != nil {
			break
		}
		b = separate(b, start)
		b, err = f.appendSection(b, &f.sections[i])
	}
	if err != nil {
		f.out = b[:0]
		return f.unreadable(e, err)
	}
	f.flush(append(b, ")\r\n"...))
	return nil
}

// separate puts a space behind an earlier item.
func separate(b []byte, start int) []byte {
	if len(b) > start {
		return append(b, ' ')
	}
	return b
}

// appendSection writes one section. A small one is appended, so that one write takes the whole answer; what is streamed
// has been checked to exist before its announcement goes out.
func (f *fetcher) appendSection(b []byte, sec *section) ([]byte, error) {
	c, err := f.body.section(sec)
	if err != nil {
		return b, err
	}
	b = append(b, sec.label...)
	if c.none {
		return append(b, "NIL"...), nil
	}
	b = append(b, '{')
	b = appendUint(b, c.size())
	b = append(b, "}\r\n"...)
	switch {
	case c.text != nil && len(c.text) <= 8<<10:
		return append(b, c.text...), nil
	case c.text != nil:
		f.begun = true
		f.s.write(b)
		f.s.send(c.text)
		return b[:0], nil
	}
	f.begun = true
	f.s.write(b)
	if err := f.body.stream(f.s.conn, c.from, c.to); err != nil {
		f.s.log.Error("message could not be streamed", "mailbox", f.s.mbox, "message", f.body.id, "error", err)
		return b[:0], &inputError{err}
	}
	return b[:0], nil
}

// unreadable notes a message that can't be served; the others are.
func (f *fetcher) unreadable(e *fetchEntry, err error) error {
	switch {
	case isInput(err) || f.ctx.Err() != nil:
		return err
	case f.begun:
		return &inputError{err}
	case errors.Is(err, store.ErrNotFound):
		f.missing++
	case errors.Is(err, store.ErrCorrupt):
		f.damaged++
		f.s.log.Error("message is damaged", "mailbox", f.s.mbox, "uid", e.UID, "message", e.Message, "error", err)
	default:
		return err
	}
	return nil
}
