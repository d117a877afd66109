package pop3server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDialogs plays the conversations in testdata/dialogs. A line is
//
//	# ...           a remark
//	@fill N         letters 1 to N are put into the INBOX
//	@raw "..."      a message in Go's notation is put into the INBOX
//	@1 plain        session 1 connects (plain, tls or login; with login the greeting, USER and PASS are done)
//	@1 encrypt      session 1 does its side of the TLS handshake
//	C1: text        session 1 sends a line; \n in it is CRLF, so that lines can be pipelined
//	S1: text        session 1 receives the line; "..." stands for anything
//	S1* text        session 1 receives lines up to this one
//	X1              the server closes session 1, without another word
func TestDialogs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			play(t, file)
		})
	}
}

func play(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	peers := make(map[byte]*peer)
	for i, line := range strings.Split(string(bytes.TrimRight(text, "\n")), "\n") {
		where := fmt.Sprintf("%s:%d", filepath.Base(file), i+1)
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || line[0] == '#':
		case word == "@fill":
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			for k := range n {
				r.fill(letter(k + 1))
			}
		case word == "@raw":
			var raw string
			if _, err := fmt.Sscanf(rest, "%q", &raw); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			r.fill(raw)
		case line[0] == '@' && rest == "encrypt":
			peers[line[1]].encrypt()
		case line[0] == '@':
			peers[line[1]] = r.dial(rest)
		case line[0] == 'X':
			if said := peers[line[1]].gone(); said != "" {
				t.Fatalf("%s: before closing: %q", where, said)
			}
		default:
			step(t, where, peers[line[1]], line[0], line[2], strings.TrimPrefix(line[3:], " "))
		}
	}
}

// step plays one line of a session.
func step(t *testing.T, where string, p *peer, side, mark byte, text string) {
	t.Helper()
	if p == nil {
		t.Fatalf("%s: no such session", where)
	}
	p.tb = t
	if side == 'C' {
		p.send(strings.ReplaceAll(text, `\n`, "\r\n") + "\r\n")
		return
	}
	want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(text), `\.\.\.`, ".*") + "$")
	for {
		got := p.line()
		if want.MatchString(got) {
			return
		}
		if mark != '*' {
			t.Fatalf("%s:\n got %q\nwant %q", where, got, text)
		}
	}
}
