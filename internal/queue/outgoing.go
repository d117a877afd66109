package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"waxwing/internal/message"
	"waxwing/internal/store"
)

// outgoing is the message as it leaves this server: with the fields that were set for the way out, and without the
// Return-Path that the stored octets begin with when mailboxes here share them. Only the server of the final delivery
// writes that field (RFC 5321, section 4.4).
func outgoing(m *store.QueueMessage, stored store.Content) (*message.Spliced, error) {
	var buf [maxReturnPath]byte
	head := buf[:min(stored.Size(), maxReturnPath)]
	if n, err := stored.ReadAt(head, 0); n < len(head) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read the beginning of message %s: %w", m.TraceID, err)
	}
	return message.Splice(m.Prefix, stored, int64(returnPath(head)), stored.Size()), nil
}

// maxReturnPath is more than the line has that intake writes: a path of at most 256 octets (RFC 5321, section
// 4.5.3.1.3), in which each octet of the local part may be quoted.
const maxReturnPath = 512

// returnPath is the length of the Return-Path line at the beginning of a stored message, 0 when it has none. One that
// came from outside isn't there: intake drops it.
func returnPath(head []byte) int {
	const name = "Return-Path:"
	if len(head) < len(name) || !bytes.EqualFold(head[:len(name)], []byte(name)) {
		return 0
	}
	if end := bytes.Index(head, []byte("\r\n")); end >= 0 {
		return end + 2
	}
	return 0
}
