package imapserver

import (
	"context"
	"errors"

	"waxwing/internal/store"
)

// copyRequest is COPY (RFC 3501, section 6.4.7) and MOVE (RFC 6851), by sequence number or UID.
type copyRequest struct {
	uid, move bool
	set       numSet
	name      string
}

func (r *copyRequest) parse(p *parser) {
	p.space()
	r.set = p.numSet()
	p.space()
	r.name = p.mailbox()
	p.end()
}

func (r *copyRequest) run(ctx context.Context, s *session) (reply, error) {
	set, err := s.sequences(r.set, r.uid)
	if err != nil {
		return reply{}, err
	}
	if r.move {
		if err := s.writable(); err != nil {
			return reply{}, err
		}
	}
	to, err := s.srv.opt.Store.Mailbox(ctx, s.acct, r.name)
	if errors.Is(err, store.ErrNotFound) {
		return reply{}, no("TRYCREATE", "No such mailbox")
	}
	if err != nil {
		return reply{}, err
	}
	uids, err := s.uids(set)
	if err != nil {
		return reply{}, err
	}
	if len(uids) == 0 {
		if !r.uid {
			return reply{}, no("EXPUNGEISSUED", "The messages are gone")
		}
		return reply{}, nil
	}
	transfer := s.srv.opt.Store.Copy
	if r.move {
		transfer = s.srv.opt.Store.Move
	}
	from, placed, validity, err := transfer(ctx, s.acct, s.mbox, uids, to.ID)
	if err != nil {
		return reply{}, err
	}
	if len(from) == 0 {
		return reply{}, nil
	}
	code := append([]byte("COPYUID "), appendUint(nil, validity)...)
	code = appendUIDs(append(code, ' '), from)
	code = appendUIDs(append(code, ' '), placed)
	if !r.move {
		return ok(string(code), ""), nil
	}
	// RFC 6851, section 4.3: the client must know the new UIDs before the old messages vanish.
	s.untagged(ok(string(code), "Moved"))
	return reply{}, nil
}
