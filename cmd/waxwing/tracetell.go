package main

import (
	"strings"

	"waxwing/internal/control"
	"waxwing/internal/trace"
)

// tell puts a step into words.
func tell(s *control.TraceStep) string {
	var b strings.Builder
	say := func(parts ...string) {
		for _, p := range parts {
			b.WriteString(p)
		}
	}
	fact := func(before, name, after string) {
		if v := s.Data[name]; v != "" {
			say(before, v, after)
		}
	}
	switch s.Kind {
	case trace.Connect.String():
		say("connection from ", s.Remote)
		fact(" to ", "listener", "")
	case trace.TLS.String():
		fact("", "version", "")
		fact(", ", "cipher", "")
	case trace.Hello.String():
		say("the client calls itself ", s.Host)
	case trace.SignIn.String():
		say("sign-in ", s.Address)
		fact(" by ", "mechanism", "")
	case trace.Sender.String():
		say("sender ", sender(s.Address))
	case trace.Recipient.String():
		say("recipient ", s.Address)
	case trace.Content.String():
		say("message")
		fact(" of ", trace.Size, " octets")
		fact(", ", trace.MessageID, "")
	case trace.Check.String():
		say("check")
		fact(" ", "check", "")
		fact(" waits ", "delay", "")
	case trace.Route.String():
		say(s.Address, " leads to ", s.Data[trace.Target])
	case trace.Mailbox.String():
		say("filed for ", s.Address)
		fact(" in ", trace.Folder, "")
	case trace.Queue.String():
		tellQueue(s, say, fact)
	case trace.Attempt.String():
		tellAttempt(s, say, fact)
	case trace.Report.String():
		say("the sender is told")
		fact(" by message ", trace.OtherID, "")
	case trace.Cause.String():
		say("made")
		fact(" because of message ", trace.OtherID, "")
	case trace.Accept.String():
		say("accepted")
	case trace.End.String():
		say("end of the connection")
	default:
		say(s.Kind)
	}
	if s.Status != "" {
		say(" — ", s.Status)
	}
	if s.Reason != "" {
		say(": ", s.Reason)
	}
	if s.Reply != "" {
		say(" [", s.Reply, "]")
	}
	return b.String()
}

func tellQueue(s *control.TraceStep, say func(...string), fact func(string, string, string)) {
	if s.Address == "" {
		say("in the queue")
		fact(" as number ", trace.QueueID, "")
		return
	}
	say("queued for ", s.Address)
}

func tellAttempt(s *control.TraceStep, say func(...string), fact func(string, string, string)) {
	say("sent to ", s.Address)
	if s.Host != "" {
		say(" at ", s.Host, " ", s.Remote)
	}
	fact(", attempt ", "attempt", "")
	fact(", took ", "took", "")
	fact(", ", "tls", "")
	fact(", TLS problem: ", "tls-problem", "")
	if s.Status == trace.Deferred.String() {
		fact(", next try at ", trace.NextTry, "")
	}
}
