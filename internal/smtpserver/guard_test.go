package smtpserver

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/guard"
	"waxwing/internal/smtp"
)

// porter notes what it is asked, and answers a stage as it was told to.
type porter struct {
	mu      sync.Mutex
	asked   []string
	answers map[guard.Stage]guard.Verdict
}

func (p *porter) Ask(_ context.Context, stage guard.Stage, v *guard.Visitor) guard.Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	note := stage.String()
	switch stage {
	case guard.Helo:
		note += " " + v.HELO
	case guard.Mail:
		note += " " + v.From.String()
	case guard.Rcpt:
		note += " " + v.To.String()
	case guard.Recipient, guard.Message:
		if v.Outcome != nil {
			note += " refused"
		}
	}
	p.asked = append(p.asked, note)
	return p.answers[stage]
}

func (p *porter) notes() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(p.asked), func(s string) bool { return s == "command" }), ", ")
}

func TestTheGuardIsAskedAtEachStage(t *testing.T) {
	t.Parallel()
	p := &porter{}
	opts := options(newRecorder())
	opts.Guard = p
	srv, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220 ")
	c.do("EHLO client.test", "250 ")
	c.do("MAIL FROM:<a@b.test>", "250 ")
	c.do("RCPT TO:<unknown@example.test>", "550 ")
	c.do("RCPT TO:<li@example.test>", "250 ")
	c.do("NONSENSE", "500 ")
	c.do("DATA", "354 ")
	c.do("hello\r\n.", "250 ")
	c.do("QUIT", "221 ")
	c.expectEnd()
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "connect, helo client.test, mail a@b.test, rcpt unknown@example.test, recipient refused, rcpt li@example.test, recipient, bad, data, message, end"
	if got := p.notes(); got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
}

func TestWhatTheGuardRefusesIsRefused(t *testing.T) {
	t.Parallel()
	later := guard.Refuse(smtp.Errorf(451, "4.7.1", "later"), "a test")
	never := guard.Refuse(smtp.Errorf(554, "5.7.1", "never"), "a test")
	conversation := []string{"EHLO c.test", "MAIL FROM:<a@b.test>", "RCPT TO:<li@example.test>", "DATA"}
	for _, tc := range []struct {
		stage   guard.Stage
		answer  guard.Verdict
		replies []string // to the greeting and the conversation; after the last the session ends when it is "end"
	}{
		{guard.Connect, never, []string{"554 5.7.1 never", "end"}},
		{guard.Helo, later, []string{"220 ", "451 4.7.1 later", "503 "}},
		{guard.Mail, later, []string{"220 ", "250 ", "451 4.7.1 later", "503 "}},
		{guard.Rcpt, later, []string{"220 ", "250 ", "250 ", "451 4.7.1 later", "554 "}},
		{guard.Recipient, never, []string{"220 ", "250 ", "250 ", "250 ", "421 5.7.1 never", "end"}},
		{guard.Data, later, []string{"220 ", "250 ", "250 ", "250 ", "451 4.7.1 later"}},
	} {
		t.Run(tc.stage.String(), func(t *testing.T) {
			t.Parallel()
			opts := options(newRecorder())
			opts.Guard = &porter{answers: map[guard.Stage]guard.Verdict{tc.stage: tc.answer}}
			_, addr := serve(t, opts, MX)
			c := dial(t, addr)
			told := false // a refusal after the answer comes by itself
			for i, want := range tc.replies {
				if want == "end" {
					c.expectEnd()
					return
				}
				if i > 0 && !told && i <= len(conversation) {
					c.send(conversation[i-1] + "\r\n")
				}
				c.expect(want)
				told = tc.stage == guard.Recipient && i == 3
			}
		})
	}
}

func TestADelayedSessionEndsWithTheServer(t *testing.T) {
	t.Parallel()
	opts := options(newRecorder())
	opts.Guard = &porter{answers: map[guard.Stage]guard.Verdict{guard.Bad: guard.Wait(time.Hour, "a test")}}
	srv, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220 ")
	c.do("NONSENSE", "500 ") // the answer comes, what follows waits
	c.send("NOOP\r\n")
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(context.Background()) }()
	c.expect("421 4.3.2")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestADelayedSessionEndsWhenItsPeerLeaves(t *testing.T) {
	t.Parallel()
	p := &porter{answers: map[guard.Stage]guard.Verdict{guard.Rcpt: guard.Wait(time.Hour, "a test")}}
	opts := options(newRecorder())
	opts.Guard = p
	srv, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220 ")
	c.do("EHLO c.test", "250 ")
	c.do("MAIL FROM:<a@b.test>", "250 ")
	c.send("RCPT TO:<li@example.test>\r\n")
	c.nc.Close()
	deadline := time.Now().Add(patience)
	for !strings.HasSuffix(p.notes(), "end") {
		if time.Now().After(deadline) {
			t.Fatal("the session of a peer that has gone still waits")
		}
		time.Sleep(time.Millisecond)
	}
	_ = srv
}

func TestXClientIsANewVisitor(t *testing.T) {
	t.Parallel()
	p := &porter{}
	opts := options(newRecorder())
	opts.Guard, opts.XClient = p, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	srv, addr := serve(t, opts, MX)
	c := dial(t, addr)
	c.expect("220 ")
	c.do("EHLO proxy.test", "250 ")
	c.do("XCLIENT ADDR=192.0.2.7", "220 ")
	c.do("QUIT", "221 ")
	c.expectEnd()
	if err := srv.Shutdown(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got, want := p.notes(), "connect, helo proxy.test, end, connect, end"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}
