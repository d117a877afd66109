package store

import (
	"bytes"
	"maps"
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
		g := &generation{size: chunkSize}
		var list []UID
		var old []kept
		next := UID(1)
		appends := 0
		compare := func(g *generation, n int, list []UID) {
			if n != len(list) {
				rt.Fatalf("%d entries, want %d", n, len(list))
			}
			for i, u := range list {
				if g.uid(i) != u || g.find(u) != i {
					rt.Fatalf("entry %d: %d at %d, want %d", i, g.uid(i), g.find(u), u)
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				appends++ // to a chunk that is not in memory, another is added
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
			"unload": func(rt *rapid.T) {
				for i, c := range g.chunks {
					if c.loaded() && (i == 0 || rapid.Bool().Draw(rt, "this")) {
						c.unload()
					}
				}
			},
			"install": func(rt *rapid.T) {
				for _, c := range g.chunks {
					if c.loaded() || rapid.Bool().Draw(rt, "not this") {
						continue
					}
					var rows []record
					for _, uid := range c.uids.list() {
						rows = append(rows, record{uid: uid, message: 1, modseq: ModSeq(uid)})
					}
					if lost, stray := c.install(rows); lost+stray > 0 || c.unseen != len(rows) {
						rt.Fatalf("%d lost, %d stray, %d unseen of %d", lost, stray, c.unseen, len(rows))
					}
				}
			},
			"": func(rt *rapid.T) {
				compare(g, g.total, list)
				if g.find(next+1) != g.total {
					rt.Fatal("found what is not there")
				}
				for _, k := range old {
					compare(k.g, k.g.total, k.list)
				}
				if limit := 2 + appends + 4*g.total/chunkSize; len(g.chunks) > limit {
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
	read := &generation{size: chunkSize}
	for uid := UID(1); uid <= 3; uid++ {
		read.append(record{uid: uid, modseq: 5})
	}
	ix.finish(load, entries{gen: read, modseq: 5}, nil)
	<-load.done
	var got []UID
	for i := range ix.gen.total {
		got = append(got, ix.gen.uid(i))
	}
	if !slices.Equal(got, []UID{2, 3, 4}) || ix.modseq != 7 || ix.loading != nil {
		t.Errorf("entries %v, MODSEQ %d", got, ix.modseq)
	}
}

// TestACommitThatIsPublishedLateIsTakenOnce tells an index of what the rows that it was made of have already.
func TestACommitThatIsPublishedLateIsTakenOnce(t *testing.T) {
	t.Parallel()
	ix := newIndex(&account{}, 1, 1, nil)
	ix.loading = &indexLoad{done: make(chan struct{})}
	read := &generation{size: chunkSize}
	for uid := UID(1); uid <= 3; uid++ {
		read.append(record{uid: uid, message: 1, modseq: 5})
	}
	ix.finish(ix.loading, entries{gen: read, modseq: 5}, nil)
	ix.apply(&event{modseq: 5, added: []record{{uid: 3, modseq: 5}}})
	ix.apply(&event{modseq: 6, added: []record{{uid: 4, modseq: 6}}})
	if ix.gen.total != 4 || ix.gen.last() != 4 {
		t.Errorf("%d entries up to %d", ix.gen.total, ix.gen.last())
	}
}

// TestAChunkTakesEachChangeOnce changes a chunk while its records are read, and afterwards, from rows that have some of the
// changes already.
func TestAChunkTakesEachChangeOnce(t *testing.T) {
	t.Parallel()
	ix := newIndex(&account{}, 1, 1, nil)
	ix.gen = newGeneration(8, uidSet{{1, 8}}, 5)
	c := ix.gen.chunks[0]
	c.read = &chunkRead{done: make(chan struct{})}
	add := func(modseq ModSeq, flags Flags, uids ...UID) {
		ix.apply(&event{modseq: modseq, flagged: uids, keepFlags: ^Flags(0), setFlags: flags})
	}
	add(6, Seen, 1, 2)
	add(8, Answered, 2, 3)
	rows := []record{{uid: 1, message: 1, modseq: 6, flags: Seen}, {uid: 2, message: 2, modseq: 7, flags: Seen | Draft}, {uid: 3, message: 3, modseq: 1}}
	for uid := UID(4); uid <= 7; uid++ {
		rows = append(rows, record{uid: uid, message: 4, modseq: 9, flags: Flagged})
	}
	if ix.install(c, append(rows, record{uid: 9, message: 9}), 9, nil) {
		t.Error("a difference is seen, but the index was not told of all that the rows have")
	}
	add(9, Flagged, 4, 5, 6, 7)
	want := []record{
		{uid: 1, message: 1, modseq: 6, flags: Seen},
		{uid: 2, message: 2, modseq: 8, flags: Seen | Draft | Answered},
		{uid: 3, message: 3, modseq: 8, flags: Answered},
	}
	want = append(append(want, rows[3:]...), record{uid: 8})
	if !slices.Equal(c.recs, want) || c.maxMod != 9 || c.unseen != 5 {
		t.Errorf("%+v\nwant %+v\nMODSEQ %d, %d unseen", c.recs, want, c.maxMod, c.unseen)
	}
}

// TestMapsGiveBackTheirUIDs records sets of UIDs and reads them.
func TestMapsGiveBackTheirUIDs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var uids uidSet
		next := UID(1)
		for range rapid.IntRange(1, 30).Draw(rt, "runs") {
			next += UID(rapid.SampledFrom([]int{0, 1, 2, 9, 4095, 4096, 9000}).Draw(rt, "gap"))
			n := UID(rapid.SampledFrom([]int{1, 2, 7, 4090, 4096, 5000}).Draw(rt, "taken"))
			uids = uids.addRange(uidRange{next, next + n - 1})
			next += n
		}
		next += UID(rapid.IntRange(0, 5000).Draw(rt, "behind"))
		m := &Mailbox{UIDNext: next, Messages: uint32(uids.count())}
		d := draftMap(m, uids)
		got := taken{from: 1, next: int64(next)}
		pages := slices.Sorted(maps.Keys(d.pages))
		for _, page := range pages {
			if err := got.page(page, d.pages[page].octets(page)); err != nil {
				rt.Fatal(err)
			}
		}
		got.lose(int64(next), int64(next)-1)
		if !slices.Equal(got.set, uids) || d.missing != m.missing() {
			rt.Fatalf("%v, want %v", got.set, uids)
		}
	})
}

// FuzzMapPage reads pages of any octets: what is accepted stays within the UIDs that were given out.
func FuzzMapPage(f *testing.F) {
	f.Add(int64(0), make([]byte, gapOctets), uint32(5000))
	f.Add(int64(1), []byte{}, uint32(9000))
	f.Add(int64(0), bytes.Repeat([]byte{0xff}, gapOctets), uint32(4096))
	f.Fuzz(func(t *testing.T, page int64, gone []byte, next uint32) {
		next = max(next, 1)
		m := taken{from: 1, next: int64(next)}
		if m.page(page, gone) != nil {
			return
		}
		m.lose(int64(next), int64(next)-1)
		last := UID(0)
		for _, r := range m.set {
			if r.lo > r.hi || r.lo <= last || uint64(r.hi) >= uint64(next) {
				t.Fatalf("ranges %v below %d", m.set, next)
			}
			last = r.hi
		}
		if lost := int64(next) - 1 - int64(m.set.count()); lost < 0 || lost > gapPage {
			t.Fatalf("%d of one page are gone", lost)
		}
	})
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
