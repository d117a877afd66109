package milter

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	protocol "github.com/emersion/go-milter"

	"waxwing/internal/message"
	"waxwing/internal/trace"
)

// Body is the octets behind the header.
type Body interface {
	io.ReaderAt
	Size() int64
}

// Changes are what milters want changed.
type Changes struct {
	Header  message.Header // the whole header as it is to be
	Edited  bool           // it differs from what was given
	MIME    bool           // in fields that say how the body is to be read
	Body    []byte         // in place of the body, nil for none
	From    *string        // in place of the sender
	Add     []string       // recipients
	Remove  []string
	Hold    string // why the message is to be kept back; "" when it isn't
	Discard bool   // it is to be taken and thrown away
}

// Message shows the milters the message, one after the other: each sees the header as the one before left it.
func (r *Run) Message(ctx context.Context, header message.Header, body Body) (Changes, error) {
	c := Changes{Header: header}
	if r == nil {
		return c, nil
	}
	for _, a := range r.asked {
		if a.s == nil {
			continue
		}
		if a.MaxSize > 0 && body.Size() > a.MaxSize {
			r.note(a, trace.Passed, "message: larger than it wants to see", "")
			continue
		}
		err := r.content(ctx, a, &c, body)
		if errors.Is(err, ErrDiscard) {
			c.Discard = true
			return c, nil
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// content shows one milter the message and applies what it answers.
func (r *Run) content(ctx context.Context, a *asked, c *Changes, body Body) error {
	_, command, content := a.Waits()
	a.conn.stage(max(command, content), content)
	var wanted []protocol.ModifyAction
	err := r.one(ctx, a, "message", func(a *asked) (act *protocol.Action, err error) {
		if act, err = sendHeader(a.s, c.Header); err != nil || act.Code != protocol.ActContinue {
			return act, err
		}
		if act, err = sendBody(a.s, c.Body, body); err != nil || act.Code != protocol.ActContinue {
			return act, err
		}
		wanted, act, err = a.s.End()
		return act, err
	})
	if err != nil {
		return err
	}
	r.apply(a, c, wanted)
	return nil
}

// sendHeader sends the fields, with the line ends within them as milters want them.
func sendHeader(s *protocol.ClientSession, h message.Header) (*protocol.Action, error) {
	space := s.ProtocolOption(protocol.OptHeaderLeadingSpace)
	for i := range h {
		name, value, ok := bytes.Cut(h[i].Raw, []byte(":"))
		if !ok {
			continue // no field: milters have no word for it
		}
		text := strings.ReplaceAll(strings.TrimSuffix(string(value), "\r\n"), "\r\n", "\n")
		text = strings.ReplaceAll(text, "\x00", "")
		if !space {
			text = strings.TrimPrefix(text, " ")
		}
		act, err := s.HeaderField(strings.TrimRight(string(name), " \t"), text)
		if err != nil || act.Code != protocol.ActContinue {
			return act, err
		}
	}
	return s.HeaderEnd()
}

func sendBody(s *protocol.ClientSession, replaced []byte, body Body) (*protocol.Action, error) {
	var src io.Reader = io.NewSectionReader(body, 0, body.Size())
	if replaced != nil {
		src = bytes.NewReader(replaced)
	}
	act := &protocol.Action{Code: protocol.ActContinue}
	buf := make([]byte, protocol.MaxBodyChunk)
	for {
		n, err := io.ReadFull(src, buf)
		if n > 0 {
			var aerr error
			if act, aerr = s.BodyChunk(buf[:n]); aerr != nil || act.Code != protocol.ActContinue {
				return act, aerr
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return act, nil
		}
		if err != nil {
			return nil, err
		}
	}
}
