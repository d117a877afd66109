package listen

import (
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"waxwing/internal/wire"
)

// v2 makes a header of version 2 from its parts in hexadecimal.
func v2(t testing.TB, command, family, rest string) string {
	t.Helper()
	b, err := hex.DecodeString(rest)
	if err != nil {
		t.Fatal(err)
	}
	head, err := hex.DecodeString(command + family)
	if err != nil {
		t.Fatal(err)
	}
	return proxySigV2 + string(head) + string([]byte{byte(len(b) >> 8), byte(len(b))}) + string(b)
}

// startProxied serves sessions that say their peer's address, behind proxies of some networks.
func startProxied(t *testing.T, trusted ...string) string {
	t.Helper()
	l := &Proxied{Listener: loopback(t)}
	for _, n := range trusted {
		l.Trusted = append(l.Trusted, netip.MustParsePrefix(n))
	}
	b := &bench{t: t, pool: New(Options{Name: "test", Sessions: 20, PerPeer: 20}), addr: l.Addr().String(), served: make(chan error, 1)}
	h := Handler{
		Start: func(nc net.Conn) Session {
			return &teller{conn: wire.New(nc, wire.Limits{Line: 100})}
		},
		Refuse: func(net.Conn, Reason) {},
	}
	go func() { b.served <- b.pool.Serve(l, h) }()
	t.Cleanup(func() {
		if err := b.pool.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return b.addr
}

// teller says who its peer is, then repeats one line.
type teller struct{ conn *wire.Conn }

func (s *teller) Conn() *wire.Conn { return s.conn }

func (s *teller) Run() {
	defer s.conn.Close()
	_, _ = s.conn.WriteString(s.conn.RemoteAddr().String() + " " + s.conn.LocalAddr().Addr().String() + "\r\n")
	if s.conn.Flush() != nil {
		return
	}
	if line, err := s.conn.ReadLine(); err == nil {
		_, _ = s.conn.WriteString(string(line) + "\r\n")
		_ = s.conn.Flush()
	}
}

// answer sends octets in pieces and reads all that comes.
func answer(t *testing.T, addr string, pieces ...string) string {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if _, err := io.WriteString(nc, p); err != nil {
			break // closed already
		}
	}
	all, _ := io.ReadAll(nc)
	return string(all)
}

func TestHeadersNameTheClient(t *testing.T) {
	t.Parallel()
	addr := startProxied(t, "127.0.0.0/8")
	four := "c000020a" + "c6336401" + "1234" + "0019" // 192.0.2.10:4660 to 198.51.100.1:25
	six := "20010db8000000000000000000000001" + "20010db8000000000000000000000002" + "1234" + "0019"
	for name, tc := range map[string]struct{ header, want string }{
		"v1 TCP4":                   {"PROXY TCP4 192.0.2.10 198.51.100.1 4660 25\r\n", "192.0.2.10:4660 198.51.100.1"},
		"v1 TCP6":                   {"PROXY TCP6 2001:db8::1 2001:db8::2 4660 25\r\n", "[2001:db8::1]:4660 2001:db8::2"},
		"v2 TCP4":                   {v2(t, "21", "11", four), "192.0.2.10:4660 198.51.100.1"},
		"v2 TCP6":                   {v2(t, "21", "21", six), "[2001:db8::1]:4660 2001:db8::2"},
		"v2 with TLVs":              {v2(t, "21", "11", four+"01"+"0002"+"6832"), "192.0.2.10:4660 198.51.100.1"},
		"v2 LOCAL":                  {v2(t, "20", "00", ""), "127.0.0.1:"},
		"v1 UNKNOWN":                {"PROXY UNKNOWN\r\n", "127.0.0.1:"},
		"v1 UNKNOWN with addresses": {"PROXY UNKNOWN 192.0.2.10 198.51.100.1 4660 25\r\n", "127.0.0.1:"},
	} {
		// What follows the header comes with it, or behind it: it belongs to the session either way.
		for _, pieces := range [][]string{{tc.header + "hello\r\n"}, {tc.header, "hello\r\n"}, {tc.header[:7], tc.header[7:], "hello\r\n"}} {
			got := answer(t, addr, pieces...)
			if !strings.HasPrefix(got, tc.want) || !strings.HasSuffix(got, "\r\nhello\r\n") {
				t.Errorf("%s in %d pieces: %q, want %q and what was said", name, len(pieces), got, tc.want)
			}
		}
	}
}

func TestBrokenHeadersCloseTheConnection(t *testing.T) {
	t.Parallel()
	addr := startProxied(t, "127.0.0.0/8")
	for name, header := range map[string]string{
		"none":                "EHLO client.example.test\r\n",
		"TLS":                 "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdef",
		"v1 without CR":       "PROXY TCP4 192.0.2.10 198.51.100.1 4660 25\n",
		"v1 too long":         "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
		"v1 bad address":      "PROXY TCP4 192.0.2.300 198.51.100.1 4660 25\r\n",
		"v1 mixed families":   "PROXY TCP4 2001:db8::1 198.51.100.1 4660 25\r\n",
		"v1 bad port":         "PROXY TCP4 192.0.2.10 198.51.100.1 99999 25\r\n",
		"v1 unspecified":      "PROXY TCP4 0.0.0.0 198.51.100.1 4660 25\r\n",
		"v2 too large":        proxySigV2 + "\x21\x11\xff\xff",
		"v2 too short":        v2(t, "21", "11", "c000020a"),
		"v2 wrong version":    v2(t, "31", "11", "c000020ac633640112340019"),
		"v2 wrong command":    v2(t, "22", "11", "c000020ac633640112340019"),
		"v2 UNIX":             v2(t, "21", "31", strings.Repeat("61", 216)),
		"v2 UDP":              v2(t, "21", "12", "c000020ac633640112340019"),
		"v2 PROXY of nothing": v2(t, "21", "00", ""),
	} {
		if got := answer(t, addr, header, "hello\r\n"); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestOnlyTrustedProxiesMayConnect(t *testing.T) {
	t.Parallel()
	addr := startProxied(t, "192.0.2.0/24", "2001:db8::/32")
	if got := answer(t, addr, "PROXY TCP4 192.0.2.10 198.51.100.1 4660 25\r\n", "hello\r\n"); got != "" {
		t.Errorf("a stranger is believed: %q", got)
	}
}

func TestAProxyThatSaysNothingHoldsUpNobody(t *testing.T) {
	t.Parallel()
	l := &Proxied{Listener: loopback(t), Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	pool := New(Options{Name: "test", Sessions: 20, PerPeer: 20})
	served := make(chan error, 1)
	go func() {
		served <- pool.Serve(l, Handler{Start: func(nc net.Conn) Session { return &teller{conn: wire.New(nc, wire.Limits{})} }, Refuse: func(net.Conn, Reason) {}})
	}()
	var silent []net.Conn
	for range 5 {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		silent = append(silent, nc)
	}
	if got := answer(t, l.Addr().String(), "PROXY UNKNOWN\r\nhello\r\n"); !strings.HasSuffix(got, "hello\r\n") {
		t.Errorf("%q", got)
	}
	// Shutdown waits for no header.
	if err := pool.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
	for _, nc := range silent {
		if n, err := nc.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Error("a silent proxy was answered")
		}
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.10 198.51.100.1 4660 25\r\nEHLO"))
	f.Add([]byte(v2(f, "21", "11", "c000020ac633640112340019") + "EHLO"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		raw, err := readHeader(r)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(in, raw) || r.Len() != len(in)-len(raw) {
			t.Fatalf("%d octets read for a header of %d", len(in)-r.Len(), len(raw))
		}
		_, _ = named(&net.TCPConn{}, raw)
	})
}
