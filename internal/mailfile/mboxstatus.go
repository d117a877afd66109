package mailfile

import (
	"bytes"
	"slices"
	"strings"
)

// maxStatus bounds what is read of the status fields of one message.
const maxStatus = 8000

// statusNames are the header fields that belong to the mbox format: flags that other programs know. They are dropped
// from messages on the way in and out.
var statusNames = []string{"status", "x-status", "x-keywords", "x-uid", "x-imapbase"}

// statusName gives the lower-case name of a status field when line begins with one.
func statusName(line []byte) (name string, value []byte, ok bool) {
	i := bytes.IndexByte(line[:min(len(line), 16)], ':')
	if i < 0 {
		return "", nil, false
	}
	name = strings.ToLower(strings.TrimRight(string(line[:i]), " \t"))
	return name, line[i+1:], slices.Contains(statusNames, name)
}

// statusFields takes the status fields out of a header, folded lines among them.
type statusFields struct {
	flags  *Flags
	inside string // the status field that a continuation line belongs to
	taken  int
}

// take tells whether the line, or the piece of one that is not fresh, belongs to a status field; its value is then
// read into the flags.
func (s *statusFields) take(line []byte, fresh bool) bool {
	value := line
	switch {
	case !fresh, len(line) > 0 && (line[0] == ' ' || line[0] == '\t'):
	default:
		name, rest, ok := statusName(line)
		if !ok {
			s.inside = ""
			return false
		}
		s.inside, value = name, rest
	}
	if s.inside == "" {
		return false
	}
	if s.taken += len(value); s.taken <= maxStatus {
		s.flags.read(s.inside, string(value))
	}
	return true
}

// read takes up the value of one status field.
func (f *Flags) read(name, value string) {
	switch name {
	case "status", "x-status":
		for _, c := range value {
			switch c {
			case 'R':
				f.Seen = true
			case 'A':
				f.Answered = true
			case 'F':
				f.Flagged = true
			case 'D':
				f.Deleted = true
			case 'T':
				f.Draft = true
			}
		}
	case "x-keywords":
		for _, k := range strings.Fields(value) {
			if len(f.Keywords) < maxKeywords && IsKeyword(k) && !slices.Contains(f.Keywords, k) {
				f.Keywords = append(f.Keywords, k)
			}
		}
	}
}

// fields writes the flags as status fields with LF line ends.
func (f Flags) fields() string {
	var status, x strings.Builder
	if f.Seen {
		status.WriteByte('R')
	}
	status.WriteByte('O') // not recent: an IMAP server has shown it
	for _, c := range []struct {
		set    bool
		letter byte
	}{{f.Answered, 'A'}, {f.Flagged, 'F'}, {f.Deleted, 'D'}, {f.Draft, 'T'}} {
		if c.set {
			x.WriteByte(c.letter)
		}
	}
	out := "Status: " + status.String() + "\n"
	if x.Len() > 0 {
		out += "X-Status: " + x.String() + "\n"
	}
	if len(f.Keywords) > 0 {
		out += "X-Keywords: " + strings.Join(f.Keywords, "\n ") + "\n"
	}
	return out
}
