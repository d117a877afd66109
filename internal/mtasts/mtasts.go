// Package mtasts reads MTA-STS records and policies (RFC 8461): by them a domain says which servers take its mail, that
// they speak TLS, and that their certificates are valid. Pure functions over text; finding and keeping the policies of
// other domains is the work of package transport/sts.
//
//	id, err := mtasts.ParseRecord(texts)
//	p, err := mtasts.ParsePolicy(body)
//	ok := p.Match("mx1.example.org")
package mtasts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mode is what a policy asks for.
type Mode string

// The modes of RFC 8461, section 5.
const (
	Enforce Mode = "enforce" // what doesn't fit gets no mail
	Testing Mode = "testing" // what doesn't fit is reported, and gets the mail
	None    Mode = "none"    // there is no policy
)

// Bounds of a policy.
const (
	MaxBody = 64 << 10 // octets; RFC 8461, section 3.3, proposes them
	MaxAge  = 31557600 // seconds; section 3.2
	maxMX   = 512      // patterns
	Path    = "/.well-known/mta-sts.txt"
)

// Failures; errors.Is finds them.
var (
	ErrNoRecord = errors.New("no MTA-STS record")
	ErrInvalid  = errors.New("not a valid MTA-STS policy")
)

// Policy is what a domain says.
type Policy struct {
	Mode Mode
	MX   []string // patterns, lower case: a host, or "*." and a domain
	Age  time.Duration
}

// ParseRecord finds the id of the policy among the TXT records at _mta-sts.DOMAIN. ErrNoRecord when there is none, or more
// than one, or one that can't be read: each means that the domain has no policy (RFC 8461, section 3.1).
func ParseRecord(texts []string) (id string, err error) {
	found := 0
	for _, text := range texts {
		version, rest, _ := strings.Cut(text, ";")
		if strings.TrimRight(version, " \t") != "v=STSv1" {
			continue
		}
		if found++; found > 1 {
			return "", fmt.Errorf("%w: there are several", ErrNoRecord)
		}
		for field := range strings.SplitSeq(rest, ";") {
			name, value, ok := strings.Cut(strings.Trim(field, " \t"), "=")
			if ok && strings.TrimRight(name, " \t") == "id" && id == "" {
				id = strings.TrimLeft(value, " \t")
			}
		}
	}
	switch {
	case found == 0:
		return "", ErrNoRecord
	case !isID(id):
		return "", fmt.Errorf("%w: its id is not 1 to 32 letters and digits", ErrNoRecord)
	}
	return id, nil
}

func isID(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// ParsePolicy reads the body of a policy. Of a field that comes twice the first counts, but for mx; unknown ones are
// passed over (RFC 8461, section 3.2).
func ParsePolicy(body string) (Policy, error) {
	if len(body) > MaxBody {
		return Policy{}, fmt.Errorf("%w: it has more than %d octets", ErrInvalid, MaxBody)
	}
	var p Policy
	fields := map[string]string{}
	for line := range strings.SplitSeq(body, "\n") {
		line = strings.Trim(line, " \t\r")
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return Policy{}, fmt.Errorf("%w: a line without a colon", ErrInvalid)
		}
		name, value = strings.TrimRight(name, " \t"), strings.TrimLeft(value, " \t")
		if name == "mx" {
			pattern, ok := parsePattern(value)
			if !ok || len(p.MX) == maxMX {
				return Policy{}, fmt.Errorf("%w: mx %.80q", ErrInvalid, value)
			}
			p.MX = append(p.MX, pattern)
		} else if _, again := fields[name]; !again && len(fields) < 64 {
			fields[name] = value
		}
	}
	if fields["version"] != "STSv1" {
		return Policy{}, fmt.Errorf("%w: version %.20q", ErrInvalid, fields["version"])
	}
	switch p.Mode = Mode(fields["mode"]); p.Mode {
	case Enforce, Testing:
		if len(p.MX) == 0 {
			return Policy{}, fmt.Errorf("%w: it names no mx", ErrInvalid)
		}
	case None:
	default:
		return Policy{}, fmt.Errorf("%w: mode %.20q", ErrInvalid, fields["mode"])
	}
	age, err := strconv.ParseUint(fields["max_age"], 10, 63)
	if err != nil || len(fields["max_age"]) > 10 {
		return Policy{}, fmt.Errorf("%w: max_age %.20q", ErrInvalid, fields["max_age"])
	}
	p.Age = time.Duration(min(age, MaxAge)) * time.Second
	return p, nil
}

// parsePattern checks "host" or "*.domain"; a dot at the end is let go.
func parsePattern(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	name := strings.TrimPrefix(s, "*.")
	if len(name) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
		for _, c := range []byte(label) {
			if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	return s, true
}

// Match tells whether the policy names a host. A wildcard stands for exactly one label (RFC 8461, section 4.1).
func (p Policy) Match(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	_, parent, _ := strings.Cut(host, ".")
	for _, m := range p.MX {
		if rest, wild := strings.CutPrefix(m, "*."); wild && parent == rest || !wild && m == host {
			return true
		}
	}
	return false
}

// Lines are the lines of the policy as it is published and reported.
func (p Policy) Lines() []string {
	lines := []string{"version: STSv1", "mode: " + string(p.Mode)}
	for _, m := range p.MX {
		lines = append(lines, "mx: "+m)
	}
	return append(lines, fmt.Sprintf("max_age: %d", int64(p.Age/time.Second)))
}

// String is the text of the policy as it is published.
func (p Policy) String() string { return strings.Join(p.Lines(), "\r\n") + "\r\n" }
