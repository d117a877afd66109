package imapserver

import (
	"bytes"
	"slices"

	"waxwing/internal/store"
)

// listFields are the fields that clients show and sort lists of messages by, and search in. Their octets are remembered,
// since clients ask for them again and again, for whole mailboxes.
var listFields = []string{
	"bcc", "cc", "content-type", "date", "from", "importance", "in-reply-to", "list-id", "list-post", "message-id",
	"newsgroups", "priority", "references", "reply-to", "sender", "subject", "to", "x-label", "x-priority",
}

// Bounds of the memory of header fields: all, those of one message, and what one takes beside its octets.
const (
	headerMemory    = 32 << 20
	maxHeaderKept   = 16 << 10
	headerKeptExtra = 120
)

// messageKey names a message.
type messageKey struct {
	acct store.AccountID
	id   store.MessageID
}

func isListField(name string) bool {
	_, found := slices.BinarySearch(listFields, name)
	return found
}

// listHeader gives the message's header as far as it is of listFields, as it stands, and a blank line. A message that has
// been read already is not asked for it: its whole header is at hand.
func (r *bodyReader) listHeader() ([]byte, error) {
	key := messageKey{r.s.acct, r.id}
	if header, ok := r.s.srv.headers.Get(key); ok {
		return header, nil
	}
	header, err := r.wholeHeader()
	if err != nil {
		return nil, err
	}
	r.fields = appendFields(r.fields[:0], header, listFields, false)
	if len(r.fields) <= maxHeaderKept {
		r.s.srv.headers.Put(key, bytes.Clone(r.fields), int64(len(r.fields)+headerKeptExtra))
	}
	return header, nil
}

// inMemory tells whether the message has been read.
func (r *bodyReader) inMemory() bool { return r.held || r.blob != nil }
