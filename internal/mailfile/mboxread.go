package mailfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// maxPostmark bounds what is kept of a postmark line.
const maxPostmark = 1000

// MboxReader takes the messages out of a mailbox one after another.
type MboxReader struct {
	r      *bufio.Reader
	offset int64  // of the next octet to be read
	start  int64  // of the postmark in mark
	mark   []byte // the postmark of the next message, empty when none was met yet
	ended  bool
}

// NewMboxReader reads from r, whose first octet stands at the given offset of its file: 0, or one that Offset gave.
func NewMboxReader(r io.Reader, offset int64) *MboxReader {
	return &MboxReader{r: bufio.NewReaderSize(r, 64<<10), offset: offset, start: offset}
}

// Offset is where the next message begins in the file, or the end of the file after the last one.
func (r *MboxReader) Offset() int64 {
	if len(r.mark) > 0 {
		return r.start
	}
	return r.offset
}

// Next copies the next message to w and tells what stands about it; io.EOF when there is none.
func (r *MboxReader) Next(w io.Writer) (Message, error) {
	if err := r.findMark(); err != nil {
		return Message{}, err
	}
	start := r.start
	m := parsePostmark(r.mark)
	r.mark = r.mark[:0]
	if err := r.copyMessage(w, &m); err != nil {
		return Message{}, fmt.Errorf("mbox: message at octet %d: %w", start, err)
	}
	return m, nil
}

// findMark reads up to the first postmark; only blank lines may stand before it.
func (r *MboxReader) findMark() error {
	for len(r.mark) == 0 {
		if r.ended {
			return io.EOF
		}
		at := r.offset
		line, whole, err := r.line()
		if err != nil {
			r.ended = true
			return err
		}
		if isPostmark(line) {
			return r.keepMark(at, line, whole)
		}
		if !isBlank(line) {
			r.ended = true
			return ErrNotMbox
		}
	}
	return nil
}

// keepMark takes line as the postmark of the next message and skips what did not fit the buffer.
func (r *MboxReader) keepMark(at int64, line []byte, whole bool) error {
	r.start = at
	r.mark = append(r.mark[:0], line[:min(len(line), maxPostmark)]...)
	for !whole {
		var err error
		if _, whole, err = r.line(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil
}

// line gives the next line with its end, or as much of it as the buffer holds; whole tells which. The last line may
// lack its end.
func (r *MboxReader) line() (line []byte, whole bool, err error) {
	line, err = r.r.ReadSlice('\n')
	r.offset += int64(len(line))
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return line, false, nil
	case errors.Is(err, io.EOF) && len(line) > 0:
		return line, true, nil
	}
	return line, true, err
}

// copyMessage copies lines up to the next postmark, which counts only after a blank line. A blank line in the body is
// held back until the next line is known: the one before a postmark, or at the end of the file, belongs to the format.
func (r *MboxReader) copyMessage(w io.Writer, m *Message) error {
	out := crlfWriter{w: w}
	status := statusFields{flags: &m.Flags}
	header, fresh, afterBlank, held := true, true, false, false
	for {
		at := r.offset
		line, whole, err := r.line()
		if errors.Is(err, io.EOF) {
			r.ended = true
			return out.end()
		}
		if err != nil {
			return err
		}
		if fresh && afterBlank && isPostmark(line) {
			if err := r.keepMark(at, line, whole); err != nil {
				return err
			}
			return out.end()
		}
		if held {
			if err := out.write(crlf); err != nil {
				return err
			}
			held = false
		}
		blank := fresh && whole && isBlank(line)
		switch {
		case blank && !header:
			held = true
		case header && !blank && status.take(line, fresh):
		default:
			if fresh {
				line = unquote(line)
			}
			if err := out.write(line); err != nil {
				return err
			}
			header = header && !blank
		}
		fresh, afterBlank = whole, blank
	}
}

func isPostmark(line []byte) bool { return bytes.HasPrefix(line, []byte("From ")) }

func isBlank(line []byte) bool {
	return len(line) == 0 || line[0] == '\n' || (len(line) == 2 && line[0] == '\r' && line[1] == '\n')
}

// isQuotable tells a postmark behind any number of ">".
func isQuotable(line []byte) bool { return isPostmark(bytes.TrimLeft(line, ">")) }

// unquote takes one ">" from a quoted line.
func unquote(line []byte) []byte {
	if len(line) > 0 && line[0] == '>' && isQuotable(line) {
		return line[1:]
	}
	return line
}

// postmarkDates are the dates seen behind the sender, the usual one first.
var postmarkDates = []string{
	time.ANSIC, "Mon Jan _2 15:04:05 2006 -0700", "Mon Jan _2 15:04:05 -0700 2006",
	"Mon Jan _2 15:04:05 MST 2006", "Mon, _2 Jan 2006 15:04:05 -0700", "Mon Jan _2 15:04 2006", time.RFC3339,
}

func parsePostmark(line []byte) Message {
	text := strings.TrimSpace(strings.TrimPrefix(string(line), "From "))
	sender, date, _ := strings.Cut(text, " ")
	m := Message{Sender: sender}
	for _, layout := range postmarkDates {
		if t, err := time.Parse(layout, strings.TrimSpace(date)); err == nil {
			m.Date = t.UTC()
			break
		}
	}
	return m
}
