package transport

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"waxwing/internal/smtp"
	"waxwing/internal/wire"
)

// recording is a connection that only has something to say.
type recording struct {
	net.Conn
	r io.Reader
}

func (r recording) Read(p []byte) (int, error)  { return r.r.Read(p) }
func (r recording) Write(p []byte) (int, error) { return len(p), nil }
func (r recording) Close() error                { return nil }
func (r recording) RemoteAddr() net.Addr        { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }

func (r recording) LocalAddr() net.Addr              { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (r recording) SetDeadline(time.Time) error      { return nil }
func (r recording) SetReadDeadline(time.Time) error  { return nil }
func (r recording) SetWriteDeadline(time.Time) error { return nil }

func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "250-a\r\n251 b\r\n", "250\r\n", "5\r\n", "250-\xff\x00\r\n250 2.1.5 x\r\n", "250-SIZE 99999999999999999999\r\n250 LIMITS RCPTMAX=-1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := wire.New(recording{r: strings.NewReader(string(in))}, wire.Limits{Line: maxReplyLine})
		defer c.Close()
		for range 10 {
			r, err := readReply(c)
			if err != nil {
				return
			}
			if r.code < 200 || r.code > 599 || len(r.raw) > maxReplyText+maxReplyLine || len(r.lines) > maxReplyLines {
				t.Errorf("reply %d of %d octets and %d lines", r.code, len(r.raw), len(r.lines))
			}
			if strings.ContainsFunc(strings.ReplaceAll(r.raw, "\n", ""), unicode.IsControl) {
				t.Errorf("control characters in %q", r.raw)
			}
			if e := r.enhanced; e != (smtp.Enhanced{}) && e.Class != r.code/100 {
				t.Errorf("enhanced code %v of %d", e, r.code)
			}
			if x := parseEHLO(r.lines); x.size < 0 || x.mailMax < 0 || x.rcptMax < 0 {
				t.Errorf("extensions %+v", x)
			}
		}
	})
}

func TestEHLO(t *testing.T) {
	t.Parallel()
	x := parseEHLO([]string{"mx.test", "size 1000", "Pipelining", "8BITMIME", "AUTH plain LOGIN", "LIMITS MAILMAX=20 RCPTMAX=5 X=1", "SIZEX 5", "CHUNKING", "BINARYMIME"})
	if !x.sized || x.size != 1000 || !x.pipelining || !x.eightBit || !x.chunking || !x.binary || x.mailMax != 20 || x.rcptMax != 5 || strings.Join(x.auth, " ") != "PLAIN LOGIN" {
		t.Errorf("%+v", x)
	}
	if x := parseEHLO([]string{"PIPELINING"}); x.pipelining {
		t.Error("the greeting was taken for a keyword")
	}
}

func BenchmarkDeliver(b *testing.B) {
	s := newServer(b, nil)
	tr, err := New(Options{Hostname: "me.test", Resolver: fakeDNS{}, Hosts: map[string][]netip.AddrPort{"b.test": {s.addr()}}})
	if err != nil {
		b.Fatal(err)
	}
	m := mail("x@b.test")
	m.Content = text(simple + strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef\r\n", 200))
	l := tr.Link("b.test")
	defer l.Close()
	b.ReportAllocs()
	for b.Loop() {
		if rs := l.Deliver(b.Context(), m); rs[0].Status != Delivered {
			b.Fatal(rs[0].Message)
		}
	}
}
