package mailfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteMbox appends one message to w: its postmark, its flags as status fields, its octets quoted, and a blank line. It
// returns the number of octets written.
func WriteMbox(w io.Writer, m Message, content io.Reader) (int64, error) {
	out := &counter{w: bufio.NewWriterSize(w, 64<<10)}
	if err := write(out, m, content); err != nil {
		return out.n, fmt.Errorf("mbox: write message: %w", err)
	}
	if err := out.w.Flush(); err != nil {
		return out.n, fmt.Errorf("mbox: write message: %w", err)
	}
	return out.n, nil
}

// counter counts what goes into the buffer.
type counter struct {
	w *bufio.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func write(w io.Writer, m Message, content io.Reader) error {
	if _, err := io.WriteString(w, postmark(m)+m.Flags.fields()); err != nil {
		return err
	}
	lf := lfWriter{w: w, fresh: true}
	status := statusFields{flags: &Flags{}} // what the message itself says is dropped
	r := bufio.NewReaderSize(content, 64<<10)
	header, fresh := true, true
	for {
		line, err := r.ReadSlice('\n')
		whole := !errors.Is(err, bufio.ErrBufferFull)
		if err != nil && whole && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > 0 {
			blank := fresh && whole && isBlank(line)
			header = header && !blank
			if !header || !status.take(line, fresh) {
				if fresh && isQuotable(line) {
					if err := lf.write([]byte(">")); err != nil {
						return err
					}
				}
				if err := lf.write(line); err != nil {
					return err
				}
			}
			fresh = whole
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	return lf.end()
}

// postmark is the line before a message: sender and time of delivery, in UTC as RFC 4155, appendix A asks.
func postmark(m Message) string {
	sender := strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, m.Sender)
	if sender == "" {
		sender = "MAILER-DAEMON"
	}
	return "From " + sender + " " + m.Date.UTC().Format(time.ANSIC) + "\n"
}
