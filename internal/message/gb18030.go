package message

import (
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/transform"
)

// gb18030 is GB 18030-2022. x/text has the edition of 2005 and leaves out its codes for characters that were in the
// private use area then; this decoder puts the characters of 2022 in their place. It only decodes: mail is written in
// UTF-8.
type gb18030 struct{}

// gb2022 are the two-octet codes whose characters x/text does not know: the 18 that the edition of 2022 moved out of
// the private use area (WHATWG Encoding Standard, index gb18030), and 0xA8BC, which that of 2005 had moved.
var gb2022 = map[uint16]rune{
	0xA6D9: 0xFE10, 0xA6DA: 0xFE12, 0xA6DB: 0xFE11, 0xA6DC: 0xFE13, 0xA6DD: 0xFE14, 0xA6DE: 0xFE15, 0xA6DF: 0xFE16,
	0xA6EC: 0xFE17, 0xA6ED: 0xFE18, 0xA6F3: 0xFE19,
	0xFE59: 0x9FB4, 0xFE61: 0x9FB5, 0xFE66: 0x9FB6, 0xFE67: 0x9FB7, 0xFE6D: 0x9FB8, 0xFE7E: 0x9FB9, 0xFE90: 0x9FBA,
	0xFEA0: 0x9FBB,
	0xA8BC: 0x1E3F,
}

// NewDecoder implements encoding.Encoding.
func (gb18030) NewDecoder() *encoding.Decoder {
	return &encoding.Decoder{Transformer: &gbDecoder{inner: simplifiedchinese.GB18030.NewDecoder()}}
}

// NewEncoder implements encoding.Encoding; no mail is written with it.
func (gb18030) NewEncoder() *encoding.Encoder { return simplifiedchinese.GB18030.NewEncoder() }

type gbDecoder struct{ inner *encoding.Decoder }

// Reset implements transform.Transformer.
func (d *gbDecoder) Reset() { d.inner.Reset() }

// Transform implements transform.Transformer: runs without a code of gb2022 go through the decoder of x/text.
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

// nextOverride walks over whole characters: it returns how many octets come before the next code of gb2022, or that
// code's character when src begins with it.
func nextOverride(src []byte) (run int, r rune) {
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
			if c == 0xA6 || c == 0xA8 || c == 0xFE {
				if r, ok := gb2022[uint16(c)<<8|uint16(src[i+1])]; ok {
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
