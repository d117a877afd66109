// Package mailfile reads and writes mail in files, for import and export: mailboxes in the mbox format (RFC 4155) and
// folders in the Maildir format (as Dovecot and Courier keep them, Maildir++ for the folders below INBOX).
//
// It knows nothing of accounts or the store. Messages come out and go in with CRLF line ends; the files hold LF, as
// other programs expect. No message is held in memory. Files are foreign: every name, flag and date in them is checked.
package mailfile

import (
	"errors"
	"strings"
	"time"
)

// Flags of a message.
type Flags struct {
	Seen, Answered, Flagged, Deleted, Draft bool
	Keywords                                []string
}

// Message is what stands about a message outside its octets.
type Message struct {
	Sender string    // reverse-path of an mbox postmark; "MAILER-DAEMON" stands for none
	Date   time.Time // of delivery; zero when it can't be read
	Flags  Flags
}

// ErrNotMbox means that the file does not begin with a postmark.
var ErrNotMbox = errors.New("no mbox: no \"From \" line at the beginning")

// IsKeyword tells a flag-keyword of IMAP: an atom (RFC 3501, section 9), of at most 100 octets here.
func IsKeyword(k string) bool {
	return k != "" && len(k) <= maxKeyword && !strings.ContainsFunc(k, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`(){%*"\]`, r)
	})
}

// Bounds on what is believed of foreign files.
const (
	maxKeywords = 100
	maxKeyword  = 100
)
