package imapserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"waxwing/internal/digest"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

// maxSpooled is the size up to which an appended message is held in memory.
const maxSpooled = 256 << 10

// appendRequest is APPEND, RFC 3501, section 6.3.11. The message's literal is read by run, which first finds out whether
// it is welcome.
type appendRequest struct {
	name     string
	flags    store.Flags
	keywords []string
	date     time.Time
	size     int64
	sync     bool
}

func (r *appendRequest) parse(p *parser) {
	p.space()
	r.name = p.mailbox()
	p.space()
	if p.peek() == '(' {
		r.flags, r.keywords = p.flagList()
		p.space()
	}
	if p.peek() == '"' {
		r.date = p.dateTime()
		p.space()
	}
	r.size, r.sync = p.literalHeader()
}

// dateTime reads a date-time such as "17-Jul-1996 02:44:25 -0700".
func (p *parser) dateTime() time.Time {
	p.need('"')
	p.take(' ')
	day := int(p.number(31))
	p.need('-')
	month := p.month()
	p.need('-')
	year := int(p.number(9999))
	p.space()
	hour := int(p.number(23))
	p.need(':')
	minute := int(p.number(59))
	p.need(':')
	second := int(p.number(60))
	p.space()
	sign := 1
	if p.take('-') {
		sign = -1
	} else {
		p.need('+')
	}
	start := p.pos
	zone := int(p.number(9999))
	if p.ok() && p.pos-start != 4 {
		p.fail("expected a zone of four digits, before this")
	}
	p.need('"')
	offset := sign * (zone/100*3600 + zone%100*60)
	t := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.FixedZone("", offset))
	if p.ok() && (t.Day() != day || year < 1) {
		p.fail("no such date, before this")
	}
	return t
}

func (r *appendRequest) run(ctx context.Context, s *session) (reply, error) {
	m, err := r.welcome(ctx, s)
	if err != nil {
		if !r.sync {
			if rerr := s.resync(s.p.line); rerr != nil {
				return reply{}, rerr
			}
		}
		return reply{}, err
	}
	sp, err := r.receive(s)
	if err != nil {
		return reply{}, err
	}
	defer sp.Close()
	root, err := message.Parse(sp, r.size, message.DefaultLimits)
	if err != nil {
		return reply{}, err
	}
	if r.date.IsZero() {
		r.date = s.srv.opt.Clock()
	}
	placed, err := s.srv.opt.Store.Append(ctx, s.acct, m.ID, []store.NewMessage{{
		Content: sp, Summary: digest.Make(root, sp, r.size), Flags: r.flags, Keywords: r.keywords, InternalDate: r.date,
	}})
	if err != nil {
		return reply{}, err
	}
	code := append([]byte("APPENDUID "), appendUint(nil, placed[0].UIDValidity)...)
	code = appendUint(append(code, ' '), uint32(placed[0].UID))
	return ok(string(code), ""), nil
}

// welcome tells whether the message may come: it is asked before the peer sends it, when the peer waits for that.
func (r *appendRequest) welcome(ctx context.Context, s *session) (store.Mailbox, error) {
	m, err := s.srv.opt.Store.Mailbox(ctx, s.acct, r.name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return m, no("TRYCREATE", "No such mailbox")
	case err != nil:
		return m, err
	case r.size == 0:
		return m, no("", "An empty message is none")
	}
	if limit := s.srv.opt.MessageSize(); r.size > limit {
		return m, no("TOOBIG", fmt.Sprintf("A message may have %d octets", limit))
	}
	use, err := s.srv.opt.Store.Usage(ctx, s.acct)
	if err != nil {
		return m, err
	}
	if use.QuotaBytes > 0 && use.Bytes+r.size > use.QuotaBytes ||
		use.QuotaMessages > 0 && use.Messages >= use.QuotaMessages {
		return m, store.ErrOverQuota
	}
	return m, nil
}

// receive reads the message and the end of the command. When the message can't be kept it is still read to its end.
func (r *appendRequest) receive(s *session) (*spool, error) {
	if r.sync {
		s.put("+ Ready\r\n")
	}
	lit := s.conn.Literal(r.size)
	sp, kept := newSpool(lit, r.size, s.srv.opt.SpoolDir)
	if kept != nil {
		if err := lit.Discard(r.size); err != nil {
			return nil, &inputError{err}
		}
	}
	line, err := s.line()
	if err == nil && len(line) > 0 {
		if err = s.resync(line); err == nil && kept == nil {
			err = bad("Unexpected text behind the message")
		}
	}
	if err == nil {
		err = kept
	}
	if err != nil {
		if sp != nil {
			sp.Close()
		}
		return nil, err
	}
	return sp, nil
}

// spool holds one appended message: in memory, or in a file without a name.
type spool struct {
	io.ReaderAt
	size int64
	file *os.File
}

// newSpool reads size octets from r. After an error of the spool itself the rest of r is unread.
func newSpool(r io.Reader, size int64, dir string) (*spool, error) {
	if size <= maxSpooled {
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, &inputError{err}
		}
		return &spool{ReaderAt: bytes.NewReader(b), size: size}, nil
	}
	f, err := os.CreateTemp(dir, "imap-append-*")
	if err != nil {
		return nil, fmt.Errorf("imapserver: spool message of %d octets: %w: %w", size, store.ErrFull, err)
	}
	sp := &spool{ReaderAt: f, size: size, file: f}
	if err := os.Remove(f.Name()); err != nil {
		sp.Close()
		return nil, fmt.Errorf("imapserver: spool message: unlink: %w", err)
	}
	if _, err := io.CopyN(onlyWriter{f}, r, size); err != nil {
		sp.Close()
		return nil, fmt.Errorf("imapserver: spool message of %d octets: %w: %w", size, store.ErrFull, err)
	}
	return sp, nil
}

// onlyWriter hides the file's ReadFrom, so that the literal writes its own window instead of being copied once more.
type onlyWriter struct{ io.Writer }

func (s *spool) Size() int64 { return s.size }

// Close frees the file; a message in memory needs none.
func (s *spool) Close() {
	if s.file != nil {
		_ = s.file.Close() // it has no name: nothing is lost
	}
}
