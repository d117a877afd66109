package dialogtest

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Stage is what a dialog is played on: a server of its own.
type Stage struct {
	Dial   func(how string) *Peer // makes a session
	Client *tls.Config            // of a session that begins TLS later
	// Do carries out a line of the protocol's own, "@word rest".
	Do func(word, rest string) error
}

// Play plays the conversations of a folder, each on a stage of its own. A line is
//
//	# ...           a remark
//	@word ...       what Stage.Do makes of it
//	@1 how          session 1 connects, as Stage.Dial understands how
//	@1 encrypt      session 1 does its side of the TLS handshake
//	C1: text        session 1 sends a line; \n in it is CRLF, so that lines can be pipelined
//	S1: text        session 1 receives the line; "..." stands for anything
//	S1* text        session 1 receives lines up to this one
//	X1              the server closes session 1, without another word
func Play(t *testing.T, dir string, stage func(t *testing.T) Stage) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs in %s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := dialog{t: t, stage: stage(t), peers: map[byte]*Peer{}}
			for i, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
				if line != "" && line[0] != '#' {
					d.where = fmt.Sprintf("%s:%d", filepath.Base(file), i+1)
					d.play(line)
				}
			}
		})
	}
}

// dialog is a conversation being played.
type dialog struct {
	t     *testing.T
	stage Stage
	peers map[byte]*Peer // by the digit of the session
	where string         // the line, for errors
}

func (d *dialog) play(line string) {
	d.t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	isSession := len(word) >= 2 && word[1] >= '0' && word[1] <= '9'
	switch {
	case word[0] == '@' && !isSession:
		if err := d.stage.Do(word[1:], rest); err != nil {
			d.t.Fatalf("%s: %v", d.where, err)
		}
	case word[0] == '@' && rest != "encrypt":
		d.peers[word[1]] = d.stage.Dial(rest)
	case !isSession || d.peers[word[1]] == nil:
		d.t.Fatalf("%s: no such session", d.where)
	default:
		d.step(d.peers[word[1]], word[0], strings.TrimPrefix(word[2:], ":"), rest)
	}
}

// step plays one line of a session.
func (d *dialog) step(p *Peer, side byte, mark, text string) {
	d.t.Helper()
	switch side {
	case '@':
		p.Encrypt(d.stage.Client)
	case 'C':
		p.Send(strings.ReplaceAll(text, `\n`, "\r\n") + "\r\n")
	case 'X':
		if said := p.Gone(); said != "" {
			d.t.Fatalf("%s: before closing: %q", d.where, said)
		}
	case 'S':
		want := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(text), `\.\.\.`, ".*") + "$")
		for got := p.Line(); !want.MatchString(got); got = p.Line() {
			if mark != "*" {
				d.t.Fatalf("%s:\n got %q\nwant %q", d.where, got, text)
			}
		}
	default:
		d.t.Fatalf("%s: neither C, S nor X", d.where)
	}
}
