package system

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"waxwing/test/rig"
)

// TestPromise1KilledServerLosesNothing kills the server without warning, under load, a few times.
func TestPromise1KilledServerLosesNothing(t *testing.T) {
	killUnderLoad(t, 4)
}

// TestSoakKilledServerLosesNothing is the same with 200 kills.
func TestSoakKilledServerLosesNothing(t *testing.T) {
	if os.Getenv("WAXWING_SOAK") == "" {
		t.Skip("200 kills take ten minutes: make soak")
	}
	killUnderLoad(t, 200)
}

// journal is what the clients were told: the only truth that the server is held to.
type journal struct {
	mu        sync.Mutex
	tried     map[string]bool     // sent, whatever came of it
	delivered map[string]bool     // answered 250 on port 25
	queued    map[string]bool     // answered 250 on submission, for another server
	appended  map[string]imap.UID // answered OK to APPEND
	flagged   map[string]bool     // answered OK to STORE
	gone      map[string]bool     // answered OK to EXPUNGE
	maybeGone map[string]bool     // EXPUNGE sent, no answer
	arrived   map[string]int      // what the next server took
	serial    int
}

func newJournal() *journal {
	return &journal{
		tried: map[string]bool{}, delivered: map[string]bool{}, queued: map[string]bool{}, appended: map[string]imap.UID{},
		flagged: map[string]bool{}, gone: map[string]bool{}, maybeGone: map[string]bool{}, arrived: map[string]int{},
	}
}

func (j *journal) token(kind string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.serial++
	token := fmt.Sprintf("%s-%06d", kind, j.serial)
	j.tried[token] = true
	return token
}

func (j *journal) note(change func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change()
}

// sealed makes a message that proves its own completeness: it ends with its token.
func sealed(from, to, token string) []byte {
	var b bytes.Buffer
	b.Write(letter(from, to, token))
	filler := strings.Repeat(token+" ", 6)
	for range rand.IntN(300) {
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

func killUnderLoad(t *testing.T, kills int) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	j := newJournal()
	sink, err := rig.StartSink(func(_ string, _ []string, body []byte) {
		token, whole := openSealed(body)
		j.note(func() {
			j.arrived[token]++
			if !whole {
				t.Errorf("%s left the server incomplete", token)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Stop()
	n := node(t, rig.WaxwingOptions{Relay: sink.Address, Edit: quickRetries})

	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for _, work := range []func(context.Context, *testing.T, *rig.Node, *journal) error{
		deliverWork, deliverWork, deliverWork, submitWork, mailboxWork, mailboxWork, rotateWork,
	} {
		load.Go(func() {
			for ctx.Err() == nil {
				_ = work(ctx, t, n, j) // every error is the kill's; what counts is in the journal
				select {
				case <-ctx.Done():
				case <-time.After(10 * time.Millisecond):
				}
			}
		})
	}
	for k := range kills {
		time.Sleep(300*time.Millisecond + time.Duration(chance.IntN(500))*time.Millisecond)
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := n.Start(ctx); err != nil {
			t.Fatalf("start after kill %d: %v", k+1, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("start %d after a kill took %s", k+1, took)
		}
	}
	time.Sleep(300 * time.Millisecond)
	cancel()
	load.Wait()
	if keys := dataKeys(t, n); keys < kills {
		t.Errorf("%d data keys after %d kills: the load changed none", keys, kills)
	}
	j.check(t, n, kills)
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

// mailboxWork appends messages to Archive, flags every second one and expunges every fourth.
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
	for round := 0; ctx.Err() == nil; round++ {
		token := j.token("app")
		body := sealed(ada.Address, ada.Address, token)
		command := c.Append("Archive", int64(len(body)), nil)
		if _, err := command.Write(body); err != nil {
			return err
		}
		if err := command.Close(); err != nil {
			return err
		}
		data, err := command.Wait()
		if err != nil {
			return err
		}
		j.note(func() { j.appended[token] = data.UID })
		if round%2 == 0 {
			if err := changeFlags(c, data.UID, imap.FlagFlagged); err != nil {
				return err
			}
			j.note(func() { j.flagged[token] = true })
		}
		if round%4 == 3 {
			j.note(func() { j.maybeGone[token] = true })
			if err := changeFlags(c, data.UID, imap.FlagDeleted); err != nil {
				return err
			}
			if _, err := c.UIDExpunge(imap.UIDSetNum(data.UID)).Collect(); err != nil {
				return err
			}
			j.note(func() { j.gone[token] = true })
		}
	}
	return nil
}

func changeFlags(c *imapclient.Client, uid imap.UID, flag imap.Flag) error {
	store := imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{flag}}
	return c.Store(imap.UIDSetNum(uid), &store, nil).Close()
}

// check holds the server to the journal.
func (j *journal) check(t *testing.T, n *rig.Node, kills int) {
	t.Helper()
	waitFor(t, "the queue empties", time.Minute, func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		for token := range j.queued {
			if j.arrived[token] == 0 {
				return false
			}
		}
		return true
	})
	c, _ := mailbox(t, n, ada, "INBOX")
	inbox := j.contents(t, fetchAll(t, c))
	for token := range j.delivered {
		if len(inbox[token]) != 1 {
			t.Errorf("%s was answered 250 and is in INBOX %d times", token, len(inbox[token]))
		}
	}
	c, _ = mailbox(t, n, ada, "Archive")
	archive := j.contents(t, fetchAll(t, c))
	for token, uid := range j.appended {
		found := archive[token]
		switch {
		case j.gone[token]:
			if len(found) != 0 {
				t.Errorf("%s was expunged and is back", token)
			}
		case j.maybeGone[token] && len(found) == 0:
		case len(found) != 1:
			t.Errorf("%s was appended and is in Archive %d times", token, len(found))
		case found[0].uid != uid:
			t.Errorf("%s was given UID %d and now has %d", token, uid, found[0].uid)
		case j.flagged[token] && !hasFlag(found[0], imap.FlagFlagged):
			t.Errorf("%s lost its flag", token)
		}
	}
	duplicates := 0
	for _, count := range j.arrived {
		duplicates += count - 1
	}
	t.Logf("%d kills: %d delivered, %d queued, %d appended, %d expunged: nothing lost, nothing partial, %d duplicates sent",
		kills, len(j.delivered), len(j.queued), len(j.appended), len(j.gone), duplicates)
	if len(j.delivered) < kills || len(j.queued) < kills || len(j.appended) < kills {
		t.Error("the load was too small to prove anything")
	}
}

// contents sorts a mailbox by token; a message that nobody sent, a partial one or a reused UID is an error.
func (j *journal) contents(t *testing.T, messages []fetched) map[string][]fetched {
	t.Helper()
	byToken := map[string][]fetched{}
	var last imap.UID
	for _, m := range messages {
		if m.uid <= last {
			t.Errorf("UID %d stands after %d", m.uid, last)
		}
		last = m.uid
		token, whole := openSealed(m.body)
		if !j.tried[token] || !whole {
			t.Errorf("UID %d: token %q, whole: %v", m.uid, token, whole)
		}
		byToken[token] = append(byToken[token], m)
	}
	return byToken
}

func hasFlag(m fetched, flag imap.Flag) bool {
	for _, f := range m.flags {
		if f == flag {
			return true
		}
	}
	return false
}
