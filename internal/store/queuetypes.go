package store

import (
	"time"

	"waxwing/internal/store/blob"
)

// QueueID names one queued message; RecipientID one recipient of it. Both ascend and are never reused.
type (
	QueueID     int64
	RecipientID int64
)

// LocalDestination is the destination of recipients here whose message was held back. No domain has this name.
const LocalDestination = ".local"

// QueueMessage is one message on its way out: a row, with a row for each recipient.
type QueueMessage struct {
	ID          QueueID
	TraceID     string    // the id that Received and the logs carry
	From        string    // reverse-path as SMTP writes it, "" for null
	Account     AccountID // submitting account, 0 for relayed and generated mail
	Body        string    // BODY parameter: "", 8BITMIME, BINARYMIME
	UTF8        bool      // SMTPUTF8
	Ret         string    // DSN RET
	EnvID       string    // DSN ENVID
	TLS         uint8     // smtp.TLSNeed
	Blob        int64     // where the octets are, for OpenBlobID; set by the store
	Prefix      []byte    // header fields set before the stored bytes when it is sent (signatures), CRLF-ended
	Size        int64
	Created     time.Time
	Expires     time.Time // Created, or HoldUntil, and five days when zero
	HoldUntil   time.Time // FUTURERELEASE: nothing is tried before; zero for none
	DeliverBy   time.Time // DELIVERBY: when it is late; zero for none
	ByMode      string    // letters of DELIVERBY: N, NT, R or RT, "" for none
	Priority    int       // -9 to 9, RFC 6710
	Recipients  []QueueRecipient
	Description string // Subject for `queue list`, shortened; may be empty by policy

	place *blob.Ref // where its content was when it was taken, nil: not known
}

// QueueState is the state of one recipient's row.
type QueueState string

const (
	QueueWaiting QueueState = "waiting" // due at NextAttempt
	QueueLeased  QueueState = "leased"  // an attempt is under way until LeaseUntil
	QueueHeld    QueueState = "held"    // by an administrator or a policy
	QueueDamaged QueueState = "damaged" // set aside: the row or its blob can't be read
)

// QueueOutcome is what finally became of a recipient whose row remains only because its sender has not been told yet.
type QueueOutcome string

const (
	QueueOpen    QueueOutcome = ""        // not decided
	QueueRelayed QueueOutcome = "relayed" // taken by a server that sends no delivery status notifications itself
	QueueFailed  QueueOutcome = "failed"  // refused for good
	QueueExpired QueueOutcome = "expired" // given up after the last attempt failed
)

// QueueRecipient is one recipient of a queued message.
type QueueRecipient struct {
	ID           RecipientID
	To           string // forward-path as SMTP writes it
	Domain       string // destination under which it is scheduled: A-labels, lower case
	Notify       uint8  // smtp.Notify
	ORcpt        string
	ValidSince   string // RRVS with its letter as RCPT has it, "" for none
	State        QueueState
	Attempts     int
	NextAttempt  time.Time
	LeaseUntil   time.Time
	Lease        int64 // token of the lease: QueueFinish and QueueExtend want it
	Outcome      QueueOutcome
	LastStatus   string // enhanced status code of the last failure, "" when none
	LastError    string // what the remote server said last, word for word, bounded
	LastHost     string
	Category     string // what the last failure was about, see package bounce
	Provider     string // who runs the server that spoke last
	Pool         string // of source addresses that the last attempt came from
	HeldFor      string // why it is held, when no administrator did it
	Lane         int    // see queuelane.go; set by the store
	DelayWarned  bool
	FirstAttempt time.Time
	LastAttempt  time.Time
}
