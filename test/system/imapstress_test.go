package system

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"waxwing/internal/durable/ordeal"
	"waxwing/test/rig"
)

// TestIMAPKeepsItsInvariants lets sessions do everything at random in one mailbox, each with a checker that believes
// nothing: sequence numbers move by EXPUNGE alone and never under FETCH, STORE and SEARCH of numbers, EXISTS never
// shrinks, UIDs ascend and keep their content, and what a session was told of flags is at the end what all see.
func TestIMAPKeepsItsInvariants(t *testing.T) {
	imapStress(t, 15)
}

// TestSoakIMAPKeepsItsInvariants is the same for longer.
func TestSoakIMAPKeepsItsInvariants(t *testing.T) {
	imapStress(t, ordeal.Soak(t).Times(1000))
}

func imapStress(t *testing.T, rounds int) {
	t.Helper()
	const sessions = 8
	n := node(t, rig.WaxwingOptions{})
	setup := dialScript(t, n.IMAPS, n.CAFile, ada)
	must(t, setup, "CREATE arena")
	must(t, setup, "CREATE away")
	truth := &arena{content: map[uint32]string{}}
	all := make([]*fighter, sessions)
	for i := range all {
		all[i] = &fighter{t: t, c: dialScript(t, n.IMAPS, n.CAFile, ada), arena: truth, name: i, rand: rand.New(rand.NewPCG(uint64(i), 7))}
		all[i].command("SELECT arena")
	}
	for range rounds {
		var wg sync.WaitGroup
		for _, f := range all {
			wg.Go(func() {
				for range 10 {
					if !t.Failed() {
						f.step()
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		agree(t, all)
	}
	t.Logf("%d sessions, %d rounds, %d messages left, %d ever", sessions, rounds, len(all[0].list), len(truth.content))
}

// agree compares, while nothing goes on, what each session believes with what it can see, and that with the others.
func agree(t *testing.T, all []*fighter) {
	t.Helper()
	var want map[uint32]string
	for _, f := range all {
		f.command("NOOP")
		told, sure := maps.Clone(f.flags), maps.Clone(f.sure)
		if len(f.list) > 0 {
			f.command("FETCH 1:* (UID FLAGS)")
		}
		seen := map[uint32]string{}
		for _, uid := range f.list {
			seen[uid] = f.flags[uid]
			if sure[uid] && told[uid] != f.flags[uid] {
				t.Errorf("session %d believes that UID %d has %q, it has %q", f.name, uid, told[uid], f.flags[uid])
			}
		}
		if want == nil {
			want = seen
		}
		if !maps.Equal(seen, want) {
			t.Errorf("session %d sees %d messages, the first sees %d, or with other flags", f.name, len(seen), len(want))
		}
	}
}

// must runs a command that has to succeed.
func must(t *testing.T, c *scriptConn, command string) []string {
	t.Helper()
	out, err := c.do(command)
	if err != nil || !strings.HasPrefix(out[len(out)-1], "OK") {
		t.Fatalf("%s: %q %v", command, out, err)
	}
	return out
}

// arena is what is known of the mailbox by all sessions together: the content of each UID for ever.
type arena struct {
	mu      sync.Mutex
	content map[uint32]string
}

// fighter is one session with what it believes.
type fighter struct {
	t     *testing.T
	c     *scriptConn
	arena *arena
	name  int
	rand  *rand.Rand
	next  int

	list  []uint32          // UIDs by sequence number, 0 not known yet
	flags map[uint32]string // as told or made by itself, sorted, without \Recent
	sure  map[uint32]bool   // of the flags: they were told once
	log   []string          // of the command under way
}

func (f *fighter) fail(format string, args ...any) {
	f.t.Errorf("session %d: %s\n%s", f.name, fmt.Sprintf(format, args...), tail(strings.Join(f.log, "\n"), 4<<10))
}

var stressFlags = []string{`\Seen`, `\Flagged`, `\Answered`, `\Draft`, "$One", "$Two"}

// step does one thing.
func (f *fighter) step() {
	if len(f.list) == 0 || f.rand.IntN(100) < 15 && len(f.list) < 60 {
		f.next++
		body := fmt.Sprintf("Subject: %d-%d\r\n\r\n%s\r\n", f.name, f.next, strings.Repeat("x", f.rand.IntN(3000)))
		f.command(fmt.Sprintf("APPEND arena (%s) {%d}\r\n%s", stressFlags[f.rand.IntN(len(stressFlags))], len(body), body))
		return
	}
	set := f.set()
	switch k := f.rand.IntN(100); {
	case k < 15:
		f.command("FETCH " + set + " (UID FLAGS)")
	case k < 25:
		f.command("FETCH " + set + " (UID BODY.PEEK[])")
	case k < 35:
		f.command("UID FETCH " + f.uidSet() + " (FLAGS BODY.PEEK[])")
	case k < 55:
		f.store(set)
	case k < 60:
		f.command("SEARCH SEEN")
	case k < 65:
		f.command("UID SEARCH ALL")
	case k < 72:
		f.command("COPY " + set + " arena")
	case k < 78:
		f.command("STORE " + set + ` +FLAGS (\Deleted)`)
	case k < 84:
		f.command("EXPUNGE")
	case k < 87:
		f.command("UID EXPUNGE " + f.uidSet())
	case k < 90:
		f.command("MOVE " + set + " away")
	case k < 92:
		f.command("CLOSE")
		f.command("SELECT arena")
	case k < 95:
		f.idle()
	default:
		f.command("NOOP")
	}
}

// set names some sequence numbers.
func (f *fighter) set() string {
	lo := 1 + f.rand.IntN(len(f.list))
	hi := min(lo+f.rand.IntN(5), len(f.list))
	return fmt.Sprintf("%d:%d", lo, hi)
}

// uidSet names some UIDs, some of which may be gone.
func (f *fighter) uidSet() string {
	uid := max(f.list[f.rand.IntN(len(f.list))], 1)
	return fmt.Sprintf("%d:%d", uid, uid+uint32(f.rand.IntN(5)))
}

// store changes flags. With .SILENT the session takes its own change for done at once: the server must tell whatever is
// different in the end.
func (f *fighter) store(set string) {
	op := []string{"+", "-", ""}[f.rand.IntN(3)]
	flag := stressFlags[f.rand.IntN(len(stressFlags))]
	if f.rand.IntN(2) == 0 {
		f.command(fmt.Sprintf("STORE %s %sFLAGS (%s)", set, op, flag))
		return
	}
	var lo, hi int
	if _, err := fmt.Sscanf(set, "%d:%d", &lo, &hi); err != nil {
		f.fail("%v", err)
		return
	}
	for _, uid := range f.list[lo-1 : hi] {
		if uid == 0 {
			continue
		}
		flags := strings.Fields(f.flags[uid])
		flags = slices.DeleteFunc(flags, func(s string) bool { return op == "" || s == flag })
		if op != "-" {
			flags = append(flags, flag)
		}
		f.flags[uid] = flagText(flags)
		f.sure[uid] = f.sure[uid] || op == ""
	}
	f.command(fmt.Sprintf("STORE %s %sFLAGS.SILENT (%s)", set, op, flag))
}

func flagText(flags []string) string {
	flags = slices.DeleteFunc(slices.Clone(flags), func(s string) bool { return s == `\Recent` })
	slices.Sort(flags)
	return strings.Join(flags, " ")
}

// command runs a command and checks all that is answered.
func (f *fighter) command(command string) {
	verb, rest, _ := strings.Cut(command, " ")
	if verb == "SELECT" {
		f.list, f.flags, f.sure = nil, map[uint32]string{}, map[uint32]bool{}
	}
	if verb == "UID" {
		word, _, _ := strings.Cut(rest, " ")
		verb += " " + word
	}
	f.log = []string{fmt.Sprintf("C: %.100s", command)}
	out, err := f.c.do(command)
	for _, resp := range out {
		f.log = append(f.log, fmt.Sprintf("S: %.100s", resp))
	}
	if err != nil {
		f.fail("%v", err)
		return
	}
	status := out[len(out)-1]
	// A message may be gone by the time that a command comes to it.
	if !strings.HasPrefix(status, "OK") && !strings.HasPrefix(status, "NO [EXPUNGEISSUED]") {
		f.fail("%s", status)
	}
	for _, resp := range out[:len(out)-1] {
		f.untagged(verb, resp)
	}
	if verb == "CLOSE" {
		f.list = nil
	}
}

// idle waits for whatever comes first, or leaves at once.
func (f *fighter) idle() {
	f.log = []string{"C: IDLE"}
	if _, err := fmt.Fprintf(f.c, "i IDLE\r\nDONE\r\n"); err != nil {
		f.fail("%v", err)
		return
	}
	out, err := f.c.until("i ")
	if err != nil {
		f.fail("%v", err)
		return
	}
	for _, resp := range out[:len(out)-1] {
		f.log = append(f.log, "S: "+resp)
		if !strings.HasPrefix(resp, "+") {
			f.untagged("IDLE", resp)
		}
	}
}

// untagged checks one response that came while verb was under way.
func (f *fighter) untagged(verb, resp string) {
	p := &sexp{b: []byte(strings.TrimPrefix(resp, "* "))}
	v := p.values(0)
	if len(v) < 2 {
		return
	}
	n, err := strconv.Atoi(v[0].text)
	if err != nil {
		f.list = f.checkSearch(verb, v)
		return
	}
	switch v[1].text {
	case "EXISTS":
		if n < len(f.list) {
			f.fail("EXISTS went from %d to %d", len(f.list), n)
			return
		}
		f.list = append(f.list, make([]uint32, n-len(f.list))...)
	case "EXPUNGE":
		if verb == "FETCH" || verb == "STORE" || verb == "SEARCH" {
			f.fail("EXPUNGE during %s", verb)
		}
		if n < 1 || n > len(f.list) {
			f.fail("EXPUNGE %d of %d", n, len(f.list))
			return
		}
		f.list = slices.Delete(f.list, n-1, n)
	case "FETCH":
		if n < 1 || n > len(f.list) {
			f.fail("FETCH of %d, there are %d", n, len(f.list))
			return
		}
		f.fetched(n, v[2].list)
	}
}

// fetched checks what is told of one message.
func (f *fighter) fetched(seq int, list []value) {
	for i := 0; i+1 < len(list); i += 2 {
		if list[i].text == "UID" {
			uid, err := strconv.ParseUint(list[i+1].text, 10, 32)
			if err != nil {
				f.fail("%v", err)
			}
			f.learn(seq, uint32(uid))
		}
	}
	uid := f.list[seq-1]
	if uid == 0 {
		return
	}
	for i := 0; i+1 < len(list); i += 2 {
		switch list[i].text {
		case "FLAGS":
			var flags []string
			for _, e := range list[i+1].list {
				flags = append(flags, e.text)
			}
			f.flags[uid], f.sure[uid] = flagText(flags), true
		case "BODY[]":
			f.arena.check(f, uid, list[i+1].text)
		}
	}
}

// learn notes the UID of a sequence number: it never changes, and UIDs ascend.
func (f *fighter) learn(seq int, uid uint32) {
	if was := f.list[seq-1]; was != 0 && was != uid {
		f.fail("message %d was UID %d and is UID %d", seq, was, uid)
	}
	f.list[seq-1] = uid
	for _, before := range f.list[:seq-1] {
		if before >= uid {
			f.fail("UID %d stands before %d", before, uid)
		}
	}
	for _, after := range f.list[seq:] {
		if after != 0 && after <= uid {
			f.fail("UID %d stands behind %d", after, uid)
		}
	}
}

// check compares a content with what any session ever saw under the UID.
func (a *arena) check(f *fighter, uid uint32, body string) {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	a.mu.Lock()
	defer a.mu.Unlock()
	if was, ok := a.content[uid]; ok && was != sum {
		f.fail("UID %d has another content", uid)
	}
	a.content[uid] = sum
}

// checkSearch checks the answer to SEARCH, and returns the list as it was.
func (f *fighter) checkSearch(verb string, v []value) []uint32 {
	if v[0].text != "SEARCH" {
		return f.list
	}
	last := 0
	for _, e := range v[1:] {
		n, err := strconv.Atoi(e.text)
		if err != nil || n <= last {
			f.fail("%s gives %q behind %d", verb, e.text, last)
			return f.list
		}
		last = n
		if verb == "SEARCH" && n > len(f.list) {
			f.fail("SEARCH finds %d, there are %d", n, len(f.list))
		}
	}
	return f.list
}
