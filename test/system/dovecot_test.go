package system

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// TestIMAPAnswersAsDovecotDoes plays the scripts of testdata/imap against Debian's Dovecot and the built server, and
// compares what both answer. Where they differ the script says so, with the reason: see testdata/imap/README.md.
func TestIMAPAnswersAsDovecotDoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	classic, err := rig.Classic(ctx, publicTempDir(t), rig.ClassicOptions{Domain: domain, Accounts: []rig.Account{ada, bob}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := classic.Stop(); err != nil {
			t.Error(err)
		}
	})
	waxwing := node(t, rig.WaxwingOptions{})
	files, err := filepath.Glob("testdata/imap/*.imap")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".imap"), func(t *testing.T) {
			play(t, file, [2]*rig.Server{classic, &waxwing.Server})
		})
	}
}

// play runs one script on both servers.
func play(t *testing.T, file string, servers [2]*rig.Server) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	type pair [2]*scriptConn
	sessions := map[string]pair{}
	session := func(name string) pair {
		p, ok := sessions[name]
		if !ok {
			for i, s := range servers {
				p[i] = dialScript(t, s.IMAPS, s.CAFile, ada)
			}
			sessions[name] = p
		}
		return p
	}
	reason := ""
	for n, line := range strings.Split(string(b), "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "! "):
			reason += line[2:]
			continue
		}
		name, command, _ := strings.Cut(line, " ")
		p := session(strings.TrimSuffix(name, ":"))
		command = expand(t, command)
		var answers [2][]string
		for i := range p {
			answers[i] = step(t, p[i], command)
		}
		differ := !same(answers[0], answers[1])
		where := fmt.Sprintf("%s:%d: %s", filepath.Base(file), n+1, line)
		switch {
		case differ && reason == "":
			t.Errorf("%s\n%s", where, difference(answers))
		case !differ && reason != "":
			t.Errorf("%s\nboth answer the same, though the script says: %s", where, reason)
		}
		reason = ""
	}
}

// step runs a command on one server and writes the answer in its normal form. "IDLE" begins idling, "DONE" ends it, and
// "EXPECT x" reads up to an untagged response that begins with x.
func step(t *testing.T, c *scriptConn, command string) []string {
	t.Helper()
	var out []string
	var err error
	switch {
	case command == "IDLE":
		if _, err = fmt.Fprintf(c, "i IDLE\r\n"); err == nil {
			out, err = c.until("+")
		}
	case command == "DONE":
		if _, err = fmt.Fprintf(c, "DONE\r\n"); err == nil {
			out, err = c.until("i ")
			out[len(out)-1] = strings.TrimPrefix(out[len(out)-1], "i ")
		}
	case strings.HasPrefix(command, "EXPECT "):
		out, err = c.until("* " + strings.TrimPrefix(command, "EXPECT "))
	default:
		out, err = c.do(command)
	}
	if err != nil {
		out = append(out, "connection: "+err.Error())
	}
	return normalAnswer(command, out)
}

// normalAnswer writes an answer without what servers may tell as they like.
func normalAnswer(command string, responses []string) []string {
	word, _, _ := strings.Cut(strings.ToUpper(command), " ")
	listing := word == "LIST" || word == "LSUB"
	children := !strings.HasPrefix(command, "LIST (") && !strings.Contains(command, "RETURN") || strings.Contains(command, "CHILDREN")
	var numbers, lines []string
	for _, resp := range responses {
		if strings.HasPrefix(resp, "+") {
			lines = append(lines, "+")
			continue
		}
		l := normal(resp)
		switch {
		case ownMailbox(l):
			continue
		case l == "OK [HIGHESTMODSEQ M]":
			// Dovecot tells it only to those who asked; RFC 7162, section 3.1.2.1, wants it in every SELECT.
			continue
		case l == "OK [CLIENTBUG]":
			l = "OK" // STATUS of the selected mailbox: Dovecot scolds
		case l == "0 RECENT" && word != "SELECT" && word != "EXAMINE":
			continue // beside EXISTS, or not
		case strings.HasSuffix(l, " EXISTS"), strings.HasSuffix(l, " RECENT"):
			// Before or behind FETCH.
			numbers = append(numbers, l)
			continue
		case listing:
			l = strings.Replace(l, ` \UNMARKED)`, ")", 1)
			if !children { // attributes that were not asked for (RFC 5258, section 4)
				l = unaskedChildren.ReplaceAllString(l, "")
			}
			l = strings.Replace(l, `("CHILDINFO"`, "(CHILDINFO", 1)
		}
		lines = append(lines, l)
	}
	if listing {
		slices.Sort(lines)
	}
	return append(numbers, lines...)
}

var unaskedChildren = regexp.MustCompile(`\\HAS(NO)?CHILDREN ?`)

// same compares the answers. Waxwing may give a response code where Dovecot has none for a refusal.
func same(dovecot, waxwing []string) bool {
	return slices.EqualFunc(dovecot, waxwing, func(d, w string) bool {
		return d == w || d == "NO" && strings.HasPrefix(w, "NO [")
	})
}

// ownMailbox tells the lines about mailboxes that Waxwing makes with each account and Dovecot doesn't.
func ownMailbox(line string) bool {
	if !strings.HasPrefix(line, "LIST ") && !strings.HasPrefix(line, "LSUB ") && !strings.HasPrefix(line, "STATUS ") {
		return false
	}
	for _, m := range []string{"Archive", "Drafts", "Junk", "Sent", "Trash"} {
		if strings.Contains(line, `"`+m+`"`) {
			return true
		}
	}
	return false
}

// expand puts "{@file}", a message of testdata/imap/mail, into a command as a literal, and "{=text}" as one of text.
func expand(t *testing.T, command string) string {
	t.Helper()
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(command, "{")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		inner, after, closed := strings.Cut(rest, "}")
		switch {
		case closed && strings.HasPrefix(inner, "@"):
			b, err := os.ReadFile(filepath.Join("testdata/imap/mail", inner[1:]))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "{%d}\r\n%s", len(b), b)
		case closed && strings.HasPrefix(inner, "="):
			fmt.Fprintf(&out, "{%d}\r\n%s", len(inner)-1, inner[1:])
		default:
			out.WriteString("{")
			after = rest
		}
		command = after
	}
}

// difference shows the lines that only one of both has.
func difference(answers [2][]string) string {
	var b strings.Builder
	for i, name := range []string{"Dovecot", "Waxwing"} {
		for _, l := range answers[i] {
			mark := " "
			if !slices.Contains(answers[1-i], l) {
				mark = "*"
			}
			fmt.Fprintf(&b, "  %s %s %.1500s\n", name, mark, l)
		}
	}
	return b.String()
}
