package message

import (
	"maps"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/transform"
)

// gb18030 is GB 18030-2022. x/text has the edition of 2005 and leaves out its codes for characters that were in the
// private use area then; this decoder puts the characters of 2022, and those of the private use area, in their place. It only decodes: mail is written in
// UTF-8.
type gb18030 struct{}

// gb2022 are the two-octet codes of which x/text has nothing, beside the private use area: the 18 that the edition of 2022
// moved out of that area, 0xA8BC, which that of 2005 had moved, and a second ideographic space (WHATWG Encoding Standard,
// index gb18030).
var gb2022 = map[uint16]rune{
	0xA6D9: 0xFE10, 0xA6DA: 0xFE12, 0xA6DB: 0xFE11, 0xA6DC: 0xFE13, 0xA6DD: 0xFE14, 0xA6DE: 0xFE15, 0xA6DF: 0xFE16,
	0xA6EC: 0xFE17, 0xA6ED: 0xFE18, 0xA6F3: 0xFE19,
	0xFE59: 0x9FB4, 0xFE61: 0x9FB5, 0xFE66: 0x9FB6, 0xFE67: 0x9FB7, 0xFE6D: 0x9FB8, 0xFE7E: 0x9FB9, 0xFE90: 0x9FBA,
	0xFEA0: 0x9FBB,
	0xA8BC: 0x1E3F,
	0xA3A0: 0x3000,
}

// gbPrivate are the runs of codes that still stand for the private use area, which x/text leaves out too: code, first
// character, number. Companies keep rare names there.
var gbPrivate = [...]struct {
	code uint16
	r    rune
	n    int
}{
	{0xA2AB, 0xE766, 6},
	{0xA2E4, 0xE76D, 1},
	{0xA2EF, 0xE76E, 2},
	{0xA2FD, 0xE770, 2},
	{0xA4F4, 0xE772, 11},
	{0xA5F7, 0xE77D, 8},
	{0xA6B9, 0xE785, 8},
	{0xA6F6, 0xE797, 9},
	{0xA7C2, 0xE7A0, 15},
	{0xA7F2, 0xE7AF, 13},
	{0xA896, 0xE7BC, 11},
	{0xA8C1, 0xE7C9, 4},
	{0xA8EA, 0xE7CD, 21},
	{0xA958, 0xE7E2, 1},
	{0xA95B, 0xE7E3, 1},
	{0xA95D, 0xE7E4, 3},
	{0xA997, 0xE7F4, 13},
	{0xA9F0, 0xE801, 15},
	{0xD7FA, 0xE810, 5},
	{0xFE51, 0xE816, 3},
	{0xFE6C, 0xE831, 1},
	{0xFE76, 0xE83B, 1},
	{0xFE91, 0xE855, 1},
}

// gbOverrides joins gb2022, gbPrivate and the three areas for users' own characters.
var gbOverrides = sync.OnceValue(func() map[uint16]rune {
	m := make(map[uint16]rune, 2100)
	area := func(first, last, low, high byte, r rune) {
		for a := first; a <= last; a++ {
			for b := int(low); b <= int(high); b++ {
				if b != 0x7F {
					m[uint16(a)<<8|uint16(b)] = r
					r++
				}
			}
		}
	}
	area(0xAA, 0xAF, 0xA1, 0xFE, 0xE000)
	area(0xF8, 0xFE, 0xA1, 0xFE, 0xE234)
	area(0xA1, 0xA7, 0x40, 0xA0, 0xE4C6)
	for _, p := range gbPrivate {
		for i := range p.n {
			m[p.code+uint16(i)] = p.r + rune(i)
		}
	}
	maps.Copy(m, gb2022)
	return m
})

// NewDecoder implements encoding.Encoding.
func (gb18030) NewDecoder() *encoding.Decoder {
	return &encoding.Decoder{Transformer: &gbDecoder{inner: simplifiedchinese.GB18030.NewDecoder()}}
}

// NewEncoder implements encoding.Encoding; no mail is written with it.
func (gb18030) NewEncoder() *encoding.Encoder { return simplifiedchinese.GB18030.NewEncoder() }

type gbDecoder struct{ inner *encoding.Decoder }

// Reset implements transform.Transformer.
func (d *gbDecoder) Reset() { d.inner.Reset() }

// Transform implements transform.Transformer: runs without an override go through the decoder of x/text.
func (d *gbDecoder) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		run, r := nextOverride(src[nSrc:])
		if run > 0 {
			last := nSrc+run == len(src)
			n, m, err := d.inner.Transform(dst[nDst:], src[nSrc:nSrc+run], atEOF || !last)
			nDst += n
			nSrc += m
			if err != nil {
				return nDst, nSrc, err
			}
			continue
		}
		if nDst+utf8.RuneLen(r) > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], r)
		nSrc += 2
	}
	return nDst, nSrc, nil
}

// nextOverride walks over whole characters: it returns how many octets come before the next override, or that
// one's character when src begins with it.
func nextOverride(src []byte) (run int, r rune) {
	overrides := gbOverrides()
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c < 0x81 || c == 0xFF:
			i++
		case i+1 >= len(src):
			return len(src), 0
		case src[i+1] >= '0' && src[i+1] <= '9':
			i += 4
		case src[i+1] < 0x40:
			i++ // not a character: x/text replaces the first octet alone
		default:
			// Ordinary Han characters are 0xB0 to 0xF7, and 0x81 to 0xA0 with those of GBK.
			if c >= 0xA1 && c <= 0xAF || c == 0xD7 || c >= 0xF8 {
				if r, ok := overrides[uint16(c)<<8|uint16(src[i+1])]; ok {
					if i == 0 {
						return 0, r
					}
					return i, 0
				}
			}
			i += 2
		}
	}
	return len(src), 0
}
