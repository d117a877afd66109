package smtp

import (
	"bytes"
	"math"
	"strings"
	"unicode/utf8"

	"waxwing/internal/address"
)

// Limits of RFC 3461, in characters as they are sent.
const (
	maxEnvID = 100 // section 4.4
	maxORcpt = 500 // section 4.2
	maxXtext = 1024
)

// ParseMail reads what follows "MAIL"; a space after the colon is accepted (Outlook), an unknown parameter is 555.
func ParseMail(args []byte) (Mail, *Reply) {
	path, params, refusal := splitPath(args, "FROM:")
	if refusal != nil {
		return Mail{}, refusal
	}
	var m Mail
	if path != "" {
		from, err := parseMailbox(path)
		if err != nil {
			return Mail{}, Errorf(553, "5.1.7", "that sender address is not valid")
		}
		m.From = from
	}
	refusal = eachParam(params, func(p param) *Reply { return m.set(p) })
	if refusal != nil {
		return Mail{}, refusal
	}
	if !m.UTF8 && !isASCII(path) { // RFC 6531, section 3.5
		return Mail{}, Errorf(553, "5.6.7", "that sender address needs SMTPUTF8")
	}
	return m, nil
}

// mailParam is a row of the table of MAIL's parameters. What set is given and returns are values, so that nothing of a
// command is left to the garbage collector.
type mailParam struct {
	param string
	bare  bool                                    // takes no value; the others need one
	set   func(m Mail, value string) (Mail, bool) // false: the value is not valid
}

var mailParams = []mailParam{
	{param: "SIZE", set: func(m Mail, v string) (_ Mail, ok bool) { // RFC 1870, section 3: up to 20 digits
		m.Size, ok = parseSize(v)
		return m, ok
	}},
	{param: "BODY", set: func(m Mail, v string) (_ Mail, ok bool) {
		m.Body, ok = parseBody(v)
		return m, ok
	}},
	{param: "SMTPUTF8", bare: true, set: func(m Mail, _ string) (Mail, bool) {
		m.UTF8 = true
		return m, true
	}},
	{param: "REQUIRETLS", bare: true, set: func(m Mail, _ string) (Mail, bool) { // RFC 8689, section 3
		m.TLS = TLSRequired
		return m, true
	}},
	{param: "RET", set: func(m Mail, v string) (Mail, bool) {
		m.Ret = strings.ToUpper(v)
		return m, m.Ret == "FULL" || m.Ret == "HDRS"
	}},
	{param: "ENVID", set: func(m Mail, v string) (_ Mail, ok bool) {
		m.EnvID, ok = DecodeXtext(v)
		return m, ok && m.EnvID != "" && len(m.EnvID) <= maxEnvID && isPrintable(m.EnvID)
	}},
	{param: "AUTH", set: func(m Mail, v string) (_ Mail, ok bool) {
		m.AuthSent, ok = DecodeXtext(v)
		return m, ok && m.AuthSent != "" && len(m.AuthSent) <= maxORcpt
	}},
	{param: "BY", set: func(m Mail, v string) (_ Mail, ok bool) {
		m.By, ok = parseDeliverBy(v)
		return m, ok
	}},
	{param: "HOLDFOR", set: func(m Mail, v string) (_ Mail, ok bool) {
		m.HoldFor, ok = parseHoldFor(v)
		return m, ok && m.HoldUntil.IsZero()
	}},
	{param: "HOLDUNTIL", set: func(m Mail, v string) (_ Mail, ok bool) {
		m.HoldUntil, ok = ParseTime(v)
		return m, ok && m.HoldFor == 0
	}},
	{param: "MT-PRIORITY", set: func(m Mail, v string) (Mail, bool) {
		m.Priority, m.HasPriority = ParsePriority(v)
		return m, m.HasPriority
	}},
}

func (m *Mail) set(p param) *Reply {
	for i := range mailParams {
		row := &mailParams[i]
		if row.param != p.name {
			continue
		}
		if row.bare == p.hasValue {
			return badParam(p.name)
		}
		next, ok := row.set(*m, p.value)
		if !ok {
			return badParam(p.name)
		}
		*m = next
		return nil
	}
	return UnknownMailParam()
}

// UnknownMailParam refuses a parameter that MAIL doesn't have, or not here.
func UnknownMailParam() *Reply { return Errorf(555, "5.5.4", "unknown parameter of MAIL") }

func parseBody(value string) (BodyType, bool) {
	switch body := BodyType(strings.ToUpper(value)); body {
	case "7BIT":
		return Body7Bit, true
	case Body8Bit, BodyBinary:
		return body, true
	}
	return Body7Bit, false
}

// ParseRcpt reads what follows "RCPT". "<postmaster>" without a domain gives a Domain of "". Whether UTF-8 was allowed
// is for the session to say: it knows what MAIL said.
func ParseRcpt(args []byte) (Rcpt, *Reply) {
	path, params, refusal := splitPath(args, "TO:")
	if refusal != nil {
		return Rcpt{}, refusal
	}
	var r Rcpt
	if strings.EqualFold(path, "postmaster") { // RFC 5321, section 4.1.1.3
		r.To = address.Address{Local: path}
	} else {
		to, err := parseMailbox(path)
		if err != nil {
			return Rcpt{}, Errorf(553, "5.1.3", "that recipient address is not valid")
		}
		r.To = to
	}
	refusal = eachParam(params, func(p param) *Reply { return r.set(p) })
	if refusal != nil {
		return Rcpt{}, refusal
	}
	return r, nil
}

// rcptParam is a row of the table of RCPT's parameters; all need a value.
type rcptParam struct {
	param string
	set   func(r Rcpt, value string) (Rcpt, bool)
}

var rcptParams = []rcptParam{
	{param: "NOTIFY", set: func(r Rcpt, v string) (_ Rcpt, ok bool) {
		r.Notify, ok = parseNotify(v)
		return r, ok
	}},
	{param: "ORCPT", set: func(r Rcpt, v string) (_ Rcpt, ok bool) {
		r.ORcpt, ok = parseORcpt(v)
		return r, ok
	}},
	{param: "RRVS", set: func(r Rcpt, v string) (_ Rcpt, ok bool) {
		r.ValidSince, ok = ParseValidSince(v)
		return r, ok
	}},
}

func (r *Rcpt) set(p param) *Reply {
	for i := range rcptParams {
		row := &rcptParams[i]
		if row.param != p.name {
			continue
		}
		next, ok := row.set(*r, p.value)
		if !p.hasValue || !ok {
			return badParam(p.name)
		}
		*r = next
		return nil
	}
	return Errorf(555, "5.5.4", "unknown parameter of RCPT")
}

func badParam(name string) *Reply {
	return Errorf(501, "5.5.4", "the value of %s is not valid", name)
}

// splitPath cuts "FROM:<path> params"; path comes without its brackets.
func splitPath(args []byte, keyword string) (path, params string, refusal *Reply) {
	s := string(bytes.TrimLeft(args, " "))
	if len(s) < len(keyword) || !strings.EqualFold(s[:len(keyword)], keyword) {
		return "", "", Errorf(501, "5.5.2", "expected %s<address>", keyword)
	}
	s = strings.TrimLeft(s[len(keyword):], " ")
	if s == "" || s[0] != '<' {
		return "", "", Errorf(501, "5.5.2", "the address must stand in angle brackets")
	}
	end := pathEnd(s)
	if end < 0 {
		return "", "", Errorf(501, "5.5.2", "the angle bracket is not closed")
	}
	path, params = s[1:end], s[end+1:]
	if params != "" && params[0] != ' ' {
		return "", "", Errorf(501, "5.5.2", "expected a space behind the address")
	}
	return path, params, nil
}

// pathEnd finds the closing bracket; one inside a quoted local part doesn't count.
func pathEnd(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// parseMailbox reads an address behind an optional source route, which is ignored: RFC 5321, section 4.1.1.3 and
// appendix C. What decides is the mailbox alone, so that a route is no way to relay.
func parseMailbox(path string) (address.Address, error) {
	if strings.HasPrefix(path, "@") {
		route, mailbox, ok := strings.Cut(path, ":")
		if !ok || len(route) > 512 {
			return address.Address{}, address.ErrSyntax
		}
		for hop := range strings.SplitSeq(route, ",") {
			if !strings.HasPrefix(hop, "@") {
				return address.Address{}, address.ErrSyntax
			}
			if _, err := address.ParseDomain(hop[1:]); err != nil {
				return address.Address{}, address.ErrSyntax
			}
		}
		path = mailbox
	}
	return address.Parse(path)
}

type param struct {
	name, value string
	hasValue    bool
}

const maxParams = 16

// eachParam reads esmtp-params, RFC 5321, section 4.1.2. A keyword that comes twice is an error.
func eachParam(s string, set func(param) *Reply) *Reply {
	var seen [maxParams]string
	n := 0
	for s != "" {
		var word string
		if word, s, _ = strings.Cut(s, " "); word == "" {
			continue
		}
		var p param
		p.name, p.value, p.hasValue = strings.Cut(word, "=")
		p.name = strings.ToUpper(p.name)
		if !isKeyword(p.name) || p.hasValue && !isValue(p.value) {
			return Errorf(501, "5.5.4", "malformed parameter")
		}
		if n == maxParams {
			return Errorf(501, "5.5.4", "too many parameters")
		}
		for _, other := range seen[:n] {
			if other == p.name {
				return Errorf(501, "5.5.4", "parameter given twice")
			}
		}
		seen[n] = p.name
		n++
		if refusal := set(p); refusal != nil {
			return refusal
		}
	}
	return nil
}

func isKeyword(s string) bool {
	if s == "" || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		b := s[i]
		if (b < 'A' || b > 'Z') && (b < '0' || b > '9') && b != '-' {
			return false
		}
	}
	return true
}

// isValue tells an esmtp-value: printable, without "=". UTF-8 is let through for ORCPT (RFC 6533); AUTH and ENVID of
// real clients hold "=" too, which does no harm.
func isValue(s string) bool {
	if s == "" || !utf8.ValidString(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// parseSize reads up to 20 digits; a size past int64 counts as the largest one, which is over every limit.
func parseSize(s string) (int64, bool) {
	if s == "" || len(s) > 20 {
		return 0, false
	}
	var n int64
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		d := int64(s[i] - '0')
		if n > (math.MaxInt64-d)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + d
	}
	return n, true
}

func parseNotify(s string) (Notify, bool) {
	var set Notify
	for word := range strings.SplitSeq(s, ",") {
		var bit Notify
		switch strings.ToUpper(word) {
		case "NEVER":
			bit = NotifyNever
		case "SUCCESS":
			bit = NotifySuccess
		case "FAILURE":
			bit = NotifyFailure
		case "DELAY":
			bit = NotifyDelay
		default:
			return 0, false
		}
		if set&bit != 0 {
			return 0, false
		}
		set |= bit
	}
	return set, set&NotifyNever == 0 || set == NotifyNever // NEVER stands alone
}

// Words returns the value of NOTIFY, "" for the default.
func (n Notify) Words() string {
	if n&NotifyNever != 0 {
		return "NEVER"
	}
	var words []string
	for _, w := range []struct {
		bit  Notify
		word string
	}{{NotifySuccess, "SUCCESS"}, {NotifyFailure, "FAILURE"}, {NotifyDelay, "DELAY"}} {
		if n&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ",")
}

// parseORcpt reads "addr-type;xtext", for the type "utf-8" also with the escapes of RFC 6533, section 3. The type is
// lower-cased, the address decoded.
func parseORcpt(s string) (string, bool) {
	kind, text, ok := strings.Cut(s, ";")
	if !ok || len(s) > maxORcpt || text == "" || !isKeyword(strings.ToUpper(kind)) {
		return "", false
	}
	kind = strings.ToLower(kind)
	decode := DecodeXtext
	if kind == "utf-8" {
		decode = decodeUTF8Addr
	}
	addr, ok := decode(text)
	if !ok || addr == "" || !isPrintable(addr) || kind != "utf-8" && !isASCII(addr) {
		return "", false
	}
	return kind + ";" + addr, true
}

func isPrintable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
