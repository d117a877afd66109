package store

import (
	"context"
	"database/sql"
	"log/slog"
	"time"
)

// Options configures Open.
type Options struct {
	DB        *Database
	Blobs     BlobStore
	Clock     func() time.Time // time.Now when nil
	Logger    *slog.Logger     // discarded when nil
	IndexSize int64            // octets of memory for the indexes of mailboxes that no View uses; 0 means 256 MiB
}

// Store is the mail state of one node or one database.
type Store struct{}

// Database is an opened SQL back-end; store/sqlite makes one.
type Database struct{}

// BlobStore keeps the octets of messages; Packs makes one from a pack store.
type BlobStore interface{}

// Tx is the transaction that a closure given to Write runs in.
type Tx struct{}

// Querier is what a closure given to Read asks.
type Querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
	QueryRow(query string, args ...any) *sql.Row
}

// MailboxSpec is a mailbox that CreateAccountState makes.
type MailboxSpec struct {
	Name       string
	Role       Role
	Subscribed bool
}

// DefaultMailboxes are the mailboxes of a new account.
var DefaultMailboxes []MailboxSpec

// NewMessage is one message for Append.
type NewMessage struct {
	Content      Content
	Summary      Summary
	Flags        Flags
	Keywords     []string
	InternalDate time.Time // the clock's time when zero
	UIDL         string    // POP3 unique id taken over from another server; empty for the store's own
}

// Usage is what an account uses and may use; a quota of 0 is none.
type Usage struct {
	Bytes, Messages, QuotaBytes, QuotaMessages int64
}

// Update is what Sync found.
type Update struct {
	Expunged  []int // sequence numbers, highest first, so that each is valid when it is sent
	Exists    int
	NewRecent int   // messages that this session is the first to be told of
	Changed   []int // sequence numbers (after the expunges) whose flags or keywords changed, ascending
	Gone      bool  // the mailbox was deleted
}

// View is a session's view of one mailbox.
type View struct{}

// ViewOption changes how a View is opened.
type ViewOption func(*View)

func Open(ctx context.Context, opts Options) (*Store, error)                     { panic("contract") }
func (s *Store) Close() error                                                     { panic("contract") }
func (s *Store) Write(ctx context.Context, fn func(tx *Tx) error) error           { panic("contract") }
func (s *Store) Read(ctx context.Context, fn func(q Querier) error) error         { panic("contract") }
func (tx *Tx) Exec(query string, args ...any) (sql.Result, error)                 { panic("contract") }
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error)                 { panic("contract") }
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row                        { panic("contract") }
func (tx *Tx) AfterCommit(fn func())                                              { panic("contract") }
func (tx *Tx) Now() time.Time                                                     { panic("contract") }
func IsUnique(err error) bool                                                     { panic("contract") }
func (tx *Tx) ReleaseBlob(blobID int64) error                                     { panic("contract") }
func (s *Store) Housekeep(ctx context.Context) error                              { panic("contract") }
func (s *Store) CreateAccountState(tx *Tx, acct AccountID, mailboxes []MailboxSpec) error {
	panic("contract")
}
func (s *Store) DeleteAccountState(tx *Tx, acct AccountID) error                  { panic("contract") }
func (s *Store) SetQuota(tx *Tx, acct AccountID, octets, messages int64) error     { panic("contract") }
func (s *Store) Usage(ctx context.Context, acct AccountID) (Usage, error)         { panic("contract") }
func (s *Store) Deliver(ctx context.Context, d Delivery) (Delivered, error)       { panic("contract") }
func (s *Store) Append(ctx context.Context, acct AccountID, mbox MailboxID, msgs []NewMessage) ([]Placed, error) {
	panic("contract")
}
func (s *Store) Mailboxes(ctx context.Context, acct AccountID) ([]Mailbox, error) { panic("contract") }
func (s *Store) Mailbox(ctx context.Context, acct AccountID, name string) (Mailbox, error) {
	panic("contract")
}
func (s *Store) MailboxByID(ctx context.Context, acct AccountID, id MailboxID) (Mailbox, error) {
	panic("contract")
}
func (s *Store) CreateMailbox(ctx context.Context, acct AccountID, name string, role Role) (Mailbox, error) {
	panic("contract")
}
func (s *Store) RenameMailbox(ctx context.Context, acct AccountID, id MailboxID, newName string) error {
	panic("contract")
}
func (s *Store) DeleteMailbox(ctx context.Context, acct AccountID, id MailboxID) error { panic("contract") }
func (s *Store) Subscribe(ctx context.Context, acct AccountID, name string, on bool) error {
	panic("contract")
}
func (s *Store) Subscriptions(ctx context.Context, acct AccountID) ([]string, error) { panic("contract") }

// Peek opens a View that leaves \Recent to others, as EXAMINE does (RFC 3501, section 6.3.2).
func Peek() ViewOption { panic("contract") }
func (s *Store) View(ctx context.Context, acct AccountID, mbox MailboxID, notify func(), opts ...ViewOption) (*View, error) {
	panic("contract")
}
func (v *View) Mailbox() Mailbox                       { panic("contract") }
func (v *View) Keywords() []string                     { panic("contract") } // in use in the mailbox, for FLAGS and PERMANENTFLAGS
func (v *View) Len() int                               { panic("contract") }
func (v *View) UID(seq int) UID                        { panic("contract") }
func (v *View) Seq(uid UID) (int, bool)                { panic("contract") }
func (v *View) SeqRange(lo, hi UID) (first, last int)  { panic("contract") }
func (v *View) Entry(seq int) (Entry, bool)            { panic("contract") }
func (v *View) Entries(first, last int, fn func(seq int, e *Entry) bool) { panic("contract") }
func (v *View) ChangedSince(since ModSeq, fn func(seq int, e *Entry) bool) { panic("contract") }
func (v *View) FirstUnseen() int                       { panic("contract") } // sequence number, 0 when all are seen
func (v *View) FirstRecent() UID                       { panic("contract") }
func (v *View) Recent(uid UID) bool                    { panic("contract") }
func (v *View) RecentCount() int                       { panic("contract") }
func (v *View) Sync(expunge bool) Update               { panic("contract") }
func (v *View) Close()                                 { panic("contract") }

func (s *Store) StoreFlags(ctx context.Context, acct AccountID, mbox MailboxID, uids []UID, ch FlagChange) (changed, failed []UID, err error) {
	panic("contract")
}
func (s *Store) Copy(ctx context.Context, acct AccountID, src MailboxID, uids []UID, dst MailboxID) (from, to []UID, validity uint32, err error) {
	panic("contract")
}
func (s *Store) Move(ctx context.Context, acct AccountID, src MailboxID, uids []UID, dst MailboxID) (from, to []UID, validity uint32, err error) {
	panic("contract")
}
func (s *Store) Expunge(ctx context.Context, acct AccountID, mbox MailboxID, uids []UID, onlyDeleted bool) ([]UID, error) {
	panic("contract")
}
func (s *Store) Vanished(ctx context.Context, acct AccountID, mbox MailboxID, since ModSeq) ([]UID, error) {
	panic("contract")
}
func (s *Store) Summaries(ctx context.Context, acct AccountID, ids []MessageID, fn func(MessageID, *Summary) error) error {
	panic("contract")
}
func (s *Store) OpenBlob(ctx context.Context, acct AccountID, id MessageID) (Blob, error) {
	panic("contract")
}
func (s *Store) ReadBlob(ctx context.Context, acct AccountID, id MessageID, buf []byte) ([]byte, error) {
	panic("contract")
}

// OpenBlobID opens a blob by its own id: queue rows hold one.
func (s *Store) OpenBlobID(ctx context.Context, blobID int64) (Blob, error)      { panic("contract") }
func (s *Store) GUID(acct AccountID, id MessageID) string                         { panic("contract") }
func (s *Store) UIDLs(ctx context.Context, acct AccountID, mbox MailboxID) (map[MessageID]string, error) {
	panic("contract")
}
func (s *Store) Watch(acct AccountID, notify func()) (stop func())                { panic("contract") }
func (s *Store) WatchQueue(notify func()) (stop func())                           { panic("contract") }
func (tx *Tx) NotifyQueue()                                                       { panic("contract") }
func (s *Store) LockMaildrop(acct AccountID) (unlock func(), ok bool)             { panic("contract") }
