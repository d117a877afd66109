package imapserver

import "strings"

// separator is the hierarchy separator of all mailbox names.
const separator = '/'

// canonicalName turns a mailbox name from the wire into the store's form: modified UTF-7 decoded, INBOX in capitals
// (also as the first level, as clients write "inbox/sub").
func canonicalName(raw string) string {
	name, _ := decodeUTF7(raw)
	const inbox = "INBOX"
	if len(name) >= len(inbox) && strings.EqualFold(name[:len(inbox)], inbox) &&
		(len(name) == len(inbox) || name[len(inbox)] == separator) {
		return inbox + name[len(inbox):]
	}
	return name
}

// matchList tells whether a mailbox name matches a LIST pattern: "*" any octets, "%" any but the separator (RFC 3501,
// section 6.3.8). Time is bounded by len(pattern)*len(name): the set of pattern places that the name read so far can
// stand at is moved on octet by octet, never tried one after the other.
func matchList(pattern, name string) bool {
	pattern = squeeze(pattern)
	if !strings.ContainsAny(pattern, "*%") {
		return pattern == name
	}
	if len(pattern)-strings.Count(pattern, "*")-strings.Count(pattern, "%") > len(name) {
		return false // so long patterns cost no more than the name is worth
	}
	// at[i]: the name so far matches pattern[:i].
	var small [256]bool
	at := small[:]
	if len(pattern)+1 > len(at) {
		at = make([]bool, len(pattern)+1)
	}
	at = at[:len(pattern)+1]
	at[0] = true
	passWildcards(pattern, at)
	for k := range len(name) {
		c, alive := name[k], false
		for i := len(pattern); i >= 1; i-- {
			switch pattern[i-1] {
			case '*':
				// at[i-1] has been spread to at[i] before, so at[i] alone tells it.
			case '%':
				at[i] = at[i] && c != separator
			default:
				at[i] = at[i-1] && pattern[i-1] == c
			}
			alive = alive || at[i]
		}
		if !alive {
			return false
		}
		at[0] = false
		passWildcards(pattern, at)
	}
	return at[len(pattern)]
}

// passWildcards lets every wildcard match nothing.
func passWildcards(pattern string, at []bool) {
	for i := range len(pattern) {
		if at[i] && (pattern[i] == '*' || pattern[i] == '%') {
			at[i+1] = true
		}
	}
}

// squeeze shortens runs of wildcards: "%%" is "%", and a run with a "*" is "*".
func squeeze(pattern string) string {
	if !strings.Contains(pattern, "**") && !strings.Contains(pattern, "%%") &&
		!strings.Contains(pattern, "*%") && !strings.Contains(pattern, "%*") {
		return pattern
	}
	b := make([]byte, 0, len(pattern))
	for i := range len(pattern) {
		c, n := pattern[i], len(b)
		if n > 0 && (c == '*' || c == '%') && (b[n-1] == '*' || b[n-1] == '%') {
			if c == '*' {
				b[n-1] = '*'
			}
			continue
		}
		b = append(b, c)
	}
	return string(b)
}

// matchInbox matches as matchList does, with INBOX in any case, also as the first level of a name, as canonicalName has it.
func matchInbox(pattern, name string) bool {
	const inbox = "INBOX"
	if !strings.HasPrefix(name, inbox) || len(name) > len(inbox) && name[len(inbox)] != separator {
		return matchList(pattern, name)
	}
	// What stands in the pattern before a wildcard or the separator is matched with INBOX, letter by letter.
	first := strings.IndexAny(pattern, "*%/")
	if first < 0 {
		first = len(pattern)
	}
	if n := min(first, len(inbox)); strings.EqualFold(pattern[:n], inbox[:n]) {
		pattern = inbox[:n] + pattern[n:]
	}
	if name == inbox {
		pattern = strings.ToUpper(pattern)
	}
	return matchList(pattern, name)
}
