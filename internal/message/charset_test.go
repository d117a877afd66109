package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"
)

// gb2022Sum is the SHA-256 of "code character" for each two-octet code, as WHATWG's decoder of 2024 has them: made with
// TextDecoder("gb18030") of Node.js 20.20 with ICU 78.
const gb2022Sum = "48118eb4f12447445627cd3d52538144d3f0e0317c5d500b592985d56381ad14"

func TestGB18030TwoOctetCodesAreThoseOf2022(t *testing.T) {
	t.Parallel()
	var lines []string
	for a := 0x81; a <= 0xFE; a++ {
		for b := 0x40; b <= 0xFE; b++ {
			if b == 0x7F {
				continue
			}
			var cps []string
			for _, r := range decodeWith(gb18030{}, []byte{byte(a), byte(b)}) {
				cps = append(cps, fmt.Sprintf("%x", r))
			}
			lines = append(lines, fmt.Sprintf("%02x%02x %s", a, b, strings.Join(cps, "+")))
		}
	}
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	if got := hex.EncodeToString(sum[:]); got != gb2022Sum {
		t.Errorf("the sum of %d codes is %s", len(lines), got)
	}
}

func TestGB18030ReadsBackEveryCharacter(t *testing.T) {
	t.Parallel()
	var all []rune
	for r := rune(0x80); r <= utf8.MaxRune; r++ {
		// The private use area and what moved out of it have other codes than x/text writes.
		if r >= 0xD800 && r < 0xF900 {
			continue
		}
		all = append(all, r)
	}
	raw, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(string(all)))
	if err != nil {
		t.Fatal(err)
	}
	got := []rune(decodeWith(gb18030{}, raw))
	if len(got) != len(all) {
		t.Fatalf("%d characters became %d", len(all), len(got))
	}
	for i, r := range all {
		if got[i] != r {
			t.Errorf("%U became %U", r, got[i])
		}
	}
}

func TestGB18030SurvivesAnyPlaceOfTheBuffer(t *testing.T) {
	t.Parallel()
	// 0xA6D9 is one of 2022, 0x84318236 has four octets, the end is half a character.
	raw := []byte("a\xA6\xD9\xC4\xE3\x84\x31\x82\x36\xA8\xBC\x82\x34\xB1\x35\xFE\x59b\xFF\xC4")
	want := "a\uFE10你\uFE10\u1E3F\u384C\u9FB4b\uFFFD\uFFFD"
	want = strings.Replace(want, "\u384C", string([]rune(decodeWith(gb18030{}, []byte("\x82\x34\xB1\x35")))), 1)
	if got := decodeWith(gb18030{}, raw); got != want {
		t.Errorf("at once: %+q, want %+q", got, want)
	}
	r := &charsetReader{src: iotest.OneByteReader(bytes.NewReader(raw)), enc: gb18030{}}
	got, err := io.ReadAll(iotest.OneByteReader(r))
	if err != nil || string(got) != want {
		t.Errorf("octet by octet: %+q, %v", got, err)
	}
}

// textPart builds a part and reads its text.
func readText(t *testing.T, contentType string, body []byte) string {
	t.Helper()
	raw := append([]byte("Content-Type: "+contentType+"\r\n\r\n"), body...)
	got, err := io.ReadAll(ParseBytes(raw).Text(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func encodeGB(t *testing.T, s string) []byte {
	t.Helper()
	b, err := simplifiedchinese.GB18030.NewEncoder().Bytes([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTextIsConvertedToUTF8(t *testing.T) {
	t.Parallel()
	chinese := "各位同事：请于明天下午三点参加会议。䶮㛃𬭊𫖯，谢谢！"
	gb := encodeGB(t, chinese)
	long := strings.Repeat("各位同事，请准时参加会议。", 5000)
	for _, c := range []struct {
		name, contentType string
		body              []byte
		want              string
	}{
		{"gb2312 is GB 18030", "text/plain; charset=gb2312", gb, chinese},
		{"gbk is GB 18030", "text/plain; charset=GBK", gb, chinese},
		{"cp936 in quotes", `text/plain; charset="cp936"`, gb, chinese},
		{"x-gbk", "text/plain; charset=x-gbk", gb, chinese},
		{"gb_2312-80", "text/plain; charset=gb_2312-80", gb, chinese},
		{"no charset, GBK by guess", "text/plain", encodeGB(t, long), long},
		{"unknown charset, GBK by guess", "text/plain; charset=foo", encodeGB(t, long), long},
		{"us-ascii with high octets, UTF-8", "text/plain; charset=us-ascii", []byte(long), long},
		{"no charset, UTF-8", "text/plain", []byte(long), long},
		{"byte order mark counts more", "text/plain; charset=iso-8859-1", []byte("\xEF\xBB\xBF你好"), "你好"},
		{"UTF-16 with a mark", "text/plain; charset=utf-16", []byte("\xFF\xFE\x60\x4F"), "你"},
		{"UTF-16 without a label", "text/plain", []byte("\xFE\xFF\x4F\x60"), "你"},
		{"UTF-16LE", "text/plain; charset=utf-16le", []byte("\x60\x4F"), "你"},
		{
			"HTML declares its charset", "text/html", append([]byte(`<meta http-equiv=x content="text/html; charset=gb2312">`), gb...),
			`<meta http-equiv=x content="text/html; charset=gb2312">` + chinese,
		},
		{"HTML in short", "text/html", append([]byte("<meta charset='gbk'/>"), gb...), "<meta charset='gbk'/>" + chinese},
		{"the label counts more than HTML", "text/html; charset=gbk", append([]byte("<meta charset=utf-8>"), gb...), "<meta charset=utf-8>" + chinese},
		{"broken UTF-8 is replaced", "text/plain; charset=utf-8", []byte("a\xffb你"), "a\uFFFDb你"},
		{"Windows-1252 under the name of Latin-1", "text/plain; charset=iso-8859-1", []byte("\x80"), "€"},
		{"koi8-r", "text/plain; charset=koi8-r", []byte("\xf0\xd2\xc9\xd7\xc5\xd4"), "Привет"},
		{"ISO-2022-JP", "text/plain; charset=iso-2022-jp", []byte("\x1b$BF|K\\8l\x1b(B"), "日本語"},
		{"other parts stay", "application/octet-stream; charset=gbk", gb, string(gb)},
		{"empty", "text/plain", nil, ""},
		{
			"ASCII for long, then GBK", "text/plain", append(bytes.Repeat([]byte("plain text\r\n"), 5000), encodeGB(t, long)...),
			strings.Repeat("plain text\r\n", 5000) + long,
		},
		{
			"HTML of ASCII for long, then as declared", "text/html", append([]byte("<meta charset=koi8-r>"+strings.Repeat("x", 50_000)), "\xf0\xd2"...),
			"<meta charset=koi8-r>" + strings.Repeat("x", 50_000) + "Пр",
		},
		{"ISO-2022-JP without a label", "text/plain", []byte("\x1b$BF|K\\8l$G$9!#\x1b(B"), "日本語です。"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := readText(t, c.contentType, c.body); got != c.want {
				t.Errorf("got %.100q, want %.100q", got, c.want)
			}
		})
	}
}

func TestCharsetKnown(t *testing.T) {
	t.Parallel()
	for label, want := range map[string]bool{
		"UTF-8": true, "utf8": true, "us-ascii": true, "GB2312": true, "cp936": true, "MS936": true, "x-foo": false, "": true,
		"ISO_8859-1": true, "'gbk'": true, strings.Repeat("x", 1000): false,
	} {
		if got := CharsetKnown(label); got != want {
			t.Errorf("CharsetKnown(%.20q) is %v", label, got)
		}
	}
}

func TestTextReportsErrorsOfTheReader(t *testing.T) {
	t.Parallel()
	p := &Part{Type: "text", Subtype: "plain", Encoding: "base64", End: 100_000}
	if _, err := io.ReadAll(p.Text(failingAt{io.ErrClosedPipe})); err != io.ErrClosedPipe {
		t.Errorf("got %v", err)
	}
}

func TestTransferEncodingsAreUndoneLeniently(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, enc, in, want string }{
		{"base64", "base64", "aGVs\r\nbG8=", "hello"},
		{"base64 without padding", "base64", "aGVsbG8", "hello"},
		{"base64 with junk", "base64", "aG!V.s\x00 bG8=\r\n", "hello"},
		{"base64 in two pieces", "base64", "aGVsbG8=aGVsbG8=", "hellohello"},
		{"base64 of the URL alphabet", "base64", "-_-_", "\xfb\xff\xbf"},
		{"base64, one letter too many", "base64", "aGVsbG8=a", "hello"},
		{"base64, nothing", "base64", "", ""},
		{"base64, only padding", "base64", "====", ""},
		{"label in capitals, with a comment", "(c) BASE64 (d)", "aGk=", "hi"},
		{"quoted-printable", "quoted-printable", "a=3Db=\r\nc", "a=bc"},
		{"lower case digits", "quoted-printable", "=c3=b6", "ö"},
		{"soft break with spaces", "quoted-printable", "a= \t\r\nb", "ab"},
		{"soft break with LF", "quoted-printable", "a=\nb", "ab"},
		{"trailing space goes", "quoted-printable", "a \t\r\nb c\r\n", "a\r\nb c\r\n"},
		{"lone equals sign", "quoted-printable", "a=b=c= d=3", "a=b=c= d=3"},
		{"equals sign at the end", "quoted-printable", "a=", "a"},
		{"two equals signs", "quoted-printable", "a==3D", "a=="},
		{"equals sign and CR", "quoted-printable", "a=\rb", "ab"},
		{"unknown", "x-uuencode", "a=3D", "a=3D"},
		{"7bit", "7bit", "a=3D", "a=3D"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			raw := "Content-Transfer-Encoding: " + c.enc + "\r\n\r\n" + c.in
			p := ParseBytes([]byte(raw))
			for _, one := range []bool{false, true} {
				r := p.Decoded(strings.NewReader(raw))
				if one {
					r = iotest.OneByteReader(r)
				}
				got, err := io.ReadAll(r)
				if err != nil || string(got) != c.want {
					t.Errorf("%q became %q, %v, want %q", c.in, got, err, c.want)
				}
			}
		})
	}
}

func TestHTMLText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"paragraphs", "<p>a</p><p>b</p>", "a\n\nb"},
		{"line breaks", "a<br>b<br/>c", "a\nb\nc"},
		{"white space collapses", "  a \n\t b  <b> c</b>", "a b c"},
		{"entities", "&lt;a&gt; &amp; &nbsp;&eacute;&#20320;", "<a> & é你"},
		{"scripts and styles go", "<style>p{}</style><script>if (a<b) x()</script>a<!-- b -->", "a"},
		{"title goes", "<html><head><title>t</title></head><body>a</body></html>", "a"},
		{"lists", "<ul><li>a<li>b</ul>c", "- a\n- b\n\nc"},
		{"tables", "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"},
		{"pre keeps lines", "<pre>a\nb</pre>c", "a\nb\nc"},
		{"images", `a <img src=x alt="picture"> b`, "a picture b"},
		{"inline elements", "a<b>b</b><i>c</i>", "abc"},
		{"tag never closes", "a <b", "a"},
		{"style never closes", "a<style>b", "a"},
		{"preview filler goes", "a&zwnj;&#847; &#8204; b", "a b"},
		{"not HTML", "a < b > c", "a < b > c"},
		{"empty", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := HTMLText(strings.NewReader(c.in), 1<<20)
			if err != nil || got != c.want {
				t.Errorf("%q became %q, %v, want %q", c.in, got, err, c.want)
			}
		})
	}
	if got, err := HTMLText(strings.NewReader(strings.Repeat("<p>ab", 1000)), 50); err != nil || len(got) > 50 {
		t.Errorf("the limit: %d octets, %v", len(got), err)
	}
	if _, err := HTMLText(iotest.ErrReader(io.ErrClosedPipe), 50); err == nil {
		t.Error("an error of the reader is lost")
	}
}

func TestPreview(t *testing.T) {
	t.Parallel()
	alt := func(plain, html string) string {
		return "Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\n" + plain + "\r\n--b\r\nContent-Type: text/html\r\n\r\n" + html + "\r\n--b--\r\n"
	}
	for _, c := range []struct{ name, raw, want string }{
		{"lines are joined", "\r\n a\r\n\r\nb\tc\r\n", "a b c"},
		{"200 characters", "Content-Type: text/plain; charset=utf-8\r\n\r\n" + strings.Repeat("你", 500), strings.Repeat("你", 200)},
		{"quotes are left out", "\r\n> old\r\n>> older\r\nnew\r\n", "new"},
		{"nothing but quotes", "\r\n> old\r\n", "> old"},
		{"plain before HTML", alt("plain", "<p>rich"), "plain"},
		{"HTML when plain is empty", alt(" \r\n", "<style>x{}</style><p>rich"), "rich"},
		{"attachments are not read", "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Disposition: attachment\r\n\r\nfile\r\n--b\r\n\r\ntext\r\n--b--\r\n", "text"},
		{"no text", "Content-Type: image/png\r\n\r\nx", ""},
		{"embedded messages are not read", "Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx", ""},
		{"invisible filler", "Content-Type: text/plain; charset=utf-8\r\n\r\na\u200b\u034f\u00adb\u202e", "ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := Preview(ParseBytes([]byte(c.raw)), strings.NewReader(c.raw)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
