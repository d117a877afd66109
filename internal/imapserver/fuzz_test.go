package imapserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"waxwing/internal/dialogtest"
)

// sessionSeeds are conversations that reach most commands.
var sessionSeeds = []string{
	"a CAPABILITY\r\nb ID (\"a\" \"b\")\r\nc NOOP\r\nd LOGOUT\r\n",
	"a AUTHENTICATE PLAIN\r\n*\r\nb AUTHENTICATE LOGIN AAAA\r\nAAAA\r\n",
	"a LOGIN {3}\r\nabc {3+}\r\nxyz\r\n",
	"a SELECT INBOX\r\nb FETCH 1:* (FLAGS ENVELOPE BODYSTRUCTURE BODY[])\r\nc STORE 1 +FLAGS (\\Deleted x)\r\nd EXPUNGE\r\n",
	"a SELECT INBOX (CONDSTORE)\r\nb UID FETCH 1:2 (BODY.PEEK[1.HEADER.FIELDS (X)]<1.5> RFC822.TEXT) (CHANGEDSINCE 1)\r\nc IDLE\r\nDONE\r\n",
	"a SELECT INBOX\r\nb SEARCH OR (TEXT x BODY {3+}\r\nabc) NOT SENTSINCE 1-Jan-2020\r\nc UID SEARCH RETURN (ALL) MODSEQ 1\r\n",
	"a APPEND INBOX (\\Seen) \"01-Jan-2020 00:00:00 +0000\" {5+}\r\nabcde\r\nb COPY 1 Trash\r\nc MOVE 1:2 Junk\r\nd CLOSE\r\n",
	"a CREATE x/y\r\nb RENAME x &ZeVnLIqe-\r\nc LIST (SUBSCRIBED) \"\" (% *) RETURN (STATUS (SIZE))\r\nd DELETE x\r\ne LSUB \"\" *\r\n",
	"a STATUS INBOX (MESSAGES UNSEEN HIGHESTMODSEQ)\r\nb ENABLE CONDSTORE\r\nc UNSELECT\r\nd UID EXPUNGE 1:*\r\n",
}

// FuzzSessionBeforeLogin sends octets to a session over TLS that nobody logs in to.
func FuzzSessionBeforeLogin(f *testing.F) { fuzzSession(f, "tls") }

// FuzzSession sends octets to a session that is logged in and has a few messages.
func FuzzSession(f *testing.F) { fuzzSession(f, "login") }

// fuzzSession requires of every input: the server answers with whole lines that begin as responses do, it ends the
// session when the input ends, and afterwards it serves others.
func fuzzSession(f *testing.F, how string) {
	for _, s := range sessionSeeds {
		f.Add([]byte(s))
	}
	r := newRig(f)
	r.fill("INBOX", testMessage(1), testMessage(2), "Subject: x\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nz")
	f.Fuzz(func(t *testing.T, in []byte) {
		p := r.on(t).dial(how)
		defer p.Conn.Close()
		if how == "tls" {
			p.Line()
		}
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = p.Conn.Write(in)
			_ = p.Conn.(*tls.Conn).CloseWrite()
		}()
		out, err := io.ReadAll(p.R)
		<-sent
		if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Fatalf("no end after %q", out)
		}
		checkResponses(t, out, err)
	})
}

// checkResponses requires whole responses.
func checkResponses(t *testing.T, out []byte, err error) {
	t.Helper()
	for len(out) > 0 {
		i := bytes.Index(out, []byte("\r\n"))
		if i < 0 {
			if err != nil {
				return // cut off
			}
			t.Fatalf("half a line: %q", out)
		}
		line := out[:i]
		out = out[i+2:]
		first, _, found := strings.Cut(string(line), " ")
		if !found && first != ")" && !bytes.HasSuffix(line, []byte(")")) {
			t.Fatalf("no response: %q", line)
		}
		for {
			n, _, literal := trailingLiteral(line)
			if !literal {
				break
			}
			if n > int64(len(out)) {
				return // cut off within a literal
			}
			out = out[n:]
			i := bytes.Index(out, []byte("\r\n"))
			if i < 0 {
				return
			}
			line, out = out[:i], out[i+2:]
		}
	}
}

func TestFuzzSeedsKeepTheServerAlive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, s := range sessionSeeds {
		p := r.dial("login")
		p.Send(s)
		_ = p.Conn.(*tls.Conn).CloseWrite()
		_ = p.Conn.SetDeadline(time.Now().Add(dialogtest.Patience))
		out, err := io.ReadAll(p.R)
		checkResponses(t, out, err)
	}
	r.dial("login").ok("NOOP")
}
