package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/durable"
)

// Plan is what the settings say about backups.
type Plan struct {
	Target      string
	Credentials string // file
	Recipients  []string
	Schedule    Schedule
	Rate        int64
	Keep        Retention
	TestEvery   time.Duration // between two tests; 0: none
	TestKey     string        // file of an identity for tests; "": they look from outside
}

// Agent makes and tests backups of one server, one at a time, and remembers how it went. All methods may be called at the
// same time.
type Agent struct {
	o       AgentOptions
	running sync.Mutex
	now     atomic.Pointer[Activity]
	state   sync.Mutex // the file
}

// AgentOptions of NewAgent.
type AgentOptions struct {
	Dir      string // of this node, for the index and the state; required
	Snapshot func(ctx context.Context) (Snapshot, error)
	Plan     func() Plan
	// Restore loads a backup into a new store below dir, compares the two, and removes it again. None: a test with an
	// identity decrypts everything and compares hashes and counts instead.
	Restore func(ctx context.Context, rd *Reader, dir string) error
	Host    string
	Schema  int64 // of the store
	Clock   func() time.Time
	Logger  *slog.Logger
}

// Activity is what the agent does now.
type Activity struct {
	What  string    `json:"what"` // backup or test
	Began time.Time `json:"began"`
	Progress
	Total int64 `json:"total,omitempty"` // octets of a test
}

// Record is how a backup went.
type Record struct {
	Began    time.Time `json:"began"`
	Finished time.Time `json:"finished"`
	Target   string    `json:"target"`
	ID       string    `json:"id,omitempty"`
	Error    string    `json:"error,omitempty"`
	Sent     int64     `json:"sent"`
	Bundles  int       `json:"bundles"`
	Counts   Counts    `json:"counts"`
	Damaged  []string  `json:"damaged,omitempty"`
	Pruned   Pruned    `json:"pruned"`
}

// The kinds of tests, from the least to the most that they prove.
const (
	TestOutside = "outside" // objects are there, and their hashes are right
	TestDecrypt = "decrypt" // everything was decrypted, its hashes and counts are right
	TestRestore = "restore" // everything was restored into a store of its own, and compared
)

// TestRecord is how a test went.
type TestRecord struct {
	Began    time.Time `json:"began"`
	Finished time.Time `json:"finished"`
	ID       string    `json:"id,omitempty"` // of the backup
	Kind     string    `json:"kind,omitempty"`
	Error    string    `json:"error,omitempty"`
	Problems []string  `json:"problems,omitempty"`
	Objects  int64     `json:"objects"`
	Contents int64     `json:"contents"`
	Rows     int64     `json:"rows"`
}

// Good tells that the test found nothing.
func (t *TestRecord) Good() bool { return t != nil && t.Error == "" && len(t.Problems) == 0 }

// State is what is remembered, in a file of the node.
type State struct {
	Last     *Record     `json:"last,omitempty"`
	LastGood *Record     `json:"last_good,omitempty"`
	Test     *TestRecord `json:"test,omitempty"`
	TestGood *TestRecord `json:"test_good,omitempty"`
}

// Due is when the next backup is to be made; the zero time is never. The first is due at once. After a failure the next try comes soon.
func (s State) Due(p Plan, now time.Time) time.Time {
	if p.Schedule.Every() == 0 || p.Target == "" {
		return time.Time{}
	}
	if s.Last == nil {
		return now // the first one is what is missed most
	}
	if s.Last.Error != "" {
		return s.Last.Finished.Add(min(retryAfter, p.Schedule.Every()/4))
	}
	return p.Schedule.Next(s.Last.Began.In(now.Location()))
}

// retryAfter is how long after a failure a backup is tried again.
const retryAfter = time.Hour

// Late tells that the last good backup is older than two intervals. Before the first one it is late when one has failed.
func (s State) Late(p Plan, now time.Time) bool {
	switch {
	case p.Schedule.Every() == 0:
		return false
	case s.LastGood != nil:
		return now.Sub(s.LastGood.Began) > 2*p.Schedule.Every()
	}
	return s.Last != nil
}

// TestDue is when the newest backup is to be tested; the zero time is never.
func (s State) TestDue(p Plan) time.Time {
	switch {
	case p.TestEvery == 0 || p.Schedule.Every() == 0 || s.LastGood == nil:
		return time.Time{}
	case s.Test == nil:
		return s.LastGood.Finished
	case !s.Test.Good():
		return s.Test.Finished.Add(min(day, p.TestEvery))
	}
	return s.Test.Finished.Add(p.TestEvery)
}

// NewAgent makes an agent. It opens nothing.
func NewAgent(o AgentOptions) *Agent {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Agent{o: o}
}

// stateName is the file of the state.
const stateName = "state.json"

// maxState bounds it.
const maxState = 4 << 20

// State reads what is remembered.
func (a *Agent) State() (State, error) {
	a.state.Lock()
	defer a.state.Unlock()
	return a.load()
}

func (a *Agent) load() (s State, err error) {
	raw, err := durable.ReadFile(durable.OS, filepath.Join(a.o.Dir, stateName), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fmt.Errorf("backup: state: %w", err)
	}
	return s, nil
}

// remember changes the state. A file that can't be read is begun anew.
func (a *Agent) remember(change func(*State)) error {
	a.state.Lock()
	defer a.state.Unlock()
	s, err := a.load()
	if err != nil {
		a.o.Logger.Error("what was remembered of backups can't be read, it is begun anew", "error", err)
		s = State{}
	}
	change(&s)
	raw, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	if err := durable.OS.MkdirAll(a.o.Dir, 0o700); err != nil {
		return err
	}
	return durable.WriteFile(durable.OS, filepath.Join(a.o.Dir, stateName), raw, 0o600)
}

// Activity is what is under way; nil: nothing.
func (a *Agent) Activity() *Activity { return a.now.Load() }

// Plan is what the settings say.
func (a *Agent) Plan() Plan { return a.o.Plan() }

// begin refuses a second one.
func (a *Agent) begin(what string) (end func(), err error) {
	if !a.running.TryLock() {
		return nil, fmt.Errorf("%w: this server is at one already", ErrBusy)
	}
	a.now.Store(&Activity{What: what, Began: a.o.Clock().UTC()})
	return func() {
		a.now.Store(nil)
		a.running.Unlock()
	}, nil
}

// Now makes a backup as the plan says. The record is there after an error too, and says so.
func (a *Agent) Now(ctx context.Context, p Plan, full bool) (*Record, error) {
	end, err := a.begin("backup")
	if err != nil {
		return nil, err
	}
	defer end()
	rec := &Record{Began: a.o.Clock().UTC(), Target: p.Target}
	err = a.run(ctx, p, full, rec)
	rec.Finished = a.o.Clock().UTC()
	if err != nil {
		rec.Error = err.Error()
		a.o.Logger.Error("a backup failed", "target", p.Target, "error", err)
	}
	if p.Target == "" || p.Target != a.o.Plan().Target {
		return rec, err // it was made on the side: the schedule's own target is as old as before
	}
	rerr := a.remember(func(s *State) {
		s.Last = rec
		if rec.ID != "" {
			s.LastGood = rec
		}
	})
	return rec, errors.Join(err, rerr)
}

func (a *Agent) run(ctx context.Context, p Plan, full bool, rec *Record) (err error) {
	recipients := p.Recipients
	if len(recipients) == 0 {
		return fmt.Errorf("backup: %w", ErrNoRecipients)
	}
	if p.TestKey != "" {
		own, err := testRecipient(p.TestKey)
		if err != nil {
			return fmt.Errorf("backup: key for tests: %w", err)
		}
		recipients = append(recipients[:len(recipients):len(recipients)], own)
	}
	t, err := OpenTarget(ctx, p.Target, p.Credentials)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	began := rec.Began
	out, err := Run(ctx, Options{
		Snapshot: a.o.Snapshot, Target: t, Recipients: recipients, Dir: a.o.Dir, Full: full, Rate: p.Rate, Keep: p.Keep,
		Host: a.o.Host, Schema: a.o.Schema, Clock: a.o.Clock, Logger: a.o.Logger,
		Progress: func(g Progress) { a.now.Store(&Activity{What: "backup", Began: began, Progress: g}) },
	})
	if out != nil {
		rec.ID, rec.Sent, rec.Bundles, rec.Pruned = out.ID, out.Sent, out.Bundles, out.Pruned
		if out.Manifest != nil {
			rec.Counts = out.Manifest.Counts
		}
		for _, d := range out.Damaged {
			rec.Damaged = append(rec.Damaged, d.Error())
		}
	}
	return err
}

// Test proves the newest backup as far as the plan allows: restored into a store of its own, decrypted, or from outside.
func (a *Agent) Test(ctx context.Context, p Plan) (*TestRecord, error) {
	end, err := a.begin("test")
	if err != nil {
		return nil, err
	}
	defer end()
	rec := &TestRecord{Began: a.o.Clock().UTC()}
	err = a.test(ctx, p, rec)
	if ctx.Err() != nil {
		return rec, ctx.Err() // says nothing about the backup
	}
	rec.Finished = a.o.Clock().UTC()
	if err != nil {
		rec.Error = err.Error()
	}
	if rec.Good() {
		a.o.Logger.Info("a backup was tested", "id", rec.ID, "kind", rec.Kind, "contents", rec.Contents, "rows", rec.Rows)
	} else {
		a.o.Logger.Error("a backup was tested and is not right", "id", rec.ID, "kind", rec.Kind, "error", rec.Error, "problems", len(rec.Problems))
	}
	rerr := a.remember(func(s *State) {
		s.Test = rec
		if rec.Good() {
			s.TestGood = rec
		}
	})
	return rec, errors.Join(err, rerr)
}

func (a *Agent) test(ctx context.Context, p Plan, rec *TestRecord) (err error) {
	t, err := OpenTarget(ctx, p.Target, p.Credentials)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	repo, err := Open(ctx, t)
	if err != nil {
		return err
	}
	b, err := repo.Find(ctx, "")
	if err != nil {
		return err
	}
	rec.ID, rec.Kind = b.ID, TestOutside
	o := VerifyOptions{Rate: p.Rate, Progress: func(v Verified, total int64) {
		a.now.Store(&Activity{What: "test", Began: rec.Began, Progress: Progress{Octets: v.Octets, Contents: v.Contents, Rows: v.Rows}, Total: total})
	}}
	if p.TestKey != "" {
		rec.Kind = TestDecrypt
		if o.Identities, err = ReadIdentities(p.TestKey); err != nil {
			return fmt.Errorf("key for tests: %w", err)
		}
	}
	v, err := repo.Verify(ctx, b, o)
	if v != nil {
		rec.Objects, rec.Contents, rec.Rows, rec.Problems = v.Objects, v.Contents, v.Rows, v.Problems
	}
	if v != nil && len(v.Bad) > 0 {
		err = errors.Join(err, a.forget(repo, v.Bad))
	}
	if err != nil || len(rec.Problems) > 0 || len(o.Identities) == 0 || a.o.Restore == nil || !a.roomFor(b) {
		return err
	}
	rec.Kind = TestRestore
	return a.restore(ctx, repo, b, o)
}

// forget takes bundles out of the index, so that the next backup sends what was in them again.
func (a *Agent) forget(repo *Repository, names []string) error {
	x, err := loadIndex(durable.OS, a.o.Dir, repo.id)
	if err != nil {
		return err
	}
	bad := make(map[string]bool)
	for _, n := range names {
		bad[n] = true
	}
	return x.keep(func(k known) bool { return !bad[k.Name] })
}

// scratchName is the directory that a test restores into.
const scratchName = "test"

// roomFor tells whether a test may restore: the disk keeps four times what it takes.
func (a *Agent) roomFor(b Backup) bool {
	free, err := durable.OS.Free(a.o.Dir)
	need := 2*b.Manifest.Counts.Octets + 4<<10*b.Manifest.Counts.Rows
	return err == nil && free/4 > need
}

func (a *Agent) restore(ctx context.Context, repo *Repository, b Backup, o VerifyOptions) (err error) {
	dir := filepath.Join(a.o.Dir, scratchName)
	if err := os.RemoveAll(dir); err != nil { // of a test that was killed
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	rd, err := repo.Read(ctx, b, o.Identities, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rd.Close()) }()
	return a.o.Restore(ctx, rd, dir)
}
