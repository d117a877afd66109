// Package imapserver speaks IMAP4rev1 (RFC 3501) over the mailboxes of package store.
//
// A session is one goroutine: it waits for input without holding a buffer, parses one command straight from the wire,
// runs it, reports what changed in the selected mailbox, and answers with one tagged response. The commands stand in
// one table (commands.go) from which dispatch, CAPABILITY and the reference documentation are made; the extensions
// that have no command of their own stand in a second table beside it (capability.go).
//
// Served beyond RFC 3501: LITERAL+ (7888), SASL-IR (4959), ID (2971), ENABLE (5161), IDLE (2177), NAMESPACE (2342),
// UNSELECT (3691), UIDPLUS (4315), MOVE (6851), CHILDREN (3348), SPECIAL-USE (6154), LIST-EXTENDED (5258),
// LIST-STATUS (5819), ESEARCH (4731), CONDSTORE (7162), STATUS=SIZE (8438), and the response codes of RFC 5530.
//
// The package keeps no mail state: sequence numbers, flags and notices come from store.View, bytes from the store's
// blobs, and who may log in is decided by the Authenticator. It does not listen, and it loads no certificates.
package imapserver
