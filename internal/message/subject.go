package message

import "strings"

// BaseSubject is the base subject of RFC 5256, section 2.1, of a decoded Subject: what is left without "Re:", "Fwd:",
// "[list]" and "(fwd)".
func BaseSubject(s string) string {
	base, _ := baseSubject(s)
	return base
}

// IsReply tells whether the subject has an artefact of a reply or a forward (RFC 5256, section 3, REFERENCES).
func IsReply(s string) bool {
	_, reply := baseSubject(s)
	return reply
}

func baseSubject(s string) (base string, reply bool) {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return r == ' ' || r == '\t' || r == '\r' || r == '\n'
	}), " ")
	for {
		var cut bool
		if s, cut = cutTrailers(s); cut {
			reply = true
		}
		if s, cut = cutLeaders(s); cut {
			reply = true
		}
		// Step 6: [fwd: ...] around it all.
		if len(s) < 6 || !strings.EqualFold(s[:5], "[fwd:") || s[len(s)-1] != ']' {
			return s, reply
		}
		s = strings.TrimSpace(s[5 : len(s)-1])
		reply = true
	}
}

// cutTrailers is step 2: "(fwd)" and white space at the end.
func cutTrailers(s string) (string, bool) {
	cut := false
	for {
		s = strings.TrimRight(s, " ")
		if len(s) < 5 || !strings.EqualFold(s[len(s)-5:], "(fwd)") {
			return s, cut
		}
		s = s[:len(s)-5]
		cut = true
	}
}

// cutLeaders is steps 3 to 5. Blobs are skipped as one run: when no "re:" follows the run, none follows after a blob
// less, and step 4 would take the blobs away one by one; so the walk is linear.
func cutLeaders(s string) (string, bool) {
	cut := false
	for {
		s = strings.TrimLeft(s, " ")
		rest := s
		last := s // before the last blob of the run
		for {
			after, ok := cutBlob(rest)
			if !ok {
				break
			}
			last, rest = rest, after
		}
		if after, ok := cutRefwd(rest); ok {
			s = after
			cut = true
			continue
		}
		if rest == "" {
			return last, cut // nothing but blobs: the last one is the subject
		}
		return rest, cut
	}
}

// cutBlob takes "[text]" and the space after it.
func cutBlob(s string) (string, bool) {
	if s == "" || s[0] != '[' {
		return s, false
	}
	i := strings.IndexAny(s[1:], "[]")
	if i < 0 || s[1+i] != ']' {
		return s, false
	}
	return strings.TrimLeft(s[i+2:], " "), true
}

// cutRefwd takes "re", "fw" or "fwd", an optional blob, and the colon.
func cutRefwd(s string) (string, bool) {
	n := 0
	switch {
	case len(s) >= 3 && strings.EqualFold(s[:3], "fwd"):
		n = 3
	case len(s) >= 2 && (strings.EqualFold(s[:2], "re") || strings.EqualFold(s[:2], "fw")):
		n = 2
	default:
		return s, false
	}
	rest := strings.TrimLeft(s[n:], " ")
	if after, ok := cutBlob(rest); ok {
		rest = after
	}
	if rest == "" || rest[0] != ':' {
		return s, false
	}
	return rest[1:], true
}
