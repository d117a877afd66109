package transport

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

const (
	maxReplyLines = 200     // of one reply
	maxReplyText  = 4 << 10 // octets of a reply that are kept
	maxReplyLine  = 4 << 10 // RFC 5321, section 4.5.3.1.5, says 512; servers write more
)

// errReply is a reply that makes no sense: nothing is read after it.
var errReply = errors.New("the server's reply makes no sense")

// reply is one reply of a server.
type reply struct {
	code     int
	enhanced smtp.Enhanced // zero when it has none
	raw      string        // all lines as sent, control characters replaced, bounded
	lines    []string      // texts behind code and separator, for EHLO
}

func (r *reply) class() int { return r.code / 100 }

// readReply reads a whole reply, however many lines it has within bounds.
func readReply(c *wire.Conn) (*reply, error) {
	r := &reply{}
	for n := 0; ; n++ {
		line, err := c.ReadLine()
		if err != nil {
			return nil, err
		}
		if n == maxReplyLines {
			return nil, fmt.Errorf("%w: more than %d lines", errReply, maxReplyLines)
		}
		code, last, text, ok := parseReplyLine(line)
		if !ok || (n > 0 && code != r.code) {
			return nil, fmt.Errorf("%w: %q", errReply, printable(line[:min(len(line), 200)]))
		}
		r.code = code
		r.lines = append(r.lines, printable(text))
		if len(r.raw)+len(line)+1 <= maxReplyText {
			if n > 0 {
				r.raw += "\n"
			}
			r.raw += printable(line)
		}
		if last {
			r.enhanced = parseEnhanced(text, code)
			return r, nil
		}
	}
}

// parseReplyLine takes one line apart: three digits, a hyphen when more lines follow, and text (RFC 5321, section 4.2).
func parseReplyLine(line []byte) (code int, last bool, text []byte, ok bool) {
	if len(line) < 3 {
		return 0, false, nil, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, nil, false
		}
		code = code*10 + int(c-'0')
	}
	if code < 200 || code > 599 {
		return 0, false, nil, false
	}
	if len(line) == 3 {
		return code, true, nil, true
	}
	switch line[3] {
	case ' ':
		return code, true, line[4:], true
	case '-':
		return code, false, line[4:], true
	}
	return 0, false, nil, false
}

// parseEnhanced reads "5.1.1 " at the start of a text, if its class fits the code (RFC 2034, section 4).
func parseEnhanced(text []byte, code int) smtp.Enhanced {
	word, _, _ := bytes.Cut(text, []byte{' '})
	var n [3]int
	part, digits := 0, 0
	for _, c := range word {
		switch {
		case c == '.' && digits > 0 && part < 2:
			part++
			digits = 0
		case '0' <= c && c <= '9' && digits < 3:
			n[part] = n[part]*10 + int(c-'0')
			digits++
		default:
			return smtp.Enhanced{}
		}
	}
	if part != 2 || digits == 0 || n[0] != code/100 {
		return smtp.Enhanced{}
	}
	return smtp.Enhanced{Class: n[0], Subject: n[1], Detail: n[2]}
}

// printable makes a server's words safe for logs and notifications: controls become "?", broken UTF-8 is repaired.
func printable(b []byte) string {
	clean := true
	for _, c := range b {
		if c < 0x20 || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return string(b)
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || (r >= 0x7f && r < 0xa0) || r == 0x2028 || r == 0x2029 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
}

// extensions is what a server offers.
type extensions struct {
	pipelining, eightBit, utf8, dsn, chunking, binary, starttls, requireTLS bool
	sized                                                                   bool
	size                                                                    int64 // 0: no limit stated
	auth                                                                    []string
	mailMax, rcptMax, rcptDomainMax                                         int // LIMITS, 0: not stated
	deliverBy, priority, rrvs                                               bool
	minBy                                                                   int64 // seconds that DELIVERBY wants at least
}

// parseEHLO reads the lines of an EHLO reply. What can't be understood is not offered.
func parseEHLO(lines []string) extensions {
	var x extensions
	for i, line := range lines {
		if i == 0 { // the greeting
			continue
		}
		word, args, _ := strings.Cut(line, " ")
		switch strings.ToUpper(word) {
		case "PIPELINING":
			x.pipelining = true
		case "8BITMIME":
			x.eightBit = true
		case "SMTPUTF8":
			x.utf8 = true
		case "DSN":
			x.dsn = true
		case "CHUNKING":
			x.chunking = true
		case "BINARYMIME":
			x.binary = true
		case "STARTTLS":
			x.starttls = true
		case "REQUIRETLS":
			x.requireTLS = true
		case "SIZE":
			x.sized = true
			x.size = parseNumber(args, 1<<62)
		case "DELIVERBY": // RFC 2852, section 2
			x.deliverBy = true
			x.minBy = parseNumber(args, 1<<40)
		case "MT-PRIORITY":
			x.priority = true
		case "RRVS":
			x.rrvs = true
		case "AUTH":
			x.auth = append(x.auth, strings.Fields(strings.ToUpper(args))...)
		case "LIMITS": // RFC 9422, section 3
			for limit := range strings.FieldsSeq(args) {
				name, value, _ := strings.Cut(limit, "=")
				n := int(parseNumber(value, 1<<20))
				switch strings.ToUpper(name) {
				case "MAILMAX":
					x.mailMax = n
				case "RCPTMAX":
					x.rcptMax = n
				case "RCPTDOMAINMAX":
					x.rcptDomainMax = n
				}
			}
		}
		if rest, ok := strings.CutPrefix(strings.ToUpper(line), "AUTH="); ok { // a form from before RFC 2554, still seen
			x.auth = append(x.auth, strings.Fields(rest)...)
		}
	}
	return x
}

// parseNumber reads a decimal number up to limit; 0 for what is none.
func parseNumber(s string, limit int64) int64 {
	var n int64
	for _, c := range []byte(strings.TrimSpace(s)) {
		if c < '0' || c > '9' {
			return 0
		}
		if n = n*10 + int64(c-'0'); n > limit {
			return 0
		}
	}
	return n
}
