package pop3server

import (
	"bytes"
	"context"
	"errors"
	"io"

	"waxwing/internal/store"
)

// stat is STAT, RFC 1939, section 5.
func (s *session) stat([]byte) error {
	if err := s.size(); err != nil {
		return err
	}
	s.put("+OK ")
	s.number(int64(s.drop.count))
	s.put(" ")
	s.number(s.drop.octets)
	s.put("\r\n")
	return nil
}

// list is LIST, RFC 1939, section 5.
func (s *session) list(args []byte) error {
	if err := s.size(); err != nil {
		return err
	}
	return s.each(args, "scan listing", func(it *item) { s.number(it.size) })
}

// uidl is UIDL, RFC 1939, section 7.
func (s *session) uidl(args []byte) error {
	if err := s.loadIDs(); err != nil {
		return err
	}
	return s.each(args, "unique-id listing", func(it *item) { s.put(s.unique(it)) })
}

// each answers LIST and UIDL: a line for one message, or one for each that is not marked.
func (s *session) each(args []byte, what string, show func(*item)) error {
	if len(args) > 0 {
		it, n, err := s.drop.at(args)
		if err != nil {
			return err
		}
		s.put("+OK ")
		s.number(int64(n))
		s.put(" ")
		show(it)
		s.put("\r\n")
		return nil
	}
	s.put("+OK ", what, " follows\r\n")
	for i := range s.drop.items {
		if it := &s.drop.items[i]; !it.gone {
			s.number(int64(i + 1))
			s.put(" ")
			show(it)
			s.put("\r\n")
		}
	}
	s.put(".\r\n")
	return nil
}

// retrieve is RETR, RFC 1939, section 5.
func (s *session) retrieve(args []byte) error {
	d := s.drop
	it, n, err := d.at(args)
	if err != nil {
		return err
	}
	d.prefetch(s.ctx, s.srv.opt.Store, n)
	var sent int64
	if it.size <= inMemory {
		sent, err = s.sendWhole(it)
	} else {
		sent, err = s.sendLarge(it)
	}
	if err != nil {
		return s.unreadable(it, err)
	}
	d.last = max(d.last, n)
	if m := s.srv.opt.Metrics.Retrieved; m != nil {
		m(sent)
	}
	return nil
}

// unreadable answers for a message that can't be read. Only this one fails: the rest of the maildrop goes on.
func (s *session) unreadable(it *item, err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return refuseFair("[SYS/PERM] ", "The message was deleted by another session")
	case errors.Is(err, store.ErrCorrupt):
		s.log.Error("damaged message", "message", int64(it.id), "error", err)
		return refuseFair("[SYS/PERM] ", "The stored message is damaged")
	}
	return err
}

// sendWhole sends a message that fits in memory: it is read before the +OK, and looked through unless it was before.
func (s *session) sendWhole(it *item) (int64, error) {
	b, err := s.srv.opt.Store.ReadBlob(s.ctx, s.drop.acct, it.id, s.message())
	if err != nil {
		return 0, err
	}
	s.keep(b)
	w := wireForm{left: unlimited}
	octets := int64(len(b))
	if !s.drop.exact(it) {
		_, err := w.Write(b)
		if err := w.end(err); err != nil {
			return 0, err
		}
		octets = w.n
	}
	s.announce(octets)
	dot := s.conn.DotWriter()
	if w.repaired {
		w = wireForm{left: unlimited, dst: dot}
		_, err := w.Write(b)
		err = w.end(err)
		if err != nil {
			return 0, s.broken(err)
		}
	} else if _, err := dot.Write(b); err != nil {
		return 0, s.broken(err)
	}
	if err := dot.Close(); err != nil {
		return 0, s.broken(err)
	}
	return octets, nil
}

// sendLarge streams a message, which is counted first unless its size is exact already.
func (s *session) sendLarge(it *item) (int64, error) {
	octets, clean := it.size, s.drop.exact(it)
	if !clean {
		ctx, cancel := s.conn.WatchPeer(s.ctx)
		n, repaired, err := s.measure(ctx, it)
		cancel()
		if err != nil {
			return 0, err
		}
		octets, clean = n, !repaired
	}
	b, err := s.srv.opt.Store.OpenBlob(s.ctx, s.drop.acct, it.id)
	if err != nil {
		return 0, err
	}
	defer b.Close() //nolint:errcheck // only read
	s.announce(octets)
	dot := s.conn.DotWriter()
	if clean {
		_, err = dot.ReadFrom(io.NewSectionReader(b, 0, b.Size()))
	} else {
		err = s.stream(b, &wireForm{left: unlimited, dst: dot})
	}
	if err != nil {
		s.log.Error("message broken off", "message", int64(it.id), "error", err)
		return 0, s.broken(err)
	}
	if err := dot.Close(); err != nil {
		return 0, s.broken(err)
	}
	return octets, nil
}

// announce begins the answer to RETR.
func (s *session) announce(octets int64) {
	s.put("+OK ")
	s.number(octets)
	s.put(" octets\r\n")
}

// broken ends the session in the middle of an answer: a cut message must not look whole.
func (s *session) broken(err error) error {
	s.werr = errors.Join(errEnd, err)
	return s.werr
}

// top is TOP, RFC 1939, section 7. It reads no more of the message than it sends.
func (s *session) top(args []byte) error {
	first, second, _ := bytes.Cut(args, []byte(" "))
	lines, ok := number(second)
	if !ok {
		return errSyntax
	}
	it, n, err := s.drop.at(first)
	if err != nil {
		return err
	}
	d := s.drop
	d.prefetch(s.ctx, s.srv.opt.Store, n)
	if it.size <= inMemory {
		b, err := s.srv.opt.Store.ReadBlob(s.ctx, d.acct, it.id, s.message())
		if err != nil {
			return s.unreadable(it, err)
		}
		s.keep(b)
		return s.sendTop(lines, func(w *wireForm) error {
			_, err := w.Write(b)
			return w.end(err)
		})
	}
	b, err := s.srv.opt.Store.OpenBlob(s.ctx, d.acct, it.id)
	if err != nil {
		return s.unreadable(it, err)
	}
	defer b.Close() //nolint:errcheck // only read
	return s.sendTop(lines, func(w *wireForm) error { return s.stream(b, w) })
}

// sendTop answers TOP with what give writes.
func (s *session) sendTop(lines int, give func(*wireForm) error) error {
	s.put("+OK Top of message follows\r\n")
	dot := s.conn.DotWriter()
	if err := give(&wireForm{left: int64(lines), dst: dot}); err != nil {
		return s.broken(err)
	}
	if err := dot.Close(); err != nil {
		return s.broken(err)
	}
	return nil
}

// dele is DELE, RFC 1939, section 5: a mark until QUIT.
func (s *session) dele(args []byte) error {
	it, n, err := s.drop.at(args)
	if err != nil {
		return err
	}
	it.gone = true
	s.drop.count--
	s.drop.marked++
	s.drop.octets -= it.size // means something only when sized; size makes the sum anew
	s.put("+OK Message ")
	s.number(int64(n))
	s.put(" marked\r\n")
	return nil
}

// rset is RSET, RFC 1939, section 5.
func (s *session) rset([]byte) error {
	d := s.drop
	for i := range d.items {
		if it := &d.items[i]; it.gone {
			it.gone = false
			d.octets += it.size
		}
	}
	d.count, d.marked, d.last = len(d.items), 0, 0
	s.put("+OK Nothing is marked\r\n")
	return nil
}

// lastSeen is LAST, which RFC 1460 had and RFC 1939 dropped: some old clients still ask.
func (s *session) lastSeen([]byte) error {
	s.put("+OK ")
	s.number(int64(s.drop.last))
	s.put("\r\n")
	return nil
}

// quit is QUIT: in the transaction state it deletes what is marked, all or nothing (RFC 1939, section 6).
func (s *session) quit([]byte) error {
	s.ending = true
	if s.state == authorization || s.drop.marked == 0 {
		s.closeDrop()
		s.put("+OK Bye\r\n")
		return nil
	}
	d := s.drop
	uids := make([]store.UID, 0, d.marked)
	for _, it := range d.items {
		if it.gone {
			uids = append(uids, it.uid)
		}
	}
	// Many clients close the connection without waiting for the answer: that does not take the deletion back. Neither
	// does a shutdown that has begun.
	removed, err := s.srv.opt.Store.Expunge(context.WithoutCancel(s.ctx), d.acct, d.mbox.ID, uids, false)
	s.closeDrop() // before the answer: a client may come back the moment it has it
	if err != nil {
		s.log.Error("deletion failed", "messages", len(uids), "error", err)
		s.put("-ERR [SYS/TEMP] Deleted messages not removed\r\n")
		return nil
	}
	s.log.Debug("messages deleted", "messages", len(removed))
	s.put("+OK Bye, ")
	s.number(int64(len(removed)))
	s.put(" messages deleted\r\n")
	return nil
}
