package store

import (
	"slices"
	"sort"
	"sync"
)

// record is an entry in memory: 48 octets.
type record struct {
	modseq   ModSeq
	message  MessageID
	keywords uint64
	date     int64 // INTERNALDATE, seconds since 1970
	uid      UID
	size     uint32
	saved    uint32 // seconds since 1970
	flags    Flags
}

// generation is the list of a mailbox's entries between two expunges. New entries join the newest generation in place;
// an expunge makes a new one and leaves the old one to the Views that have not been told yet. They are linked from old to
// new, so those that no View holds are collected. Records are asked of the newest generation alone, UIDs of all.
type generation struct {
	size    int // of a chunk
	chunks  []*chunk
	starts  []int // starts[i]: entries before chunks[i]
	total   int
	next    *generation
	removed []UID // what next lacks, ascending
}

// newGeneration makes the list of these UIDs, whose records are still to be read; none has a MODSEQ above maxMod.
func newGeneration(size int, uids uidSet, maxMod ModSeq) *generation {
	g := &generation{size: size}
	c := &chunk{maxMod: maxMod}
	for _, r := range uids {
		for left := r.count(); left > 0; {
			n := min(left, size-c.n)
			c.uids = append(c.uids, uidRange{r.lo, r.lo + UID(n-1)})
			c.n += n
			if left -= n; left > 0 {
				r.lo += UID(n)
			}
			if c.n == size {
				g.push(c)
				c = &chunk{maxMod: maxMod}
			}
		}
	}
	if c.n > 0 {
		g.push(c)
	}
	return g
}

// push appends a chunk.
func (g *generation) push(c *chunk) {
	g.chunks = append(g.chunks, c)
	g.starts = append(g.starts, g.total)
	g.total += c.len()
}

// place returns the chunk of a position from 0 and the number in it.
func (g *generation) place(pos int) (*chunk, int) {
	i := sort.Search(len(g.starts), func(i int) bool { return g.starts[i] > pos }) - 1
	return g.chunks[i], pos - g.starts[i]
}

// uid returns the UID at a position from 0.
func (g *generation) uid(pos int) UID {
	c, j := g.place(pos)
	return c.uid(j)
}

// find returns the position of the first entry with a UID of at least uid: total when there is none.
func (g *generation) find(uid UID) int {
	i := sort.Search(len(g.chunks), func(i int) bool { return g.chunks[i].last() >= uid })
	if i == len(g.chunks) {
		return g.total
	}
	// The last chunk may have grown since a newer generation took over.
	return min(g.starts[i]+g.chunks[i].find(uid), g.total)
}

// lookup returns the place of the entry with this UID.
func (g *generation) lookup(uid UID) (c *chunk, j int, ok bool) {
	pos := g.find(uid)
	if pos >= g.total {
		return nil, 0, false
	}
	c, j = g.place(pos)
	return c, j, c.uid(j) == uid
}

// last returns the highest UID, 0 when there is none.
func (g *generation) last() UID {
	if g.total == 0 {
		return 0
	}
	return g.uid(g.total - 1)
}

// append adds an entry with a UID above all others. A chunk whose records are not in memory doesn't grow.
func (g *generation) append(r record) {
	n := len(g.chunks)
	if n == 0 || !g.chunks[n-1].loaded() || g.chunks[n-1].len() >= g.size {
		// The first chunks of a mailbox are small: most mailboxes are.
		size := g.size
		if n == 0 || !g.chunks[n-1].loaded() {
			size = min(size, 16)
		}
		g.push(&chunk{recs: make([]record, 0, size)})
		n++
	}
	c := g.chunks[n-1]
	c.recs = append(c.recs, r)
	c.note(&r)
	g.total++
}

// without makes the next generation, which lacks the UIDs (ascending). Chunks that lose nothing are shared; neighbours that
// have become small are joined, so that the number of chunks follows the number of entries.
func (g *generation) without(uids []UID) *generation {
	next := &generation{size: g.size, chunks: make([]*chunk, 0, len(g.chunks)), starts: make([]int, 0, len(g.starts))}
	removed := make([]UID, 0, len(uids))
	for _, c := range g.chunks {
		// An older generation may share the last chunk, but only the newest one gets here, and it knows all records.
		lo, hi := c.first(), c.last()
		n := sort.Search(len(uids), func(k int) bool { return uids[k] > hi })
		mine := uids[:n]
		uids = uids[n:]
		for len(mine) > 0 && mine[0] < lo {
			mine = mine[1:]
		}
		if len(mine) > 0 {
			c, removed = c.without(mine, removed)
		}
		next.add(c)
	}
	g.next, g.removed = next, removed
	return next
}

// add appends a chunk to a generation that is being made.
func (g *generation) add(c *chunk) {
	if c.len() == 0 {
		return
	}
	n := len(g.chunks)
	if n == 0 || g.chunks[n-1].len()+c.len() > g.size/2 {
		g.push(c)
		return
	}
	g.chunks[n-1] = g.chunks[n-1].join(c, g.size/2)
	g.total += c.len()
}

// changed adds the entries with a MODSEQ above since and a UID from one to another, and their sequence numbers. It stops at
// a chunk whose records must be read before.
func (g *generation) changed(since ModSeq, in uidRange, uids []UID, seqs []int) (_ []UID, _ []int, unread *chunk) {
	i := sort.Search(len(g.chunks), func(i int) bool { return g.chunks[i].last() >= in.lo })
	for ; i < len(g.chunks) && g.chunks[i].first() <= in.hi; i++ {
		c := g.chunks[i]
		switch {
		case c.maxMod <= since:
			continue
		case !c.loaded():
			return uids, seqs, c
		}
		for j := range c.recs {
			if r := &c.recs[j]; r.modseq > since && r.uid >= in.lo && r.uid <= in.hi {
				uids = append(uids, r.uid)
				seqs = append(seqs, g.starts[i]+j+1)
			}
		}
	}
	return uids, seqs, nil
}

// firstUnseen returns the UID of the first entry without \Seen, 0 when there is none; from is set when it can't be told
// since records from that UID on are not in memory. All entries below seenBelow have \Seen.
func (g *generation) firstUnseen(seenBelow UID) (uid, from UID) {
	for _, c := range g.chunks {
		switch {
		case !c.loaded() && c.last() >= seenBelow:
			return 0, max(c.first(), seenBelow)
		case !c.loaded() || c.unseen == 0:
			continue
		}
		i := slices.IndexFunc(c.recs, func(r record) bool { return r.flags&Seen == 0 && r.message != 0 })
		return c.recs[i].uid, 0
	}
	return 0, 0
}

// deleted returns the UIDs of the entries with \Deleted; unread when they can't be told since records are not in memory.
func (g *generation) deleted() (uids []UID, unread bool) {
	for _, c := range g.chunks {
		if !c.loaded() {
			return nil, true
		}
		for i := range c.recs {
			if c.recs[i].flags&Deleted != 0 {
				uids = append(uids, c.recs[i].uid)
			}
		}
	}
	return uids, false
}

// octets is about what the generation takes in memory.
func (g *generation) octets() int64 {
	var n int64 = 200
	for _, c := range g.chunks {
		n += c.octets()
	}
	return n
}

// event is what one operation did to the entries of one mailbox; it is applied to the index after the commit.
type event struct {
	box      MailboxID
	modseq   ModSeq
	added    []record // ascending UIDs
	flagged  []UID    // ascending; their flags become flags&keepFlags|setFlags, their keywords likewise
	removed  []UID    // ascending
	renewed  []record // ascending UIDs: entries as the rows have them, new ones or known ones; see refresh
	keywords []string // when not nil, the keywords by number
	refresh  bool     // read from the rows: what is known of it already does no harm
	whole    bool     // with refresh: there, and not removed, tells what vanished
	there    []UID    // ascending: all entries of the mailbox
	unmapped bool     // the map of UIDs was wrong: what was made of it must go

	keepFlags, setFlags       Flags
	keepKeywords, setKeywords uint64
}

// index is what is held in memory of one mailbox, shared by its Views. It exists for each mailbox of a cached account, but
// has no entries until a View needs them.
type index struct {
	acct *account
	box  MailboxID

	registered int64 // octets that indexes.used counts for it; guarded by indexes.mu

	mu        sync.RWMutex // guards what follows
	gen       *generation  // nil: not loaded
	loading   *indexLoad
	modseq    ModSeq // of the newest change in gen
	suspect   bool   // gen came from a map of UIDs that is wrong: it goes with the last View
	since     ModSeq // changes up to here were in the rows that gen was made of
	seenBelow UID    // the entries below have \Seen
	unreadAt  ModSeq // of the newest change that took \Seen from an entry
	keywords  []string
	lately    []*chunk // that were read last
	recent    UID      // entries from here on no session has been told of
	views     map[*View]struct{}
	gone      bool // the mailbox was deleted

	namesMu sync.Mutex
	names   map[uint64][]string // keyword sets as names, made when asked for
}

func newIndex(a *account, box MailboxID, recent UID, keywords []string) *index {
	return &index{acct: a, box: box, recent: recent, keywords: keywords}
}

// apply brings the index up to a committed change, and the Views of the mailbox are marked to be told of it.
func (ix *index) apply(e *event) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if e.keywords != nil {
		ix.setKeywords(e.keywords)
	}
	ix.suspect = ix.suspect || e.unmapped
	switch {
	case ix.gen != nil && e.modseq > ix.since:
		ix.change(e)
	case ix.loading != nil:
		ix.loading.missed = append(ix.loading.missed, *e)
	}
}

// change applies an event to the entries; ix.mu is held.
func (ix *index) change(e *event) {
	if e.refresh {
		ix.renew(e.renewed, e.removed)
		if e.whole {
			ix.loseOthers(e.there)
		}
		ix.modseq = max(ix.modseq, e.modseq)
		return
	}
	for i := range e.added {
		ix.gen.append(e.added[i])
	}
	if len(e.flagged) > 0 {
		ix.flag(e)
	}
	if len(e.removed) > 0 {
		ix.gen = ix.gen.without(e.removed)
	}
	ix.modseq = max(ix.modseq, e.modseq)
}

// flag changes flags in place.
func (ix *index) flag(e *event) {
	if e.keepFlags&Seen == 0 && e.setFlags&Seen == 0 {
		ix.unread(e.flagged[0], e.modseq)
	}
	uids := e.flagged
	for _, c := range ix.gen.chunks {
		if len(uids) == 0 {
			return
		}
		hi := c.last()
		n := sort.Search(len(uids), func(k int) bool { return uids[k] > hi })
		if n > 0 {
			c.flag(e, uids[:n])
		}
		uids = uids[n:]
	}
}

// unread notes that an entry may have lost \Seen, the first one being uid; ix.mu is held.
func (ix *index) unread(uid UID, modseq ModSeq) {
	ix.seenBelow = min(ix.seenBelow, uid)
	ix.unreadAt = max(ix.unreadAt, modseq)
}

// vanish marks the mailbox as deleted.
func (ix *index) vanish() {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.gone = true
}

// setKeywords takes over the keywords; ix.mu is held.
func (ix *index) setKeywords(keywords []string) {
	ix.keywords = keywords
	ix.namesMu.Lock()
	defer ix.namesMu.Unlock()
	ix.names = nil
}

// maxNames bounds the keyword sets whose names are kept.
const maxNames = 4096

// keywordNames returns the names of a keyword set; ix.mu is held at least for reading.
func (ix *index) keywordNames(set uint64) []string {
	if set == 0 {
		return nil
	}
	ix.namesMu.Lock()
	defer ix.namesMu.Unlock()
	if names, ok := ix.names[set]; ok {
		return names
	}
	names := namesOf(ix.keywords, set)
	if ix.names == nil || len(ix.names) >= maxNames {
		ix.names = make(map[uint64][]string)
	}
	ix.names[set] = names
	return names
}

// namesOf returns the names of a set, clipped so that nobody appends into it.
func namesOf(keywords []string, set uint64) []string {
	var names []string
	for n, k := range keywords {
		if set&(1<<n) != 0 && k != "" {
			names = append(names, k)
		}
	}
	return slices.Clip(names)
}
