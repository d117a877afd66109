package convert

import (
	"bytes"
	"encoding/binary"
)

// MaxLine is the longest line that every server must take, without its end (RFC 5321, section 4.5.3.1.6).
const MaxLine = 998

// Facts are what a message asks of those who are to take it.
type Facts struct {
	EightHeader bool  // octets over 127 in the header of the message
	EightBody   bool  // and in its body
	Bare        bool  // CR or LF outside of CRLF
	NUL         bool  // a NUL octet
	Ended       bool  // the last line is ended; so is no line at all
	Longest     int64 // octets of the longest line, without its end
	Eights      int64 // how many octets are over 127
}

// Eight tells octets over 127 anywhere.
func (f Facts) Eight() bool { return f.EightHeader || f.EightBody }

// Scanner finds the facts of a message that comes in pieces, in one pass and without memory of its own.
type Scanner struct {
	f    Facts
	body bool
	line int64 // octets of the line that isn't ended yet, a CR at its end left out
	cr   bool  // the last octet was a CR
	some bool
}

// BodyScanner gives a Scanner for octets without a header.
func BodyScanner() Scanner { return Scanner{body: true} }

// Write takes octets in. It never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	if n == 0 {
		return 0, nil
	}
	s.some = true
	s.f.NUL = s.f.NUL || bytes.IndexByte(p, 0) >= 0
	if s.cr && p[0] != '\n' {
		s.f.Bare = true
		s.line++
		s.cr = false
	}
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		s.ended(p[:i])
		p = p[i+1:]
	}
	if len(p) > 0 {
		s.f.Ended = false
		if s.cr = p[len(p)-1] == '\r'; s.cr {
			p = p[:len(p)-1]
		}
		s.octets(p)
	}
	return n, nil
}

// ended takes in the rest of a line before its LF.
func (s *Scanner) ended(rest []byte) {
	clean := s.cr // the CR came with the piece before
	if n := len(rest); n > 0 && rest[n-1] == '\r' {
		rest, clean = rest[:n-1], true
	}
	s.octets(rest)
	s.f.Bare = s.f.Bare || !clean
	s.f.Ended = clean
	if clean && s.line == 0 {
		s.body = true
	}
	s.line, s.cr = 0, false
}

// octets takes in octets of one line.
func (s *Scanner) octets(b []byte) {
	s.line += int64(len(b))
	s.f.Longest = max(s.f.Longest, s.line)
	s.f.Bare = s.f.Bare || bytes.IndexByte(b, '\r') >= 0
	if ascii(b) {
		return
	}
	for _, c := range b {
		if c >= 0x80 {
			s.f.Eights++
		}
	}
	if s.body {
		s.f.EightBody = true
	} else {
		s.f.EightHeader = true
	}
}

// Facts are those of what was written so far, as if that were all.
func (s *Scanner) Facts() Facts {
	f := s.f
	f.Bare = f.Bare || s.cr
	f.Ended = f.Ended || !s.some
	return f
}

func ascii(p []byte) bool {
	for len(p) >= 8 {
		if binary.LittleEndian.Uint64(p)&0x8080808080808080 != 0 {
			return false
		}
		p = p[8:]
	}
	for _, b := range p {
		if b >= 0x80 {
			return false
		}
	}
	return true
}
