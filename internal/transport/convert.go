package transport

import (
	"errors"

	"waxwing/internal/message/convert"
	"waxwing/internal/smtp"
)

// form decides in which form the message goes to this server: as it is where the server takes it, or with its parts
// encoded (RFC 6152, section 3). What must be encoded and can't be is returned to its sender. Lines longer than 998 octets
// are encoded too where that is possible and breaks no signature; else they go as they are, as most servers take them.
func (s *session) form(d *delivery, env *envelope) (smtp.BodyType, *failure) {
	f, m := d.content.facts, d.m
	eight := f.Eight() || f.NUL
	body := smtp.Body7Bit
	if eight {
		body = smtp.Body8Bit
	}
	switch {
	case f.Bare && m.Body != smtp.BodyBinary:
		return body, permanently("MAIL", 6, 0, "the message holds CR or LF outside of line ends")
	case f.Bare && s.ext.binary && s.ext.chunking:
		env.bdat = true
		return smtp.BodyBinary, nil
	case f.Bare, eight && !s.ext.eightBit:
		return smtp.Body7Bit, d.encode(env, convert.Target{Line: convert.MaxLine})
	case f.Longest > convert.MaxLine && !d.content.signed():
		target := convert.Target{EightBit: true, Line: convert.MaxLine}
		if fail := d.encode(env, target); fail != nil && fail.local != nil {
			return body, fail
		}
		return body, nil
	}
	env.bdat = s.ext.chunking && d.content.size >= chunkFrom && f.Ended
	return body, nil
}

// encode gives the envelope an encoded body, once for all servers of the delivery.
func (d *delivery) encode(env *envelope, to convert.Target) *failure {
	c := d.content
	if c.encoded == nil || c.encodedTo != to {
		e, err := convert.Encode(c.r, c.size, to)
		switch {
		case errors.Is(err, convert.ErrSigned), errors.Is(err, convert.ErrHeader), errors.Is(err, convert.ErrForm):
			return permanently("MAIL", 6, 3, "the server does not take the message as it is, and %v", err)
		case err != nil:
			return contentFailure(err)
		}
		c.encoded, c.encodedTo = e, to
	}
	env.body, env.size = c.encoded.Reader, c.encoded.Size()
	return nil
}
