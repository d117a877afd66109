package objects_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// patience bounds what is waited for on a busy machine.
const patience = 2 * time.Minute

// peers stand between a node and the others.
type peers struct {
	store.Peers
	mute atomic.Bool // what the node tells is lost
	dead atomic.Bool // the node can't say that it lives

	heard atomic.Int64 // how often the node was told something
}

func (p *peers) Tell(ctx context.Context, text string) error {
	if p.mute.Load() {
		return nil
	}
	return p.Peers.Tell(ctx, text)
}

func (p *peers) Now() string {
	if p.dead.Load() {
		return `(1 / 0)::bigint`
	}
	return p.Peers.Now()
}

func (p *peers) Hear(ctx context.Context, ready func(), heard func(text string)) error {
	return p.Peers.Hear(ctx, ready, func(text string) {
		heard(text)
		p.heard.Add(1)
	})
}

// pair is two nodes on one database and bucket, with account 1.
type pair struct {
	*testing.T
	schema string
	s      [2]*store.Store
	peers  [2]*peers
}

func newPair(t *testing.T) *pair {
	t.Helper()
	dir := t.TempDir()
	p := &pair{T: t, schema: name(dir)}
	for i := range p.s {
		db := openDatabase(t, dir)
		o := bucketOptions(t, dir, "")
		o.Keys = ring(t, db)
		p.peers[i] = &peers{Peers: db.Peers}
		db.Peers = p.peers[i]
		p.s[i] = openWith(t, db, nil, o)
	}
	storetest.Account(t, p.s[0], 1)
	return p
}

func (p *pair) ok(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *pair) waitFor(what string, done func() bool) {
	p.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// exec runs a statement past the nodes; %[1]s is their schema.
func (p *pair) exec(query string, args ...any) {
	p.Helper()
	p.ok(cluster.Exec(p.Context(), fmt.Sprintf(query, append([]any{p.schema}, args...)...)))
}

// lead has both nodes take part in who leads; end has one of them not do so any more.
func (p *pair) lead() (end [2]func()) {
	for i, s := range p.s {
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() { s.Lead(ctx) })
		end[i] = func() { cancel(); done.Wait() }
		p.Cleanup(end[i])
	}
	return end
}

// leader waits until one node alone leads.
func (p *pair) leader() (which int) {
	p.Helper()
	p.waitFor("one node to lead", func() bool {
		which = 0
		if p.s[1].Leads() {
			which = 1
		}
		return p.s[which].Leads() && !p.s[1-which].Leads()
	})
	return which
}

// leaderClass is the first key of the advisory lock of the node that leads, as package postgres has it.
const leaderClass = 0x77617878

func TestAnotherNodeLeadsWhenOneIsGone(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	end := p.lead()
	first := p.leader()
	lead, done := p.s[first].WhileLeading(t.Context())
	defer done()
	p.exec(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %[2]d
		AND objid = (hashtext('%[1]s')::bigint & 4294967295)::oid`, leaderClass)
	select {
	case <-lead.Done():
	case <-time.After(patience):
		t.Fatal("a node goes on as the leader after its connection broke")
	}
	first = p.leader()
	end[first]() // as its process does
	if p.s[first].Leads() {
		t.Error("a node leads that has given it up")
	}
	if next := p.leader(); next == first {
		t.Errorf("node %d still leads", next)
	}
}

// enqueue puts a message for one recipient into the queue of a node.
func (p *pair) enqueue(i int) {
	p.Helper()
	_, err := p.s[i].Deliver(p.Context(), store.Delivery{
		Content: strings.NewReader("a letter to far away"),
		Queue: &store.QueueMessage{
			TraceID: "T1", From: "a@here.test", Size: 20, Account: 1,
			Recipients: []store.QueueRecipient{{To: "b@far.test", Domain: "far.test"}},
		},
	})
	p.ok(err)
}

// take leases what is due on a node.
func (p *pair) take(i int) (out []store.QueueResult, leased []store.QueueRecipient, err error) {
	w, err := p.s[i].QueueTakeWork(p.Context(), store.QueueTake{
		Now: time.Now().Add(time.Minute), Owner: p.s[i].Node(), Lease: time.Hour, Slots: 10, Batch: 10,
		Allow: func(domain string, _ bool) (string, int) { return domain, 10 },
	})
	for _, u := range w.Work {
		for _, m := range u.Messages {
			for _, r := range m.Recipients {
				leased = append(leased, r)
				out = append(out, store.QueueResult{Message: m.ID, ID: r.ID, Domain: u.Domain, Lease: r.Lease, Done: true})
			}
		}
	}
	return out, leased, err
}

// TestWhatADeadNodeHeldPassesOn has a node not be able to say that it lives, while it leases a recipient and has a maildrop.
func TestWhatADeadNodeHeldPassesOn(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	dead, other := p.s[0], p.s[1]
	p.enqueue(0)
	late, leased, err := p.take(0)
	p.ok(err)
	if len(late) != 1 {
		t.Fatalf("%d recipients were leased", len(late))
	}
	_, ok, err := dead.LockMaildrop(t.Context(), 1)
	if p.ok(err); !ok {
		t.Fatal("no maildrop")
	}
	// While it lives all of it is its own, also when another node has just started.
	n, err := other.QueueReclaim(t.Context(), other.Node(), time.Now())
	if p.ok(err); n != 0 {
		t.Errorf("a node that starts freed %d leases", n)
	}
	n, err = other.QueueExpireLeases(t.Context(), other.Node(), time.Now())
	if p.ok(err); n != 0 {
		t.Errorf("%d leases ran out", n)
	}
	n, err = other.QueueExpireLeases(t.Context(), other.Node(), time.Now().Add(48*time.Hour)) // its clock is off
	if p.ok(err); n != 0 {
		t.Errorf("a node with a fast clock took %d leases of one that lives", n)
	}
	if got, _, err := p.take(1); err != nil || len(got) != 0 {
		t.Fatalf("another node took %v: %v", got, err)
	}
	if _, ok, err := other.LockMaildrop(t.Context(), 1); err != nil || ok {
		t.Fatalf("a maildrop was given twice: %v", err)
	}

	during, done := dead.WhileLeased(t.Context())
	defer done()
	p.peers[0].dead.Store(true)
	var taken []store.QueueResult
	p.waitFor("the lease to pass on", func() bool {
		p.exec(`UPDATE %[1]s.node SET seen = 0 WHERE node = '%[2]s'`, dead.Node()) // long ago
		taken, _, err = p.take(1)
		p.ok(err)
		return len(taken) > 0
	})
	p.waitFor("the maildrop to pass on", func() bool {
		unlock, ok, err := other.LockMaildrop(t.Context(), 1)
		p.ok(err)
		if ok {
			unlock()
		}
		return ok
	})
	select {
	case <-during.Done():
	case <-time.After(patience):
		t.Fatal("a node that can't say that it lives goes on under its leases")
	}
	if dead.Seen() {
		t.Error("a node holds itself for seen that was not")
	}
	p.late(late, leased)
	lost, err := other.QueueFinish(t.Context(), time.Now(), taken)
	if p.ok(err); lost != 0 {
		t.Error("the outcome of the node that took over was refused")
	}

	p.enqueue(1)
	if got, _, err := p.take(0); err == nil {
		t.Errorf("a node that is not seen took %v", got)
	}
	p.peers[0].dead.Store(false)
	p.waitFor("the node to be seen again", dead.Seen)
	if got, _, err := p.take(0); err != nil || len(got) != 1 {
		t.Errorf("a node that is seen again took %v: %v", got, err)
	}
}

// late has the first node write what it does under a lease that it lost.
func (p *pair) late(results []store.QueueResult, leased []store.QueueRecipient) {
	p.Helper()
	for what, write := range map[string]func() (int, error){
		"done":     func() (int, error) { return p.s[0].QueueFinish(p.Context(), time.Now(), results) },
		"extended": func() (int, error) { return p.s[0].QueueExtend(p.Context(), leased, time.Now().Add(time.Hour)) },
		"failed": func() (int, error) {
			r := results[0]
			r.Done, r.Outcome, r.NextAttempt = false, store.QueueFailed, time.Now()
			return p.s[0].QueueFinish(p.Context(), time.Now(), []store.QueueResult{r})
		},
	} {
		if lost, err := write(); err != nil || lost != 1 {
			p.Errorf("%s under a lease that was lost: %d lost, %v", what, lost, err)
		}
	}
}

func TestAMaildropIsOneSessionsOnAllNodes(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	lock := func(i int, want bool) func() {
		t.Helper()
		unlock, ok, err := p.s[i].LockMaildrop(t.Context(), 1)
		if p.ok(err); ok != want {
			t.Fatalf("node %d: given %t, want %t", i, ok, want)
		}
		return unlock
	}
	unlock := lock(0, true)
	lock(1, false)
	lock(0, false)
	unlock()
	unlock() // once more: not the other's
	lock(1, true)
	lock(0, false)
	p.ok(p.s[1].Close()) // with the maildrop
	lock(0, true)
}

// watched opens a view of account 1's INBOX on the second node, and says how to wait until it shows a number of messages.
func (p *pair) watched() (until func(exists int)) {
	p.Helper()
	m, err := p.s[1].Mailbox(p.Context(), 1, "INBOX")
	p.ok(err)
	told := make(chan struct{}, 1)
	v, err := p.s[1].View(p.Context(), 1, m.ID, func() {
		select {
		case told <- struct{}{}:
		default:
		}
	})
	p.ok(err)
	p.Cleanup(v.Close)
	return func(exists int) {
		p.Helper()
		for deadline := time.After(patience); v.Sync(true).Exists != exists; {
			select {
			case <-told:
			case <-deadline:
				p.Fatalf("a view was not told of message %d", exists)
			}
		}
	}
}

func (p *pair) deliver(i int, text string) {
	p.Helper()
	_, err := p.s[i].Deliver(p.Context(), store.Delivery{
		Content: strings.NewReader(text), Local: []store.NewEntry{{Account: 1, Role: store.RoleInbox, InternalDate: time.Now()}},
	})
	p.ok(err)
}

func TestWhatIsNotToldIsLookedFor(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	until := p.watched()
	p.peers[0].mute.Store(true)
	p.deliver(0, "nobody hears of it")
	until(1)
}

// TestANodeThatCouldNotFollowOnceFollowsLater has an account not be readable as a node is told of it.
func TestANodeThatCouldNotFollowOnceFollowsLater(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	until := p.watched()
	p.waitFor("the node to hear", p.s[1].Hears)
	p.deliver(0, "before")
	until(1)
	p.exec(`ALTER TABLE %[1]s.subscription RENAME TO away`)
	told := p.peers[1].heard.Load()
	p.deliver(0, "what it can't read")
	p.waitFor("the node to be told", func() bool { return p.peers[1].heard.Load() > told })
	p.ok(p.s[1].Write(t.Context(), func(*store.Tx) error { return nil })) // it has tried
	p.exec(`ALTER TABLE %[1]s.away RENAME TO subscription`)
	p.deliver(0, "after")
	until(3)
}

// TestANodeLivesWhileItsWriterIsBusy lets a transaction last for longer than a node may be silent.
func TestANodeLivesWhileItsWriterIsBusy(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	seen := func() (at int64) {
		p.ok(p.s[1].Read(t.Context(), func(q store.Querier) error {
			return q.QueryRow(`SELECT seen FROM node WHERE node = $1`, p.s[0].Node()).Scan(&at)
		}))
		return at
	}
	busy, end := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		// The database ends it meanwhile: its outcome is not what this is about.
		_ = p.s[0].Write(t.Context(), func(*store.Tx) error {
			close(busy)
			<-end
			return errIdle
		})
	})
	defer writer.Wait()
	defer close(end)
	<-busy
	for range 3 {
		last := seen()
		p.waitFor("the node to say that it lives", func() bool { return seen() > last })
	}
}

var errIdle = errors.New("nothing was done")

func TestNodesHearAgainAfterTheirConnectionBroke(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	until := p.watched()
	for i := range 3 {
		p.waitFor("the node to hear", p.s[1].Hears)
		p.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN "waxwing.%[1]s"'`)
		p.deliver(0, fmt.Sprint("while nobody hears ", i))
		until(i + 1)
	}
	p.waitFor("the node to hear again", p.s[1].Hears)
}

// TestAnAccountThatAnotherHoldsIsNobodyElsesMatter locks an account as a node does that was cut off in the middle of a transaction.
func TestAnAccountThatAnotherHoldsIsNobodyElsesMatter(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	storetest.Account(t, p.s[0], 2)
	conn, err := pgx.Connect(t.Context(), cluster.DSN(p.schema))
	p.ok(err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), `BEGIN; SELECT 1 FROM mail_account WHERE account_id = 1 FOR UPDATE`)
	p.ok(err)
	to := func(acct store.AccountID, text string) error {
		_, err := p.s[0].Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader(text), Local: []store.NewEntry{{Account: acct, Role: store.RoleInbox, InternalDate: time.Now()}},
		})
		return err
	}
	var held sync.WaitGroup
	ended := make(chan struct{})
	for i := range 3 {
		held.Go(func() {
			if err := to(1, fmt.Sprint("held ", i)); err == nil {
				t.Error("a delivery to an account that another holds")
			}
		})
	}
	go func() {
		held.Wait()
		close(ended)
	}()
	for i := 0; ; i++ {
		if err := to(2, fmt.Sprint("free ", i)); err != nil {
			t.Fatalf("a delivery to another account: %v", err)
		}
		select {
		case <-ended:
		default:
			continue
		}
		break
	}
	_, err = conn.Exec(t.Context(), `ROLLBACK`)
	p.ok(err)
	p.ok(to(1, "again"))
}
