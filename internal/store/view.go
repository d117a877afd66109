package store

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"
)

// View is a session's view of one mailbox: the sequence numbers that this session has been told of (RFC 3501, section
// 2.3.1.2). They stand still until Sync; what an entry holds is always the newest state. A View belongs to one goroutine at
// a time; its notify may be called from another.
type View struct {
	s      *Store
	acct   *account
	ix     *index
	peek   bool
	notice *notice

	// The list of this session: the first n entries of gen, then the UIDs in extra. While gen is the newest generation extra
	// is empty; entries that arrive after an expunge of which the session has not been told yet go to extra.
	gen   *generation
	n     int
	extra []UID

	last   UID    // the highest UID that the session was ever told of
	modseq ModSeq // changes up to here the session was told of
	recent []uidRange

	keywords []string // those of the mailbox when KeywordsChanged was last asked
}

// uidRange is a range of UIDs, with both ends.
type uidRange struct{ lo, hi UID }

// ViewOption changes how a View is opened.
type ViewOption func(*View)

// Peek opens a View that leaves \Recent to others, as EXAMINE does (RFC 3501, section 6.3.2).
func Peek() ViewOption { return func(v *View) { v.peek = true } }

// Update is what Sync found.
type Update struct {
	Expunged  []int // sequence numbers, highest first, so that each is valid when it is sent
	Exists    int
	NewRecent int   // messages that this session is the first to be told of
	Changed   []int // sequence numbers (after the expunges) whose flags or keywords changed, ascending
	Gone      bool  // the mailbox was deleted
}

// View opens a mailbox. notify, which may be nil, is called after each commit that concerns the mailbox, at most once until
// the next Sync; it must not block and may be called once more while Close runs.
func (s *Store) View(ctx context.Context, acct AccountID, mbox MailboxID, notify func(), opts ...ViewOption) (*View, error) {
	a, err := s.current(ctx, acct)
	if err != nil {
		return nil, err
	}
	v := &View{s: s, acct: a}
	for _, o := range opts {
		o(v)
	}
	if v.ix = a.index(mbox); v.ix == nil {
		s.accounts.unpin(a)
		return nil, fmt.Errorf("mailbox %d of account %d: %w", mbox, acct, ErrNotFound)
	}
	v.notice = newNotice(notify)
	if err := v.ix.open(ctx, s, v); err != nil {
		s.accounts.unpin(a)
		return nil, err
	}
	s.indexes.busy(v.ix)
	if claimed := v.claim(0); claimed != 0 {
		s.keepRecent(acct, mbox, claimed)
	}
	return v, nil
}

// start takes the newest state; the index is locked.
func (v *View) start() {
	v.gen, v.n = v.ix.gen, v.ix.gen.total
	v.last, v.modseq = v.gen.last(), v.ix.modseq
	v.keywords = v.ix.keywords
}

// claim takes the entries above after that no session has been told of as recent ones of this session (RFC 3501, section
// 2.3.2). It returns the UID from which entries are recent from now on, 0 when that has not changed.
func (v *View) claim(after UID) UID {
	v.ix.mu.Lock()
	defer v.ix.mu.Unlock()
	lo := max(v.ix.recent, after+1)
	if lo > v.last {
		return 0
	}
	if n := len(v.recent); n > 0 && v.recent[n-1].hi+1 >= lo {
		v.recent[n-1].hi = v.last
	} else {
		v.recent = append(v.recent, uidRange{lo, v.last})
	}
	if v.peek {
		return 0
	}
	v.ix.recent = v.last + 1
	return v.ix.recent
}

// Close ends the view.
func (v *View) Close() {
	if v.ix == nil {
		return
	}
	v.ix.mu.Lock()
	delete(v.ix.views, v)
	idle := len(v.ix.views) == 0
	v.ix.mu.Unlock()
	v.notice.stop()
	if idle {
		v.s.indexes.idle(v.ix)
	}
	v.s.accounts.unpin(v.acct)
	v.ix, v.gen, v.extra = nil, nil, nil
	v.n = 0
}

// Mailbox returns the mailbox as this session knows it: HighestModSeq and the count of messages are those of the last Sync,
// so that a client that keeps them misses no change.
func (v *View) Mailbox() Mailbox {
	if v.ix == nil {
		return Mailbox{}
	}
	m, _ := v.acct.snapshotBox(v.ix.box)
	m.HighestModSeq = v.modseq
	m.Messages = uint32(v.Len())
	m.UIDNext = max(m.UIDNext, v.last+1)
	return m
}

// Keywords returns the keywords that the mailbox knows, for FLAGS and PERMANENTFLAGS.
func (v *View) Keywords() []string {
	if v.ix == nil {
		return nil
	}
	v.ix.mu.RLock()
	defer v.ix.mu.RUnlock()
	return namesOf(v.ix.keywords, ^uint64(0))
}

// KeywordsChanged tells whether the mailbox has learnt or forgotten keywords since it was last asked, or opened.
func (v *View) KeywordsChanged() bool {
	if v.ix == nil {
		return false
	}
	v.ix.mu.RLock()
	now := v.ix.keywords
	v.ix.mu.RUnlock()
	// The list is never changed in place: another one is a change.
	same := len(now) == len(v.keywords) && (len(now) == 0 || &now[0] == &v.keywords[0])
	v.keywords = now
	return !same
}

// Len is the number of messages, EXISTS.
func (v *View) Len() int { return v.n + len(v.extra) }

// UID returns the UID of a sequence number, 0 when there is none.
func (v *View) UID(seq int) UID {
	if seq < 1 || seq > v.Len() {
		return 0
	}
	if seq > v.n {
		return v.extra[seq-v.n-1]
	}
	v.ix.mu.RLock()
	defer v.ix.mu.RUnlock()
	return v.gen.uid(seq - 1)
}

// Seq returns the sequence number of a UID.
func (v *View) Seq(uid UID) (int, bool) {
	seq := v.ceil(uid)
	if seq > v.Len() || v.UID(seq) != uid {
		return 0, false
	}
	return seq, true
}

// SeqRange returns the sequence numbers of the UIDs from lo to hi; first > last when there are none.
func (v *View) SeqRange(lo, hi UID) (first, last int) {
	if lo > hi {
		return 1, 0
	}
	first = v.ceil(lo)
	if hi == ^UID(0) {
		return first, v.Len()
	}
	return first, v.ceil(hi+1) - 1
}

// ceil returns the first sequence number with a UID of at least uid; Len()+1 when there is none.
func (v *View) ceil(uid UID) int {
	if v.n > 0 {
		v.ix.mu.RLock()
		pos := v.gen.find(uid)
		v.ix.mu.RUnlock()
		if pos < v.n {
			return pos + 1
		}
	}
	i := sort.Search(len(v.extra), func(i int) bool { return v.extra[i] >= uid })
	return v.n + i + 1
}

// record returns the newest state of a sequence number, or the chunk that must be read before; neither when the entry is
// gone. The index is locked for reading.
func (v *View) record(seq int) (r *record, unread *chunk) {
	if seq < 1 || seq > v.Len() {
		return nil, nil
	}
	var c *chunk
	var j int
	ok := true
	switch {
	case seq > v.n:
		c, j, ok = v.ix.gen.lookup(v.extra[seq-v.n-1])
	case v.gen == v.ix.gen:
		c, j = v.gen.place(seq - 1)
	default:
		c, j, ok = v.ix.gen.lookup(v.gen.uid(seq - 1))
	}
	switch {
	case !ok:
		return nil, nil
	case !c.loaded():
		return nil, c
	case c.recs[j].message == 0:
		return nil, nil
	}
	return &c.recs[j], nil
}

// entry writes a record into e; the index is locked for reading.
func (ix *index) entry(r *record, e *Entry) {
	e.UID, e.Message, e.Flags, e.ModSeq = r.uid, r.message, r.flags, r.modseq
	e.Keywords = ix.keywordNames(r.keywords)
	e.Size = int64(r.size)
	e.InternalDate = time.Unix(r.date, 0).UTC()
	e.SavedAt = time.Unix(int64(r.saved), 0).UTC()
}

// Entry returns the newest state of an entry; false when it was expunged meanwhile, or can't be read.
func (v *View) Entry(seq int) (Entry, bool) {
	var out Entry
	found := false
	if err := v.Entries(seq, seq, func(_ int, e *Entry) bool { out, found = *e, true; return false }); err != nil {
		v.s.log.Error("store: an entry can't be read", "number", seq, "err", err)
	}
	return out, found
}

// batch is how many entries are read under one lock.
const batch = 128

type entryBatch struct {
	seqs    [batch]int
	entries [batch]Entry
}

var batches = sync.Pool{New: func() any { return new(entryBatch) }}

// Entries calls fn for the entries from first to last, until it returns false. Entries that were expunged meanwhile are
// left out. The Entry is used again for the next call. No lock is held while fn runs, so that it may write to the network.
// An error says that the database could not be read; fn was called for some entries then.
func (v *View) Entries(first, last int, fn func(seq int, e *Entry) bool) error {
	first, last = max(first, 1), min(last, v.Len())
	if first > last {
		return nil
	}
	b := batches.Get().(*entryBatch)
	defer batches.Put(b)
	for seq := first; seq <= last; {
		n := 0
		var r *record
		var unread *chunk
		v.ix.mu.RLock()
		for ; seq <= last && n < batch; seq++ {
			if r, unread = v.record(seq); unread != nil {
				break
			}
			if r != nil {
				b.seqs[n] = seq
				v.ix.entry(r, &b.entries[n])
				n++
			}
		}
		v.ix.mu.RUnlock()
		for i := range n {
			if !fn(b.seqs[i], &b.entries[i]) {
				return nil
			}
		}
		if unread != nil {
			if err := v.ix.read(v.s, unread); err != nil {
				return err
			}
		}
	}
	return nil
}

// ChangedSince calls fn for the entries with a higher MODSEQ (RFC 7162, section 3.1.4), as Entries does.
func (v *View) ChangedSince(since ModSeq, fn func(seq int, e *Entry) bool) error {
	if v.ix == nil {
		return nil
	}
	seqs, err := v.changed(since, v.last)
	if err != nil {
		return err
	}
	more := true
	for i := 0; i < len(seqs) && more; i++ {
		err := v.Entries(seqs[i], seqs[i], func(seq int, e *Entry) bool { more = fn(seq, e); return more })
		if err != nil {
			return err
		}
	}
	return nil
}

// changed returns the sequence numbers of entries with a MODSEQ above since and a UID up to last.
func (v *View) changed(since ModSeq, last UID) ([]int, error) {
	var uids []UID
	var seqs []int
	in := uidRange{0, last}
	same, asked := true, false
	for {
		var unread *chunk
		v.ix.mu.RLock()
		same = same && v.gen == v.ix.gen
		uids, seqs, unread = v.ix.gen.changed(since, in, uids, seqs)
		if unread != nil {
			in.lo = unread.first()
		}
		v.ix.mu.RUnlock()
		var err error
		switch {
		case unread == nil && same:
			return seqs, nil
		case unread == nil:
			return v.numbers(uids), nil
		case asked:
			err = v.ix.read(v.s, unread)
		default:
			asked, err = true, v.ix.narrow(v.s, since)
		}
		if err != nil {
			return nil, err
		}
	}
}

// numbers returns the sequence numbers of those UIDs that this session knows.
func (v *View) numbers(uids []UID) []int {
	seqs := make([]int, 0, len(uids))
	for _, uid := range uids {
		if seq, ok := v.Seq(uid); ok {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

// FirstUnseen returns the sequence number of the first message without \Seen, 0 when there is none.
func (v *View) FirstUnseen() (int, error) {
	if v.ix == nil {
		return 0, nil
	}
	uid, err := v.ix.firstUnseen(v.s)
	if uid == 0 || err != nil {
		return 0, err
	}
	seq, _ := v.Seq(uid)
	return seq, nil
}

// Deleted returns the UIDs of the messages that this session knows and that are flagged \Deleted, ascending.
func (v *View) Deleted() ([]UID, error) {
	if v.ix == nil {
		return nil, nil
	}
	uids, err := v.ix.deleted(v.s)
	return slices.DeleteFunc(uids, func(uid UID) bool { _, ok := v.Seq(uid); return !ok }), err
}

// Recent reports whether this session is the first to be told of the message.
func (v *View) Recent(uid UID) bool {
	for _, r := range v.recent {
		if uid >= r.lo && uid <= r.hi {
			return true
		}
	}
	return false
}

// FirstRecent returns the lowest UID that may be recent: above all UIDs when none is. Recent is exact.
func (v *View) FirstRecent() UID {
	if len(v.recent) == 0 {
		return v.last + 1
	}
	return v.recent[0].lo
}

// RecentCount returns the number of recent messages, RECENT.
func (v *View) RecentCount() int {
	n := 0
	for _, r := range v.recent {
		if first, last := v.SeqRange(r.lo, r.hi); last >= first {
			n += last - first + 1
		}
	}
	return n
}

// Sync brings the session up to date: new messages join at the end, and with expunge, which RFC 3501, section 7.4.1, allows
// at certain times only, vanished ones leave. It returns what the session must be told.
func (v *View) Sync(expunge bool) Update {
	if v.ix == nil {
		return Update{Gone: true}
	}
	v.notice.arm()
	last, since := v.last, v.modseq
	var u Update
	v.ix.mu.RLock()
	u.Gone = v.ix.gone
	if expunge {
		u.Expunged = v.expunge()
	}
	v.extend()
	v.modseq = v.ix.modseq
	v.ix.mu.RUnlock()
	u.Exists = v.Len()
	if v.modseq > since {
		var err error
		if u.Changed, err = v.changed(since, last); err != nil {
			v.s.log.Error("store: changes can't be read, they are told later", "err", err)
			v.modseq = since
		}
	}
	if v.last > last {
		if claimed := v.claim(last); claimed != 0 {
			v.s.keepRecent(v.acct.id, v.ix.box, claimed)
		}
		first, end := v.SeqRange(last+1, v.last)
		for seq := first; seq <= end; seq++ {
			if v.Recent(v.UID(seq)) {
				u.NewRecent++
			}
		}
	}
	return u
}

// expunge moves to the newest generation and returns what is lost on the way, highest first. The index is locked.
func (v *View) expunge() []int {
	var gone []int
	for g := v.gen; g != v.ix.gen; g = g.next {
		for _, uid := range g.removed {
			if seq, ok := v.listed(uid); ok {
				gone = append(gone, seq)
			}
		}
	}
	if v.gen != v.ix.gen {
		v.gen, v.extra = v.ix.gen, nil
		v.n = v.gen.find(v.last + 1)
	}
	slices.Sort(gone)
	slices.Reverse(gone)
	return gone
}

// listed is Seq for when the index is locked already.
func (v *View) listed(uid UID) (int, bool) {
	if pos := v.gen.find(uid); pos < v.n {
		return pos + 1, v.gen.uid(pos) == uid
	}
	i, ok := slices.BinarySearch(v.extra, uid)
	return v.n + i + 1, ok
}

// extend adds the entries that came since the last Sync. The index is locked.
func (v *View) extend() {
	g := v.ix.gen
	if v.gen == g {
		v.n = g.total
	} else {
		for pos := g.find(v.last + 1); pos < g.total; pos++ {
			v.extra = append(v.extra, g.uid(pos))
		}
	}
	v.last = max(v.last, g.last())
}
