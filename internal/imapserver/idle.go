package imapserver

import (
	"context"
	"strings"
)

// idleRequest is IDLE, RFC 2177. The session waits in the wire, without a buffer and without a second goroutine; a
// notice of the store wakes it.
type idleRequest struct{}

func (*idleRequest) parse(p *parser) { p.end() }

func (*idleRequest) run(ctx context.Context, s *session) (reply, error) {
	s.put("+ idling\r\n")
	if s.view != nil {
		s.idling.Store(true)
		defer s.idling.Store(false)
		// What happened before idling was set woke nobody.
		s.tell(true)
	}
	for !s.ending {
		s.release()
		if err := s.conn.Flush(); err != nil {
			return reply{}, &inputError{err}
		}
		woken, err := s.conn.Wait()
		if err != nil {
			return reply{}, &inputError{err}
		}
		if !woken {
			return s.idleDone()
		}
		if s.view != nil {
			s.tell(true)
		}
		s.byeIfClosing()
		if err := ctx.Err(); err != nil {
			return reply{}, err
		}
	}
	return reply{}, errEnd
}

// idleDone reads the line that ends IDLE.
func (s *session) idleDone() (reply, error) {
	line, err := s.line()
	if err != nil {
		return reply{}, err
	}
	if strings.EqualFold(string(line), "DONE") {
		return reply{}, nil
	}
	if err := s.resync(line); err != nil {
		return reply{}, err
	}
	return reply{}, bad("Expected DONE")
}
