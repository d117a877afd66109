// Package trace keeps what became of each message: one id from the connection to the mailbox, the rejection, the bounce or
// the 250 of another server, and under it each step with its time, its outcome, the reason, and what the other side said.
// A connection or a transaction that was refused has a trace too.
//
// Whoever deals with a message holds a Trail and adds steps to it, which costs no input or output. The trail of an accepted
// message is one row of the transaction that takes the message. Everything else (refusals, what the queue does later, the
// words by which traces are found) goes through the Recorder, which writes in batches behind the mail's back: it never
// holds mail up, and where it can't keep pace it drops and counts.
//
// It decides nothing, and it is no log for auditors: what it shows is as true as the store, and it forgets after the days
// of retention.
//
//	t := r.Trail()                                    // one for a connection
//	t.Add(trace.Step{Kind: trace.Connect, Remote: "192.0.2.1:4711"})
//	m := t.Message()                                  // one for a message of it
//	m.Add(trace.Step{Kind: trace.Sender, Address: "a@example.test"})
//	r.Record(m.ID(), trace.Step{Kind: trace.Attempt, Outcome: trace.Delivered, Reply: "250 2.0.0 ok"})
package trace

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
)

// Kind is what a step is about. The numbers are stored: add at the end.
type Kind uint8

// The kinds of steps.
const (
	Connect   Kind = iota + 1 // a connection
	TLS                       // a handshake
	Hello                     // the name that the peer gave itself
	SignIn                    // AUTH
	Sender                    // MAIL
	Recipient                 // RCPT
	Content                   // the octets of the message: DATA or BDAT
	Check                     // what a check found: guard, filter, milter
	Route                     // where a recipient leads
	Mailbox                   // filed in a mailbox here
	Queue                     // put into the queue of outgoing mail
	Attempt                   // sent to another server, or tried
	Report                    // a notification was made for the sender
	Cause                     // this message was made because of another one
	Change                    // what an administrator or a policy did to the message
	Command                   // a command that none of the above stands for
	End                       // the end of a connection
	Accept                    // the message was taken: the answer to its end
)

var kinds = [...]string{
	"unknown", "connect", "tls", "hello", "sign-in", "sender", "recipient", "content", "check", "route", "mailbox", "queue",
	"attempt", "report", "cause", "change", "command", "end", "accept",
}

func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k]
	}
	return kinds[0]
}

// Outcome is how a step ended. The numbers are stored: add at the end.
type Outcome uint8

// The outcomes. Those from Delivered on say what became of a recipient, or of all of them when the step names none.
const (
	Passed    Outcome = iota // the step decided nothing
	Delivered                // in a mailbox here, or taken by another server
	Junked                   // in the junk folder
	Rejected                 // refused for good
	Deferred                 // put off: refused for now, or to be tried again
	Bounced                  // given up because another server refused it
	Held                     // kept until somebody releases it
	Expired                  // given up after its time
	Waiting                  // in the queue
	Dropped                  // given up by an administrator or a policy
)

var outcomes = [...]string{"passed", "delivered", "junked", "rejected", "deferred", "bounced", "held", "expired", "waiting", "dropped"}

func (o Outcome) String() string {
	if int(o) < len(outcomes) {
		return outcomes[o]
	}
	return outcomes[Passed]
}

// ParseOutcome reads what String writes; false for what decides nothing or isn't one.
func ParseOutcome(s string) (Outcome, bool) {
	for o := Delivered; int(o) < len(outcomes); o++ {
		if strings.EqualFold(s, outcomes[o]) {
			return o, true
		}
	}
	return Passed, false
}

// OfReply is the outcome that a reply code stands for: a refusal, or nothing decided.
func OfReply(code int) Outcome {
	switch {
	case code >= 500:
		return Rejected
	case code >= 400:
		return Deferred
	}
	return Passed
}

// Step is one thing that happened. What comes from outside may be anything: it is cleaned and cut when the step is added.
type Step struct {
	At      time.Time // now when zero
	Kind    Kind
	Outcome Outcome
	Address string // the envelope address that it is about
	Host    string // name of the other side
	Remote  string // its address
	Reason  string // why, in our words
	Reply   string // the other side's words, or ours to it
	Data    []Pair // what else is known
}

// Pair is one fact of a step.
type Pair struct{ Name, Value string }

// Get is the value of a fact, "" when it isn't there.
func (s *Step) Get(name string) string {
	for _, p := range s.Data {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Names of facts that this package or those who show traces read.
const (
	MessageID = "message-id"
	Subject   = "subject"
	Size      = "size"
	QueueID   = "queue"   // number of the row in the queue
	Folder    = "folder"  // where a message was filed
	NextTry   = "next"    // when the queue tries again, RFC 3339
	OtherID   = "trace"   // id of another trace
	Target    = "target"  // what an address led to
	SessionID = "session" // id of the connection
)

// Bounds of one step and of one trail.
const (
	maxAddress = 320
	maxHost    = 255
	maxReason  = 500
	maxReply   = 1000
	maxName    = 32
	maxValue   = 400
	maxPairs   = 16
	maxTrail   = 128 << 10 // octets of one row
	maxTrace   = 1 << 20   // octets of all rows of one trace
)

// clean makes text from anywhere harmless: valid UTF-8 without controls, of bounded length.
func clean(s string, limit int) string {
	plain := len(s) <= limit
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if plain {
		return s
	}
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case r == '\n', r == '\t':
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029':
			return '\uFFFD'
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// NewID makes the id of a trace: ids ascend with time.
func NewID() string { return ulid.Make().String() }

// TimeOf is the time that an id was made at; false when it is no id of ours.
func TimeOf(id string) (time.Time, bool) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return time.Time{}, false
	}
	return ulid.Time(u.Time()), true
}

// firstID is less than all ids made at a time or later, and greater than all before.
func firstID(at time.Time) string {
	if at.UnixMilli() <= 0 {
		return ""
	}
	var u ulid.ULID
	if u.SetTime(min(ulid.Timestamp(at), ulid.MaxTime())) != nil {
		return ""
	}
	return u.String()
}
