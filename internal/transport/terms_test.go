package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing/internal/smtp"
)

var termsClock = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func offering(words ...string) func(*server) {
	return func(s *server) { s.ehlo = append(s.ehlo, words...) }
}

func TestDeliverByGoesOn(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, letters string
		left          time.Duration
		offer         []string
		want          string // result
		mail          string // end of the MAIL command
		relayed       bool
	}{
		{"to a server with it", "R", time.Hour, []string{"DELIVERBY 60"}, "delivered 250 2.0.0", "BY=3600;R", false},
		{"with a trace", "RT", time.Hour, []string{"DELIVERBY"}, "delivered 250 2.0.0", "BY=3600;RT", true},
		{"late", "N", -time.Minute, []string{"DELIVERBY 120"}, "delivered 250 2.0.0", "BY=-60;N", false},
		{"too little time for the server", "R", time.Minute, []string{"DELIVERBY 120"}, "failed 0 5.4.7", "", false},
		{"no time left", "R", 0, []string{"DELIVERBY"}, "failed 0 5.4.7", "", false},
		{"to a server without it", "R", time.Hour, nil, "failed 0 5.3.3", "", false},
		{"to a server that needn't have it", "N", time.Hour, nil, "delivered 250 2.0.0", "SIZE=53", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, offering(tc.offer...))
			tr := rig(t, map[string]*server{"b.test": s}, func(o *Options) { o.Clock = func() time.Time { return termsClock } })
			m := mail("x@b.test")
			m.By, m.DeliverBy = smtp.ParseByLetters(tc.letters), termsClock.Add(tc.left)
			r := deliver(t, tr, "b.test", m)[0]
			if got := fmt.Sprintf("%s %d %v", r.Status, r.Code, r.Enhanced); got != tc.want || r.Relayed != tc.relayed {
				t.Errorf("%s, relayed %v: %s", got, r.Relayed, r.Message)
			}
			lines, _ := s.seen()
			if line := lines[min(1, len(lines)-1)]; tc.mail != "" && !strings.HasSuffix(line, tc.mail) {
				t.Errorf("command %q", line)
			}
		})
	}
}

func TestPriorityGoesOnWhereItIsKnown(t *testing.T) {
	t.Parallel()
	for offer, want := range map[string]string{"MT-PRIORITY": "MAIL FROM:<a@me.test> SIZE=53 MT-PRIORITY=-4", "X": "MAIL FROM:<a@me.test> SIZE=53"} {
		s := newServer(t, offering(offer))
		tr := rig(t, map[string]*server{"b.test": s}, nil)
		m := mail("x@b.test")
		m.Priority = -4
		deliver(t, tr, "b.test", m)
		if lines, _ := s.seen(); lines[1] != want {
			t.Errorf("%s: %q", offer, lines[1])
		}
	}
}

func TestValidSinceGoesOn(t *testing.T) {
	t.Parallel()
	since := "2026-01-02T03:04:05Z"
	message := func() *Message {
		m := mail("x@b.test", "y@b.test", "z@b.test")
		m.Recipients[1].ValidSince, m.Recipients[2].ValidSince = since+";C", since+";R"
		return m
	}
	s := newServer(t, offering("RRVS"))
	rs := deliver(t, rig(t, map[string]*server{"b.test": s}, nil), "b.test", message())
	if got := brief(rs); strings.Count(got, "delivered") != 3 {
		t.Error(got)
	}
	lines, _ := s.seen()
	if lines[3] != "RCPT TO:<y@b.test> RRVS="+since+";C" || lines[4] != "RCPT TO:<z@b.test> RRVS="+since+";R" {
		t.Errorf("commands %q", lines)
	}

	s = newServer(t, nil)
	rs = deliver(t, rig(t, map[string]*server{"b.test": s}, nil), "b.test", message())
	if got := brief(rs); got != "delivered 250 2.0.0 end of data; delivered 250 2.0.0 end of data; failed 0 5.7.19 RCPT" {
		t.Error(got)
	}
	_, bodies := s.seen()
	field := "Require-Recipient-Valid-Since: y@b.test;\r\n\tFri, 02 Jan 2026 03:04:05 +0000\r\n"
	if len(bodies) != 2 || bodies[0] != simple || bodies[1] != field+simple {
		t.Errorf("bodies %q", bodies)
	}
}

func TestDomainsOfOneTransactionAreBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t, offering("LIMITS RCPTDOMAINMAX=1"))
	rs := deliver(t, rig(t, map[string]*server{"b.test": s}, nil), "b.test", mail("x@b.test", "y@B.test", "z@c.test"))
	if got := brief(rs); strings.Count(got, "delivered") != 3 {
		t.Error(got)
	}
	if _, bodies := s.seen(); len(bodies) != 2 {
		t.Errorf("%d transactions", len(bodies))
	}
}
