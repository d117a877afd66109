package imapserver

import (
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
//	@1 plain        session 1 connects (plain, tls or login; with login the greeting and LOGIN are done)
//	@fill BOX N     messages 1 to N of testMessage are put into a mailbox
//	C1: text        session 1 sends a line
//	S1: text        session 1 receives the line; "..." stands for anything
//	S1* text        session 1 receives lines up to this one
//	X1              the server closes session 1
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
	for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		where := fmt.Sprintf("%s:%d", filepath.Base(file), i+1)
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "@fill "):
			var box string
			var n int
			if _, err := fmt.Sscanf(line, "@fill %s %d", &box, &n); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			for k := 1; k <= n; k++ {
				r.fill(box, testMessage(k))
			}
		case line[0] == '@':
			peers[line[1]] = r.dial(line[3:])
		case line[0] == 'X':
			peers[line[1]].gone()
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
	if side == 'C' {
		p.send(text + "\r\n")
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
