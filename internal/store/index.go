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

// chunkSize is how many records stand together: what an expunge copies for each stretch of entries that it touches.
const chunkSize = 1024

// chunk is a stretch of records in the order of their UIDs. Generations share it until an expunge needs another; flags are
// changed in place, so that a generation that is not the newest may show old ones: see View.
type chunk struct {
	recs   []record
	maxMod ModSeq // at least the highest MODSEQ of the records
	unseen int
}

// generation is the list of a mailbox's entries between two expunges. New entries join the newest generation in place;
// an expunge makes a new one and leaves the old one to the Views that have not been told yet. They are linked from old to
// new, so those that no View holds are collected.
type generation struct {
	chunks  []*chunk
	starts  []int // starts[i]: entries before chunks[i]
	total   int
	next    *generation
	removed []UID // what next lacks, ascending
}

// at returns the record at a position from 0.
func (g *generation) at(pos int) *record {
	i := sort.Search(len(g.starts), func(i int) bool { return g.starts[i] > pos }) - 1
	return &g.chunks[i].recs[pos-g.starts[i]]
}

// find returns the position of the first entry with a UID of at least uid: total when there is none.
func (g *generation) find(uid UID) int {
	i := sort.Search(len(g.chunks), func(i int) bool {
		recs := g.chunks[i].recs
		return recs[len(recs)-1].uid >= uid
	})
	if i == len(g.chunks) {
		return g.total
	}
	recs := g.chunks[i].recs
	j := sort.Search(len(recs), func(j int) bool { return recs[j].uid >= uid })
	// The last chunk may have grown since a newer generation took over.
	return min(g.starts[i]+j, g.total)
}

// lookup returns the record with this UID.
func (g *generation) lookup(uid UID) (*record, bool) {
	pos := g.find(uid)
	if pos >= g.total {
		return nil, false
	}
	r := g.at(pos)
	return r, r.uid == uid
}

// last returns the highest UID, 0 when there is none.
func (g *generation) last() UID {
	if g.total == 0 {
		return 0
	}
	return g.at(g.total - 1).uid
}

// append adds an entry with a UID above all others.
func (g *generation) append(r record) {
	n := len(g.chunks)
	if n == 0 || len(g.chunks[n-1].recs) >= chunkSize {
		// The first chunks of a mailbox are small: most mailboxes are.
		size := chunkSize
		if n == 0 {
			size = 16
		}
		g.chunks = append(g.chunks, &chunk{recs: make([]record, 0, size)})
		g.starts = append(g.starts, g.total)
		n++
	}
	c := g.chunks[n-1]
	c.recs = append(c.recs, r)
	c.note(&r)
	g.total++
}

func (c *chunk) note(r *record) {
	c.maxMod = max(c.maxMod, r.modseq)
	if r.flags&Seen == 0 {
		c.unseen++
	}
}

// without makes the next generation, which lacks the UIDs (ascending). Chunks that lose nothing are shared; neighbours that
// have become small are joined, so that the number of chunks follows the number of entries.
func (g *generation) without(uids []UID) *generation {
	next := &generation{chunks: make([]*chunk, 0, len(g.chunks)), starts: make([]int, 0, len(g.starts))}
	removed := make([]UID, 0, len(uids))
	for i, c := range g.chunks {
		// An older generation may share the last chunk, but only the newest one gets here, and it knows all records.
		lo, hi := c.recs[0].uid, c.recs[len(c.recs)-1].uid
		n := sort.Search(len(uids), func(k int) bool { return uids[k] > hi })
		mine := uids[:n]
		uids = uids[n:]
		for len(mine) > 0 && mine[0] < lo {
			mine = mine[1:]
		}
		if len(mine) > 0 {
			c, removed = c.without(mine, removed)
		}
		next.add(c, i == len(g.chunks)-1)
	}
	g.next, g.removed = next, removed
	return next
}

// without returns the chunk without some UIDs, and adds those that were there to removed.
func (c *chunk) without(uids, removed []UID) (*chunk, []UID) {
	left := &chunk{recs: make([]record, 0, len(c.recs))}
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

// add appends a chunk to a generation that is being made.
func (g *generation) add(c *chunk, last bool) {
	if len(c.recs) == 0 {
		return
	}
	if n := len(g.chunks); n > 0 && len(g.chunks[n-1].recs)+len(c.recs) <= chunkSize/2 {
		prev := g.chunks[n-1]
		joined := &chunk{recs: make([]record, 0, chunkSize/2), maxMod: max(prev.maxMod, c.maxMod), unseen: prev.unseen + c.unseen}
		joined.recs = append(append(joined.recs, prev.recs...), c.recs...)
		g.chunks[n-1] = joined
	} else {
		g.chunks = append(g.chunks, c)
		g.starts = append(g.starts, g.total)
	}
	g.total += len(c.recs)
}

// octets is about what the generation takes in memory.
func (g *generation) octets() int64 {
	var n int64 = 200
	for _, c := range g.chunks {
		n += int64(cap(c.recs))*48 + 100
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

	keepFlags, setFlags       Flags
	keepKeywords, setKeywords uint64
}

// index is what is held in memory of one mailbox, shared by its Views. It exists for each mailbox of a cached account, but
// has no entries until a View needs them.
type index struct {
	acct *account
	box  MailboxID

	registered int64 // octets that indexes.used counts for it; guarded by indexes.mu

	mu       sync.RWMutex // guards what follows
	gen      *generation  // nil: not loaded
	loading  *indexLoad
	modseq   ModSeq // of the newest change in gen
	keywords []string
	recent   UID // entries from here on no session has been told of
	views    map[*View]struct{}
	gone     bool // the mailbox was deleted

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
	switch {
	case ix.gen != nil:
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
	g := ix.gen
	i, j := 0, 0 // chunk, record: UIDs ascend, so the place only moves forward
	for _, uid := range e.flagged {
		for i < len(g.chunks) && g.chunks[i].recs[len(g.chunks[i].recs)-1].uid < uid {
			i, j = i+1, 0
		}
		if i == len(g.chunks) {
			return
		}
		c := g.chunks[i]
		if j < len(c.recs) && c.recs[j].uid < uid {
			rest := c.recs[j:]
			j += sort.Search(len(rest), func(k int) bool { return rest[k].uid >= uid })
		}
		r := &c.recs[j]
		if r.uid != uid {
			continue
		}
		was := r.flags
		r.flags = r.flags&e.keepFlags | e.setFlags
		r.keywords = r.keywords&e.keepKeywords | e.setKeywords
		r.modseq = e.modseq
		c.maxMod = max(c.maxMod, e.modseq)
		switch {
		case was&Seen == 0 && r.flags&Seen != 0:
			c.unseen--
		case was&Seen != 0 && r.flags&Seen == 0:
			c.unseen++
		}
	}
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
