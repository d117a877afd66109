// Package smtp is the vocabulary of SMTP: replies with enhanced status codes, paths, and the parameters of MAIL and
// RCPT (RFC 5321, 3463, 3461, 1870, 6152, 6531, 3030). Pure functions over bytes: the server's sessions, the intake,
// the queue and the client speak in these types.
package smtp

import "waxwing/internal/address"

// Enhanced is an enhanced status code, RFC 3463: class.subject.detail.
type Enhanced struct{ Class, Subject, Detail int }

// Reply is one SMTP reply; it is an error too, so that a stage can return it. Text holds a line a "\n".
type Reply struct {
	Code     int
	Enhanced Enhanced // zero where none belongs: 220, 221 greetings, 354, EHLO
	Text     string
}

func (r *Reply) Error() string { panic("contract") }

// Temporary tells a 4xx reply, Permanent a 5xx one.
func (r *Reply) Temporary() bool { return r.Code/100 == 4 }
func (r *Reply) Permanent() bool { return r.Code/100 == 5 }

// Errorf builds a refusal, e.g. Errorf(550, "5.1.1", "no such mailbox %s", a).
func Errorf(code int, enhanced, format string, args ...any) *Reply { panic("contract") }

// BodyType is the BODY parameter of MAIL, RFC 6152 and 3030.
type BodyType string

const (
	Body7Bit   BodyType = ""
	Body8Bit   BodyType = "8BITMIME"
	BodyBinary BodyType = "BINARYMIME"
)

// Mail is what a MAIL command said.
type Mail struct {
	From     address.Address
	Size     int64 // SIZE, 0 when not given; RFC 1870
	Body     BodyType
	UTF8     bool   // SMTPUTF8
	Ret      string // DSN: "", FULL or HDRS; RFC 3461, section 4.3
	EnvID    string // DSN: decoded xtext, at most 100 octets
	AuthSent string // AUTH=, kept and never believed; RFC 4954, section 5
}

// Rcpt is what a RCPT command said.
type Rcpt struct {
	To     address.Address
	Notify Notify // DSN; RFC 3461, section 4.1
	ORcpt  string // DSN: "rfc822;addr" decoded, "" when not given
}

// Notify is the set of conditions under which a sender wants a DSN.
type Notify uint8

const (
	NotifyDefault Notify = 0
	NotifyNever   Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// ParseMail reads what follows "MAIL"; a space after the colon is accepted (Outlook), an unknown parameter is 555.
func ParseMail(args []byte) (Mail, *Reply) { panic("contract") }

// ParseRcpt reads what follows "RCPT". "<postmaster>" without a domain gives a Domain of "".
func ParseRcpt(args []byte) (Rcpt, *Reply) { panic("contract") }
