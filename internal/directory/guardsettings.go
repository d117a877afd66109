package directory

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// GuardSettings say what the front door asks of peers, and how much users may send.
type GuardSettings struct {
	Exempt      string // networks, separated by spaces
	GreetDelay  int    // milliseconds
	Pipelining  string // of commands before it is allowed: Refuse or AllowIt
	TarpitAfter int    // errors
	TarpitStep  int    // milliseconds
	TarpitMax   int    // milliseconds
	Limits      [numLimits]int64

	LoadMemory      int // per cent
	LoadDescriptors int // per cent
	LoadWriter      int // transactions that wait

	Sending SendingSettings
}

// SendingSettings bound what users send, and say what an anomaly is and what becomes of it.
type SendingSettings struct {
	MessagesPerHour, MessagesPerDay, RecipientsPerHour, RecipientsPerDay int64 // of an account; 0: no limit

	Anomaly     string // what becomes of an account that sends as it never did: Hold, Alert or Off
	EndSessions string // of an account on hold: Yes or No
	Floor       int64  // recipients an hour below which nothing is an anomaly
	Factor      int64  // times the usual recipients an hour
	NewDomains  int64  // destinations an hour that the account never sent to; 0: not looked at
	Failures    int    // per cent of recipients that failed; 0: not looked at
	Networks    int64  // signed in from within an hour; 0: not looked at
}

// Words of settings.
const (
	Refuse  = "refuse"
	AllowIt = "allow"
	Hold    = "hold"
	Alert   = "alert"
	Off     = "off"
	Yes     = "yes"
	No      = "no"
)

// Limit is one of the limits by address, network, sender or recipient.
type Limit int

// The limits. Each is a setting; 0 is none.
const (
	OpenPerNetwork Limit = iota // the only one that is no rate
	ConnectionsPerAddress
	ConnectionsPerNetwork
	CommandsPerAddress
	ErrorsPerAddress
	ErrorsPerNetwork
	MessagesPerAddress
	MessagesPerNetwork
	MessagesPerSender
	MessagesPerRecipient
	RecipientsPerAddress
	RecipientsPerNetwork
	RecipientsPerSender
	OctetsPerAddress
	OctetsPerNetwork
	numLimits
)

// limitDef describes one limit.
type limitDef struct {
	name, doc string
	per       time.Duration
	standard  int64
}

const (
	anAddress = "from one address (IPv6: one /64)"
	aNetwork  = "from one network (IPv4: /24, IPv6: /48)"
)

var limitDefs = [numLimits]limitDef{
	OpenPerNetwork:        {"open_per_network", "connections open at one time to the listeners for SMTP " + aNetwork, 0, 1000},
	ConnectionsPerAddress: {"connections_per_address", "connections a minute " + anAddress, time.Minute, 600},
	ConnectionsPerNetwork: {"connections_per_network", "connections a minute " + aNetwork, time.Minute, 3000},
	CommandsPerAddress:    {"commands_per_address", "SMTP commands a minute " + anAddress, time.Minute, 60_000},
	ErrorsPerAddress:      {"errors_per_address", "bad commands, failed sign-ins and words before the greeting a minute " + anAddress, time.Minute, 60},
	ErrorsPerNetwork:      {"errors_per_network", "the same " + aNetwork, time.Minute, 300},
	MessagesPerAddress:    {"messages_per_address", "messages an hour " + anAddress, time.Hour, 50_000},
	MessagesPerNetwork:    {"messages_per_network", "messages an hour " + aNetwork, time.Hour, 250_000},
	MessagesPerSender:     {"messages_per_sender", "messages an hour from one envelope sender", time.Hour, 0},
	MessagesPerRecipient:  {"messages_per_recipient", "messages an hour to one recipient", time.Hour, 3600},
	RecipientsPerAddress:  {"recipients_per_address", "recipients an hour " + anAddress, time.Hour, 100_000},
	RecipientsPerNetwork:  {"recipients_per_network", "recipients an hour " + aNetwork, time.Hour, 500_000},
	RecipientsPerSender:   {"recipients_per_sender", "recipients an hour from one envelope sender", time.Hour, 0},
	OctetsPerAddress:      {"octets_per_address", "octets of messages an hour " + anAddress, time.Hour, 50 << 30},
	OctetsPerNetwork:      {"octets_per_network", "octets of messages an hour " + aNetwork, time.Hour, 200 << 30},
}

// Name is the name of the setting.
func (l Limit) Name() string { return "limit." + limitDefs[l].name }

// Per is the time that the limit counts within; 0 for what is open at one time.
func (l Limit) Per() time.Duration { return limitDefs[l].per }

// Limits are all limits.
func Limits() []Limit {
	out := make([]Limit, numLimits)
	for i := range out {
		out[i] = Limit(i)
	}
	return out
}

// ExemptNetworks are the networks of Exempt.
func (g GuardSettings) ExemptNetworks() []netip.Prefix {
	list, _ := parseNetworks(g.Exempt) // checked when it was set
	return list
}

func parseNetworks(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, word := range strings.Fields(text) {
		p, err := ParseNetwork(word)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(out) > 1000 {
		return nil, fmt.Errorf("%d networks are too many", len(out))
	}
	return out, nil
}

func defaultGuard() GuardSettings {
	g := GuardSettings{
		GreetDelay: 100, Pipelining: Refuse, TarpitAfter: 5, TarpitStep: 500, TarpitMax: 10_000,
		LoadMemory: 90, LoadDescriptors: 90, LoadWriter: 5000,
		Sending: SendingSettings{
			MessagesPerHour: 1000, MessagesPerDay: 5000, RecipientsPerHour: 5000, RecipientsPerDay: 20_000,
			Anomaly: Hold, EndSessions: No, Floor: 500, Factor: 20, NewDomains: 200, Failures: 50, Networks: 30,
		},
	}
	for i, l := range limitDefs {
		g.Limits[i] = l.standard
	}
	return g
}

// number makes the row of a whole number within bounds.
func number[T int | int64](name, doc string, low, high T, field func(*GuardSettings) *T) settingDef {
	span := fmt.Sprintf("%d to %d", low, high)
	return settingDef{name, doc + ": " + span, func(s *Settings) any { return field(&s.Guard) }, func(s *Settings) string {
		n := *field(&s.Guard)
		return allowed(n >= low && n <= high, span)
	}}
}

// word makes the row of a choice.
func word(name, doc string, field func(*GuardSettings) *string, words ...string) settingDef {
	choice := strings.Join(words, ", ")
	return settingDef{name, doc + ": " + choice, func(s *Settings) any { return field(&s.Guard) }, func(s *Settings) string {
		for _, w := range words {
			if *field(&s.Guard) == w {
				return ""
			}
		}
		return "one of " + choice
	}}
}

// guardDefs are the settings of the guard.
var guardDefs = append([]settingDef{
	{"guard.exempt", "networks, separated by spaces, that limits and delays don't apply to; a server that listens on loopback alone exempts loopback", func(s *Settings) any { return &s.Guard.Exempt }, func(s *Settings) string {
		_, err := parseNetworks(s.Guard.Exempt)
		return allowed(err == nil, "addresses and networks such as 192.0.2.0/24, separated by spaces")
	}},
	number("guard.greet_delay_ms", "milliseconds in which a stranger on port 25 must keep still before the greeting", 0, 20_000, func(g *GuardSettings) *int { return &g.GreetDelay }),
	word("guard.pipelining", "commands on port 25 that come before the answer to EHLO or DATA (RFC 2920, section 3.1)", func(g *GuardSettings) *string { return &g.Pipelining }, Refuse, AllowIt),
	number("guard.tarpit_after", "errors of a session without delay; each further one is answered later", 0, 1000, func(g *GuardSettings) *int { return &g.TarpitAfter }),
	number("guard.tarpit_step_ms", "milliseconds by which the delay grows with each error; 0: no delays", 0, 10_000, func(g *GuardSettings) *int { return &g.TarpitStep }),
	number("guard.tarpit_max_ms", "milliseconds of the longest delay", 0, 30_000, func(g *GuardSettings) *int { return &g.TarpitMax }),
	number("load.descriptors_percent", "per cent of the file descriptors in use from which new sessions of SMTP are put off", 10, 100, func(g *GuardSettings) *int { return &g.LoadDescriptors }),
	number("load.memory_percent", "per cent of the memory limit (GOMEMLIMIT or the control group's) in use from which mail is put off", 10, 100, func(g *GuardSettings) *int { return &g.LoadMemory }),
	number("load.writer_queue", "transactions that wait for the database from which mail is put off", 100, 1_000_000, func(g *GuardSettings) *int { return &g.LoadWriter }),

	number("sending.messages_per_hour", "messages an hour of one account; 0 is no limit", 0, maxRate, func(g *GuardSettings) *int64 { return &g.Sending.MessagesPerHour }),
	number("sending.messages_per_day", "messages a day of one account; 0 is no limit", 0, maxRate, func(g *GuardSettings) *int64 { return &g.Sending.MessagesPerDay }),
	number("sending.recipients_per_hour", "recipients an hour of one account; 0 is no limit", 0, maxRate, func(g *GuardSettings) *int64 { return &g.Sending.RecipientsPerHour }),
	number("sending.recipients_per_day", "recipients a day of one account; 0 is no limit", 0, maxRate, func(g *GuardSettings) *int64 { return &g.Sending.RecipientsPerDay }),
	word("sending.anomaly", "what becomes of an account that sends as it never did", func(g *GuardSettings) *string { return &g.Sending.Anomaly }, Hold, Alert, Off),
	word("sending.anomaly_end_sessions", "whether the sessions of an account that comes on hold are ended", func(g *GuardSettings) *string { return &g.Sending.EndSessions }, Yes, No),
	number("sending.anomaly_floor", "recipients an hour below which nothing is an anomaly", 1, maxRate, func(g *GuardSettings) *int64 { return &g.Sending.Floor }),
	number("sending.anomaly_factor", "how many times its usual recipients an hour make a burst of an account; 0: not looked at", 0, 100_000, func(g *GuardSettings) *int64 { return &g.Sending.Factor }),
	number("sending.anomaly_domains", "destinations an hour that an account didn't send to before; 0: not looked at", 0, 100_000, func(g *GuardSettings) *int64 { return &g.Sending.NewDomains }),
	number("sending.anomaly_failures", "per cent of an account's recipients within an hour that failed for good; 0: not looked at", 0, 100, func(g *GuardSettings) *int { return &g.Sending.Failures }),
	number("sending.anomaly_networks", "networks that an account is signed in to from within an hour; 0: not looked at", 0, 1000, func(g *GuardSettings) *int64 { return &g.Sending.Networks }),
}, limitRows()...)

func limitRows() []settingDef {
	var out []settingDef
	for i, l := range limitDefs {
		out = append(out, number("limit."+l.name, l.doc+"; 0 is no limit", 0, int64(1)<<50, func(g *GuardSettings) *int64 { return &g.Limits[i] }))
	}
	return out
}
