package intake

import (
	"errors"
	"io"

	"waxwing/internal/message"
	"waxwing/internal/message/convert"
	"waxwing/internal/smtp"
)

// A message is brought into the form in which it is kept and sent when it comes in, once: before it gets its trace fields
// and, one day, its signature, so that nothing need change behind that.
//
// One that was declared BINARYMIME (RFC 3030) may hold any octets in its binary parts. What IMAP, POP3 and most servers can
// take is lines ended by CRLF and no NUL: such parts get a transfer encoding, and a message that can't be put right is
// refused. A user's message for other servers is made ASCII too, when the settings say so and nothing of it is signed.

var errBinary = reply(554, "5.6.3", "binary content that can't be converted")

// parse parses the spooled message in the form in which it is kept.
func (t *Transaction) parse() (*message.Part, error) {
	f := t.spool.seen.Facts()
	binary := t.mail.Body == smtp.BodyBinary
	must := binary && (f.Bare || f.NUL || f.Longest > t.in.limits.Line)
	switch {
	case must:
	case f.Bare: // the sessions refuse it already; nothing bare is ever stored or sent on
		return nil, smtp.Errorf(554, "5.6.0", "bare CR or LF in the message")
	case f.Longest > t.in.limits.Line:
		return nil, smtp.Errorf(554, "5.6.0", "a line has more than %d octets", t.in.limits.Line)
	}
	if t.wantsASCII(f) {
		done, err := t.reencode(convert.Target{Line: convert.MaxLine})
		if err != nil {
			return nil, err
		}
		must = must && !done
	}
	if must {
		done, err := t.reencode(convert.Target{EightBit: true, Line: t.in.limits.Line})
		if err == nil && (!done || t.spool.seen.Facts().Longest > t.in.limits.Line) {
			err = errBinary
		}
		if err != nil {
			return nil, err
		}
	}
	return t.parseSpool()
}

func (t *Transaction) parseSpool() (*message.Part, error) {
	limits := message.DefaultLimits
	limits.HeaderBytes = t.in.limits.HeaderBytes
	part, err := message.Parse(t.spool, t.spool.size, limits)
	if err != nil {
		t.in.log.Error("spooled message can't be read", "error", err)
		return nil, replyStore
	}
	return part, nil
}

// wantsASCII tells a user's message for other servers that is to be made ASCII.
func (t *Transaction) wantsASCII(f convert.Facts) bool {
	return t.user() && len(t.remotes) > 0 && t.set.SubmissionEncoding == "ascii" && !f.EightHeader && (f.EightBody || f.NUL || f.Longest > convert.MaxLine)
}

// reencode puts the message into a new spool with its parts encoded. It is false, and nothing has changed, for a message
// that must stay as it is.
func (t *Transaction) reencode(to convert.Target) (bool, error) {
	edited, err := convert.Encode(t.spool, t.spool.size, to)
	switch {
	case errors.Is(err, convert.ErrSigned), errors.Is(err, convert.ErrHeader), errors.Is(err, convert.ErrForm):
		return false, nil
	case err != nil:
		t.in.log.Error("spooled message can't be read", "error", err)
		return false, replyStore
	}
	return true, t.respool(edited.Reader(), edited.Size())
}

// respool replaces the spooled message by another form of it. The limit on its size was held before.
func (t *Transaction) respool(r io.Reader, size int64) error {
	out := newSpool(t.in, size)
	if _, err := out.ReadFrom(r); err != nil {
		out.free()
		if isReply(err) {
			return err
		}
		t.in.log.Error("the new form of a message can't be spooled", "error", err)
		return replyStore
	}
	t.spool.free()
	t.spool = out
	return nil
}
