package transport

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

const (
	chunkFrom = 1 << 20 // content from this size on goes by BDAT where it can
	chunkSize = 8 << 20 // octets of one BDAT: a server may refuse between them
	pipeGroup = 100     // commands sent before their replies are read: bounded, so that neither side's window fills
	lateReply = 5 * time.Second
)

// envelope is one transaction being put together.
type envelope struct {
	mail  string
	who   []int    // indexes of recipients
	rcpts []string // their commands
	bdat  bool
	body  func() io.Reader
	size  int64 // of the body, when bdat
}

// transact does one MAIL transaction with as many pending recipients as it may take. A failure leaves recipients
// pending: the session or this server is no good for them now.
func (s *session) transact(d *delivery) *failure {
	if d.ask {
		return s.ask(d)
	}
	env, f := s.prepare(d)
	if f != nil {
		f.message = s.host.describe(s.addr) + ": " + f.message
		for i := range d.results {
			if d.waits(i, s.addr) {
				d.decide(i, f.result(s.host, s.addr, s.tls))
			}
		}
		return nil
	}
	if len(env.who) == 0 {
		return nil
	}
	s.sent++
	data := !env.bdat && s.ext.pipelining
	mail, rcpts, ready, f := s.talk(env, data)
	if mail != nil && mail.class() != 2 {
		return s.mailRefused(d, env, mail, ready)
	}
	accepted := s.judge(d, env, rcpts)
	if f != nil {
		return f
	}
	if len(accepted) == 0 {
		return s.nothingToSend(ready)
	}
	if env.bdat {
		return s.chunks(d, env, accepted)
	}
	if !data {
		if ready, f = s.command("DATA", s.t.opts.Timeouts.DataInit, "DATA"); f != nil {
			return f
		}
	}
	return s.data(d, env, accepted, ready)
}

// prepare decides by which commands and in which form the message goes. Its failures concern the message.
func (s *session) prepare(d *delivery) (*envelope, *failure) {
	c, m := d.content, d.m
	env := &envelope{body: c.reader, size: c.size}
	if s.ext.sized && s.ext.size > 0 && c.size > s.ext.size { // RFC 1870, section 6.1
		return nil, permanently("MAIL", 3, 4, "the message has %d octets, the server takes %d", c.size, s.ext.size)
	}
	if f := s.inTime(m); f != nil {
		return nil, f
	}
	body, f := s.form(d, env)
	if f != nil {
		return nil, f
	}
	if s.ext.sized && s.ext.size > 0 && env.size > s.ext.size {
		return nil, permanently("MAIL", 3, 4, "the message has %d octets as the server takes it, and the server takes %d", env.size, s.ext.size)
	}
	return env, s.addressees(d, env, body)
}

// addressees writes the MAIL and RCPT commands. RFC 6531, section 3.5: what needs SMTPUTF8 goes only to a server with it.
func (s *session) addressees(d *delivery, env *envelope, body smtp.BodyType) *failure {
	m := d.m
	whole := !ascii(m.From) || (m.UTF8 && d.content.facts.EightHeader)
	if whole && !s.ext.utf8 {
		return permanently("MAIL", 6, 7, "the message needs internationalized mail (SMTPUTF8), which the server does not take")
	}
	most := s.t.opts.MaxRcpts
	if s.ext.rcptMax > 0 {
		most = min(max(s.ext.rcptMax, 1), 1000)
	}
	utf8 := whole
	for i := range m.Recipients {
		if !d.waits(i, s.addr) {
			continue
		}
		r := &m.Recipients[i]
		if !ascii(r.To) {
			if !s.ext.utf8 {
				f := permanently("RCPT", 6, 7, "%s: the address needs internationalized mail (SMTPUTF8), which the server does not take", s.host.describe(s.addr))
				d.decide(i, f.result(s.host, s.addr, s.tls))
				continue
			}
			utf8 = true
		}
		alone, f := s.validSince(r)
		if f != nil {
			d.decide(i, f.result(s.host, s.addr, s.tls))
			continue
		}
		if len(env.who) == most || alone && len(env.who) > 0 || !s.domainFits(env, m, r.To) {
			break
		}
		env.who = append(env.who, i)
		if alone {
			env.before(validSinceField(r))
			break
		}
	}
	for _, i := range env.who {
		env.rcpts = append(env.rcpts, s.rcptCommand(&m.Recipients[i], utf8))
	}
	env.mail = s.mailCommand(d, env, body, utf8)
	return nil
}

// domainFits tells whether the server takes one more recipient at a domain (RFC 9422: RCPTDOMAINMAX).
func (s *session) domainFits(env *envelope, m *Message, to string) bool {
	if s.ext.rcptDomainMax == 0 {
		return true
	}
	domain := func(a string) string { return strings.ToLower(a[strings.LastIndexByte(a, '@')+1:]) }
	seen := map[string]bool{domain(to): true}
	for _, i := range env.who {
		seen[domain(m.Recipients[i].To)] = true
	}
	return len(seen) <= s.ext.rcptDomainMax
}

func (s *session) mailCommand(d *delivery, env *envelope, body smtp.BodyType, utf8 bool) string {
	var b strings.Builder
	b.WriteString("MAIL FROM:<" + d.m.From + ">")
	if s.ext.sized {
		b.WriteString(" SIZE=" + strconv.FormatInt(env.size, 10))
	}
	switch {
	case body == smtp.BodyBinary && s.ext.binary:
		b.WriteString(" BODY=BINARYMIME")
	case body == smtp.Body8Bit && s.ext.eightBit:
		b.WriteString(" BODY=8BITMIME")
	}
	if d.m.TLS == smtp.TLSRequired {
		b.WriteString(" REQUIRETLS")
	}
	if utf8 {
		b.WriteString(" SMTPUTF8")
	}
	s.termsOfMail(&b, d.m)
	if s.ext.dsn {
		if d.m.Ret == "FULL" || d.m.Ret == "HDRS" {
			b.WriteString(" RET=" + d.m.Ret)
		}
		if id := smtp.EncodeXtext(d.m.EnvID); id != "" && len(id) <= 100 {
			b.WriteString(" ENVID=" + id)
		}
	}
	return b.String()
}

func (s *session) rcptCommand(r *Recipient, utf8 bool) string {
	var b strings.Builder
	b.WriteString("RCPT TO:<" + r.To + ">")
	if r.ValidSince != "" && s.ext.rrvs {
		b.WriteString(" RRVS=" + r.ValidSince)
	}
	if s.ext.dsn {
		if n := r.Notify.Words(); n != "" {
			b.WriteString(" NOTIFY=" + n)
		}
		if o := originalRecipient(r.ORcpt, utf8); o != "" {
			b.WriteString(" ORCPT=" + o)
		}
	}
	return b.String()
}

// talk sends MAIL and RCPT, and with data DATA behind them, in groups where the server allows it (RFC 2920), and reads
// the replies. It stops where there is no use in going on: rcpts is then shorter than the recipients.
func (s *session) talk(env *envelope, data bool) (mail *reply, rcpts []*reply, ready *reply, f *failure) {
	commands := append([]string{env.mail}, env.rcpts...)
	stage := func(i int) string {
		switch {
		case i == 0:
			return "MAIL"
		case i <= len(env.rcpts):
			return "RCPT"
		}
		return "DATA"
	}
	if data {
		commands = append(commands, "DATA")
	}
	group := 1
	if s.ext.pipelining {
		group = pipeGroup
	}
	for at := 0; at < len(commands); at += group {
		end := min(at+group, len(commands))
		for i := at; i < end; i++ {
			if err := s.writeLine(commands[i]); err != nil {
				return mail, rcpts, ready, s.broken(stage(i), err)
			}
		}
		for i := at; i < end; i++ {
			timeout := s.t.opts.Timeouts.Command
			if i == len(env.rcpts)+1 {
				timeout = s.t.opts.Timeouts.DataInit
			}
			s.limit(timeout)
			r, err := readReply(s.conn)
			if err != nil {
				return mail, rcpts, ready, s.broken(stage(i), err)
			}
			switch stage(i) {
			case "MAIL":
				mail = r
			case "RCPT":
				rcpts = append(rcpts, r)
			default:
				ready = r
			}
			if r.code == 421 { // the server leaves, whatever is still under way: RFC 5321, section 3.8
				return mail, rcpts, ready, s.refused(stage(i), r)
			}
		}
		if mail.class() != 2 {
			break
		}
	}
	return mail, rcpts, ready, nil
}

// mailRefused deals with a negative answer to MAIL.
func (s *session) mailRefused(d *delivery, env *envelope, mail, ready *reply) *failure {
	f := s.refused("MAIL", mail)
	if ready != nil && ready.code == 354 && !s.dead {
		s.endEmpty()
	}
	if mail.class() == 5 && mail.code != 521 {
		for _, i := range env.who {
			d.decide(i, f.result(s.host, s.addr, s.tls))
		}
		return nil
	}
	return f
}

// judge decides the recipients that were refused and returns those that were accepted. A server that takes fewer
// recipients at a time than there are says 452, or 552 in old ones (RFC 5321, section 4.5.3.1.10): the rest stays
// pending for the next transaction, provided that this one got anywhere.
func (s *session) judge(d *delivery, env *envelope, rcpts []*reply) (accepted []int) {
	for k, r := range rcpts {
		if r.class() == 2 {
			accepted = append(accepted, env.who[k])
		}
	}
	for k, r := range rcpts {
		tooMany := r.code == 452 && (r.enhanced == smtp.Enhanced{} || (r.enhanced.Subject == 5 && r.enhanced.Detail == 3)) ||
			r.code == 552 && (r.enhanced == smtp.Enhanced{} || (r.enhanced.Subject == 5 && r.enhanced.Detail == 3))
		switch {
		case r.class() == 2, r.code == 421:
		case tooMany && len(accepted) > 0:
		default:
			d.settle(env.who[k], s.resultOf("RCPT", r))
		}
	}
	return accepted
}

// nothingToSend ends a transaction without recipients. A server that wants data all the same gets none.
func (s *session) nothingToSend(ready *reply) *failure {
	if ready != nil && ready.code == 354 {
		s.endEmpty()
		return nil
	}
	s.reset()
	return nil
}

// endEmpty answers a 354 that came although no recipient was accepted (RFC 2920, section 3.1).
func (s *session) endEmpty() {
	if s.lmtp() { // no recipient, no reply
		s.dead = true
		return
	}
	if r, f := s.command("end of data", s.t.opts.Timeouts.DataEnd, "."); f == nil && r.class() == 2 {
		s.dead = true // it took a message for nobody: better not to go on with it
	}
}

// reset clears a transaction that was begun.
func (s *session) reset() {
	if s.dead {
		return
	}
	if r, f := s.command("RSET", s.t.opts.Timeouts.Command, "RSET"); f != nil || r.class() != 2 {
		s.dead = true
	}
}

// data sends the body after a 354.
func (s *session) data(d *delivery, env *envelope, accepted []int, ready *reply) *failure {
	if ready.code != 354 {
		if ready.code == 421 || ready.class() < 4 {
			return s.refused("DATA", ready)
		}
		s.settleAll(d, accepted, s.resultOf("DATA", ready))
		s.reset()
		return nil
	}
	s.limit(s.t.opts.Timeouts.DataBlock)
	w := s.conn.DotWriter()
	if _, err := w.ReadFrom(contentReader{env.body()}); err != nil {
		return s.cut(d, accepted, err)
	}
	if err := w.Close(); err != nil {
		return s.cut(d, accepted, err)
	}
	if s.lmtp() {
		return s.endedEach(d, accepted)
	}
	s.limit(s.t.opts.Timeouts.DataEnd)
	r, err := readReply(s.conn)
	return s.ended(d, accepted, r, err)
}

// ended takes in the answer to the whole message. Without one it may have been taken or not: that is a temporary
// failure, decided here so that no other server gets a copy in the same attempt.
func (s *session) ended(d *delivery, accepted []int, r *reply, err error) *failure {
	if err != nil {
		f := s.broken("end of data", err)
		s.settleAll(d, accepted, f.result(s.host, s.addr, s.tls))
		return f
	}
	res := s.resultOf("end of data", r)
	res.Relayed = res.Status == Delivered && s.tellsRelayed(d.m)
	if r.class() == 3 {
		res.Message = "unexpected reply: " + r.raw
	}
	if r.class() == 3 || r.code == 421 {
		s.dead = true
		res.Unreachable = r.code == 421
	}
	s.settleAll(d, accepted, res)
	return nil
}

func (s *session) settleAll(d *delivery, who []int, r Result) {
	for _, i := range who {
		d.settle(i, r)
	}
}

// cut ends a body that could not be sent whole. The connection is cut without the final dot, so that the server can't
// take the part for the whole. A server that refuses early may have said so: its reply is worth more than the error.
func (s *session) cut(d *delivery, accepted []int, err error) *failure {
	var local errContent
	switch {
	case errors.As(err, &local):
		s.abandon()
		s.settleAll(d, accepted, contentFailure(local.error).result(s.host, s.addr, s.tls))
		return nil
	case errors.Is(err, wire.ErrBareNewline):
		s.abandon()
		s.settleAll(d, accepted, permanently("DATA", 6, 0, "the message holds CR or LF outside of line ends").result(s.host, s.addr, s.tls))
		return nil
	}
	s.limit(min(lateReply, s.t.opts.Timeouts.DataEnd))
	if r, rerr := readReply(s.conn); rerr == nil && r.class() >= 4 {
		s.dead = true
		s.settleAll(d, accepted, s.resultOf("DATA", r))
		return nil
	}
	return s.broken("DATA", err)
}

// chunks sends the body by BDAT (RFC 3030), each chunk answered before the next.
func (s *session) chunks(d *delivery, env *envelope, accepted []int) *failure {
	body := env.body()
	for left := env.size; ; {
		n := min(left, chunkSize)
		left -= n
		command := fmt.Sprintf("BDAT %d", n)
		if left == 0 {
			command += " LAST"
		}
		if err := s.writeLine(command); err != nil {
			return s.broken("DATA", err)
		}
		s.limit(s.t.opts.Timeouts.DataBlock)
		sent, err := s.conn.ReadFrom(io.LimitReader(contentReader{body}, n))
		if err == nil && sent != n {
			err = errContent{io.ErrUnexpectedEOF}
		}
		if err != nil {
			return s.cut(d, accepted, err)
		}
		s.limit(s.t.opts.Timeouts.DataEnd)
		r, err := readReply(s.conn)
		if left == 0 {
			return s.ended(d, accepted, r, err)
		}
		if err != nil {
			return s.broken("DATA", err)
		}
		if r.class() != 2 {
			f := s.ended(d, accepted, r, nil)
			s.reset()
			return f
		}
	}
}

// contentReader marks errors of reading as such.
type contentReader struct{ r io.Reader }

func (c contentReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	var local errContent
	if err != nil && err != io.EOF && !errors.As(err, &local) {
		err = errContent{err}
	}
	return n, err
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
