package system

import (
	"fmt"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// TestALargeMailboxAfterARestart opens a mailbox of some thousand messages, with gaps, in a server that has just been started:
// the list is right before anything of it is read, and what is asked of it too.
func TestALargeMailboxAfterARestart(t *testing.T) {
	t.Parallel()
	n := node(t, rig.WaxwingOptions{})
	c := dialScript(t, n.IMAPS, n.CAFile, ada)
	must(t, c, "APPEND INBOX {28}\r\nSubject: the same\r\n\r\nfor all")
	must(t, c, "SELECT INBOX")
	for range 12 {
		must(t, c, "COPY 1:* INBOX")
		must(t, c, "NOOP")
	}
	must(t, c, `UID STORE 1:1000 +FLAGS.SILENT (\Seen)`)
	must(t, c, `UID STORE 501:700,2000,4096 +FLAGS.SILENT (\Deleted)`)
	must(t, c, "EXPUNGE")
	must(t, c, `UID STORE 1500,3000 +FLAGS.SILENT (\Deleted)`)
	c.Close()
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = dialScript(t, n.IMAPS, n.CAFile, ada)
	told(t, must(t, c, "SELECT INBOX"), "* 3894 EXISTS", "* OK [UNSEEN 801]", "* OK [UIDNEXT 4097]")
	told(t, must(t, c, "FETCH 3894 (UID)"), "* 3894 FETCH (UID 4095)")
	told(t, must(t, c, "UID FETCH 1001 (FLAGS)"), "* 801 FETCH (UID 1001 FLAGS (")
	if out := must(t, c, "UID FETCH 600:650 (FLAGS)"); len(out) > 1 {
		t.Errorf("expunged messages are shown: %q", out)
	}
	told(t, must(t, c, "UID SEARCH DELETED"), "* SEARCH 1500 3000\r\n")
	told(t, must(t, c, "EXPUNGE"), "* 2799 EXPUNGE", "* 1300 EXPUNGE")
	if out := must(t, c, "UID SEARCH ALL"); len(strings.Fields(out[0])) != 2+3892 {
		t.Errorf("%d words of an answer that has all messages", len(strings.Fields(out[0])))
	}
	if out, err := n.Command(t.Context(), nil, "store", "verify", "--dir", n.Dir); err != nil {
		t.Errorf("%s: %v", out, err)
	}
}

// told checks that lines beginning so are in an answer.
func told(t *testing.T, out []string, want ...string) {
	t.Helper()
	all := "\r\n" + fmt.Sprintln(strings.Join(out, "\r\n"))
	for _, w := range want {
		if !strings.Contains(all, "\r\n"+strings.TrimSuffix(w, "\r\n")) {
			t.Errorf("no %q in %.300q", w, all)
		}
	}
}
