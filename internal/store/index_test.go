package store

import (
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func TestRecordIsSmall(t *testing.T) {
	t.Parallel()
	if n := unsafe.Sizeof(record{}); n > 48 {
		t.Errorf("a record takes %d octets", n)
	}
}

// TestGenerationsKeepTheirLists makes generations by appending and removing and compares all of them with plain lists: the
// old ones must not change however the new ones grow.
func TestGenerationsKeepTheirLists(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		type kept struct {
			g    *generation
			list []UID
		}
		g := &generation{}
		var list []UID
		var old []kept
		next := UID(1)
		compare := func(g *generation, n int, list []UID) {
			if n != len(list) {
				rt.Fatalf("%d entries, want %d", n, len(list))
			}
			for i, u := range list {
				if g.at(i).uid != u || g.find(u) != i {
					rt.Fatalf("entry %d: %d at %d, want %d", i, g.at(i).uid, g.find(u), u)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				for range rapid.IntRange(1, 700).Draw(rt, "n") {
					next += UID(rapid.IntRange(0, 1).Draw(rt, "gap"))
					g.append(record{uid: next, modseq: ModSeq(next)})
					list = append(list, next)
					next++
				}
			},
			"remove": func(rt *rapid.T) {
				if len(list) == 0 {
					rt.Skip("empty")
				}
				step := rapid.IntRange(1, 50).Draw(rt, "step")
				from := rapid.IntRange(0, len(list)-1).Draw(rt, "from")
				to := rapid.IntRange(from, len(list)).Draw(rt, "to")
				gone := []UID{}
				var left []UID
				for i, u := range list {
					if i >= from && i < to && (i-from)%step == 0 {
						gone = append(gone, u)
						continue
					}
					left = append(left, u)
				}
				old = append(old, kept{g, list})
				before := g
				g = g.without(append(slices.Clone(gone), next+5)) // one that does not exist
				if !slices.Equal(before.removed, gone) || before.next != g {
					rt.Fatalf("removed %v, want %v", before.removed, gone)
				}
				list = left
			},
			"": func(rt *rapid.T) {
				compare(g, g.total, list)
				if g.find(next+1) != g.total {
					rt.Fatal("found what is not there")
				}
				for _, k := range old {
					compare(k.g, k.g.total, k.list)
				}
				if limit := 2 + 4*g.total/chunkSize; len(g.chunks) > limit {
					rt.Fatalf("%d chunks for %d entries", len(g.chunks), g.total)
				}
			},
		})
	})
}

// TestALoadTakesEachChangeOnce gives a load changes that were committed before its snapshot and after it.
func TestALoadTakesEachChangeOnce(t *testing.T) {
	t.Parallel()
	ix := newIndex(&account{}, 1, 1, nil)
	load := &indexLoad{done: make(chan struct{})}
	ix.loading = load
	ix.apply(&event{modseq: 5, added: []record{{uid: 3, modseq: 5}}})
	ix.apply(&event{modseq: 6, removed: []UID{1}})
	ix.apply(&event{modseq: 7, added: []record{{uid: 4, modseq: 7}}})
	read := &generation{}
	for uid := UID(1); uid <= 3; uid++ {
		read.append(record{uid: uid, modseq: 5})
	}
	ix.finish(load, read, 5, nil)
	<-load.done
	var got []UID
	for i := range ix.gen.total {
		got = append(got, ix.gen.at(i).uid)
	}
	if !slices.Equal(got, []UID{2, 3, 4}) || ix.modseq != 7 || ix.loading != nil {
		t.Errorf("entries %v, MODSEQ %d", got, ix.modseq)
	}
}

func TestUIDSetsBecomeRanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		in := rapid.SliceOf(rapid.OneOf(rapid.Uint32Range(0, 40), rapid.Uint32Range(4294967290, 4294967295))).Draw(rt, "uids")
		uids := make([]UID, len(in))
		want := map[UID]bool{}
		for i, u := range in {
			uids[i] = UID(u)
			if u != 0 {
				want[UID(u)] = true
			}
		}
		set := uidSetOf(uids)
		for i, r := range set {
			if r.lo > r.hi || i > 0 && uint64(set[i-1].hi)+1 >= uint64(r.lo) {
				rt.Fatalf("ranges %v", set)
			}
			for u := uint64(r.lo); u <= uint64(r.hi); u++ {
				if !want[UID(u)] {
					rt.Fatalf("%d is in %v", u, set)
				}
				delete(want, UID(u))
			}
		}
		if len(want) > 0 {
			rt.Fatalf("%v are not in %v", want, set)
		}
	})
}
