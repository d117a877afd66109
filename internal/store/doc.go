// Package store keeps mailboxes and messages with the semantics that IMAP, POP3 and JMAP share: UIDs and UIDVALIDITY
// (RFC 3501, section 2.3.1), one modification sequence an account (RFC 7162, RFC 8620), flags and keywords, tombstones,
// counts and quota use, all changed by the transaction that changes the entries.
//
// Rows live in SQL behind a [Database]; the octets of messages live in a [BlobStore]. A call that changes something
// returns after the rows are committed and the octets are on stable storage. One writer goroutine runs all changes and
// commits them in groups; readers work on snapshots and on a compact index of each mailbox in use that is held in memory.
//
// The package knows nothing of protocols: no literals, no sessions but the [View], no permissions. DESIGN.md beside this
// file states the invariants, the lock order and the failure cases.
package store
