package directory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Milter is one program that looks at messages over Sendmail's milter protocol.
type Milter struct {
	Name      string `json:"name"`
	Address   string `json:"address"`              // tcp:host:port or unix:/path
	When      string `json:"when"`                 // mx, submission or both
	Failure   string `json:"failure"`              // tempfail, accept or reject: what becomes of messages that it can't be asked about
	Connect   string `json:"connect"`              // time to connect, as 5s
	Command   string `json:"command"`              // to answer one command
	Content   string `json:"content"`              // to answer to a whole message
	MaxSize   int64  `json:"max_size"`             // octets of the messages that it sees; larger ones pass it by; 0: all
	Body      bool   `json:"body,omitempty"`       // it may replace bodies
	TrustedIn bool   `json:"trusted_in,omitempty"` // it sees mail of trusted peers too
}

// Bounds of milters.
const (
	maxMilters     = 10
	maxMilterWait  = 5 * time.Minute
	milterNameRule = "a name of 1 to 30 letters, digits, - or _"
)

// DefaultMilter is what a new milter says where nothing else is asked for.
func DefaultMilter() Milter {
	return Milter{When: "both", Failure: "tempfail", Connect: "5s", Command: "10s", Content: "60s"}
}

// Network gives network and address to dial.
func (m *Milter) Network() (network, address string) {
	network, address, _ = strings.Cut(m.Address, ":")
	return network, address
}

// Waits gives the time limits, which have been checked.
func (m *Milter) Waits() (connect, command, content time.Duration) {
	for i, text := range []string{m.Connect, m.Command, m.Content} {
		d, err := time.ParseDuration(text)
		if err != nil {
			d = 10 * time.Second // check has let none through that can't be read
		}
		*[]*time.Duration{&connect, &command, &content}[i] = d
	}
	return connect, command, content
}

// Check says what is wrong with m, in the words of a FieldError; "" when nothing is.
func (m *Milter) Check() (field, want string) {
	name := len(m.Name) >= 1 && len(m.Name) <= 30 && strings.Trim(strings.ToLower(m.Name), "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
	one := func(v string, list ...string) bool {
		for _, s := range list {
			if v == s {
				return true
			}
		}
		return false
	}
	wait := func(v string) bool {
		d, err := time.ParseDuration(v)
		return err == nil && d >= 10*time.Millisecond && d <= maxMilterWait
	}
	const waits = "a time from 10ms to 5m, like 5s"
	for _, c := range []struct {
		ok          bool
		field, want string
	}{
		{name, "name", milterNameRule},
		{milterAddress(m.Address), "address", "tcp:host:port or unix:/full/path"},
		{one(m.When, "mx", "submission", "both"), "when", "mx, submission or both"},
		{one(m.Failure, "tempfail", "accept", "reject"), "failure", "tempfail, accept or reject"},
		{wait(m.Connect), "connect", waits},
		{wait(m.Command), "command", waits},
		{wait(m.Content), "content", waits},
		{m.MaxSize >= 0 && m.MaxSize <= 1<<30, "max_size", "0 (all) to 1073741824 octets"},
	} {
		if !c.ok {
			return c.field, c.want
		}
	}
	return "", ""
}

func milterAddress(text string) bool {
	network, address, ok := strings.Cut(text, ":")
	switch {
	case !ok || len(address) > 255 || strings.ContainsAny(address, "\x00\r\n"):
		return false
	case network == "unix":
		return filepath.IsAbs(address)
	case network != "tcp":
		return false
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// ParseMilters reads the setting milter.chain: the milters in the order in which they are asked.
func ParseMilters(text string) ([]Milter, error) {
	if text == "" {
		return nil, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("milters: %w", err)
	}
	if len(raw) > maxMilters {
		return nil, fmt.Errorf("milters: %d are too many, at most %d", len(raw), maxMilters)
	}
	list := make([]Milter, len(raw))
	seen := map[string]bool{}
	for i := range raw {
		m := DefaultMilter()
		dec := json.NewDecoder(bytes.NewReader(raw[i]))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&m); err != nil {
			return nil, fmt.Errorf("milter %d: %w", i+1, err)
		}
		if field, want := m.Check(); want != "" {
			return nil, fmt.Errorf("milter %d: %s: %s", i+1, field, want)
		}
		if seen[m.Name] {
			return nil, fmt.Errorf("milter %d: the name %s is taken", i+1, m.Name)
		}
		seen[m.Name] = true
		list[i] = m
	}
	return list, nil
}

// FormatMilters writes the setting milter.chain.
func FormatMilters(list []Milter) string {
	if len(list) == 0 {
		return ""
	}
	b, err := json.Marshal(list)
	if err != nil {
		return "" // strings and numbers always marshal
	}
	return string(b)
}
