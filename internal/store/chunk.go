package store

import "sort"

// chunkSize is how many entries stand together, unless Options say otherwise: what an expunge copies for each stretch of
// entries that it touches, and what is read at a time when records are needed that are not in memory.
const chunkSize = 1024

// chunk is a stretch of entries in the order of their UIDs. Generations share it until an expunge needs another; flags are
// changed in place, so that a generation that is not the newest may show old ones: see View.
//
// The records of a large mailbox are read when something asks for them. Until then the chunk knows its UIDs as runs, and
// notes of what changes that it changed.
type chunk struct {
	recs   []record // nil: not in memory
	unseen int      // of recs
	maxMod ModSeq   // at least the highest MODSEQ of the entries

	uids uidSet     // instead of recs
	n    int        // of uids
	read *chunkRead // the records are being read
}

// chunkRead is the reading of a chunk's records. Changes that are committed meanwhile are kept, and made once they are there.
type chunkRead struct {
	done   chan struct{}
	err    error
	missed []func()
}

func (c *chunk) loaded() bool { return c.recs != nil }

func (c *chunk) len() int {
	if c.loaded() {
		return len(c.recs)
	}
	return c.n
}

func (c *chunk) first() UID {
	if c.loaded() {
		return c.recs[0].uid
	}
	return c.uids[0].lo
}

func (c *chunk) last() UID {
	if c.loaded() {
		return c.recs[len(c.recs)-1].uid
	}
	return c.uids[len(c.uids)-1].hi
}

// uid returns the UID at a position from 0.
func (c *chunk) uid(j int) UID {
	if c.loaded() {
		return c.recs[j].uid
	}
	return c.uids.at(j)
}

// find returns the position of the first entry with a UID of at least uid, len when there is none.
func (c *chunk) find(uid UID) int {
	if c.loaded() {
		return sort.Search(len(c.recs), func(j int) bool { return c.recs[j].uid >= uid })
	}
	return c.uids.below(uid)
}

// set returns the UIDs.
func (c *chunk) set() uidSet {
	if !c.loaded() {
		return c.uids
	}
	var set uidSet
	for i := range c.recs {
		set = set.add(c.recs[i].uid)
	}
	return set
}

// octets is about what the chunk takes in memory.
func (c *chunk) octets() int64 {
	return int64(cap(c.recs))*48 + int64(len(c.uids))*8 + 150
}

// note counts a record that came into recs. A record without a message stands for an entry that is gone already; see install.
func (c *chunk) note(r *record) {
	c.maxMod = max(c.maxMod, r.modseq)
	if r.flags&Seen == 0 && r.message != 0 {
		c.unseen++
	}
}

// replace changes a record in place and keeps the summary.
func (c *chunk) replace(j int, r *record) {
	if c.recs[j].flags&Seen == 0 && c.recs[j].message != 0 {
		c.unseen--
	}
	c.recs[j] = *r
	c.note(r)
}

// without returns the chunk without some UIDs, and adds those that were there to removed.
func (c *chunk) without(uids, removed []UID) (*chunk, []UID) {
	left := &chunk{maxMod: c.maxMod}
	if !c.loaded() {
		left.uids, removed = c.uids.without(uids, removed)
		left.n = left.uids.count()
		return left, removed
	}
	left.maxMod, left.recs = 0, make([]record, 0, len(c.recs))
	for i := range c.recs {
		r := &c.recs[i]
		for len(uids) > 0 && uids[0] < r.uid {
			uids = uids[1:]
		}
		if len(uids) > 0 && uids[0] == r.uid {
			removed = append(removed, r.uid)
			continue
		}
		left.recs = append(left.recs, *r)
		left.note(r)
	}
	return left, removed
}

// join returns one chunk of two; size is the room for records. Unless both have theirs in memory, they are read again when
// they are needed.
func (c *chunk) join(d *chunk, size int) *chunk {
	both := &chunk{maxMod: max(c.maxMod, d.maxMod)}
	if c.loaded() && d.loaded() {
		both.recs, both.unseen = make([]record, 0, size), c.unseen+d.unseen
		both.recs = append(append(both.recs, c.recs...), d.recs...)
		return both
	}
	both.n = c.len() + d.len()
	for _, set := range []uidSet{c.set(), d.set()} {
		for _, r := range set {
			both.uids = both.uids.addRange(r)
		}
	}
	return both
}

// flag changes flags of entries, given by UIDs within the chunk, which ascend. What a read brought may be newer.
func (c *chunk) flag(e *event, uids []UID) {
	c.maxMod = max(c.maxMod, e.modseq)
	if !c.loaded() {
		if c.read != nil {
			c.read.missed = append(c.read.missed, func() { c.flag(e, uids) })
		}
		return
	}
	j := 0 // UIDs ascend, so the place only moves forward
	for _, uid := range uids {
		if j < len(c.recs) && c.recs[j].uid < uid {
			rest := c.recs[j:]
			j += sort.Search(len(rest), func(k int) bool { return rest[k].uid >= uid })
		}
		if j == len(c.recs) {
			return
		}
		r := c.recs[j]
		if r.uid != uid || r.modseq >= e.modseq || r.message == 0 {
			continue
		}
		r.flags = r.flags&e.keepFlags | e.setFlags
		r.keywords = r.keywords&e.keepKeywords | e.setKeywords
		r.modseq = e.modseq
		c.replace(j, &r)
	}
}

// renew takes over a record as its row has it now, if it is newer.
func (c *chunk) renew(r record) {
	if !c.loaded() {
		c.maxMod = max(c.maxMod, r.modseq)
		if c.read != nil {
			c.read.missed = append(c.read.missed, func() { c.renew(r) })
		}
		return
	}
	j := c.find(r.uid)
	if j < len(c.recs) && c.recs[j].uid == r.uid && c.recs[j].modseq < r.modseq {
		c.replace(j, &r)
	}
}

// install takes over the rows that were read. An entry without a row was expunged by a commit that the index is still to be
// told of, or is lost: a record without a message keeps its place. It returns how many of these there are, and how many
// rows are no entries of the chunk.
func (c *chunk) install(rows []record) (lost, stray int) {
	recs := make([]record, 0, c.n)
	c.maxMod, c.unseen = 0, 0
	for _, run := range c.uids {
		for uid := uint64(run.lo); uid <= uint64(run.hi); uid++ {
			for len(rows) > 0 && uint64(rows[0].uid) < uid {
				rows, stray = rows[1:], stray+1
			}
			r := record{uid: UID(uid)}
			if len(rows) > 0 && uint64(rows[0].uid) == uid {
				r, rows = rows[0], rows[1:]
			} else {
				lost++
			}
			recs = append(recs, r)
			c.note(&r)
		}
	}
	c.recs, c.uids, c.n = recs, nil, 0
	return lost, stray + len(rows)
}

// unload gives the memory of the records back: they are read again when they are needed.
func (c *chunk) unload() {
	c.uids, c.n = c.set(), len(c.recs)
	c.recs, c.unseen = nil, 0
}
