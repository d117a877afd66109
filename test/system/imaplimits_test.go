package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/test/rig"
)

// TestIMAPOnAFullDisk fills the disk under a session: what would write is refused until there is room, what reads goes on.
func TestIMAPOnAFullDisk(t *testing.T) {
	disk := smallDisk(t, "256m")
	n := node(t, rig.WaxwingOptions{Dir: disk, Edit: func(toml string) string {
		return toml + "\n[spool]\ndisk_reserve = \"16MiB\"\n"
	}})
	c := dialScript(t, n.IMAPS, n.CAFile, ada)
	message := func(size int) string {
		body := "Subject: on a small disk\r\n\r\n" + strings.Repeat("0123456789abcdef0123456789abcd\r\n", size/32)
		return fmt.Sprintf("{%d}\r\n%s", len(body), body)
	}
	must(t, c, "APPEND INBOX "+message(1000))
	must(t, c, "SELECT INBOX")
	filler := filepath.Join(disk, "filler")
	fillDisk(t, filler)
	for _, size := range []int{100, 10_000, 1 << 20} {
		out, err := c.do("APPEND INBOX " + message(size))
		if err != nil || !strings.HasPrefix(out[len(out)-1], "NO [UNAVAILABLE]") {
			t.Errorf("APPEND of %d octets on a full disk: %q %v", size, out, err)
		}
	}
	// Small changes may still find room; what does not is told to try later, and is not there afterwards.
	for _, command := range []string{`STORE 1 +FLAGS (\Flagged)`, "CREATE more", "COPY 1 Archive"} {
		out, err := c.do(command)
		last := out[len(out)-1]
		if err != nil || !strings.HasPrefix(last, "OK") && !strings.HasPrefix(last, "NO [UNAVAILABLE]") {
			t.Errorf("%s on a full disk: %q %v", command, out, err)
		}
	}
	must(t, c, "FETCH 1 (FLAGS ENVELOPE BODYSTRUCTURE BODY[])") // without \Seen, if that can't be written
	must(t, c, "SEARCH SUBJECT small")
	other := dialScript(t, n.IMAPS, n.CAFile, ada)
	must(t, other, "SELECT INBOX")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "APPEND is taken again", func() bool {
		out, err := c.do("APPEND INBOX " + message(1<<20))
		return err == nil && strings.HasPrefix(out[len(out)-1], "OK [APPENDUID")
	})
	must(t, c, `STORE 1:* +FLAGS (\Flagged)`)
}

// TestALargeMessageIsNotHeld appends and fetches 150 MB and watches the server's memory meanwhile.
func TestALargeMessageIsNotHeld(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, []byte("[message]\nsize = 209715200\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Command(t.Context(), nil, "config", "apply", settings, "--yes", "--dir", n.Dir); err != nil {
		t.Fatal(err)
	}
	c := dialScript(t, n.IMAPS, n.CAFile, ada)
	must(t, c, "SELECT INBOX")
	before := n.Memory()
	var highest int64
	watch := func() { highest = max(highest, n.Memory()) }
	line := strings.Repeat("0123456789abcdef", 4) + "\r\n"
	const head = "Subject: large\r\nContent-Type: text/plain\r\n\r\n"
	lines := 150 << 20 / len(line)
	size := len(head) + lines*len(line)
	if _, err := fmt.Fprintf(c, "big APPEND INBOX {%d+}\r\n%s", size, head); err != nil {
		t.Fatal(err)
	}
	block := []byte(strings.Repeat(line, 1000))
	for sent := 0; sent < lines; sent += 1000 {
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(block[:len(line)*min(1000, lines-sent)]); err != nil {
			t.Fatal(err)
		}
		if sent%100_000 == 0 {
			watch()
		}
	}
	if _, err := fmt.Fprint(c, "\r\n"); err != nil {
		t.Fatal(err)
	}
	if out, err := c.until("big "); err != nil || !strings.HasPrefix(out[len(out)-1], "big OK") {
		t.Fatalf("%q %v", out, err)
	}
	watch()
	for _, item := range []string{"BODY.PEEK[]", "BODY.PEEK[TEXT]<1000000.100000000>", "BODY.PEEK[1]"} {
		if _, err := fmt.Fprintf(c, "get FETCH 1 (%s)\r\n", item); err != nil {
			t.Fatal(err)
		}
		got := 0
		for {
			if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			part, err := c.r.ReadSlice('\n')
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(string(part), "get ") {
				if !strings.HasPrefix(string(part), "get OK") {
					t.Fatalf("%s: %s", item, part)
				}
				break
			}
			before := got >> 24
			if got += len(part); got>>24 != before {
				watch()
			}
		}
		if got < 100_000_000 {
			t.Errorf("%s: %d octets", item, got)
		}
	}
	t.Logf("memory before %d MiB, highest %d MiB", before>>20, highest>>20)
	if highest-before > 48<<20 {
		t.Errorf("the server's memory grew by %d MiB for a message of 150", (highest-before)>>20)
	}
}
