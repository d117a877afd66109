package intake

import (
	"bytes"
	"context"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

// maxAuthors is how many addresses From and Sender of a submitted message may name.
const maxAuthors = 100

// check holds the rules of the header: its size, loops, and on submission who wrote it.
func (t *Transaction) check(ctx context.Context, part *message.Part) error {
	lim := &t.in.limits
	if part.BodyOffset-part.Offset > lim.HeaderBytes {
		return smtp.Errorf(552, "5.3.4", "header too large: at most %d octets", lim.HeaderBytes)
	}
	if len(part.Header) > lim.Fields {
		return smtp.Errorf(554, "5.6.0", "more than %d header fields", lim.Fields)
	}
	if err := t.checkLoop(part.Header); err != nil {
		return err
	}
	if err := t.checkValidSince(ctx, part.Header); err != nil {
		return err
	}
	from := part.Header.Values("From")
	switch {
	case len(from) > 1: // RFC 5322, section 3.6
		return smtp.Errorf(550, "5.6.0", "more than one From field")
	case !t.user():
		return nil // a message of another server may lack From: it is delivered as it is
	case len(from) == 0:
		return smtp.Errorf(550, "5.6.0", "the From field is missing")
	}
	if err := t.checkAuthors(ctx, "From", from[0]); err != nil {
		return err
	}
	sender := part.Header.Values("Sender")
	switch {
	case len(sender) > 1:
		return smtp.Errorf(550, "5.6.0", "more than one Sender field")
	case len(sender) == 1:
		if err := t.checkAuthors(ctx, "Sender", sender[0]); err != nil {
			return err
		}
	}
	// Users send the null reverse-path only with notifications of disposition (RFC 8098, section 3) or delivery.
	if t.mail.From.IsNull() && (part.Type != "multipart" || part.Subtype != "report") {
		return smtp.Errorf(550, "5.7.1", "only notifications are sent with the null reverse-path")
	}
	return nil
}

// checkAuthors holds that each address of the field is the user's own.
func (t *Transaction) checkAuthors(ctx context.Context, field string, value []byte) error {
	list := message.ParseAddressList(value, maxAuthors+1)
	if len(list) > maxAuthors {
		return smtp.Errorf(550, "5.6.0", "more than %d addresses in the %s field", maxAuthors, field)
	}
	var authors []address.Address
	for _, m := range list {
		if m.Local == "" && m.Domain == "" {
			continue // the name of a group
		}
		domain, err := address.ParseDomain(m.Domain)
		if err != nil || strings.ContainsAny(m.Local, "\r\n\x00") {
			return smtp.Errorf(550, "5.6.0", "an address in the %s field is malformed", field)
		}
		authors = append(authors, address.Address{Local: m.Local, Domain: domain})
	}
	if len(authors) == 0 {
		return smtp.Errorf(550, "5.6.0", "the %s field has no address", field)
	}
	claims := claimedAddresses(value)
	if len(claims) > maxAuthors {
		return smtp.Errorf(550, "5.6.0", "more than %d addresses in the %s field", maxAuthors, field)
	}
	for _, a := range append(authors, claims...) {
		owns, err := t.in.opts.Directory.Owns(ctx, t.peer.Identity.Account, a)
		if err != nil {
			return t.directoryFailed(err, a)
		}
		if !owns { // RFC 6409, section 6.1
			return smtp.Errorf(550, "5.7.1", "<%s> in the %s field is not an address of yours to send as", a, field)
		}
	}
	return nil
}

// claimedAddresses lists what reads like an address anywhere in a field, outside of quoted strings and comments. In a
// malformed field ("<a@here> <boss@here>") programs differ in which address they show: each must be the sender's own.
func claimedAddresses(value []byte) []address.Address {
	var out []address.Address
	var word []byte
	flush := func() {
		if at := bytes.LastIndexByte(word, '@'); at > 0 && bytes.IndexByte(word[at:], '.') > 0 && !bytes.HasPrefix(word, []byte("=?")) {
			if a, err := address.Parse(string(word)); err == nil {
				out = append(out, a)
			}
		}
		word = word[:0]
	}
	for len(value) > 0 && len(out) <= maxAuthors {
		switch c := value[0]; {
		case c == '(', isSpaceOctet(c):
			value = skipComments(value)
			if len(value) == 0 || value[0] != '@' && (len(word) == 0 || word[len(word)-1] != '@') {
				flush()
			}
			continue
		case c == '"':
			end := 1
			for end < len(value) && value[end] != '"' {
				if value[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(value))
			if rest := skipComments(value[end:]); len(rest) > 0 && rest[0] == '@' {
				word = append(word[:0], value[:end]...)
			} else {
				flush()
			}
			value = value[end:]
			continue
		case bytes.IndexByte([]byte("<>,;:"), c) >= 0:
			flush()
		default:
			word = append(word, c)
		}
		value = value[1:]
	}
	flush()
	return out
}

// checkLoop finds messages that go round: by the number of hops (RFC 5321, section 6.3), by the number of times that
// they were here, and by a forwarding address of ours that they were delivered to before.
func (t *Transaction) checkLoop(h message.Header) error {
	hops, own := 0, 0
	forwards := make(map[string]bool, len(t.forwards))
	for _, a := range t.forwards {
		forwards[a.Key()] = true
	}
	for i := range h {
		f := &h[i]
		switch {
		case f.Is("Received"):
			hops++
			if receivedBy(f.Value, t.in.opts.Hostname) {
				own++
			}
		case len(forwards) > 0 && f.Is("Delivered-To"):
			to, err := address.Parse(strings.Trim(string(f.Unfolded()), "<>"))
			if err == nil && forwards[to.Key()] {
				return smtp.Errorf(554, "5.4.6", "mail loop: it was delivered to <%s> before", to)
			}
		}
	}
	if hops >= t.in.limits.Hops || own >= t.in.limits.OwnHops {
		return smtp.Errorf(554, "5.4.6", "mail loop: %d hops", hops)
	}
	return nil
}

// receivedBy tells whether a Received field was written by a host: its "by" clause names it.
func receivedBy(value []byte, host string) bool {
	s := string(value)
	for i, word := 0, ""; ; {
		for i < len(s) && isSpaceOctet(s[i]) {
			i++
		}
		start := i
		for i < len(s) && !isSpaceOctet(s[i]) && s[i] != ';' {
			i++
		}
		if start == i {
			return false
		}
		if strings.EqualFold(word, "by") {
			return strings.EqualFold(s[start:i], host)
		}
		word = s[start:i]
	}
}

func isSpaceOctet(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// ownResults tells whether an Authentication-Results field claims to come from this host (RFC 8601, section 5): such a
// field in a message that comes in is forged.
func ownResults(value []byte, host string) bool {
	rest := skipComments(value)
	if len(rest) > 0 && rest[0] == '"' {
		end := 1
		var id strings.Builder
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' && end+1 < len(rest) {
				end++
			}
			id.WriteByte(rest[end])
			end++
		}
		return strings.EqualFold(strings.TrimSuffix(strings.TrimSpace(id.String()), "."), host)
	}
	end := 0
	for end < len(rest) && !isSpaceOctet(rest[end]) && rest[end] != ';' && rest[end] != '(' && rest[end] != '/' {
		end++
	}
	return strings.EqualFold(strings.TrimSuffix(string(rest[:end]), "."), host)
}

// skipComments skips white space and comments, which nest (RFC 5322, section 3.2.2).
func skipComments(b []byte) []byte {
	depth, i := 0, 0
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case depth == 0 && !isSpaceOctet(c):
			return b[i:]
		}
	}
	return nil
}
