package greylist

import (
	"strings"

	"waxwing/internal/address"
)

// normal is a sender without what lists and forwarders change with each message: numbers and digests in the local part
// (VERP), tags (BATV, RFC draft-levine-smtp-batv), and rewritten paths (SRS).
func normal(a address.Address) string {
	if a.IsNull() {
		return ""
	}
	local := strings.ToLower(a.Local)
	for _, head := range []string{"srs0", "srs1"} {
		if strings.HasPrefix(local, head) && len(local) > len(head) && strings.IndexByte("=+-", local[len(head)]) >= 0 {
			return head + "@" + a.Domain
		}
	}
	if tag, user, ok := strings.Cut(strings.TrimPrefix(local, "prvs="), "="); ok && strings.HasPrefix(local, "prvs=") {
		local = user
		if strings.Contains(user, "/") { // the older form: prvs=user/tag
			local = tag
		}
	}
	if at := strings.IndexByte(local, '='); at > 0 { // user=example.test: the recipient is in it
		if cut := strings.LastIndexAny(local[:at], "-+"); cut > 0 {
			local = local[:cut]
		}
	}
	if base, _, ok := strings.Cut(local, "+"); ok && base != "" {
		local = base
	}
	var out []string
	for word := range strings.FieldsFuncSeq(local, func(r rune) bool { return strings.ContainsRune("-_.=/", r) }) {
		if strings.ContainsAny(word, "0123456789") {
			word = "#"
		}
		if n := len(out); n == 0 || word != "#" || out[n-1] != "#" {
			out = append(out, word)
		}
	}
	return strings.Join(out, "-") + "@" + a.Domain
}
