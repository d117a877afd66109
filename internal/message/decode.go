package message

import (
	"io"
)

// Decoded reads the body of the part with its transfer encoding undone, from the message that the part was parsed from.
// What is wrong in the encoding is passed over; an encoding that is unknown is left as it is.
func (p *Part) Decoded(r io.ReaderAt) io.Reader {
	return decodeTransfer(io.NewSectionReader(r, p.BodyOffset, p.Size()), p.Encoding)
}

// Text reads the body decoded and converted to UTF-8. Only text is converted: the octets of other parts stay.
func (p *Part) Text(r io.ReaderAt) io.Reader {
	d := p.Decoded(r)
	if p.Type != "text" {
		return d
	}
	return textReader(d, p.Params.Get("charset"), p.Subtype == "html")
}

// decodeTransfer undoes a Content-Transfer-Encoding.
func decodeTransfer(r io.Reader, enc string) io.Reader {
	switch enc {
	case "base64":
		return &base64Reader{in: input{r: r}}
	case "quoted-printable":
		return &quotedReader{in: input{r: r}}
	}
	return r
}

// input is a small read buffer.
type input struct {
	r    io.Reader
	buf  []byte
	rest []byte
	err  error
}

func (in *input) fill() error {
	for len(in.rest) == 0 {
		if in.err != nil {
			return in.err
		}
		if in.buf == nil {
			in.buf = make([]byte, 8<<10)
		}
		var n int
		n, in.err = in.r.Read(in.buf)
		in.rest = in.buf[:n]
	}
	return nil
}

// base64Values maps octets to their six bits; 64 is padding, and 255 is passed over.
var base64Values = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := range len(alphabet) {
		t[alphabet[i]] = byte(i)
	}
	t['='] = 64
	t['-'], t['_'] = 62, 63 // the URL alphabet, which some programs use
	return t
}()

// base64State decodes base64 octet by octet; padding ends a group, and another may follow, as when encoded pieces were
// joined.
type base64State struct {
	bits uint32
	n    int // sextets in bits
}

// append decodes as much of src as fits into the spare capacity of dst.
func (s *base64State) append(dst, src []byte) (out, rest []byte) {
	for len(src) > 0 && cap(dst)-len(dst) >= 3 {
		if s.n == 0 {
			dst, src = appendGroups(dst, src)
			if len(src) == 0 {
				break
			}
		}
		if cap(dst)-len(dst) < 3 {
			break
		}
		v := base64Values[src[0]]
		src = src[1:]
		switch {
		case v < 64:
			s.bits = s.bits<<6 | uint32(v)
			if s.n++; s.n == 4 {
				dst = append(dst, byte(s.bits>>16), byte(s.bits>>8), byte(s.bits))
				s.bits, s.n = 0, 0
			}
		case v == 64:
			dst = s.flush(dst)
		}
	}
	return dst, src
}

// appendGroups is the fast path: four letters of the alphabet make three octets.
func appendGroups(dst, src []byte) (out, rest []byte) {
	n := len(dst)
	full := dst[:cap(dst)]
	for len(src) >= 4 && n+3 <= len(full) {
		a, b, c, d := base64Values[src[0]], base64Values[src[1]], base64Values[src[2]], base64Values[src[3]]
		if (a|b|c|d)&0xC0 != 0 {
			break
		}
		full[n] = a<<2 | b>>4
		full[n+1] = b<<4 | c>>2
		full[n+2] = c<<6 | d
		n += 3
		src = src[4:]
	}
	return dst[:n], src
}

// flush gives out what an incomplete group holds.
func (s *base64State) flush(dst []byte) []byte {
	switch s.n {
	case 2:
		dst = append(dst, byte(s.bits>>4))
	case 3:
		dst = append(dst, byte(s.bits>>10), byte(s.bits>>2))
	}
	s.bits, s.n = 0, 0
	return dst
}

type base64Reader struct {
	in    input
	state base64State
	spare [3]byte // decoded octets that did not fit
	held  []byte
}

// Read implements io.Reader.
func (d *base64Reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if len(d.held) > 0 {
		n := copy(b, d.held)
		d.held = d.held[n:]
		return n, nil
	}
	for {
		if err := d.in.fill(); err != nil {
			d.held = d.state.flush(d.spare[:0])
			if len(d.held) == 0 {
				return 0, err
			}
			n := copy(b, d.held)
			d.held = d.held[n:]
			return n, nil
		}
		var out []byte
		if len(b) < 3 {
			out, d.in.rest = d.state.append(d.spare[:0:3], d.in.rest)
			n := copy(b, out)
			d.held = out[n:]
			if n > 0 {
				return n, nil
			}
			continue
		}
		out, d.in.rest = d.state.append(b[:0:len(b)], d.in.rest)
		if len(out) > 0 {
			return len(out), nil
		}
	}
}

// maxTrailing is how much white space before a line end is held back to be dropped (RFC 2045, section 6.7, rule 3).
const maxTrailing = 256

// quotedReader undoes quoted-printable. A "=" that no two digits follow stands for itself.
type quotedReader struct {
	in     input
	state  quotedState
	hold   byte   // the digit after "="
	spaces []byte // white space that may be trailing
	out    []byte // decoded octets not yet given out
	buf    []byte
	done   bool
}

type quotedState uint8

const (
	quotedText      quotedState = iota
	quotedEqual                 // after "="
	quotedDigit                 // after "=X"
	quotedSoft                  // after "=" and white space: a soft line break if the line ends
	quotedSoftLF                // after "=\r"
	quotedMaybeTail             // after white space
)

// Read implements io.Reader.
func (d *quotedReader) Read(b []byte) (int, error) {
	for len(d.out) == 0 {
		if d.done {
			return 0, d.in.err
		}
		d.buf = d.buf[:0]
		if err := d.in.fill(); err != nil {
			d.done = true
			d.finish()
		} else {
			d.decode()
		}
		d.out = d.buf
	}
	n := copy(b, d.out)
	d.out = d.out[n:]
	return n, nil
}

func (d *quotedReader) decode() {
	if d.buf == nil {
		d.buf = make([]byte, 0, len(d.in.rest)+maxTrailing)
		d.spaces = make([]byte, 0, 16)
	}
	for i := 0; i < len(d.in.rest); i++ {
		if d.state == quotedText {
			i += d.copyText(d.in.rest[i:])
			if i == len(d.in.rest) {
				break
			}
		}
		d.step(d.in.rest[i])
	}
	d.in.rest = nil
}

// copyText takes octets that stand for themselves, white space between words too.
func (d *quotedReader) copyText(s []byte) int {
	n := 0
	for n < len(s) && s[n] != '=' {
		if isWSP(s[n]) && (n+1 == len(s) || s[n+1] <= ' ') {
			break
		}
		n++
	}
	d.buf = append(d.buf, s[:n]...)
	return n
}

func (d *quotedReader) step(c byte) {
	switch d.state {
	case quotedText:
		switch {
		case c == '=':
			d.state = quotedEqual
		case isWSP(c):
			d.spaces = append(d.spaces[:0], c)
			d.state = quotedMaybeTail
		default:
			d.buf = append(d.buf, c)
		}
	case quotedMaybeTail:
		switch {
		case isWSP(c) && len(d.spaces) < maxTrailing:
			d.spaces = append(d.spaces, c)
		case c == '\r' || c == '\n':
			d.become(quotedText, c)
		default:
			d.buf = append(d.buf, d.spaces...)
			d.become(quotedText, c)
		}
	case quotedEqual:
		switch {
		case c == '\n':
			d.state = quotedText
		case c == '\r':
			d.state = quotedSoftLF
		case isWSP(c):
			d.spaces = append(d.spaces[:0], c)
			d.state = quotedSoft
		case unhex(c) >= 0:
			d.hold = c
			d.state = quotedDigit
		default:
			d.buf = append(d.buf, '=')
			d.become(quotedText, c)
		}
	case quotedDigit:
		if lo := unhex(c); lo >= 0 {
			d.buf = append(d.buf, byte(unhex(d.hold)<<4|lo))
			d.state = quotedText
			return
		}
		d.buf = append(d.buf, '=', d.hold)
		d.become(quotedText, c)
	case quotedSoft:
		switch {
		case isWSP(c) && len(d.spaces) < maxTrailing:
			d.spaces = append(d.spaces, c)
		case c == '\n':
			d.state = quotedText
		case c == '\r':
			d.state = quotedSoftLF
		default:
			d.buf = append(append(d.buf, '='), d.spaces...)
			d.become(quotedText, c)
		}
	case quotedSoftLF:
		d.state = quotedText
		if c != '\n' {
			d.step(c)
		}
	}
}

// become changes the state and takes c in it.
func (d *quotedReader) become(s quotedState, c byte) {
	d.state = s
	d.step(c)
}

// finish gives out what the end of the body leaves open; a "=" at the very end is a soft line break.
func (d *quotedReader) finish() {
	if d.state == quotedDigit {
		d.buf = append(d.buf, '=', d.hold)
	}
}
