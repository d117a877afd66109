package message

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/wlynxg/chardet"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/encoding/unicode/utf32"
	"golang.org/x/text/transform"
)

// The labels of mail, more than the web's: neither index of x/text knows cp936, ms936 or gb_2312-80. All that is GB
// 2312 or GBK by name is read as GB 18030, which holds both (GB 18030-2022; the same mapping as the web's Encoding
// Standard gives). ISO 8859-1 is read as Windows-1252, because it is that in mail.
var charsets = func() map[string]encoding.Encoding {
	m := make(map[string]encoding.Encoding, 256)
	add := func(e encoding.Encoding, labels string) {
		for l := range strings.FieldsSeq(labels) {
			m[l] = e
		}
	}
	add(unicode.UTF8, "utf-8 utf8 unicode-1-1-utf-8 x-utf-8 utf-8-bom utf8mb4 csutf8 cp65001")
	add(gb18030{}, "gb18030 gb-18030 gb18030-2000 gb18030-2005 gb18030-2022 csgb18030 gbk gb2312 gb-2312 gb_2312 gb_2312-80 "+
		"gb2312-80 csgb2312 chinese csiso58gb231280 iso-ir-58 cp936 ms936 windows-936 936 x-gbk x-cp936 csgbk euc-cn "+
		"euccn x-euc-cn cn-gb cn-gb-isoir165 gb2312-1980 x-mac-chinesesimp")
	add(simplifiedchinese.HZGB2312, "hz-gb-2312 hz hzgb2312")
	add(traditionalchinese.Big5, "big5 big-5 big5-hkscs big5hkscs cn-big5 csbig5 x-x-big5 cp950 ms950 windows-950 950 big5-eten")
	add(japanese.ISO2022JP, "iso-2022-jp csiso2022jp iso-2022-jp-1 iso-2022-jp-2 iso-2022-jp-ms cp50220 cp50221 x-iso-2022-jp")
	add(japanese.ShiftJIS, "shift_jis shift-jis sjis x-sjis ms_kanji csshiftjis windows-31j cp932 ms932 x-ms-cp932 mskanji 932")
	add(japanese.EUCJP, "euc-jp eucjp x-euc-jp cseucpkdfmtjapanese ujis cp51932 euc-jp-ms")
	add(korean.EUCKR, "euc-kr euckr cseuckr ks_c_5601-1987 ks_c_5601-1989 ksc5601 ks_c_5601 korean csksc56011987 "+
		"iso-ir-149 ksc_5601 windows-949 cp949 ms949 uhc 949")
	add(charmap.Windows1252, "windows-1252 cp1252 x-cp1252 iso-8859-1 iso8859-1 iso_8859-1 iso88591 latin1 latin-1 l1 "+
		"csisolatin1 iso-ir-100 cp819 ibm819 iso_8859-1:1987 ansi 1252 8859-1")
	add(charmap.ISO8859_2, "iso-8859-2 iso8859-2 iso_8859-2 iso88592 latin2 l2 csisolatin2 iso_8859-2:1987 iso-ir-101")
	add(charmap.ISO8859_3, "iso-8859-3 iso8859-3 latin3 l3")
	add(charmap.ISO8859_4, "iso-8859-4 iso8859-4 latin4 l4")
	add(charmap.ISO8859_5, "iso-8859-5 iso8859-5 iso_8859-5 cyrillic csisolatincyrillic iso-ir-144")
	add(charmap.ISO8859_6, "iso-8859-6 iso8859-6 iso-8859-6-e iso-8859-6-i arabic ecma-114 asmo-708")
	add(charmap.ISO8859_7, "iso-8859-7 iso8859-7 greek greek8 ecma-118 elot_928")
	add(charmap.ISO8859_8, "iso-8859-8 iso8859-8 iso-8859-8-e iso-8859-8-i hebrew visual logical")
	add(charmap.Windows1254, "iso-8859-9 iso8859-9 latin5 l5 windows-1254 cp1254 x-cp1254")
	add(charmap.ISO8859_10, "iso-8859-10 iso8859-10 latin6 l6")
	add(charmap.Windows874, "iso-8859-11 iso8859-11 tis-620 tis620 windows-874 cp874 dos-874 x-tis-620")
	add(charmap.ISO8859_13, "iso-8859-13 iso8859-13 latin7")
	add(charmap.ISO8859_14, "iso-8859-14 iso8859-14 latin8")
	add(charmap.ISO8859_15, "iso-8859-15 iso8859-15 iso_8859-15 latin9 latin-9 l9 csisolatin9")
	add(charmap.ISO8859_16, "iso-8859-16 iso8859-16 latin10")
	add(charmap.Windows1250, "windows-1250 cp1250 x-cp1250")
	add(charmap.Windows1251, "windows-1251 cp1251 x-cp1251 win-1251 win1251")
	add(charmap.Windows1253, "windows-1253 cp1253 x-cp1253")
	add(charmap.Windows1255, "windows-1255 cp1255 x-cp1255")
	add(charmap.Windows1256, "windows-1256 cp1256 x-cp1256")
	add(charmap.Windows1257, "windows-1257 cp1257 x-cp1257")
	add(charmap.Windows1258, "windows-1258 cp1258 x-cp1258 viscii")
	add(charmap.KOI8R, "koi8-r koi8 koi8r koi cskoi8r")
	add(charmap.KOI8U, "koi8-u koi8u koi8-ru")
	add(charmap.CodePage437, "ibm437 cp437 437")
	add(charmap.CodePage850, "ibm850 cp850 850")
	add(charmap.CodePage852, "ibm852 cp852 852")
	add(charmap.CodePage855, "ibm855 cp855 855")
	add(charmap.CodePage858, "ibm858 cp858 ibm00858")
	add(charmap.CodePage860, "ibm860 cp860")
	add(charmap.CodePage862, "ibm862 cp862")
	add(charmap.CodePage863, "ibm863 cp863")
	add(charmap.CodePage865, "ibm865 cp865")
	add(charmap.CodePage866, "ibm866 cp866 866 csibm866")
	add(charmap.Macintosh, "macintosh mac x-mac-roman csmacintosh x-macroman")
	add(charmap.MacintoshCyrillic, "x-mac-cyrillic x-mac-ukrainian")
	add(unicode.UTF16(unicode.LittleEndian, unicode.UseBOM), "utf-16 utf16 ucs-2 iso-10646-ucs-2 csunicode unicode")
	add(unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), "utf-16le utf16le unicodefeff")
	add(unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), "utf-16be utf16be unicodefffe")
	add(utf32.UTF32(utf32.LittleEndian, utf32.UseBOM), "utf-32 utf32 ucs-4")
	add(utf32.UTF32(utf32.LittleEndian, utf32.IgnoreBOM), "utf-32le")
	add(utf32.UTF32(utf32.BigEndian, utf32.IgnoreBOM), "utf-32be")
	return m
}()

// charsetByLabel finds an encoding by its label in mail; nil when it is unknown. US-ASCII is unknown on purpose: what is
// labelled so and has octets above 127 is something else.
func charsetByLabel(label string) encoding.Encoding {
	if e, ok := charsets[label]; ok {
		return e
	}
	if len(label) > 60 {
		return nil
	}
	l := strings.ToLower(strings.Trim(label, " \t\r\n\"'<>;,"))
	if i := strings.IndexByte(l, '*'); i >= 0 {
		l = l[:i] // a language after the charset, RFC 2231, section 5
	}
	if e, ok := charsets[l]; ok {
		return e
	}
	return charsets[strings.ReplaceAll(l, "_", "-")]
}

// isASCIILabel tells the labels that promise ASCII only, and those that promise nothing.
func isASCIILabel(label string) bool {
	switch strings.ToLower(label) {
	case "", "us-ascii", "ascii", "ansi_x3.4-1968", "iso646-us", "default", "unknown", "unknown-8bit", "x-unknown",
		"_iso-2022-jp$esc":
		return true
	}
	return false
}

// CharsetKnown tells whether text with this label can be converted to UTF-8.
func CharsetKnown(label string) bool { return charsetByLabel(label) != nil || isASCIILabel(label) }

// decodeCharset converts octets with a charset label to UTF-8. With an unknown label, or US-ASCII with octets above
// 127, it guesses as for a header.
func decodeCharset(label string, b []byte) string {
	e := charsetByLabel(label)
	switch {
	case e == nil:
		return guessHeader(b, "")
	case e == unicode.UTF8 && utf8.Valid(b):
		return string(b)
	case e == unicode.UTF8 && !mostlyUTF8(b):
		return guessHeader(b, "")
	}
	return decodeWith(e, b)
}

// mostlyUTF8 tells damaged UTF-8 from another charset under its label: some sequences of more than one octet are whole.
func mostlyUTF8(b []byte) bool {
	whole, broken := 0, 0
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case n > 1:
			whole++
		case r == utf8.RuneError:
			broken++
		}
		b = b[n:]
	}
	return whole >= broken
}

func decodeWith(e encoding.Encoding, b []byte) string {
	if isASCII(b) && !isStateful(e) {
		return string(b)
	}
	out, err := e.NewDecoder().Bytes(b)
	if err != nil {
		// Decoders replace what is wrong; an error is left for text that ends inside a character.
		return strings.ToValidUTF8(string(out), "\uFFFD")
	}
	return string(out)
}

// isStateful names the encodings in which ASCII octets can mean something else.
func isStateful(e encoding.Encoding) bool {
	if e == japanese.ISO2022JP || e == simplifiedchinese.HZGB2312 {
		return true
	}
	out, _ := e.NewDecoder().Bytes([]byte("a"))
	return string(out) != "a"
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// guessHeader converts raw octets of a header: UTF-8 when they are that, else GB 18030 when they are that, else the
// fallback label, else Windows-1252, which takes all.
func guessHeader(b []byte, fallback string) string {
	if utf8.Valid(b) {
		return string(b)
	}
	if plausibleGB(b) {
		if out, err := (gb18030{}).NewDecoder().Bytes(b); err == nil && !bytes.Contains(out, []byte("\uFFFD")) {
			return string(out)
		}
	}
	if e := charsetByLabel(fallback); e != nil && e != unicode.UTF8 {
		return decodeWith(e, b)
	}
	if mostlyUTF8(b) {
		return strings.ToValidUTF8(string(b), "\uFFFD")
	}
	return decodeWith(charmap.Windows1252, b)
}

// plausibleGB tells Chinese from Western text that happens to be well formed GB 18030, as "K\xF6ln" is: at least half
// of the characters that are no ASCII must be among those of GB 2312, where nearly all Chinese text is, or have four
// octets.
func plausibleGB(b []byte) bool {
	common, all := 0, 0
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c < 0x81:
			i++
			continue
		case i+1 >= len(b):
			return false
		case isDigit(b[i+1]):
			common++
			i += 4
		default:
			if b[i+1] >= 0xA1 && (c >= 0xB0 && c <= 0xF7 || c >= 0xA1 && c <= 0xA9) {
				common++
			}
			i += 2
		}
		all++
	}
	return 2*common >= all
}

// sniffLength is how much of a text is looked at to find its charset.
const sniffLength = 16 << 10

// textReader converts decoded text with a charset label to UTF-8. A byte order mark counts more than the label; without
// a usable label come UTF-8, the declaration inside HTML, a guess by frequency, and Windows-1252.
func textReader(r io.Reader, label string, html bool) io.Reader {
	return &charsetReader{src: r, enc: charsetByLabel(label), html: html}
}

// charsetReader reads blocks. Without a label those of ASCII pass as they are, until one shows what the charset is.
type charsetReader struct {
	src   io.Reader
	enc   encoding.Encoding
	html  bool
	meta  string // what HTML declares in its first block
	begun bool
	more  bool // out is one block of ASCII
	out   io.Reader
	err   error // of src, after what was read before it
}

const sniffBlock = 4 << 10

// Read implements io.Reader.
func (c *charsetReader) Read(b []byte) (int, error) {
	for {
		if c.out != nil {
			n, err := c.out.Read(b)
			if n > 0 || err != io.EOF || !c.more {
				return n, err
			}
		}
		if c.err != nil {
			return 0, c.err
		}
		c.next()
	}
}

// next reads a block and decides what it is.
func (c *charsetReader) next() {
	block := make([]byte, sniffBlock)
	block, c.err = readBlock(c.src, block)
	enc, skip := c.enc, 0
	if !c.begun {
		c.begun = true
		if mark, n := byteOrderMark(block); mark != nil {
			enc, skip = mark, n
		} else if c.html && enc == nil {
			c.meta = metaCharset(block)
		}
	}
	if enc == nil && isASCII(block) && !hasEscapes(block) {
		c.out, c.more = bytes.NewReader(block), true
		return
	}
	if enc == nil {
		if c.err == nil {
			more := append(make([]byte, 0, sniffLength), block...)
			var rest []byte
			rest, c.err = readBlock(c.src, more[len(block):sniffLength])
			block = more[:len(block)+len(rest)]
		}
		enc = sniff(block, c.err != nil, c.meta)
	}
	rest := c.src
	if c.err != nil {
		rest = failing{c.err}
	}
	src := io.MultiReader(bytes.NewReader(block[skip:]), rest)
	c.more = false
	if enc == unicode.UTF8 {
		c.out = transform.NewReader(src, replaceInvalid{})
		return
	}
	c.out = transform.NewReader(src, enc.NewDecoder())
}

// readBlock fills the block as far as the reader goes; the error is io.EOF when it ends.
func readBlock(r io.Reader, block []byte) ([]byte, error) {
	n, err := io.ReadFull(r, block)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return block[:n], err
}

// hasEscapes tells ASCII that may be ISO 2022 or HZ.
func hasEscapes(b []byte) bool {
	return bytes.IndexByte(b, 0x1b) >= 0 || bytes.Contains(b, []byte("~{"))
}

// failing is a reader that has nothing but an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func byteOrderMark(b []byte) (encoding.Encoding, int) {
	switch {
	case bytes.HasPrefix(b, []byte("\xEF\xBB\xBF")):
		return unicode.UTF8, 3
	case bytes.HasPrefix(b, []byte("\xFF\xFE\x00\x00")):
		return charsets["utf-32le"], 4
	case bytes.HasPrefix(b, []byte("\x00\x00\xFE\xFF")):
		return charsets["utf-32be"], 4
	case bytes.HasPrefix(b, []byte("\xFF\xFE")):
		return charsets["utf-16le"], 2
	case bytes.HasPrefix(b, []byte("\xFE\xFF")):
		return charsets["utf-16be"], 2
	}
	return nil, 0
}

// sniff finds the charset of text without a label, which begins with head and may go on unless that is the whole.
func sniff(head []byte, whole bool, meta string) encoding.Encoding {
	if utf8Prefix(head, whole) && !hasEscapes(head) {
		return unicode.UTF8
	}
	if e := charsetByLabel(meta); e != nil {
		return e
	}
	if guess := chardet.Detect(head); guess.Confidence >= 0.5 {
		if e := charsetByLabel(guess.Encoding); e != nil {
			return e
		}
	}
	return charmap.Windows1252
}

// utf8Prefix tells whether the octets are UTF-8, where the last character may be cut off unless the text is whole.
func utf8Prefix(b []byte, whole bool) bool {
	if utf8.Valid(b) {
		return true
	}
	if whole {
		return false
	}
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) {
			return !utf8.FullRune(tail) && utf8.Valid(b[:len(b)-i])
		}
	}
	return false
}

// metaCharset finds what <meta charset=x> or <meta http-equiv=... content="text/html; charset=x"> declares.
func metaCharset(head []byte) string {
	rest := bytes.ToLower(head[:min(len(head), 4<<10)])
	for {
		i := bytes.Index(rest, []byte("<meta"))
		if i < 0 {
			return ""
		}
		rest = rest[i+5:]
		tag := rest
		if j := bytes.IndexByte(tag, '>'); j >= 0 {
			tag = tag[:j]
		}
		k := bytes.Index(tag, []byte("charset"))
		if k < 0 {
			continue
		}
		v := bytes.TrimLeft(tag[k+len("charset"):], " \t\r\n")
		if len(v) == 0 || v[0] != '=' {
			continue
		}
		v = bytes.TrimLeft(v[1:], " \t\r\n\"'")
		if end := bytes.IndexAny(v, " \t\r\n\"';/>"); end >= 0 {
			v = v[:end]
		}
		return string(v)
	}
}

// replaceInvalid passes UTF-8 on and puts U+FFFD where it is broken.
type replaceInvalid struct{ transform.NopResetter }

// Transform implements transform.Transformer.
func (replaceInvalid) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if src[nSrc] < utf8.RuneSelf {
			if nDst == len(dst) {
				return nDst, nSrc, transform.ErrShortDst
			}
			dst[nDst] = src[nSrc]
			nDst++
			nSrc++
			continue
		}
		if !atEOF && !utf8.FullRune(src[nSrc:]) {
			return nDst, nSrc, transform.ErrShortSrc
		}
		r, n := utf8.DecodeRune(src[nSrc:])
		if nDst+utf8.UTFMax > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], r)
		nSrc += n
	}
	return nDst, nSrc, nil
}
