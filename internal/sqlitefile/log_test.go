package sqlitefile

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// randomLog makes a log of n frames as SQLite would write it.
func randomLog(r *rand.Rand, n int, order binary.ByteOrder) []byte {
	b := make([]byte, logHeader, logHeader+n*frameSize)
	copy(b, magic)
	if order == binary.ByteOrder(binary.BigEndian) {
		b[3] |= 1
	}
	for i := 12; i < logSumAt; i++ {
		b[i] = byte(r.Uint32())
	}
	sum := logSum{}.add(b[:logSumAt], order)
	sum.put(b[logSumAt:])
	for range n {
		f := make([]byte, frameSize)
		binary.BigEndian.PutUint32(f, r.Uint32N(1<<20)+1)
		if r.IntN(2) == 0 {
			binary.BigEndian.PutUint32(f[4:], r.Uint32N(1<<20)+1)
		}
		copy(f[frameSaltAt:], b[saltAt:logSumAt])
		copy(f[frameHeader:], randomPage(r)[:numberAt]) // and zeros, which is what SQLite sums
		sum = sum.add(f[:8], order).add(f[frameHeader:], order)
		sum.put(f[frameSumAt:])
		seal(f[frameHeader:], binary.BigEndian.Uint32(f), binary.BigEndian.Uint32(f[4:]))
		b = append(b, f...)
	}
	return b
}

// split gives a frame as SQLite sees it, and the numbers that its page keeps.
func split(frame []byte) (got, numbers []byte) {
	got = bytes.Clone(frame)
	n := numbersOf(got[frameHeader:])
	bare(got[frameHeader:])
	return got, n[:]
}

// TestEveryWrongOctetOfTheHeadersOfTheLogIsPutRight tries all wrong values of all octets of the header and of headers of frames.
func TestEveryWrongOctetOfTheHeadersOfTheLogIsPutRight(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(11, 12))
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		log := randomLog(r, 4, order)
		header, salts := log[:logHeader], log[saltAt:logSumAt]
		first, _ := split(log[logHeader:][:frameSize])
		got := bytes.Clone(header)
		for i := range logHeader {
			for e := 1; e < 256; e += 1 + e%16 { // with each single bit
				got[i] ^= byte(e)
				if s := checkHeader(got, first); s != mended || !bytes.Equal(got, header) {
					t.Fatalf("%v: octet %d of the header wrong by %#x: %d", order, i, e, s)
				}
			}
		}
		sum := logSumOf(header[logSumAt:])
		for n := range 4 {
			frame := log[logHeader+n*frameSize:][:frameSize]
			got, numbers := split(frame)
			for i := range frameHeader {
				for e := 1; e < 256; e++ {
					got[i] ^= byte(e)
					after, s := checkFrame(got, numbers, salts, sum, order)
					if s != mended || !bytes.Equal(got[:frameHeader], frame[:frameHeader]) || after != logSumOf(frame[frameSumAt:]) {
						t.Fatalf("%v: octet %d of frame %d wrong by %#x: %d", order, i, n, e, s)
					}
				}
			}
			after, s := checkFrame(got, numbers, salts, sum, order)
			if s != sound {
				t.Fatalf("frame %d is %d", n, s)
			}
			sum = after
		}
	}
}

// TestAnOldFrameIsNotMended holds that what SQLite must take for the end of the log stays the end.
func TestAnOldFrameIsNotMended(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(13, 14))
	for range 300 {
		now, old := randomLog(r, 1, native), randomLog(r, 1, native)
		salts, sum := now[saltAt:logSumAt], logSumOf(now[logSumAt:])
		judge := func(frame []byte) state {
			bare, numbers := split(frame)
			_, s := checkFrame(bare, numbers, salts, sum, native)
			return s
		}
		if s := judge(old[logHeader:]); s != broken {
			t.Fatal("a frame of another log is", s)
		}
		// A new header before an old page, and an old header with the salts of now.
		torn := append(bytes.Clone(now[logHeader:][:frameHeader]), old[logHeader+frameHeader:]...)
		if s := judge(torn); s != broken {
			t.Fatal("a torn frame is", s)
		}
		copy(old[logHeader+frameSaltAt:], salts)
		if s := judge(old[logHeader:]); s != broken {
			t.Fatal("a frame out of its place is", s)
		}
		head := bytes.Clone(now[:logHeader])
		head[r.IntN(12)] ^= 4
		if s := checkHeader(head, randomLog(r, 1, native)[logHeader:]); s != broken {
			t.Fatal("a header before frames of another log is", s)
		}
	}
}

func FuzzCheckFrame(f *testing.F) {
	r := rand.New(rand.NewPCG(15, 16))
	log := randomLog(r, 1, binary.LittleEndian)
	f.Add(log[:logHeader], log[logHeader:][:frameHeader])
	f.Fuzz(func(t *testing.T, header, head []byte) {
		if len(header) != logHeader || len(head) != frameHeader {
			return
		}
		frame, numbers := split(append(bytes.Clone(head), log[logHeader+frameHeader:]...))
		before := bytes.Clone(frame)
		salts, sum := header[saltAt:logSumAt], logSumOf(header[logSumAt:])
		after, s := checkFrame(frame, numbers, salts, sum, orderOf(header))
		n := differing(frame, before)
		if (s == mended) != (n == 1) {
			t.Errorf("%d, and %d octets were changed", s, n)
		}
		if s == broken {
			return
		}
		if again, s := checkFrame(frame, numbers, salts, sum, orderOf(header)); s != sound || again != after {
			t.Errorf("after it was mended it is %d", s)
		}
	})
}
