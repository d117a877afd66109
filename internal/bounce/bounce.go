// Package bounce says what a refusal means: it sorts what another mail server answered, or what kept it from being asked, into
// a few categories, by the enhanced code (RFC 3463 and the registry of RFC 5248), the words, and who runs the server.
//
// The rules are a table (table.go). They decide nothing about the message itself: whether it is tried again is the first
// digit of the reply (RFC 5321, section 4.2.1). They tell what the refusal is about, so that an address that is dead can be
// told from a message that is not liked and from a server that wants to be left alone.
//
//	v := bounce.Classify(bounce.Reply{Code: 550, Text: "550 5.1.1 no such user", Host: "mx.example.test"})
//	v.Category // bounce.NoMailbox
//	v.Action   // bounce.Hard
//
// It does no input or output and holds no state.
package bounce

import (
	"strings"

	"waxwing/internal/smtp"
)

// Category is what a refusal is about. There are few, so that they serve as labels of metrics.
type Category string

// The categories.
const (
	None       Category = ""               // no refusal
	NoMailbox  Category = "no-mailbox"     // the address does not exist there
	Disabled   Category = "disabled"       // it did, or takes no mail
	NoDomain   Category = "no-domain"      // the domain does not exist or takes no mail
	Moved      Category = "moved"          // it has moved
	Full       Category = "mailbox-full"   // over quota
	Size       Category = "size"           // the message is too large
	Content    Category = "content"        // its form or an attachment is refused
	Spam       Category = "spam"           // it looks like spam
	Virus      Category = "virus"          // it looks like malware
	Auth       Category = "authentication" // SPF, DKIM, DMARC, PTR
	Reputation Category = "reputation"     // the sending address or domain is on a list
	RateLimit  Category = "rate-limit"     // too much, too fast
	Greylist   Category = "greylist"       // come again
	Policy     Category = "policy"         // a rule there, not said which
	Relay      Category = "relay"          // the server does not serve the recipient's domain, or wants a password
	Sender     Category = "sender"         // the reverse-path is refused
	Busy       Category = "busy"           // the server is overloaded or down for a while
	DNS        Category = "dns"            // look-ups fail
	Network    Category = "network"        // no connection, or it broke
	TLS        Category = "tls"            // protection that is wanted can't be had
	Loop       Category = "loop"           // mail goes in circles
	Protocol   Category = "protocol"       // commands or parameters are not taken
	Expired    Category = "expired"        // was tried for too long
	Suppressed Category = "suppressed"     // this server does not try the address any more
	Dropped    Category = "dropped"        // by an administrator
	Other      Category = "other"
)

// Categories lists all, for metrics and for those who select by them.
func Categories() []Category {
	return []Category{
		NoMailbox, Disabled, NoDomain, Moved, Full, Size, Content, Spam, Virus, Auth, Reputation, RateLimit, Greylist, Policy, Relay,
		Sender, Busy, DNS, Network, TLS, Loop, Protocol, Expired, Suppressed, Dropped, Other,
	}
}

// Action is what a refusal asks of who sends.
type Action string

// The actions.
const (
	Hard   Action = "hard"    // the address takes nothing, whatever is sent: don't send there again
	Soft   Action = "soft"    // it is about this message or this moment
	PutOff Action = "put-off" // it is about this server: send everything for that destination later and slower
)

// actions says what each category asks when the reply is temporary, and when it is permanent.
var actions = map[Category]struct{ temporary, permanent Action }{
	NoMailbox:  {Soft, Hard},
	Disabled:   {Soft, Hard},
	NoDomain:   {Soft, Hard},
	Moved:      {Soft, Hard},
	Reputation: {PutOff, Soft},
	RateLimit:  {PutOff, PutOff},
	Busy:       {PutOff, Soft},
	Network:    {PutOff, Soft},
}

// Reply is what is known of a refusal. Fields that are not known are zero.
type Reply struct {
	Code     int           // 0 when no server said anything
	Enhanced smtp.Enhanced // of the reply, or of what happened here
	Text     string        // the reply word for word, or what happened here
	Stage    string        // as package transport names it: "resolve", "connect", "STARTTLS", "RCPT", "end of data"
	Host     string        // the server that spoke
}

// Verdict is what a Reply means.
type Verdict struct {
	Category Category
	Action   Action
	Provider string // see Provider
	Rule     string // name of the rule that fit, for the trace: "words", "google", "code", "stage", or ""
}

// maxText bounds what of a reply is looked at.
const maxText = 2000

// Classify sorts a refusal. A 2xx reply has no category.
func Classify(r Reply) Verdict {
	v := Verdict{Provider: Provider(r.Host)}
	if r.Code/100 == 2 || r.Code == 0 && r.Enhanced.Class == 2 {
		return v
	}
	v.Category, v.Rule = categorize(r, v.Provider)
	v.Action = actionOf(v.Category, r.Code/100 == 5 || r.Code == 0 && r.Enhanced.Class == 5)
	return v
}

func actionOf(c Category, permanent bool) Action {
	a, known := actions[c]
	switch {
	case !known:
		return Soft
	case permanent:
		return a.permanent
	}
	return a.temporary
}

func categorize(r Reply, provider string) (Category, string) {
	if r.Code == 0 { // nobody said anything: what happened here is known for sure
		if c := byStage(r); c != None {
			return c, "stage"
		}
	}
	text := strings.ToLower(strings.ToValidUTF8(r.Text[:min(len(r.Text), maxText)], "?"))
	text = strings.Join(strings.Fields(text), " ")
	for i := range rules {
		if p := &rules[i]; p.provider == provider && p.provider != "" && p.fits(r, text) {
			return p.category, provider
		}
	}
	if c, sure := byCode(r.Enhanced); sure {
		return c, "code"
	}
	for i := range rules {
		if p := &rules[i]; p.provider == "" && p.fits(r, text) {
			return p.category, "words"
		}
	}
	if c, _ := byCode(r.Enhanced); c != None {
		return c, "code"
	}
	if c, ok := byReply[r.Code]; ok {
		return c, "code"
	}
	return Other, ""
}

// StageSuppressed is the Stage of what this server does not send.
const StageSuppressed = "suppressed"

// byStage sorts what happened before a server answered.
func byStage(r Reply) Category {
	e := r.Enhanced
	switch {
	case r.Stage == StageSuppressed:
		return Suppressed
	case e.Subject == 4 && e.Detail == 6:
		return Loop
	case e.Subject == 1 && (e.Detail == 2 || e.Detail == 10):
		return NoDomain
	case e.Subject == 4 && e.Detail == 7:
		return Expired
	case e.Subject == 7:
		return TLS
	}
	switch r.Stage {
	case "resolve":
		return DNS
	case "STARTTLS":
		return TLS
	case "connect", "greeting", "EHLO", "end of data", "DATA":
		if e.Subject == 6 || e.Subject == 3 {
			return None
		}
		return Network
	}
	return None
}

// rule is one line of the table: all fields that are set must fit.
type rule struct {
	provider string // "" for all
	category Category
	codes    []int    // of the reply; none: any
	any      []string // one of these stands in the text, in lower case with single spaces
	all      []string // and all of these
	not      []string // and none of these
}

func (p *rule) fits(r Reply, text string) bool {
	if len(p.codes) > 0 {
		found := false
		for _, c := range p.codes {
			found = found || c == r.Code
		}
		if !found {
			return false
		}
	}
	for _, w := range p.all {
		if !strings.Contains(text, w) {
			return false
		}
	}
	for _, w := range p.not {
		if strings.Contains(text, w) {
			return false
		}
	}
	if len(p.any) == 0 {
		return true
	}
	for _, w := range p.any {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
