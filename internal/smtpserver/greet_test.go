package smtpserver

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestTalkingBeforeTheGreetingIsRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, addr string
		mode       Mode
		early      time.Duration
		want       string
	}{
		{"stranger", "192.0.2.1:1", MX, 10 * time.Second, "554 5.5.1"},
		{"loopback", "127.0.0.1:1", MX, 10 * time.Second, "220 "},
		{"trusted proxy", "198.51.100.1:1", MX, 10 * time.Second, "220 "},
		{"user", "192.0.2.1:1", Submission, 10 * time.Second, "220 "},
		{"switched off", "192.0.2.1:1", MX, -1, "220 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			opts := options(newRecorder())
			opts.Limits.Early = tc.early
			opts.XClient = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
			_, p := servePipes(t, opts, tc.mode)
			nc := p.dialFrom(tc.addr)
			defer nc.Close()
			wrote := make(chan struct{})
			go func() { defer close(wrote); _, _ = io.WriteString(nc, "EHLO bot.test\r\n") }()
			b := make([]byte, 200)
			n, err := nc.Read(b)
			if err != nil || !strings.HasPrefix(string(b[:n]), tc.want) {
				t.Errorf("%q, %v", b[:n], err)
			}
			nc.Close()
			<-wrote
		})
	}
}

func TestWhoWaitsForTheGreetingIsGreeted(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Limits.Early = time.Millisecond
	_, p := servePipes(t, opts, MX)
	c := &client{t: t, nc: p.dialFrom("192.0.2.1:1")}
	c.expect("220 ")
	c.do("EHLO polite.test", "250 ")
	c.do("QUIT", "221 ")
}
