package smtpserver

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDialogs plays the conversations in testdata/dialogs; the README there explains them.
func TestDialogs(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/dialogs/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d dialogs, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, file, string(text))
		})
	}
}

func play(t *testing.T, file, script string) {
	t.Helper()
	rec := newRecorder()
	var c *client
	var mails []string
	pending := "" // C lines that follow each other go out in one write
	flush := func() {
		if pending != "" {
			c.send(pending)
			pending = ""
		}
	}
	for n, line := range strings.Split(script, "\n") {
		where := fmt.Sprintf("%s:%d", file, n+1)
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "", "#":
			continue
		case "C:":
			pending += rest + "\r\n"
			continue
		case "R:":
			raw, err := strconv.Unquote(rest)
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			pending += raw
			continue
		}
		if c != nil {
			flush()
		}
		switch word {
		case "mode":
			modes := map[string]Mode{"mx": MX, "submission": Submission, "submissions": Submissions, "lmtp": LMTP}
			mode, ok := modes[rest]
			if !ok {
				t.Fatalf("%s: no such mode", where)
			}
			_, addr := serve(t, options(rec), mode)
			c = dial(t, addr)
		case "tls":
			c.startTLS()
		case "S:":
			got, err := c.line()
			if ok, perr := path.Match(strings.ReplaceAll(rest, "/", "|"), strings.ReplaceAll(got, "/", "|")); err != nil || perr != nil || !ok {
				t.Fatalf("%s: got %q, %v; want %q", where, got, err, rest)
			}
		case "closed":
			c.expectEnd()
		case "M:":
			mails = append(mails, rest)
		default:
			t.Fatalf("%s: unknown word %q", where, word)
		}
	}
	flush()
	var got []string
	for _, m := range rec.taken() {
		got = append(got, fmt.Sprintf("<%s> -> %s %q", m.from, strings.Join(m.to, ","), m.body))
	}
	if strings.Join(got, "\n") != strings.Join(mails, "\n") {
		t.Errorf("%s: taken\n%s\nwant\n%s", file, strings.Join(got, "\n"), strings.Join(mails, "\n"))
	}
}
