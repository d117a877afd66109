package intake

import (
	"encoding/base64"
	"errors"
	"io"

	"waxwing/internal/message"
)

// A message that was declared BINARYMIME (RFC 3030) may hold any octets in its binary parts. What IMAP, POP3 and most
// servers can take is lines ended by CRLF and no NUL. So such parts are written as base64 when the message comes in, once,
// and no other octet changes; a message that is still not clean then (a bare line end in a header or between parts, or
// in a part that calls itself encoded) can't be converted and is refused.

// edit replaces the octets [from, to) of a message: by text, or by their base64.
type edit struct {
	from, to int64
	text     string
	encode   bool
}

var errBinary = reply(554, "5.6.3", "binary content that can't be converted")

// reencode gives the message of the spool with its binary parts in base64, in a new spool.
func (t *Transaction) reencode(part *message.Part) (*Spool, error) {
	edits, err := binaryEdits(t.spool, part, t.in.limits.Line)
	if err != nil {
		t.in.log.Error("spooled message can't be read", "error", err)
		return nil, replyStore
	}
	// Base64 takes four octets for three and the line ends: the limit was held before.
	out := newSpool(t.in, t.spool.size/3*4+t.spool.size/25+1<<20)
	if err := applyEdits(out, t.spool, edits); err != nil {
		out.free()
		if isReply(err) {
			return nil, err
		}
		t.in.log.Error("binary message can't be re-encoded", "error", err)
		return nil, replyStore
	}
	if !out.seen.clean() || out.seen.nul || out.seen.longest > t.in.limits.Line {
		out.free()
		return nil, errBinary
	}
	return out, nil
}

// binaryEdits lists what changes, in the order of the message.
func binaryEdits(r io.ReaderAt, root *message.Part, longest int64) ([]edit, error) {
	var edits []edit
	var failed error
	root.Walk(func(p *message.Part) bool {
		leaf := !p.IsMultipart() && p.Message == nil
		encode := false
		if leaf && (p.Encoding == "binary" || p.Encoding == "8bit" || p.Encoding == "7bit") {
			var c census
			if _, err := io.Copy(censusWriter{&c}, io.NewSectionReader(r, p.BodyOffset, p.Size())); err != nil {
				failed = err
				return false
			}
			encode = !c.clean() || c.nul || c.longest > longest
		}
		edits = appendEncodingEdits(edits, p, encode)
		if encode {
			edits = append(edits, edit{from: p.BodyOffset, to: p.End, encode: true})
		}
		return true
	})
	return edits, failed
}

// appendEncodingEdits sets the Content-Transfer-Encoding of a part: base64, or 8bit for what is called binary and isn't.
func appendEncodingEdits(edits []edit, p *message.Part, encode bool) []edit {
	name := "8bit"
	if encode {
		name = "base64"
	} else if p.Encoding != "binary" {
		return edits
	}
	line := "Content-Transfer-Encoding: " + name + "\r\n"
	if encode && !p.Header.Has("Content-Transfer-Encoding") {
		edits = append(edits, edit{from: p.Offset, to: p.Offset, text: line})
	}
	for i := range p.Header {
		f := &p.Header[i]
		if !f.Is("Content-Transfer-Encoding") {
			continue
		}
		edits = append(edits, edit{from: f.Offset, to: f.Offset + int64(len(f.Raw)), text: line})
		line = "" // further fields of that name go
	}
	return edits
}

func applyEdits(dst io.Writer, src *Spool, edits []edit) error {
	var at int64
	for _, e := range edits {
		if e.from < at || e.to < e.from || e.to > src.size {
			return errBinary // parts that overlap: nothing that can be put right
		}
		if _, err := io.Copy(dst, io.NewSectionReader(src, at, e.from-at)); err != nil {
			return err
		}
		if e.encode {
			if err := encodeBase64(dst, io.NewSectionReader(src, e.from, e.to-e.from)); err != nil {
				return err
			}
		} else if _, err := io.WriteString(dst, e.text); err != nil {
			return err
		}
		at = e.to
	}
	_, err := io.Copy(dst, io.NewSectionReader(src, at, src.size-at))
	return err
}

// encodeBase64 writes lines of 76 characters (RFC 2045, section 6.8). The last line has no end of its own: the one
// before the boundary follows.
func encodeBase64(dst io.Writer, src io.Reader) error {
	const lines = 512
	in := make([]byte, 57*lines)
	out := make([]byte, 0, 78*lines)
	first := true
	for {
		n, err := io.ReadFull(src, in)
		out = out[:0]
		for chunk := in[:n]; len(chunk) > 0; {
			m := min(57, len(chunk))
			if !first {
				out = append(out, "\r\n"...)
			}
			first = false
			out = base64.StdEncoding.AppendEncode(out, chunk[:m])
			chunk = chunk[m:]
		}
		if _, werr := dst.Write(out); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

type censusWriter struct{ *census }

func (w censusWriter) Write(p []byte) (int, error) {
	w.add(p)
	return len(p), nil
}
