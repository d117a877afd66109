package system

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"waxwing/internal/durable/ordeal"
	"waxwing/test/rig"
)

// TestPromise1KilledServerLosesNothing kills the server without warning, under load, a few times.
func TestPromise1KilledServerLosesNothing(t *testing.T) {
	killUnderLoad(t, ordeal.Begin(t), 4)
}

// TestSoakKilledServerLosesNothing is the same with 1,000 kills.
func TestSoakKilledServerLosesNothing(t *testing.T) {
	o := ordeal.Soak(t)
	killUnderLoad(t, o, o.Times(1000))
}

// journal is what the clients were told: the only truth that the server is held to.
type journal struct {
	mu        sync.Mutex
	tried     map[string]bool  // sent, whatever came of it
	delivered map[string]bool  // answered 250 on port 25
	queued    map[string]bool  // answered 250 on submission, for another server
	kept      map[string]*kept // answered OK to APPEND
	arrived   map[string]int   // what the next server took
	rotated   int              // answered changes of the data key
	serial    int
}

func newJournal() *journal {
	return &journal{
		tried: map[string]bool{}, delivered: map[string]bool{}, queued: map[string]bool{}, kept: map[string]*kept{}, arrived: map[string]int{},
	}
}

// kept is what a client knows of a message that it appended: how it was at the last answer, and what it asked for since.
type kept struct {
	state
	doubt func(*state) // the change that was not answered, nil for none
}

// state is where a message is and how it is marked.
type state struct {
	box     string
	uid     imap.UID // 0 when the answer with it got lost
	flagged bool
	gone    bool
}

// change writes down that a change is asked for, asks, and writes down the answer.
func (j *journal) change(k *kept, change func(*state), ask func() error) error {
	j.note(func() { k.doubt = change })
	if err := ask(); err != nil {
		return err
	}
	j.note(func() {
		change(&k.state)
		k.doubt = nil
	})
	return nil
}

func (j *journal) token(kind string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.serial++
	token := fmt.Sprintf("%s-%06d", kind, j.serial)
	j.tried[token] = true
	return token
}

// awaitWork returns when something of each kind has been answered since it was called.
func (j *journal) awaitWork(t *testing.T) {
	t.Helper()
	counts := func() [4]int {
		j.mu.Lock()
		defer j.mu.Unlock()
		return [4]int{len(j.delivered), len(j.queued), len(j.kept), j.rotated}
	}
	before := counts()
	waitFor(t, "something of each kind is answered", func() bool {
		for i, n := range counts() {
			if n == before[i] {
				return false
			}
		}
		return true
	})
}

func (j *journal) note(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
}

// sealed makes a message that proves its own completeness: it ends with its token.
func sealed(from, to, token string) []byte { return sealedAfter(from, to, token, rand.IntN(300)) }

// sealedAfter is sealed with a number of lines of some 60 octets.
func sealedAfter(from, to, token string, lines int) []byte {
	var b bytes.Buffer
	b.Write(letter(from, to, token))
	filler := strings.Repeat(token+" ", 6)
	for range lines {
		b.WriteString(filler + "\r\n")
	}
	b.WriteString("sealed " + token + "\r\n")
	return b.Bytes()
}

// openSealed returns the token of a sealed message and whether all of it is there.
func openSealed(body []byte) (token string, whole bool) {
	_, rest, _ := bytes.Cut(body, []byte("Subject: letter "))
	first, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(first), bytes.HasSuffix(body, fmt.Appendf(nil, "\r\nsealed %s\r\n", first))
}

// killsAnEpoch bounds what is in the mailboxes when they are read and compared.
const killsAnEpoch = 20

// killUnderLoad kills a server again and again, and holds it to the clients' journal.
func killUnderLoad(t *testing.T, o *ordeal.Ordeal, kills int) {
	chance := o.Chance(0)
	j := newJournal()
	sink := j.sink(t, o)
	n := node(t, rig.WaxwingOptions{Relay: sink.Address, Edit: quickRetries})
	for left := kills; left > 0 && !t.Failed(); {
		epoch := min(left, killsAnEpoch)
		left -= epoch
		j.loadAndKill(t, o, n, chance, epoch)
		j.check(t, o, n, epoch)
		if left > 0 {
			j.clear(t, n)
		}
	}
}

// sink is the next server, which writes down what it takes.
func (j *journal) sink(t *testing.T, o *ordeal.Ordeal) *rig.Sink {
	t.Helper()
	sink, err := rig.StartSink(func(_ string, _ []string, body []byte) {
		token, whole := openSealed(body)
		j.note(func() { j.arrived[token]++ })
		if !whole {
			o.Partial("%s left the server incomplete", token)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Stop() })
	return sink
}

// loadAndKill puts a mixed load on the server and kills it a number of times.
func (j *journal) loadAndKill(t *testing.T, o *ordeal.Ordeal, n *rig.Node, chance *rand.Rand, kills int) {
	t.Helper()
	keys := dataKeys(t, n)
	ctx, stop := j.load(t, n, rotateWork)
	defer stop()
	for k := range kills {
		j.awaitWork(t)
		time.Sleep(time.Duration(chance.IntN(500)) * time.Millisecond) // waits for nothing: it picks the moment of the kill
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		o.Kill()
		if err := n.Start(ctx); err != nil {
			t.Fatalf("start after kill %d: %v", k+1, err)
		}
		if used := n.CPU(); used > 10*time.Second { // what the start costs, however little of the machine it gets
			t.Errorf("start %d after a kill took %s of the processor", k+1, used)
		}
	}
	j.awaitWork(t)
	stop()
	if made := dataKeys(t, n) - keys; made < 1 {
		t.Errorf("%d data keys more after %d kills: the load changed none", made, kills)
	}
}

// load puts a mixed load on the server until the result is called, which may be called twice.
func (j *journal) load(t *testing.T, n *rig.Node, more ...work) (ctx context.Context, stop func()) {
	t.Helper()
	return j.loadEach(t, []*rig.Node{n}, append(more, deliverWork, deliverWork, deliverWork, submitWork, mailboxWork, mailboxWork)...)
}

// work is what one client does with a server until something fails.
type work func(context.Context, *testing.T, *rig.Node, *journal) error

// loadEach has clients of each server do their work, again and again.
func (j *journal) loadEach(t *testing.T, nodes []*rig.Node, all ...work) (ctx context.Context, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for _, n := range nodes {
		for _, work := range all {
			load.Go(func() {
				for ctx.Err() == nil {
					_ = work(ctx, t, n, j) // every error is the fault's; what counts is in the journal
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		}
	}
	return ctx, func() {
		cancel()
		load.Wait()
	}
}

// clear empties the mailboxes and the journal.
func (j *journal) clear(t *testing.T, n *rig.Node) {
	t.Helper()
	for _, name := range []string{"INBOX", "Archive", "Trash"} {
		c, data := mailbox(t, n, ada, name)
		if data.NumMessages > 0 {
			all := imap.SeqSet{imap.SeqRange{Start: 1, Stop: 0}}
			if err := c.Store(all, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.Expunge().Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	j.note(func() {
		clear(j.tried)
		clear(j.delivered)
		clear(j.queued)
		clear(j.kept)
		clear(j.arrived)
	})
}

// quickRetries lets the queue try again at once, so that the test need not wait minutes.
func quickRetries(toml string) string {
	return strings.Replace(toml, "[transport.routes]", "[transport]\nfirst_retry = \"1s\"\nmax_retry = \"2s\"\n\n[transport.routes]", 1)
}

func deliverWork(ctx context.Context, _ *testing.T, n *rig.Node, j *journal) error {
	c, err := smtp.Dial(n.SMTP)
	if err != nil {
		return err
	}
	defer c.Close()
	for ctx.Err() == nil {
		token := j.token("in")
		if err := c.SendMail("sender@far.test", []string{ada.Address}, bytes.NewReader(sealed("sender@far.test", ada.Address, token))); err != nil {
			return err
		}
		j.note(func() { j.delivered[token] = true })
	}
	return nil
}

func submitWork(ctx context.Context, t *testing.T, n *rig.Node, j *journal) error {
	c, err := smtp.DialStartTLS(n.Submission, trust(t, n.CAFile))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", ada.Address, ada.Password)); err != nil {
		return err
	}
	for ctx.Err() == nil {
		token := j.token("out")
		if err := c.SendMail(ada.Address, []string{"someone@far.test"}, bytes.NewReader(sealed(ada.Address, "someone@far.test", token))); err != nil {
			return err
		}
		j.note(func() { j.queued[token] = true })
	}
	return nil
}

// mailboxWork appends messages to Archive, flags every second one, takes the flag from every fourth, moves every third to
// Trash and expunges every fifth.
func mailboxWork(ctx context.Context, t *testing.T, n *rig.Node, j *journal) error {
	c, err := imapclient.DialTLS(n.IMAPS, &imapclient.Options{TLSConfig: trust(t, n.CAFile)})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Login(ada.Address, ada.Password).Wait(); err != nil {
		return err
	}
	if _, err := c.Select("Archive", nil).Wait(); err != nil {
		return err
	}
	for round := 1; ctx.Err() == nil; round++ {
		k, err := appendWork(c, j)
		if err != nil {
			return err
		}
		if round%2 == 0 {
			if err := flagWork(c, j, k, imap.StoreFlagsAdd); err != nil {
				return err
			}
		}
		if round%4 == 0 {
			if err := flagWork(c, j, k, imap.StoreFlagsDel); err != nil {
				return err
			}
		}
		switch {
		case round%5 == 0:
			err = expungeWork(c, j, k)
		case round%3 == 0:
			err = moveWork(c, j, k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// appendWork appends one message to Archive.
func appendWork(c *imapclient.Client, j *journal) (*kept, error) {
	token := j.token("app")
	body := sealed(ada.Address, ada.Address, token)
	command := c.Append("Archive", int64(len(body)), nil)
	if _, err := command.Write(body); err != nil {
		return nil, err
	}
	if err := command.Close(); err != nil {
		return nil, err
	}
	data, err := command.Wait()
	if err != nil {
		return nil, err
	}
	k := &kept{state: state{box: "Archive", uid: data.UID}}
	j.note(func() { j.kept[token] = k })
	return k, nil
}

func flagWork(c *imapclient.Client, j *journal, k *kept, op imap.StoreFlagsOp) error {
	return j.change(k, func(s *state) { s.flagged = op == imap.StoreFlagsAdd }, func() error {
		store := imap.StoreFlags{Op: op, Silent: true, Flags: []imap.Flag{imap.FlagFlagged}}
		return c.Store(imap.UIDSetNum(k.uid), &store, nil).Close()
	})
}

func expungeWork(c *imapclient.Client, j *journal, k *kept) error {
	return j.change(k, func(s *state) { s.gone = true }, func() error {
		if err := changeFlags(c, k.uid, imap.FlagDeleted); err != nil {
			return err
		}
		_, err := c.UIDExpunge(imap.UIDSetNum(k.uid)).Collect()
		return err
	})
}

func moveWork(c *imapclient.Client, j *journal, k *kept) error {
	var uid imap.UID // as long as the answer is not there, any
	return j.change(k, func(s *state) { s.box, s.uid = "Trash", uid }, func() error {
		data, err := c.Move(imap.UIDSetNum(k.uid), "Trash").Wait()
		if err != nil {
			return err
		}
		if to, ok := data.DestUIDs.(imap.UIDSet); ok {
			if list, ok := to.Nums(); ok && len(list) == 1 {
				uid = list[0]
			}
		}
		return nil
	})
}

func changeFlags(c *imapclient.Client, uid imap.UID, flag imap.Flag) error {
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{flag}}
	return c.Store(imap.UIDSetNum(uid), &store, nil).Close()
}

// check holds the server to the journal.
func (j *journal) check(t *testing.T, o *ordeal.Ordeal, n *rig.Node, kills int) {
	t.Helper()
	waitFor(t, "the queue empties", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		for token := range j.queued {
			if j.arrived[token] == 0 {
				return false
			}
		}
		return true
	})
	boxes := map[string]map[string][]fetched{}
	for _, name := range []string{"INBOX", "Archive", "Trash"} {
		c, _ := mailbox(t, n, ada, name)
		boxes[name] = j.contents(t, o, fetchAll(t, c))
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for token := range j.delivered {
		switch found := len(boxes["INBOX"][token]); {
		case found == 0:
			o.Lost("%s was answered 250 and is not in INBOX", token)
		case found > 1:
			t.Errorf("%s is in INBOX %d times", token, found)
		}
	}
	moved, flagged, gone := 0, 0, 0
	for token, k := range j.kept {
		checkKept(t, o, boxes, token, k)
		moved += count(k.box == "Trash")
		flagged += count(k.flagged)
		gone += count(k.gone)
	}
	duplicates := 0
	for _, times := range j.arrived {
		duplicates += times - 1
	}
	o.Duplicate(duplicates)
	t.Logf("%d kills or faults: %d delivered, %d queued, %d appended; of these %d flagged, %d moved, %d expunged; %d duplicates sent",
		kills, len(j.delivered), len(j.queued), len(j.kept), flagged, moved, gone, duplicates)
	if len(j.delivered) < kills || len(j.queued) < kills || len(j.kept) < kills || moved == 0 || flagged == 0 || gone == 0 {
		t.Error("the load was too small to prove anything")
	}
}

func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

// checkKept holds the server to what it answered of one appended message: the message is as it was at the last answer, or
// as the change makes it that was not answered.
func checkKept(t *testing.T, o *ordeal.Ordeal, boxes map[string]map[string][]fetched, token string, k *kept) {
	t.Helper()
	allowed := []state{k.state}
	if k.doubt != nil {
		changed := k.state
		k.doubt(&changed)
		allowed = append(allowed, changed)
	}
	var found []state
	for _, name := range []string{"Archive", "Trash"} {
		for _, m := range boxes[name][token] {
			found = append(found, state{box: name, uid: m.uid, flagged: hasFlag(m, imap.FlagFlagged)})
		}
	}
	for _, want := range allowed {
		switch {
		case want.gone && len(found) == 0:
			return
		case want.gone || len(found) != 1:
			continue
		case want.uid == 0: // in a move whose answer got lost
			want.uid = found[0].uid
		}
		if found[0] == want {
			return
		}
	}
	if len(found) == 0 {
		o.Lost("%s is gone; want one of %+v", token, allowed)
		return
	}
	t.Errorf("%s is %+v; want one of %+v", token, found, allowed)
}

// contents sorts a mailbox by token; a message that nobody sent, a partial one or a reused UID is an error.
func (j *journal) contents(t *testing.T, o *ordeal.Ordeal, messages []fetched) map[string][]fetched {
	t.Helper()
	byToken := map[string][]fetched{}
	var last imap.UID
	for _, m := range messages {
		if m.uid <= last {
			t.Errorf("UID %d stands after %d", m.uid, last)
		}
		last = m.uid
		token, whole := openSealed(m.body)
		switch {
		case !whole:
			o.Partial("UID %d: token %q", m.uid, token)
		case !j.tried[token]:
			t.Errorf("UID %d: nobody sent %q", m.uid, token)
		}
		byToken[token] = append(byToken[token], m)
	}
	return byToken
}

func hasFlag(m fetched, flag imap.Flag) bool { return slices.Contains(m.flags, flag) }
