package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// packets is a connection whose peer sent these packets and left; what is written to it is kept.
type packets struct {
	in    [][]byte
	out   bytes.Buffer
	reads int
	arms  int
}

func (p *packets) Read(b []byte) (int, error) {
	p.reads++
	for len(p.in) > 0 && len(p.in[0]) == 0 {
		p.in = p.in[1:]
	}
	if len(p.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.in[0])
	p.in[0] = p.in[0][n:]
	return n, nil
}
func (p *packets) Write(b []byte) (int, error) { return p.out.Write(b) }
func (p *packets) Close() error                { return nil }
func (p *packets) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func (p *packets) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4000} }
func (p *packets) SetDeadline(time.Time) error      { return nil }
func (p *packets) SetWriteDeadline(time.Time) error { return nil }
func (p *packets) SetReadDeadline(time.Time) error  { p.arms++; return nil }

// cut makes packets of at most size octets.
func cut(s string, size int) [][]byte {
	var all [][]byte
	for len(s) > size {
		all = append(all, []byte(s[:size]))
		s = s[size:]
	}
	return append(all, []byte(s))
}

func sent(parts ...string) *packets {
	p := &packets{}
	for _, s := range parts {
		p.in = append(p.in, []byte(s))
	}
	return p
}

// transcript reads lines to the end and writes down what came.
func transcript(c *Conn) []string {
	var all []string
	for {
		line, err := c.ReadLine()
		switch {
		case err == nil:
			all = append(all, string(line))
		case !Fatal(err):
			all = append(all, "!"+err.Error())
		default:
			return append(all, "X "+err.Error())
		}
	}
}

const (
	bareError = "!wire: CR or LF outside of CRLF"
	longError = "!wire: line too long"
)

var lineCases = []struct {
	name, in string
	want     []string
}{
	{"plain lines", "NOOP\r\nQUIT\r\n", []string{"NOOP", "QUIT", "X EOF"}},
	{"an empty line", "\r\n\r\n", []string{"", "", "X EOF"}},
	{"the peer leaves inside a line", "NOO", []string{"X unexpected EOF"}},
	{"the peer leaves between CR and LF", "NOOP\r", []string{"X unexpected EOF"}},
	{"a bare LF ends no line", "A\nB\r\nC\r\n", []string{bareError, "C", "X EOF"}},
	{"each bare LF is reported", "A\nB\nC\r\nD\r\n", []string{bareError, bareError, "D", "X EOF"}},
	{"a bare CR ends no line", "A\rB\r\nC\r\n", []string{bareError, "C", "X EOF"}},
	{"CR CR LF", "A\r\r\nC\r\n", []string{bareError, "C", "X EOF"}},
	{"LF CR", "A\n\rB\r\nC\r\n", []string{bareError, bareError, "C", "X EOF"}},
	{"only LF, then the peer leaves", "A\nB\n", []string{bareError, bareError, "X unexpected EOF"}},
	{"the longest line", strings.Repeat("a", 98) + "\r\nB\r\n", []string{strings.Repeat("a", 98), "B", "X EOF"}},
	{"one octet too long", strings.Repeat("a", 99) + "\r\nB\r\n", []string{longError, "B", "X EOF"}},
	{"a CR as the last octet of the limit", strings.Repeat("a", 99) + "\rb\r\nB\r\n", []string{bareError, "B", "X EOF"}},
	{"a CR behind the limit", strings.Repeat("a", 100) + "\rb\r\nB\r\n", []string{longError, "B", "X EOF"}},
	{"a LF behind the limit", strings.Repeat("a", 100) + "\nb\r\nB\r\n", []string{longError, "B", "X EOF"}},
	{"far too long", strings.Repeat("a", 70000) + "\r\nB\r\n", []string{longError, "B", "X EOF"}},
	{"any octets", "\x00\xff\x80\r\n", []string{"\x00\xff\x80", "X EOF"}},
}

func TestReadLineHoweverThePacketsAreCut(t *testing.T) {
	t.Parallel()
	for _, tc := range lineCases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 2, 3, 63, 64, 65, 100, 1 << 20} {
				c := New(&packets{in: cut(tc.in, size)}, Limits{Line: 100})
				got := transcript(c)
				if strings.Join(got, "|") != strings.Join(tc.want, "|") {
					t.Errorf("packets of %d: got %q, want %q", size, got, tc.want)
				}
			}
		})
	}
}

func TestALineWithoutEndIsGivenUpAfterTheDrainCap(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"too long":       strings.Repeat("a", lineDrainCap+200),
		"after a bare":   "x\n" + strings.Repeat("a", lineDrainCap+200),
		"all bare LF":    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" + strings.Repeat("\n", lineDrainCap+200),
		"too long, bare": strings.Repeat("a", 200) + strings.Repeat("\n", lineDrainCap+200),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := New(sent(in+"\r\nNOOP\r\n"), Limits{Line: 100})
			for range lineDrainCap + 300 {
				line, err := c.ReadLine()
				if err == nil {
					t.Fatalf("read %q after more than the cap", line)
				}
				if Fatal(err) {
					if _, again := c.ReadLine(); again != err {
						t.Errorf("the error is not sticky: %v, then %v", err, again)
					}
					return
				}
			}
			t.Fatal("never gave up")
		})
	}
}

func TestALongLineIsReadThroughAGrownBuffer(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 9000)
	c := New(&packets{in: cut(long+"\r\nNEXT\r\n", 1400)}, Limits{Line: 100_000})
	for _, want := range []string{long, "NEXT"} {
		line, err := c.ReadLine()
		if err != nil || string(line) != want {
			t.Fatalf("got %d octets, %v; want %d", len(line), err, len(want))
		}
	}
	if _, err := c.ReadLine(); err != io.EOF {
		t.Fatal(err)
	}
	if len(c.buf) > smallSize {
		t.Errorf("an idle connection holds %d octets", len(c.buf))
	}
}

func TestLiteral(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 7, 64, 5000, 1 << 20} {
		body := strings.Repeat("x\r\n.\n", 9999)
		c := New(&packets{in: cut("CMD\r\n"+body+"NEXT\r\n", size)}, Limits{})
		if _, err := c.ReadLine(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c.Literal(int64(len(body))))
		if err != nil || string(got) != body {
			t.Fatalf("literal: %d octets, %v", len(got), err)
		}
		if line, err := c.ReadLine(); err != nil || string(line) != "NEXT" {
			t.Fatalf("after the literal: %q, %v", line, err)
		}
	}
}

func TestNothingIsParsedBehindAnUnreadLiteral(t *testing.T) {
	t.Parallel()
	c := New(sent("abcdef\r\nQUIT\r\n"), Limits{})
	r := c.Literal(4)
	if _, err := r.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if line, err := c.ReadLine(); err == nil || !Fatal(err) {
		t.Fatalf("read %q, %v inside a literal", line, err)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	c := New(sent("abcdef", "gh\r\n"), Limits{})
	if err := c.Drain(6, 6); err != nil {
		t.Fatal(err)
	}
	if line, err := c.ReadLine(); err != nil || string(line) != "gh" {
		t.Fatalf("%q, %v", line, err)
	}
	c = New(sent("abcdef\r\n"), Limits{})
	if err := c.Drain(7, 6); !errors.Is(err, ErrTooLarge) || !Fatal(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := c.ReadLine(); !Fatal(err) {
		t.Fatalf("reading goes on after a refused drain: %v", err)
	}
	c = New(sent("abcdef\r\n"), Limits{})
	half := c.Literal(6)
	if _, err := half.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	if err := half.Discard(100); err != nil {
		t.Fatal(err)
	}
	if line, err := c.ReadLine(); err != nil || string(line) != "" {
		t.Fatalf("%q, %v", line, err)
	}
	c = New(sent("ab"), Limits{})
	if err := c.Drain(3, 10); err != io.ErrUnexpectedEOF {
		t.Fatalf("got %v", err)
	}
	if _, err := New(sent(""), Limits{}).Literal(-1).Read(make([]byte, 1)); err == nil {
		t.Fatal("a literal of -1 octets was read")
	}
}

func TestWritesAreSentWhenInputRunsOut(t *testing.T) {
	t.Parallel()
	p := sent("A\r\nB\r\nC\r\n")
	c := New(p, Limits{})
	for i := range 3 {
		if _, err := c.ReadLine(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteString("250 ok\r\n"); err != nil {
			t.Fatal(err)
		}
		if p.out.Len() != 0 {
			t.Fatalf("command %d of a pipelined group was answered on its own", i)
		}
	}
	if _, err := c.ReadLine(); err != io.EOF {
		t.Fatal(err)
	}
	if got := p.out.String(); got != strings.Repeat("250 ok\r\n", 3) {
		t.Errorf("sent %q", got)
	}
	if c.wbuf != nil || c.pooled != nil {
		t.Error("an idle connection holds a buffer")
	}
}

func TestWriteKeepsEveryOctet(t *testing.T) {
	t.Parallel()
	p := sent()
	c := New(p, Limits{})
	var want bytes.Buffer
	for i := range 300 {
		s := strings.Repeat(string(rune('a'+i%26)), i*37%(2*bufSize))
		want.WriteString(s + s + "!" + s)
		_, e1 := c.Write([]byte(s))
		_, e2 := c.WriteString(s)
		e3 := c.WriteByte('!')
		_, e4 := c.ReadFrom(strings.NewReader(s))
		if err := errors.Join(e1, e2, e3, e4); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.out.Bytes(), want.Bytes()) {
		t.Error("what was sent is not what was written")
	}
}

func TestAddressesAreUnmapped(t *testing.T) {
	t.Parallel()
	c := New(sent(), Limits{})
	if got := c.RemoteAddr().String(); got != "192.0.2.1:4000" {
		t.Errorf("remote %s", got)
	}
	if got := c.LocalAddr().String(); got != "127.0.0.1:25" {
		t.Errorf("local %s", got)
	}
}

func TestReadingShortLinesArmsTheDeadlineOnce(t *testing.T) {
	t.Parallel()
	p := &packets{in: cut(strings.Repeat("NOOP\r\n", 1000), 6)}
	c := New(p, Limits{Idle: time.Minute, Read: time.Minute})
	transcript(c)
	if p.arms > 3 {
		t.Errorf("%d deadlines armed for %d reads", p.arms, p.reads)
	}
}

func TestTheHotPathDoesNotAllocate(t *testing.T) {
	body := strings.Repeat("A line of a message, as long as they usually are in mail.\r\n", 170) + ".\r\n"
	in := []byte("MAIL FROM:<a@example.test> SIZE=10000\r\nDATA\r\n" + body)
	p := &packets{}
	c := New(p, Limits{Idle: time.Minute, Read: time.Minute, LineTime: time.Minute, MinRate: 100, Grace: time.Minute, Bulk: time.Hour, Write: time.Minute})
	one := make([][]byte, 1)
	round := func() {
		one[0] = in
		p.in = one
		p.out.Reset()
		for range 2 {
			if _, err := c.ReadLine(); err != nil {
				t.Fatal(err)
			}
			if _, err := c.WriteString("250 2.1.0 ok\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := c.Dot(1 << 20).WriteTo(io.Discard); err != nil || n == 0 {
			t.Fatal(n, err)
		}
		w := c.DotWriter()
		if _, err := w.Write(in); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if n := testing.AllocsPerRun(100, round); n >= 1 { // the pool may be emptied once
		t.Errorf("%v allocations a round", n)
	}
}
