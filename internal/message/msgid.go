package message

import "bytes"

// maxMessageIDs bounds what one field gives.
const maxMessageIDs = 1000

// MessageIDs reads Message-ID, In-Reply-To or References: the ids without their angles, white space inside them
// dropped. Words between them are passed over (RFC 5322, section 4.5.4); a value without angles that is one word with
// an "@" is taken as an id.
func MessageIDs(raw []byte) []string {
	v := unfold(raw)
	var out []string
	rest := v
	for len(out) < maxMessageIDs {
		i := bytes.IndexByte(rest, '<')
		if i < 0 {
			break
		}
		rest = rest[i+1:]
		end := bytes.IndexAny(rest, "<>")
		if end < 0 {
			break
		}
		if rest[end] == '<' {
			continue
		}
		if id := compactID(rest[:end]); id != "" {
			out = append(out, id)
		}
		rest = rest[end+1:]
	}
	if out == nil && bytes.IndexByte(v, '@') > 0 && !bytes.ContainsAny(v, " \t<>") {
		out = append(out, compactID(v))
	}
	return out
}

func compactID(b []byte) string {
	if bytes.ContainsAny(b, " \t\x00") {
		b = bytes.Map(func(r rune) rune {
			if r == ' ' || r == '\t' || r == 0 {
				return -1
			}
			return r
		}, b)
	}
	if len(b) > 998 {
		return "" // longer than a line may be: no id to thread by
	}
	return string(b)
}
