package smtpserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strconv"

	"waxwing/internal/guard"
	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

const needMessage = needTLS | needHello | needAuth | needMail | needRcpt

var (
	errBare     = smtp.Errorf(554, "5.6.11", "CR or LF outside of a line end: message refused")
	errTooLarge = smtp.Errorf(552, "5.3.4", "message too large")
)

// sink takes the octets of a message to its spool and keeps the spool's error apart from those of the connection. The
// chunks of a text by BDAT are looked through for bare CR and LF here; a body by DATA has none left.
type sink struct {
	spool io.Writer
	text  bool
	cr    bool // the last octet was a CR whose LF must come
	size  int64
	err   error
}

func (k *sink) Write(p []byte) (int, error) {
	if k.text && len(p) > 0 && !k.isText(p) {
		k.err = errBare
		return 0, k.err
	}
	n, err := k.spool.Write(p)
	k.size += int64(n)
	k.err = err
	return n, err
}

// isText tells whether every CR and LF of p is part of a CRLF; a CR at the end waits for the next octets.
func (k *sink) isText(p []byte) bool {
	ends := 0
	if k.cr {
		if p[0] != '\n' {
			return false
		}
		ends--
	}
	for rest := p; ; {
		lf := bytes.IndexByte(rest, '\n')
		if lf < 0 {
			break
		}
		if lf > 0 && rest[lf-1] != '\r' || lf == 0 && (len(rest) < len(p) || !k.cr) {
			return false
		}
		ends++
		rest = rest[lf+1:]
	}
	k.cr = p[len(p)-1] == '\r'
	if k.cr {
		ends++
	}
	return bytes.Count(p, []byte{'\r'}) == ends
}

// cmdData takes a message up to CRLF.CRLF, RFC 5321, section 4.1.1.4. After a refusal of the command itself no message
// may follow: a peer that sends it all the same is cut off at its first line that is no command.
func (s *session) cmdData(args []byte) error {
	s.bodyLost = true
	switch {
	case len(bytes.TrimLeft(args, " ")) > 0:
		s.bad(501, "5.5.4", "no parameters allowed")
		return nil
	case !s.has(needMessage):
		return nil
	case s.bdat:
		s.bad(503, "5.5.1", "the message is being sent by BDAT")
		return nil
	case s.mail.Body == smtp.BodyBinary: // RFC 3030, section 3
		s.bad(503, "5.5.1", "BINARYMIME needs BDAT")
		return nil
	}
	if r, err := s.ask(s.ctx, guard.Data); r != nil || err != nil {
		return s.turnedAway(r, err)
	}
	spool, err := s.tx.Spool()
	if err != nil {
		_ = s.refused(err, "data")
		return nil
	}
	s.bodyLost = false
	s.say(354, "", "end with <CR><LF>.<CR><LF>")

	limit := s.srv.opts.Intake.MaxSize()
	s.drainUpTo(limit)
	defer s.conn.SetLimits(s.srv.wire)
	s.sink = sink{spool: spool}
	body := s.conn.Dot(limit)
	_, err = body.WriteTo(&s.sink)
	if s.sink.err != nil {
		err = body.Discard()
	}
	switch {
	case wire.Fatal(err):
		return err
	case s.sink.err != nil:
		return s.lose(s.sink.err)
	case errors.Is(err, wire.ErrBareNewline):
		if err := s.lose(errBare); err != nil || !body.Ambiguous() {
			return err
		}
		s.end(421, "4.7.0", "the message ended ambiguously, closing the connection")
		return nil
	case err != nil:
		return s.lose(errTooLarge)
	}
	return s.commit()
}

// drainUpTo lets a message that is too large be read away up to the limit's size once more: its sender then hears 552
// and gives up, in place of trying again after a broken connection.
func (s *session) drainUpTo(limit int64) {
	lim := s.srv.wire
	lim.Drain = limit
	s.conn.SetLimits(lim)
}

// cmdBdat takes one chunk, RFC 3030, section 2. The octets of a refused chunk are read away before the answer, as the
// peer sends them without waiting; where their number can't be known or is too large, the session ends.
func (s *session) cmdBdat(args []byte) error {
	size, last, ok := parseBdat(args)
	limit := s.srv.opts.Intake.MaxSize()
	switch {
	case !ok:
		s.end(501, "5.5.4", "expected BDAT size [LAST], closing the connection")
		return nil
	case size > limit:
		s.end(552, "5.3.4", "chunk too large, closing the connection")
		return nil
	}
	if r := s.lacks(needMessage); r != nil {
		if err := s.conn.Drain(size, limit); err != nil {
			return err
		}
		s.reply(r)
		s.blame()
		return nil
	}
	if !s.bdat {
		if r, err := s.ask(s.ctx, guard.Data); err != nil {
			return err
		} else if r != nil {
			return s.loseChunk(r, s.conn.Literal(size), limit)
		}
		spool, err := s.tx.Spool()
		if err != nil {
			return s.loseChunk(err, s.conn.Literal(size), limit)
		}
		s.bdat = true
		s.sink = sink{spool: spool, text: s.mail.Body != smtp.BodyBinary}
	}
	if s.sink.size+size > limit {
		return s.loseChunk(errTooLarge, s.conn.Literal(size), limit)
	}
	chunk := s.conn.Literal(size)
	_, err := chunk.WriteTo(&s.sink)
	switch {
	case s.sink.err != nil:
		return s.loseChunk(s.sink.err, chunk, limit)
	case err != nil:
		return err
	case !last:
		s.buf = strconv.AppendInt(append(s.buf[:0], "250 2.0.0 "...), size, 10)
		s.buf = append(s.buf, " octets taken\r\n"...)
		_, _ = s.conn.Write(s.buf) // the error is sticky
		s.answered(250, s.buf)
		return nil
	case s.sink.cr:
		return s.lose(errBare)
	}
	return s.commit()
}

// loseChunk reads the rest of a chunk away and gives the message up. The chunks that are still to come find no
// transaction, and are refused one by one.
func (s *session) loseChunk(reason error, chunk *wire.LiteralReader, limit int64) error {
	if err := chunk.Discard(limit); err != nil {
		return err
	}
	return s.lose(reason)
}

// parseBdat reads "size [LAST]".
func parseBdat(args []byte) (size int64, last, ok bool) {
	fields := bytes.Fields(args)
	if len(fields) == 0 || len(fields) > 2 || len(fields[0]) > 19 {
		return 0, false, false
	}
	for _, b := range fields[0] {
		digit := int64(b - '0')
		if b < '0' || b > '9' || size > (math.MaxInt64-digit)/10 {
			return 0, false, false
		}
		size = size*10 + digit
	}
	if len(fields) == 2 {
		if !bytes.EqualFold(fields[1], []byte("LAST")) {
			return 0, false, false
		}
		last = true
	}
	return size, last, true
}

// lose answers a message that was refused while it came in.
func (s *session) lose(reason error) error {
	return s.ended(s.answers(reason, "body"))
}

// commit hands the whole message over. Only when everything is on stable storage does the peer hear 250.
func (s *session) commit() error {
	ctx, cancel := s.begin(s.srv.limits.Commit)
	defer cancel()
	receipt, err := s.tx.Commit(ctx)
	if err != nil {
		if errors.Is(context.Cause(ctx), wire.ErrPeerGone) {
			return wire.ErrPeerGone
		}
		return s.ended(s.answers(err, "commit"))
	}
	s.taken(receipt.TraceID)
	s.idle = 0
	return s.ended(nil)
}

// ended closes the transaction of a message that has got its answer, nil for 250.
func (s *session) ended(refusal *smtp.Reply) error {
	code, outcome := 250, error(nil)
	if refusal != nil {
		code, outcome = refusal.Code, refusal
	}
	if f := s.srv.opts.Metrics.Message; f != nil {
		f(s.mode, code, s.sink.size, s.srv.opts.Clock().Sub(s.txBegun))
	}
	s.messages++
	s.visitor.Octets = s.sink.size
	err := s.told(guard.Message, outcome)
	s.abort()
	return err
}
