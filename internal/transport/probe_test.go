package transport

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// speaking is a server that answers each command by what stands for it; a missing one gets 250.
func speaking(t *testing.T, greeting string, answers map[string]string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { speak(c, greeting, answers) })
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

func speak(c net.Conn, greeting string, answers map[string]string) {
	defer c.Close()
	fmt.Fprintf(c, "%s\r\n", greeting)
	r := bufio.NewReader(c)
	for body := false; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if body && line != "." {
			continue
		}
		verb, _, _ := strings.Cut(line, " ")
		answer, ok := answers[verb]
		if !ok {
			answer = "250 ok"
		}
		body = verb == "DATA"
		fmt.Fprintf(c, "%s\r\n", answer)
		if verb == "QUIT" {
			return
		}
	}
}

// probed runs a probe of a server and gives its steps, a line each.
func probed(t *testing.T, at netip.AddrPort, change func(*ProbeRequest)) (lines string, reached bool) {
	t.Helper()
	tr, err := New(Options{Hostname: "probe.test", Resolver: noNames{}, Port: int(at.Port()), Timeouts: Timeouts{Command: 30 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	req := ProbeRequest{Target: "[" + at.Addr().String() + "]", From: "a@b.test", To: "c@d.test"}
	if change != nil {
		change(&req)
	}
	var b strings.Builder
	reached = tr.Probe(t.Context(), req, func(s ProbeStep) {
		fmt.Fprintf(&b, "%s %s %s [%s]\n", s.Stage, s.Finding, s.Text, strings.ReplaceAll(s.Said, "\n", "/"))
	})
	return b.String(), reached
}

// noNames is a DNS in which nothing is asked: the targets are addresses.
type noNames struct{ Resolver }

func TestProbeTellsWhatItSees(t *testing.T) {
	t.Parallel()
	open := map[string]string{
		"EHLO": "250-mx.test\r\n250-SIZE 1000\r\n250-AUTH PLAIN\r\n250 8BITMIME", "DATA": "354 go on", ".": "250 2.0.0 taken",
	}
	refusing := map[string]string{"EHLO": "250 mx.test", "RCPT": "550 5.1.1 nobody"}
	for _, tt := range []struct {
		name     string
		greeting string
		answers  map[string]string
		change   func(*ProbeRequest)
		want     []string
		not      string
	}{
		{
			"everything goes well", "220 mx.test", open, func(r *ProbeRequest) { r.Message = []byte("Subject: x\n\n.dot\n") },
			[]string{"greeting ok", "STARTTLS problem TLS is not offered", "AUTH PLAIN is offered without TLS", "RCPT ok", "message ok the message was taken [250 2.0.0 taken]"},
			"",
		},
		{"nothing is sent without a message", "220 mx.test", open, nil, []string{"RSET ok"}, "DATA"},
		{"a recipient is refused", "220 mx.test", refusing, nil, []string{"RCPT problem refused [550 5.1.1 nobody]"}, "RSET"},
		{"the server is busy", "421 4.3.2 later", refusing, nil, []string{"greeting problem the server takes no mail from here now [421 4.3.2 later]"}, "EHLO"},
		{"it speaks something else", "SSH-2.0-OpenSSH", nil, nil, []string{"greeting problem"}, "EHLO"},
		{"no recipient is tried", "220 mx.test", open, func(r *ProbeRequest) { r.To = "" }, []string{"offers ok"}, "MAIL"},
		{"no password without TLS", "220 mx.test", open, func(r *ProbeRequest) { r.Username, r.Password = "u", []byte("secret") }, []string{"AUTH problem no password is sent"}, "MAIL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, reached := probed(t, speaking(t, tt.greeting, tt.answers), tt.change)
			for _, want := range tt.want {
				if !reached || !strings.Contains(got, want) {
					t.Errorf("missing %q in\n%s", want, got)
				}
			}
			if tt.not != "" && strings.Contains(got, "\n"+tt.not+" ") {
				t.Errorf("it went on to %s:\n%s", tt.not, got)
			}
		})
	}
}

func TestProbeOfNobody(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got, reached := probed(t, at, nil); reached || !strings.Contains(got, "connect problem no connection") {
		t.Errorf("%v\n%s", reached, got)
	}
}

func TestDotted(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "\r\n.\r\n", "a": "a\r\n.\r\n", ".\n..b\r\nc\rd\n": "..\r\n...b\r\ncd\r\n.\r\n",
	} {
		if got := string(dotted([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}
