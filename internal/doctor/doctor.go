// Package doctor examines a server and what it stands on: disk, ports, certificates, resolvers, clock, a sample of the
// stored mail and the age of the queue. Each finding says what was seen, why it matters, and what to do.
//
// It changes nothing but a file of its own in the data directory, by which it measures the disk and which it removes. It
// asks the network nothing but the configured resolvers.
package doctor

import (
	"context"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/control"
)

// Status is how a finding is to be taken.
type Status string

// The statuses.
const (
	OK   Status = "ok"
	Warn Status = "warn" // it works, but should be looked at
	Fail Status = "fail" // mail is refused, delayed, or in danger
)

// Finding is what one check found.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Seen   string `json:"seen"`
	Why    string `json:"why"`
	Fix    string `json:"fix,omitempty"` // where there is something to do
}

// Subject is what is examined.
type Subject struct {
	Config  *config.Config
	Carrier control.Carrier // to the running server, or to the store of this process; nil when neither could be had
	Problem error           // why Carrier is nil
	Sample  int             // messages to verify
	Clock   func() time.Time
	BuiltAt time.Time // zero when it isn't known
}

// check is one examination.
type check struct {
	name string
	why  string
	run  func(ctx context.Context, s Subject) []result
}

// result is a finding without what its check says already.
type result struct {
	status Status
	seen   string
	fix    string
}

// checks is all of them, in the order in which they are shown.
var checks = []check{
	{"server", "commands work either way; mail flows only while the server runs", runServer},
	{"listeners", "what isn't bound can't be reached", runListeners},
	{"disk space", "below the reserve no mail is taken, and other servers must wait", runSpace},
	{"disk speed", "each message waits until the disk says that it is safe", runSpeed},
	{"certificate", "mail programs refuse a certificate that has expired or is for another name", runCertificates},
	{"resolver", "without DNS no mail leaves, and none of the checks of incoming mail work", runResolvers},
	{"clock", "retries, expiry, certificates and the dates of mail follow the clock", runClock},
	{"store", "damage is found before somebody needs the message", runSample},
	{"encryption", "a disk that is stolen or sold tells nobody anything, and a master key that is lost tells nobody anything either", runEncryption},
	{"scrub", "all stored mail is read again and again in the background", runScrub},
	{"backup", "what isn't kept elsewhere goes with this machine", runBackup},
	{"queue", "mail that waits long tells of a destination, or of this server, being refused", runQueue},
}

// each bounds one check.
const each = 30 * time.Second

// Examine runs all checks, one after another, and reports each finding as it comes.
func Examine(ctx context.Context, s Subject, report func(Finding)) {
	if s.Clock == nil {
		s.Clock = time.Now
	}
	for _, c := range checks {
		limited, cancel := context.WithTimeout(ctx, each)
		for _, r := range c.run(limited, s) {
			report(Finding{Check: c.name, Status: r.status, Seen: r.seen, Why: c.why, Fix: r.fix})
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}
