package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
	"waxwing/internal/store"
)

// memory is a snapshot in memory.
type memory struct {
	at       time.Time
	tables   map[string][]store.Record
	contents [][]byte
	broken   map[int]bool
	away     error // from where contents are
}

func (m *memory) Taken() time.Time { return m.at }
func (m *memory) Close() error     { return nil }

func (m *memory) Rows(_ context.Context, table string, _ store.AccountID) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		for _, r := range m.tables[table] {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (m *memory) Contents(context.Context) iter.Seq2[store.ContentInfo, error] {
	return func(yield func(store.ContentInfo, error) bool) {
		for i, b := range m.contents {
			if !yield(store.ContentInfo{ID: int64(i + 1), Sum: sha256.Sum256(b), Size: int64(len(b)), Refs: 1}, nil) {
				return
			}
		}
	}
}

func (m *memory) Open(_ context.Context, c store.ContentInfo) (store.Blob, error) {
	if m.broken[int(c.ID)] {
		return nil, store.ErrCorrupt
	}
	if m.away != nil {
		return nil, m.away
	}
	return held{bytes.NewReader(m.contents[c.ID-1])}, nil
}

// filled makes a snapshot with n messages.
func filled(n int) *memory {
	m := &memory{at: time.Date(2026, 3, 1, 12, 0, n, 0, time.UTC), tables: map[string][]store.Record{}}
	r := rand.New(rand.NewPCG(7, 7))
	account := []string{"account_id", "modseq", "next_mailbox", "last_validity", "horizon"}
	m.tables["mail_account"] = []store.Record{{Columns: account, Values: []any{int64(1), int64(n), int64(3), int64(9), int64(0)}}}
	m.tables["directory_account"] = []store.Record{{Columns: []string{"account_id", "name"}, Values: []any{int64(1), "李"}}}
	entry, message := []string{"account_id", "uid", "modseq"}, []string{"account_id", "message_id", "blob_id", "uidl", "summary"}
	for i := range n {
		b := make([]byte, r.IntN(20_000))
		for j := range b {
			b[j] = byte(r.IntN(64)) + ' '
		}
		m.contents = append(m.contents, fmt.Appendf(b, "message %d", i))
		m.tables["entry"] = append(m.tables["entry"], store.Record{Columns: entry, Values: []any{int64(1), int64(i + 1), int64(i + 1)}})
		m.tables["message"] = append(m.tables["message"], store.Record{Columns: message, Values: []any{int64(1), int64(i + 1), int64(i + 1), nil, slices.Clone(b[:min(len(b), 900)])}})
	}
	return m
}

type key struct {
	id age.Identity
	to string
}

func newKey(t *testing.T) key {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return key{id, id.Recipient().String()}
}

// rig is a target on a disk that can fail, and what the node keeps.
type rig struct {
	disk *crashfs.FS
	node *crashfs.FS
	dir  string
	key  key
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{disk: crashfs.New(), node: crashfs.New(), dir: t.TempDir(), key: newKey(t)}
	if err := g.disk.MkdirAll("/t", 0o700); err != nil {
		t.Fatal(err)
	}
	// The bundle in the making is in the real directory, the index on the node's disk under the same name.
	return g
}

func (g *rig) target(t *testing.T) Target {
	t.Helper()
	d, err := OpenDir(g.disk, "/t")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (g *rig) options(t *testing.T, m *memory) Options {
	return Options{
		Snapshot: func(context.Context) (Snapshot, error) { return m, nil }, Target: g.target(t), Recipients: []string{g.key.to},
		Dir: g.dir, FS: g.node, BundleSize: 200 << 10, Host: "host",
	}
}

func (g *rig) back(t *testing.T, m *memory) *Result {
	t.Helper()
	out, err := Run(t.Context(), g.options(t, m))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (g *rig) open(t *testing.T) *Repository {
	t.Helper()
	r, err := Open(t.Context(), g.target(t))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (g *rig) reader(t *testing.T, id string) *Reader {
	t.Helper()
	repo := g.open(t)
	b, err := repo.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	rd, err := repo.Read(t.Context(), b, []age.Identity{g.key.id}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rd.Close(); err != nil {
			t.Error(err)
		}
	})
	return rd
}

// same compares what a reader gives with the snapshot.
func same(t *testing.T, m *memory, rd *Reader) {
	t.Helper()
	for _, table := range store.Tables() {
		var got []store.Record
		for r, err := range rd.Rows(t.Context(), table.Name, 0) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		if !reflect.DeepEqual(got, m.tables[table.Name]) {
			t.Fatalf("table %s: %d rows of %d", table.Name, len(got), len(m.tables[table.Name]))
		}
	}
	n := 0
	for c, err := range rd.Contents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := rd.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
		if err = errors.Join(err, b.Close()); err != nil || !bytes.Equal(got, m.contents[n]) {
			t.Fatalf("content %d: %v", c.ID, err)
		}
		n++
	}
	if n != len(m.contents) {
		t.Fatalf("%d contents of %d", n, len(m.contents))
	}
}

func TestWhatIsBackedUpIsReadBack(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(120)
	m.contents = append(m.contents, nil, bytes.Repeat([]byte("large "), 3<<20)) // one that is not held in memory
	m.tables["entry"] = append(m.tables["entry"], store.Record{Columns: m.tables["entry"][0].Columns, Values: []any{int64(-1), "text", []byte{}}})
	out := g.back(t, m)
	same(t, m, g.reader(t, out.ID))
	if c := out.Manifest.Counts; c.Accounts != 1 || c.Messages != 121 || c.Contents != 122 || c.Damaged != 0 {
		t.Errorf("counts %+v", c)
	}
	for _, table := range []string{"entry", "message"} {
		for r, err := range g.reader(t, "").Rows(t.Context(), table, 2) {
			t.Errorf("%s has %v, %v of an account that isn't there", table, r, err)
		}
	}
}

func TestTheSecondBackupSendsWhatIsNew(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	first := g.back(t, filled(400))
	m := filled(410)
	second := g.back(t, m)
	if second.Sent > first.Sent/4 {
		t.Errorf("the first sent %d octets, the second %d", first.Sent, second.Sent)
	}
	same(t, m, g.reader(t, second.ID))
	same(t, filled(400), g.reader(t, first.ID))

	for name, change := range map[string]func(*Options){
		"without the index": func(o *Options) { o.FS = crashfs.New() },
		"when it is asked":  func(o *Options) { o.Full = true },
		"for another key":   func(o *Options) { o.Recipients = append(o.Recipients, newKey(t).to) },
	} {
		o := g.options(t, m)
		change(&o)
		out, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if out.Sent < first.Sent {
			t.Errorf("%s: sent %d octets of %d", name, out.Sent, first.Sent)
		}
	}
}

func TestWithoutRecipientsNothingIsWritten(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	for _, to := range [][]string{nil, {"age1nonsense"}, {g.key.to, hybrid(t)}} {
		o := g.options(t, filled(1))
		o.Recipients = to
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("a backup for %v was made", to)
		}
	}
	if _, err := Open(t.Context(), g.target(t)); !errors.Is(err, ErrNoRepository) {
		t.Errorf("the target: %v", err)
	}
}

func hybrid(t *testing.T) string {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

func TestHybridRecipientsAreServed(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(3)
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	g.key = key{id, id.Recipient().String()}
	same(t, m, g.reader(t, g.back(t, m).ID))
}

// TestTheTargetTellsNothing looks for what must not be there in the clear: text of messages, and hashes by which whoever has a message could find out who
// else got it.
func TestTheTargetTellsNothing(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(20)
	g.back(t, m)
	target := g.target(t)
	for _, dir := range []string{"", bundleDir, catalogDir, manifestDir} {
		list, err := target.List(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			b, err := getWhole(t.Context(), target, o.Name, 1<<30)
			if err != nil {
				t.Fatal(err)
			}
			all := o.Name + string(b)
			for i, c := range m.contents {
				sum := sha256.Sum256(c)
				if strings.Contains(all, fmt.Sprintf("message %d", i)) || strings.Contains(all, string(sum[:8])) || strings.Contains(all, fmt.Sprintf("%x", sum[:8])) {
					t.Fatalf("%s tells of content %d", o.Name, i)
				}
			}
			if strings.Contains(all, "李") {
				t.Errorf("%s tells a name", o.Name)
			}
		}
	}
}

func TestADamagedContentHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(30)
	m.broken = map[int]bool{7: true}
	out := g.back(t, m)
	if out.Manifest.Counts.Damaged != 1 || len(out.Damaged) != 1 {
		t.Fatalf("%d damaged, %v", out.Manifest.Counts.Damaged, out.Damaged)
	}
	rd := g.reader(t, out.ID)
	for c, err := range rd.Contents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		b, err := rd.Open(t.Context(), c)
		if c.ID == 7 {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("the damaged one: %v", err)
			}
			continue
		}
		if err != nil || b.Size() != c.Size {
			t.Errorf("content %d: %v", c.ID, err)
		}
	}
	// What an earlier backup has is not asked for again.
	g2, whole := newRig(t), filled(30)
	g2.back(t, whole)
	whole.broken = m.broken
	if out := g2.back(t, whole); out.Manifest.Counts.Damaged != 0 {
		t.Errorf("%d damaged although the repository has it", out.Manifest.Counts.Damaged)
	}
}

func TestAStoreThatCanNotBeReadNowIsNotTakenForDamaged(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(30)
	m.away = errors.New("the bucket does not answer")
	if out, err := Run(t.Context(), g.options(t, m)); !errors.Is(err, m.away) {
		t.Fatalf("%v, and a backup %+v", err, out)
	}
	if list, _, err := g.open(t).List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("listed: %v, %v", list, err)
	}
	m.away = fmt.Errorf("%w: a sector", syscall.EIO) // here it stands, and stays as it is
	if out := g.back(t, m); out.Manifest.Counts.Damaged != 30 {
		t.Errorf("%d damaged", out.Manifest.Counts.Damaged)
	}
	m.away = nil
	if out := g.back(t, m); out.Manifest.Counts.Damaged != 0 {
		t.Errorf("%d damaged", out.Manifest.Counts.Damaged)
	}
}

func TestABundleThatIsLostHarmsOnlyWhatIsInIt(t *testing.T) {
	t.Parallel()
	for what, harm := range map[string]func(g *rig, file string, p Part) error{
		"gone":           func(g *rig, file string, _ Part) error { return g.disk.Remove(file) },
		"its index":      func(g *rig, file string, p Part) error { return g.disk.Flip(file, p.Size-int64(trailerSize)-1, 2) },
		"for whom it is": func(g *rig, file string, _ Part) error { return g.disk.Flip(file, 100, 2) },
		"its trailer":    func(g *rig, file string, p Part) error { return g.disk.Flip(file, p.Size-1, 2) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			g, m := newRig(t), filled(60)
			o := g.options(t, m)
			o.BundleSize = 100_000
			out, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			var mail []Part
			for _, p := range out.Manifest.Bundles {
				if p.Kind == Mail {
					mail = append(mail, p)
				}
			}
			if err := harm(g, "/t/"+mail[1].Name, mail[1]); err != nil {
				t.Fatal(err)
			}
			rd := g.reader(t, out.ID)
			lost := 0
			for c, err := range rd.Contents(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				switch _, err := rd.Open(t.Context(), c); {
				case errors.Is(err, store.ErrCorrupt):
					lost++
				case err != nil:
					t.Fatalf("content %d: %v", c.ID, err)
				}
			}
			if lost == 0 || lost > 60/2 {
				t.Errorf("%d of 60 in one of %d bundles are lost", lost, len(mail))
			}
		})
	}
	g, m := newRig(t), filled(60)
	out := g.back(t, m)
	rd := g.reader(t, out.ID)
	for _, err := range rd.Contents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := g.disk.Rename("/t", "/u"); err != nil {
		t.Fatal(err)
	}
	_, err := rd.Open(t.Context(), store.ContentInfo{ID: 1, Sum: sha256.Sum256(m.contents[0]), Size: int64(len(m.contents[0]))})
	if err == nil || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a target that is gone: %v", err)
	}
}

func verify(t *testing.T, g *rig, id string, ids ...age.Identity) *Verified {
	t.Helper()
	repo := g.open(t)
	b, err := repo.Find(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	v, err := repo.Verify(t.Context(), b, VerifyOptions{Identities: ids})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVerifyFindsWhatWasChangedOrLost(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	out := g.back(t, filled(60))
	for _, ids := range [][]age.Identity{nil, {g.key.id}} {
		if v := verify(t, g, out.ID, ids...); len(v.Problems) > 0 || v.Objects != int64(len(out.Manifest.Bundles)+1) || v.Deep && v.Contents != 60 {
			t.Fatalf("sound: %+v", v)
		}
	}
	for i, p := range out.Manifest.Bundles {
		file := "/t/" + p.Name
		if err := g.disk.Flip(file, p.Size/2, 4); err != nil {
			t.Fatal(err)
		}
		for _, ids := range [][]age.Identity{nil, {g.key.id}} {
			if v := verify(t, g, out.ID, ids...); !slices.Equal(v.Bad, []string{p.Name}) {
				t.Errorf("bundle %d with a flipped bit: %+v", i, v)
			}
		}
		if err := g.disk.Flip(file, p.Size/2, 4); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.disk.Remove("/t/" + out.Manifest.Bundles[0].Name); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, g, out.ID); len(v.Bad) != 1 {
		t.Errorf("a bundle is gone: %+v", v)
	}
	// The next backup notices, and is whole again.
	if v := verify(t, g, g.back(t, filled(60)).ID, g.key.id); len(v.Problems) > 0 {
		t.Errorf("after the next backup: %+v", v)
	}
	repo := g.open(t)
	b, err := repo.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Verify(t.Context(), b, VerifyOptions{Identities: []age.Identity{newKey(t).id}}); !errors.Is(err, ErrIdentity) {
		t.Errorf("another identity: %v", err)
	}
}

func TestAManifestThatWasChangedIsNotBelieved(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	out := g.back(t, filled(3))
	if err := g.disk.Flip("/t/"+manifestDir+out.ID+manifestExt, 100, 1); err != nil {
		t.Fatal(err)
	}
	repo := g.open(t)
	if _, err := repo.Find(t.Context(), out.ID); err == nil {
		t.Error("found")
	}
	list, problems, err := repo.List(t.Context())
	if err != nil || len(list) != 0 || len(problems) != 1 {
		t.Errorf("list %v, problems %v, %v", list, problems, err)
	}
	o := g.options(t, filled(4))
	o.Keep = Retention{Daily: 1}
	if out, err := Run(t.Context(), o); err == nil || out == nil || out.ID == "" {
		t.Errorf("old backups were removed beside one that nobody can read: %v", err)
	}
}

// TestACrashAnywhere has the disk of the target fail, and lose power, at each call. What is listed then is whole, and the
// next run makes a whole backup.
func TestACrashAnywhere(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(25)
	first := g.back(t, m)
	m = filled(60)
	calls := 0
	probe := *g
	probe.disk = g.disk.Crash(1)
	probe.disk.SetObserver(func(crashfs.Op, error) { calls++ })
	probe.back(t, m)
	for n := 1; n <= calls; n++ {
		torn := *g
		torn.disk, torn.node = g.disk.Crash(1), g.node.Crash(1)
		count, dead := 0, errors.New("the disk is gone")
		torn.disk.SetHook(func(crashfs.Op) error {
			if count++; count > n {
				return dead
			}
			return nil
		})
		_, err := Run(t.Context(), torn.options(t, m))
		if n < calls && err == nil {
			continue // the end of the lease alone
		}
		torn.disk, torn.node = torn.disk.Crash(uint64(n)), torn.node.Crash(uint64(n))
		list, problems, err := torn.open(t).List(t.Context())
		if err != nil || len(problems) > 0 || len(list) == 0 {
			t.Fatalf("call %d: %d backups, %v, %v", n, len(list), problems, err)
		}
		if n%7 != 0 {
			continue // the rest is slow
		}
		for _, b := range list {
			if v := verify(t, &torn, b.ID, g.key.id); len(v.Problems) > 0 {
				t.Fatalf("call %d: backup %s: %v", n, b.ID, v.Problems)
			}
		}
		o := torn.options(t, m)
		o.Clock = func() time.Time { return time.Now().Add(time.Hour) } // a lease that was left has run out
		out, err := Run(t.Context(), o)
		if err != nil {
			t.Fatalf("call %d: the next run: %v", n, err)
		}
		same(t, m, torn.reader(t, out.ID))
		same(t, filled(25), torn.reader(t, first.ID))
	}
}

func TestAFullTargetIsToldAndTheNextRunGoesOn(t *testing.T) {
	t.Parallel()
	g, m := newRig(t), filled(200)
	g.disk.SetCapacity(800 << 10)
	_, err := Run(t.Context(), g.options(t, m))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v", err)
	}
	if list, _, err := g.open(t).List(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("%d backups are listed, %v", len(list), err)
	}
	before := g.disk.Used()
	g.disk.SetCapacity(-1)
	out := g.back(t, m)
	if before < 200<<10 || out.Sent > g.disk.Used()-before/2 {
		t.Errorf("%d octets were there, %d were sent again of %d", before, out.Sent, g.disk.Used())
	}
	same(t, m, g.reader(t, out.ID))
}

func TestOneChangesARepositoryAtATime(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	now := time.Now()
	clock := func() time.Time { return now }
	l, err := takeLease(t.Context(), g.target(t), clock, "a test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), g.options(t, filled(1))); !errors.Is(err, ErrBusy) {
		t.Fatalf("beside another: %v", err)
	}
	o := g.options(t, filled(1))
	o.Clock = func() time.Time { return now.Add(2 * leaseTime) }
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatalf("a lease that ran out: %v", err)
	}
	if err := l.check(t.Context()); err == nil {
		t.Error("who was taken over from doesn't notice")
	}
	if err := l.end(); err != nil {
		t.Error(err)
	}
	g.back(t, filled(1))
}

func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	var list []Backup
	for at := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC); at.Before(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)); at = at.Add(12 * time.Hour) {
		list = append(list, Backup{at.Format(time.RFC3339), &Manifest{Created: at}})
	}
	for _, c := range []struct {
		keep Retention
		want int
		has  string
	}{
		{Retention{Daily: 7}, 7, "2026-03-25T13:00:00Z"},
		{Retention{Weekly: 3}, 3, "2026-03-22T13:00:00Z"},
		{Retention{Monthly: 12}, 3, "2026-01-31T13:00:00Z"},
		{Retention{Daily: 2, Monthly: 2}, 3, "2026-02-28T13:00:00Z"},
	} {
		stays := c.keep.choose(list)
		if len(stays) != c.want || !stays[c.has] || !stays[list[len(list)-1].ID] {
			t.Errorf("%+v keeps %v", c.keep, slices.Sorted(maps.Keys(stays)))
		}
	}
}

func TestOldBackupsGoWithWhatNobodyElseNeeds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, err := OpenDir(durable.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	g := newRig(t)
	now := time.Now()
	run := func(m *memory, at time.Time, keep Retention) *Result {
		m.at = at
		o := g.options(t, m)
		o.Target, o.Keep, o.Clock = target, keep, func() time.Time { return at }
		out, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	old := filled(50)
	first := run(old, now, Retention{})
	m := &memory{tables: old.tables, contents: old.contents[:10]}
	run(m, now.AddDate(0, 0, 1), Retention{})
	last := run(m, now.AddDate(0, 0, 3), Retention{Daily: 1})
	if last.Pruned.Backups != 2 || last.Pruned.Objects == 0 {
		t.Errorf("pruned %+v", last.Pruned)
	}
	repo, err := Open(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := repo.List(t.Context())
	if err != nil || len(list) != 1 || list[0].ID != last.ID {
		t.Fatalf("left: %v, %v", list, err)
	}
	v, err := repo.Verify(t.Context(), list[0], VerifyOptions{Identities: []age.Identity{g.key.id}})
	if err != nil || len(v.Problems) > 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := repo.Find(t.Context(), first.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the first: %v", err)
	}
}

func TestABackupOfANewerProgramSaysSo(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	o := g.options(t, filled(3))
	o.Schema = 30
	out, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := g.open(t).Find(t.Context(), out.ID)
	if err != nil || b.Manifest.Program == "" {
		t.Fatalf("made by %q, %v", b.Manifest.Program, err)
	}
	if err := b.Newer(29); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "schema 30") {
		t.Errorf("a program that knows 29: %v", err)
	}
	if err := b.Newer(30); err != nil {
		t.Errorf("a program that knows 30: %v", err)
	}
	old := Backup{out.ID, &Manifest{}} // of a program that didn't write it down
	if err := old.Newer(1); err != nil {
		t.Error(err)
	}
}

// TestBundlesThatAreMostlyDeadAreWrittenAnew lets most mail go: the backup after next needs the old bundles no more, and when
// the old backups go the target shrinks to what is needed.
func TestBundlesThatAreMostlyDeadAreWrittenAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, err := OpenDir(durable.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	g, now := newRig(t), time.Now()
	all := filled(200)
	few := &memory{tables: map[string][]store.Record{}, broken: map[int]bool{}}
	for i := 0; i < len(all.contents); i += 10 {
		few.contents = append(few.contents, all.contents[i])
	}
	run := func(m *memory, day int) *Result {
		m.at = now.AddDate(0, 0, day)
		o := g.options(t, m)
		o.Target, o.Keep, o.Clock = target, Retention{Daily: 1}, func() time.Time { return m.at }
		out, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := run(all, 0)
	second := run(few, 2)
	if second.Pruned.Repacked == 0 || second.Sent > first.Sent/10 {
		t.Fatalf("the second sent %d of %d octets, and pruned %+v", second.Sent, first.Sent, second.Pruned)
	}
	third := run(few, 4)
	if third.Sent < first.Sent/20 || third.Sent > first.Sent/5 {
		t.Errorf("the third sent %d octets, the first %d", third.Sent, first.Sent)
	}
	repo, err := Open(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	b, err := repo.Find(t.Context(), third.ID)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := repo.Verify(t.Context(), b, VerifyOptions{Identities: []age.Identity{g.key.id}}); err != nil || len(v.Problems) > 0 || v.Contents != int64(len(few.contents)) {
		t.Fatalf("%+v, %v", v, err)
	}
	size := func() (octets int64) {
		list, err := target.List(t.Context(), bundleDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range list {
			octets += o.Size
		}
		return octets
	}
	old := time.Now().AddDate(0, 0, -3)
	list, err := target.List(t.Context(), bundleDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list { // as if they were as old as the clock says
		if err := os.Chtimes(filepath.Join(dir, o.Name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	last := run(few, 6)
	if last.Pruned.Objects == 0 || last.Sent > third.Sent/2 || size() > first.Sent/4 {
		t.Errorf("the last sent %d octets, pruned %+v, and %d are left of %d", last.Sent, last.Pruned, size(), first.Sent)
	}
}

func TestARateIsKept(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	o := g.options(t, filled(40))
	ctx, cancel := context.WithCancel(t.Context())
	o.Rate = 1 // an octet a second: it would take days
	o.Progress = func(p Progress) {
		if p.Contents == 40 {
			cancel()
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if list, _, err := g.open(t).List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("%d backups, %v", len(list), err)
	}
}
