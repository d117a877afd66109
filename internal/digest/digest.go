// Package digest makes what the store keeps beside the bytes of a message, once, when the message is filed: ENVELOPE and
// BODYSTRUCTURE as wire text, the ids that threads are made of, the date, the base subject and a preview. It parses
// nothing itself and stores nothing (RFC 3501, section 7.4.2; RFC 5256; RFC 8970; RFC 8621, section 4.1.4 for
// attachments).
//
//	p, err := message.Parse(content, content.Size(), message.DefaultLimits)
//	summary := digest.Make(p, content, content.Size())
package digest

import (
	"io"
	"strings"
	"unicode/utf8"

	"waxwing/internal/message"
	"waxwing/internal/store"
)

// Bounds on what is kept of one message.
const (
	maxReferences = 100      // the first, which names the thread, and the newest
	maxPreview    = 256      // octets
	maxSubject    = 1000     // octets of the base subject
	maxStructure  = 4 << 20  // octets of BODYSTRUCTURE; beyond it the message is shown as one part
	maxEnvelope   = 2 << 20  // octets of ENVELOPE; beyond it recipients are left out
	maxFieldOctet = 64 << 10 // octets of Subject and References that are looked at
)

// Make digests the message p that was parsed from r, which holds size octets.
func Make(p *message.Part, r io.ReaderAt, size int64) store.Summary {
	h := p.Header
	s := store.Summary{
		HeaderSize:    p.BodyOffset,
		Envelope:      envelope(h),
		BodyStructure: structure(p, size),
		References:    references(h),
		BaseSubject:   cut(message.BaseSubject(message.DecodeHeader(bounded(h.Get("Subject")))), maxSubject),
		Preview:       cut(message.Preview(p, r), maxPreview),
		Attachments:   HasAttachments(p),
	}
	if t, ok := message.ParseDate(h.Get("Date")); ok {
		s.SentAt = t
	}
	if ids := message.MessageIDs(bounded(h.Get("Message-ID"))); len(ids) > 0 {
		s.MessageID = ids[0]
	}
	return s
}

// bounded cuts a raw value so that no field costs more than a bounded amount of work and memory.
func bounded(v []byte) []byte { return v[:min(len(v), maxFieldOctet)] }

// envelope leaves recipients out when hostile lists of them would make it huge.
func envelope(h message.Header) []byte {
	e := message.AppendEnvelope(nil, h)
	if len(e) <= maxEnvelope {
		return e
	}
	var small message.Header
	for _, name := range []string{"Date", "Subject", "From", "Message-ID", "In-Reply-To"} {
		if f, ok := h.Find(name); ok && len(f.Value) <= maxFieldOctet {
			small = append(small, f)
		}
	}
	return message.AppendEnvelope(nil, small)
}

// structure shows a message whose structure is absurdly large as one opaque part.
func structure(p *message.Part, size int64) []byte {
	b := message.AppendBodyStructure(nil, p, true)
	if len(b) <= maxStructure {
		return b
	}
	flat := message.Part{
		BodyOffset: p.BodyOffset, End: size, Lines: p.Lines,
		Type: "application", Subtype: "octet-stream", Encoding: "binary",
	}
	return message.AppendBodyStructure(nil, &flat, true)
}

// references joins References and In-Reply-To, oldest first and each once (RFC 5322, section 3.6.4). Of a long chain the
// beginning, which names the thread, and the newest are kept.
func references(h message.Header) []string {
	ids := message.MessageIDs(h.Get("References"))
	ids = append(ids, message.MessageIDs(bounded(h.Get("In-Reply-To")))...)
	seen := make(map[string]bool, len(ids))
	out := ids[:0]
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	if len(out) > maxReferences {
		out = append(out[:1], out[len(out)-maxReferences+1:]...)
	}
	return out
}

// cut shortens to limit octets at a character border.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return strings.TrimRight(s[:limit], " ")
}

// HasAttachments tells whether the message holds something that a reader would look for as an attachment: a part with
// that disposition, or one that is neither text nor shown inside the text, signatures aside.
func HasAttachments(p *message.Part) bool { return hasAttachments(p, false) }

func hasAttachments(p *message.Part, related bool) bool {
	if p.IsMultipart() {
		for _, c := range p.Parts {
			if hasAttachments(c, related || p.Type == "multipart" && p.Subtype == "related") {
				return true
			}
		}
		return false
	}
	if p.Disposition == "attachment" {
		return true
	}
	switch p.Type {
	case "text":
		return p.FileName() != "" && p.Disposition != "inline" && p.Subtype != "plain" && p.Subtype != "html" && p.Subtype != "calendar" ||
			p.FileName() != "" && p.Disposition == ""
	case "message":
		return p.Message != nil
	case "application":
		switch p.Subtype {
		case "pgp-signature", "pkcs7-signature", "x-pkcs7-signature", "pgp-encrypted":
			return false
		}
	}
	return !(related && p.Header.Has("Content-ID")) && !(p.Disposition == "inline" && p.Type == "image")
}
