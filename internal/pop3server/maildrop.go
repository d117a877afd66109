package pop3server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"waxwing/internal/store"
)

// item is one message of a maildrop.
type item struct {
	id   store.MessageID
	size int64 // as stored; as sent when the maildrop's sizes are known
	uid  store.UID
	gone bool // marked by DELE
}

// maildrop is the INBOX of an account as it was at login (RFC 1939, section 4): the numbers stand still, whatever other
// sessions do meanwhile.
type maildrop struct {
	acct   store.AccountID
	mbox   store.Mailbox
	unlock func()
	items  []item

	count    int   // without those marked
	octets   int64 // the same, when sized
	marked   int
	last     int // the highest number that was retrieved, for LAST
	fetched  int // numbers below it had their places looked up ahead
	sized    bool
	odd      map[store.UID]int64 // those that need repair, when sized
	known    store.UID           // up to here the sizes are exact
	imported map[store.MessageID]string
	ids      bool // imported is loaded
	repeated map[store.UID]bool
}

// openDrop locks and lists the maildrop of an account.
func (srv *Server) openDrop(ctx context.Context, acct store.AccountID) (*maildrop, error) {
	unlock, ok, err := srv.opt.Store.LockMaildrop(ctx, acct)
	if err != nil {
		return nil, fmt.Errorf("pop3server: lock maildrop of account %d: %w", acct, err)
	}
	if !ok {
		return nil, refuseFair("[IN-USE] ", "Another session has the maildrop")
	}
	d := &maildrop{acct: acct, unlock: unlock}
	if err := d.load(ctx, srv.opt.Store); err != nil {
		unlock()
		return nil, fmt.Errorf("pop3server: open maildrop of account %d: %w", acct, err)
	}
	return d, nil
}

// load lists the INBOX. The View is not kept: a POP3 session sees no changes.
func (d *maildrop) load(ctx context.Context, st Store) error {
	var err error
	if d.mbox, err = st.Mailbox(ctx, d.acct, "INBOX"); err != nil {
		return err
	}
	// Other clients keep \Recent: POP3 knows no flags.
	v, err := st.View(ctx, d.acct, d.mbox.ID, nil, store.Peek())
	if err != nil {
		return err
	}
	defer v.Close()
	d.mbox = v.Mailbox()
	d.items = make([]item, 0, v.Len())
	err = v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		d.items = append(d.items, item{id: e.Message, size: e.Size, uid: e.UID})
		return true
	})
	if err != nil {
		return err
	}
	d.count = len(d.items)
	return nil
}

// closeDrop gives the maildrop free without deleting anything.
func (s *session) closeDrop() {
	if s.drop != nil {
		s.drop.unlock()
		s.drop = nil
	}
}

// at returns the message of a number that the client gave.
func (d *maildrop) at(arg []byte) (*item, int, error) {
	n, ok := number(arg)
	switch {
	case !ok:
		return nil, 0, errSyntax
	case n < 1 || n > len(d.items):
		return nil, 0, refuseFair("", "No such message")
	case d.items[n-1].gone:
		return nil, 0, refuseFair("", "Message is deleted")
	}
	return &d.items[n-1], n, nil
}

// prefetchItems is how many places are looked up at a time.
const prefetchItems = 256

// prefetch looks up the places of the messages from number n on, for a client that retrieves one after the other.
func (d *maildrop) prefetch(ctx context.Context, st Store, n int) {
	if n < d.fetched {
		return
	}
	end := min(n-1+prefetchItems, len(d.items))
	ids := make([]store.MessageID, 0, end-n+1)
	for i := n - 1; i < end; i++ {
		ids = append(ids, d.items[i].id)
	}
	st.PrefetchBlobs(ctx, d.acct, ids)
	d.fetched = end + 1
}

// exact tells whether the size and the form of a message are known, and the form is the stored one.
func (d *maildrop) exact(it *item) bool {
	_, odd := d.odd[it.uid]
	return d.sized && it.uid <= d.known && !odd
}

// Bounds of the memory of exact sizes: all, about what an account takes, and each message in need of repair.
const (
	sizesMemory   = 8 << 20
	sizesOverhead = 120
	oddOctets     = 40
)

// maxOdd bounds the messages in need of repair that are remembered for one account.
const maxOdd = 10_000

// knownSizes is what is known of one INBOX: up to which UID messages were looked through, and which of them needed repair.
// UIDs ascend and messages don't change, so what is known stays true. The map is never changed once it is remembered.
type knownSizes struct {
	validity uint32
	upTo     store.UID
	odd      map[store.UID]int64 // octets as sent
}

// knownSizes recalls what is known of an INBOX: nothing when it has another UIDVALIDITY.
func (srv *Server) knownSizes(acct store.AccountID, validity uint32) knownSizes {
	if k, ok := srv.sizes.Get(acct); ok && k.validity == validity {
		return k
	}
	return knownSizes{validity: validity}
}

// size makes the sizes of the maildrop exact: those that are remembered, and those of new messages by looking through
// them, up to the limit of octets.
func (s *session) size() error {
	d := s.drop
	if d.sized {
		return nil
	}
	ctx, cancel := s.conn.WatchPeer(s.ctx)
	defer cancel()
	k := s.srv.knownSizes(d.acct, d.mbox.UIDValidity)
	odd := make(map[store.UID]int64)
	upTo, budget := k.upTo, s.srv.opt.Limits.Verify
	for i := range d.items {
		it := &d.items[i]
		if it.uid <= k.upTo {
			if n, ok := k.odd[it.uid]; ok {
				odd[it.uid], it.size = n, n
			}
			continue
		}
		if budget -= it.size; budget < 0 || len(odd) >= maxOdd {
			break
		}
		d.prefetch(ctx, s.srv.opt.Store, i+1)
		n, repaired, err := s.measure(ctx, it)
		switch {
		case ctx.Err() != nil:
			return context.Canceled
		case err != nil && !perMessage(err):
			return err // the store as a whole: sizes would be guesses
		case err != nil:
			s.log.Warn("message can't be read", "message", int64(it.id), "error", err)
		case repaired:
			odd[it.uid], it.size = n, n
		}
		upTo = it.uid
	}
	if upTo > k.upTo {
		k = knownSizes{validity: d.mbox.UIDValidity, upTo: upTo, odd: odd}
		s.srv.sizes.Put(d.acct, k, int64(sizesOverhead+len(odd)*oddOctets))
	}
	d.odd, d.known, d.sized = odd, upTo, true
	d.octets = 0
	for i := range d.items {
		if !d.items[i].gone {
			d.octets += d.items[i].size
		}
	}
	return nil
}

// perMessage says that an error concerns one message, not the store.
func perMessage(err error) bool {
	return errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound)
}

// inMemory is the size up to which a message is read whole before it is sent.
const inMemory = 256 << 10

// measure reads a message and counts what would be sent.
func (s *session) measure(ctx context.Context, it *item) (octets int64, repaired bool, err error) {
	w := wireForm{left: unlimited}
	err = s.render(ctx, it, &w)
	return w.n, w.repaired, err
}

// render gives a message to w.
func (s *session) render(ctx context.Context, it *item, w *wireForm) error {
	st := s.srv.opt.Store
	if it.size <= inMemory {
		b, err := st.ReadBlob(ctx, s.drop.acct, it.id, s.message())
		if err != nil {
			return err
		}
		s.keep(b)
		_, err = w.Write(b)
		return w.end(err)
	}
	b, err := st.OpenBlob(ctx, s.drop.acct, it.id)
	if err != nil {
		return err
	}
	defer b.Close() //nolint:errcheck // only read
	return s.stream(b, w)
}

// stream gives an open message to w, piece by piece.
func (s *session) stream(b store.Content, w *wireForm) error {
	buf := s.message()
	return w.copy(io.NewSectionReader(b, 0, b.Size()), buf[:cap(buf)])
}

// unique returns the UIDL of a message: one that was imported from another server, or the store's own name for it. When
// the maildrop holds a message twice, all but the first have their UID behind it.
func (s *session) unique(it *item) string {
	if id, ok := s.drop.imported[it.id]; ok && !s.drop.repeated[it.uid] {
		return id
	}
	id := s.srv.opt.Store.GUID(s.drop.acct, it.id)
	if s.drop.repeated[it.uid] {
		return fmt.Sprintf("%s.%d", id, it.uid)
	}
	return id
}

// loadIDs reads the imported ids and finds messages that stand in the maildrop twice.
func (s *session) loadIDs() error {
	d := s.drop
	if d.ids {
		return nil
	}
	imported, err := s.srv.opt.Store.UIDLs(s.ctx, d.acct)
	if err != nil {
		return err
	}
	d.repeated = map[store.UID]bool{}
	seen := make(map[string]bool, len(imported))
	for _, it := range d.items {
		if _, ok := imported[it.id]; !ok && len(imported) > 0 {
			seen[s.srv.opt.Store.GUID(d.acct, it.id)] = true // an import from a server like this one may bring the same
		}
	}
	for _, it := range d.items { // of imported ids that are the same, the first keeps its own
		if id, ok := imported[it.id]; ok {
			if !validID(id) || seen[id] {
				delete(imported, it.id)
			}
			seen[id] = true
		}
	}
	if !slices.IsSortedFunc(d.items, func(a, b item) int { return cmpStrict(a.id, b.id) }) {
		first := make(map[store.MessageID]bool, len(d.items))
		for _, it := range d.items {
			if first[it.id] {
				d.repeated[it.uid] = true
			}
			first[it.id] = true
		}
	}
	d.imported, d.ids = imported, true
	return nil
}

// cmpStrict orders equal ids as out of order, so that a sorted list has no id twice.
func cmpStrict(a, b store.MessageID) int {
	if a > b {
		return 1
	}
	return -1
}

// validID holds RFC 1939, section 7: 1 to 70 characters from 0x21 to 0x7E.
func validID(id string) bool {
	if id == "" || len(id) > 70 {
		return false
	}
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return false
		}
	}
	return true
}
