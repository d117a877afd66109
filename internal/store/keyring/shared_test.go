package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing/internal/durable"
)

// table is a Home in memory, shared by several rings.
type table struct {
	mu         sync.Mutex
	generation int64
	text       [2][]byte
	err        error
}

func (h *table) Read(context.Context) []Copy {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []Copy{{Name: "one"}, {Name: "two"}}
	for i := range out {
		out[i].Text, out[i].Err = bytes.Clone(h.text[i]), h.err
		if h.err == nil && h.text[i] == nil {
			out[i].Err = fs.ErrNotExist
		}
	}
	return out
}

func (h *table) Write(_ context.Context, old, generation int64, text []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	if h.generation != old {
		return ErrStale
	}
	h.generation, h.text = generation, [2][]byte{bytes.Clone(text), bytes.Clone(text)}
	return nil
}

func (h *table) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

func (*table) String() string { return "the table" }

// clock goes as it is told.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// nodes is what several nodes share: a home, and a master key in a file of each.
func nodes(t *testing.T, n int) (*table, *clock, []*rig) {
	t.Helper()
	home, c, m := &table{}, &clock{now: day}, master(t)
	var list []*rig
	for range n {
		g := newRig(t)
		g.opt.Home, g.opt.Clock = home, c.Now
		if err := durable.WriteFile(g.disk, g.opt.Source.File, []byte(m.Text()), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, g)
	}
	return home, c, list
}

func TestARotationIsKnownToOtherNodesBeforeItsRecords(t *testing.T) {
	t.Parallel()
	home, c, g := nodes(t, 2)
	a := g[0].make(t)
	if _, err := Create(t.Context(), g[1].opt, true); !errors.Is(err, ErrExists) {
		t.Error("a second node made keys of its own:", err)
	}
	b := g[1].open(t)
	if _, err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	id, box := sealed(t, a, "new")
	if err := opens(b, id, box, "new"); err != nil {
		t.Error("the other node:", err)
	}
	if got, _ := sealed(t, b, "at once"); got != id {
		t.Errorf("sealed under %08x after it had met %08x", got, id)
	}
	next, err := b.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := sealed(t, a, "soon"); got == uint32(next) {
		t.Error("the first node asks each time")
	}
	c.sleep(followEvery)
	if got, _ := sealed(t, a, "later"); got != uint32(next) {
		t.Errorf("still %08x, rotated to %s", got, next)
	}
	select {
	case <-a.Changed():
	default:
		t.Error("nothing is encrypted anew after a rotation elsewhere")
	}
	for _, x := range []*Ring{a, b} {
		if k := x.Info().Keys; len(k) != 3 || k[2].State != InUse {
			t.Errorf("%+v", k)
		}
	}
	home.fail(errors.New("no connection"))
	if key, err := a.Key(12345); err == nil || key != nil {
		t.Error("a key that can't be looked for counts as missing")
	}
	c.sleep(followEvery)
	if got, _ := sealed(t, a, "alone"); got != uint32(next) {
		t.Error("without the home nothing is sealed")
	}
	home.fail(nil)
	if key, err := a.Key(12345); err != nil || key != nil {
		t.Error("an unknown key:", err)
	}
}

// TestNodesThatChangeKeysTogetherLoseNothing rotates, counts and confirms on several nodes at the same time: what any of them
// sealed opens on all.
func TestNodesThatChangeKeysTogetherLoseNothing(t *testing.T) {
	t.Parallel()
	_, _, g := nodes(t, 4)
	rings := []*Ring{g[0].make(t)}
	for _, x := range g[1:] {
		rings = append(rings, x.open(t))
	}
	type box struct {
		id   uint32
		data []byte
	}
	var mu sync.Mutex
	var boxes []box
	var work sync.WaitGroup
	for i, r := range rings {
		work.Go(func() {
			for j := range 20 {
				if (i+j)%3 == 0 {
					if _, err := r.Rotate(); err != nil {
						t.Error(err)
					}
				}
				id, key, err := r.Seal(blockStep / 2)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				boxes = append(boxes, box{id, key.Seal(nil, make([]byte, nonceSize), []byte("letter"), nil)})
				mu.Unlock()
			}
		})
	}
	work.Wait()
	counts := map[uint32]int64{}
	for _, b := range boxes {
		counts[b.id] += blockStep / 2
		for i, r := range append(rings, g[0].open(t)) {
			if err := opens(r, b.id, b.data, "letter"); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		}
	}
	for _, k := range g[0].open(t).Info().Keys {
		if k.Blocks < counts[uint32(k.ID)] {
			t.Errorf("%s: %d blocks recorded, %d sealed", k.ID, k.Blocks, counts[uint32(k.ID)])
		}
	}
}

func TestASharedMasterKeyIsChangedOnAllNodes(t *testing.T) {
	t.Parallel()
	_, c, g := nodes(t, 3)
	a, b, late := g[0].make(t), g[1].open(t), g[2].open(t)
	if _, err := a.Rewrap(""); err == nil || !strings.Contains(err.Error(), "each node") {
		t.Error("the other nodes were left without the new key:", err)
	}
	next := master(t)
	for _, x := range g[:2] { // the third node is forgotten
		if err := WriteMaster(x.disk, g[0].opt.Source.File+newSuffix, next, day); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Rewrap(g[0].opt.Source.File + newSuffix); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	id, box := sealed(t, a, "under the new master key")
	if err := opens(b, id, box, "under the new master key"); err != nil {
		t.Error(err)
	}
	if err := opens(g[1].open(t), id, box, "under the new master key"); err != nil {
		t.Error("after a restart:", err)
	}
	c.sleep(followEvery)
	if key, err := late.Key(id); key != nil || !errors.Is(err, ErrMaster) || !strings.Contains(err.Error(), next.id.String()) {
		t.Error("the forgotten node:", err)
	}
	if _, err := Open(t.Context(), g[2].opt); !errors.Is(err, ErrMaster) || !strings.Contains(fmt.Sprint(err), "the table") {
		t.Error("the forgotten node starts:", err)
	}
}

// TestASharedCopyThatIsDamagedIsHealed flips a bit of either copy.
func TestASharedCopyThatIsDamagedIsHealed(t *testing.T) {
	t.Parallel()
	home, _, g := nodes(t, 1)
	id, box := sealed(t, g[0].make(t), "letter")
	for i := range home.text {
		home.text[i][100] ^= 4
		if err := opens(g[0].open(t), id, box, "letter"); err != nil {
			t.Errorf("copy %d: %v", i, err)
		}
		if !bytes.Equal(home.text[0], home.text[1]) {
			t.Errorf("copy %d was not written anew", i)
		}
	}
	home.text[0][100] ^= 4
	home.text[1][100] ^= 4
	if _, err := Open(t.Context(), g[0].opt); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}
