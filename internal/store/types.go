package store

import (
	"context"
	"errors"
	"io"
	"time"
)

// AccountID names an account; MailboxID and MessageID are unique within one account. None is ever reused.
type (
	AccountID int64
	MailboxID int64
	MessageID int64
	// UID is an IMAP unique identifier: ascending within a mailbox, never reused (RFC 3501, section 2.3.1.1).
	UID uint32
	// ModSeq is a modification sequence of the account: IMAP's CONDSTORE and JMAP's state are this one counter (RFC 7162).
	ModSeq uint64
)

// Flags are the system flags of an entry as a bit set; \Recent is a property of a session's View, not of an entry.
type Flags uint8

const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft
)

// Role is the special use of a mailbox, RFC 6154; the empty role is an ordinary one.
type Role string

const (
	RoleInbox   Role = "inbox"
	RoleDrafts  Role = "drafts"
	RoleSent    Role = "sent"
	RoleTrash   Role = "trash"
	RoleJunk    Role = "junk"
	RoleArchive Role = "archive"
	RoleSurge   Role = "surge" // surplus of mail bombs; of this server alone, and unknown to mail programs
)

// Errors that callers act on. Everything else is a failure of the store itself: answer 4xx or NO and log it.
var (
	ErrNotFound  = errors.New("store: not found")
	ErrExists    = errors.New("store: already exists")
	ErrOverQuota = errors.New("store: over quota")
	ErrReadOnly  = errors.New("store: read-only")                // disk refused writes; reads go on
	ErrFull      = errors.New("store: no space left")            // ENOSPC, quota of the disk, reserve reached
	ErrCorrupt   = errors.New("store: stored object is damaged") // harms this object only
	ErrClosed    = errors.New("store: closed")
	ErrName      = errors.New("store: mailbox name not allowed")
	ErrLimit     = errors.New("store: a limit of the account is reached") // mailboxes, keywords
	ErrChildren  = errors.New("store: mailbox has children")
)

// Mailbox is one mailbox of an account with its counts, which the transaction that changes entries keeps.
type Mailbox struct {
	ID            MailboxID
	Name          string // whole path, UTF-8 NFC, levels separated by "/"; "INBOX" in capitals
	Role          Role
	Subscribed    bool
	UIDValidity   uint32
	UIDNext       UID
	HighestModSeq ModSeq
	Messages      uint32
	Unseen        uint32
	Deleted       uint32 // messages flagged \Deleted
	Size          int64  // octets of all messages
}

// Content is the bytes of one message: not held in memory when large.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Summary is what is kept beside a message's bytes; package digest makes it once, at delivery.
type Summary struct {
	HeaderSize    int64  // octets up to and with the blank line
	Envelope      []byte // IMAP ENVELOPE as wire text
	BodyStructure []byte // IMAP BODYSTRUCTURE as wire text
	SentAt        time.Time
	MessageID     string   // without angle brackets
	References    []string // References and In-Reply-To, oldest first, bounded
	BaseSubject   string   // RFC 5256, section 2.1
	Preview       string   // at most 256 octets of UTF-8
	Attachments   bool
}

// Entry is one message in one mailbox.
type Entry struct {
	UID          UID
	Message      MessageID
	Flags        Flags
	Keywords     []string // as first written in the mailbox, without the system flags; shared: do not change
	ModSeq       ModSeq
	Size         int64
	InternalDate time.Time
	SavedAt      time.Time
}

// NewEntry says how a message stands in a mailbox.
type NewEntry struct {
	Account      AccountID
	Mailbox      MailboxID // 0: the mailbox with the Role; it is made when the account lacks it
	Role         Role
	Name         string // of a mailbox that is made for the role; "": a name of the store's own
	Create       bool   // the mailbox of that Name is meant, whatever its role; it is made when the account lacks it
	Flags        Flags
	Keywords     []string
	InternalDate time.Time
	IgnoreQuota  bool // a delivery that was accepted at RCPT is not refused at the end
}

// Delivery is everything that one accepted message changes; Deliver commits it in one transaction.
type Delivery struct {
	Content Content
	Summary Summary
	Local   []NewEntry
	Queue   *QueueMessage // remote recipients, nil for none
	Trace   TraceRow      // what led here; zero for nothing
	Sieve   []SieveMemory // what scripts are to remember from now on
	Also    []Delivery    // further messages of the same transaction, each without Also: notifications, copies
	// More are remote recipients that the same octets go to under another reverse-path, or with other fields before them; only
	// beside Queue.
	More []*QueueMessage
}

// Delivered says what a Delivery made.
type Delivered struct {
	Local []Placed // in the order of Delivery.Local
	Queue QueueID  // 0 without remote recipients
	Also  []Delivered
}

// Placed is where a message came to stand.
type Placed struct {
	Mailbox     MailboxID
	Message     MessageID
	UID         UID
	UIDValidity uint32
}

// FlagOp says how StoreFlags combines.
type FlagOp uint8

const (
	FlagsSet FlagOp = iota
	FlagsAdd
	FlagsRemove
)

// FlagChange is one STORE command.
type FlagChange struct {
	Op             FlagOp
	Flags          Flags
	Keywords       []string
	UnchangedSince ModSeq // entries with a higher ModSeq are left and reported; only when Conditional
	Conditional    bool
}

// Blob is an open message; Close it. It stays readable while it is open, whatever happens to the message.
type Blob interface {
	Content
	Close() error
}

// Deliverer is what a caller that only files mail needs.
type Deliverer interface {
	Deliver(ctx context.Context, d Delivery) (Delivered, error)
}
