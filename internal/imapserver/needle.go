package imapserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"unicode/utf8"

	"waxwing/internal/store/search"
)

// needle is a search string, folded by search.AppendFold. Text is folded in the same way, and so is what the index of
// the store is made of.
type needle struct {
	folded []byte
	ascii  bool
	pivot  int  // place of the rarest octet in folded, which is looked for first
	lower  byte // the pivot in lower case; the same octet when it has no case
}

func newNeedle(s string) *needle {
	n := &needle{folded: search.AppendFold(nil, []byte(s)), ascii: true}
	best := 256
	for i, c := range n.folded {
		n.ascii = n.ascii && c < utf8.RuneSelf
		if f := int(frequency[c]); f < best {
			best, n.pivot = f, i
		}
	}
	if len(n.folded) > 0 {
		n.lower = lowerASCII(n.folded[n.pivot])
	}
	return n
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func upperASCII(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - ('a' - 'A')
	}
	return c
}

// frequency ranks octets by how common they are in mail; the letters stand for both cases.
var frequency = func() (f [256]uint8) {
	for i := range f {
		f[i] = 20
	}
	for i, c := range []byte("ZQJXKVBPGYFWMUCLDHRSNIOATE") {
		f[c] = uint8(40 + 4*i)
	}
	for c := '0'; c <= '9'; c++ {
		f[c] = 60
	}
	for _, c := range []byte(".-=<>@:;/") {
		f[c] = 70
	}
	f[' '], f['\r'], f['\n'] = 200, 90, 90
	return f
}()

// inASCII looks for an ASCII needle in octets without folding them first; octets above ASCII match nothing.
func (n *needle) inASCII(text []byte) bool {
	k := len(n.folded)
	if k == 0 {
		return true
	}
	if len(text) < k {
		return false
	}
	// The pivot can stand at window[i] only; both of its cases are looked for, each from where it was last seen.
	window := text[n.pivot : len(text)-k+n.pivot+1]
	up := n.folded[n.pivot]
	nextUp, nextLow := -1, -1
	for i := 0; i < len(window); {
		if nextUp < i {
			nextUp = indexFrom(window, up, i)
		}
		if n.lower != up && nextLow < i {
			nextLow = indexFrom(window, n.lower, i)
		} else if n.lower == up {
			nextLow = len(window)
		}
		at := min(nextUp, nextLow)
		if at >= len(window) {
			return false
		}
		if n.at(text[at : at+k]) {
			return true
		}
		i = at + 1
	}
	return false
}

func indexFrom(b []byte, c byte, from int) int {
	if i := bytes.IndexByte(b[from:], c); i >= 0 {
		return from + i
	}
	return len(b)
}

func (n *needle) at(text []byte) bool {
	for i, c := range n.folded {
		if upperASCII(text[i]) != c {
			return false
		}
	}
	return true
}

// in looks for the needle in UTF-8 text; room is used for folding and given back.
func (n *needle) in(text, room []byte) (found bool, _ []byte) {
	if len(n.folded) == 0 {
		return true, room
	}
	if isASCII(text) {
		return n.ascii && n.inASCII(text), room
	}
	if n.ascii && n.inASCII(text) {
		return true, room
	}
	room = search.AppendFold(room[:0], text)
	return bytes.Contains(room, n.folded), room
}

// inReader looks for the needle in a stream of UTF-8, holding a window of it.
func (n *needle) inReader(r io.Reader, room []byte) (found bool, _ []byte, err error) {
	var chunk [8 << 10]byte
	held := 0 // octets of chunk that begin a rune whose end is not there yet
	room = room[:0]
	for {
		got, err := r.Read(chunk[held:])
		text := chunk[:held+got]
		whole := len(text)
		if err == nil {
			whole -= search.Unfinished(text)
		}
		room = search.AppendFold(room, text[:whole])
		if bytes.Contains(room, n.folded) {
			return true, room, nil
		}
		if keep := len(n.folded) - 1; len(room) > keep {
			room = room[:copy(room, room[len(room)-keep:])]
		}
		held = copy(chunk[:], text[whole:])
		if err == io.EOF {
			return false, room, nil
		}
		if err != nil {
			return false, room, err
		}
	}
}

// isASCII looks at eight octets at a time: whole bodies are asked.
func isASCII(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
