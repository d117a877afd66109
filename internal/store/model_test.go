package store_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// TestStoreBehavesAsTheModel runs random operations on an account and on a model of plain maps, and compares them. Views
// follow as clients do: by what Sync tells them alone.
func TestStoreBehavesAsTheModel(t *testing.T) {
	t.Parallel()
	behavesAsTheModel(t, storetest.Open)
}

// TestLargeMailboxesBehaveAsTheModel is the same where mailboxes of five messages are large: opened by their maps, read in
// chunks of four, and given back all the time.
func TestLargeMailboxesBehaveAsTheModel(t *testing.T) {
	t.Parallel()
	behavesAsTheModel(t, storetest.OpenSmall)
}

func behavesAsTheModel(t *testing.T, open storetest.Opener) {
	dir := t.TempDir()
	shared := &modelStore{t: t, dir: dir, open: open, s: open(t, dir, nil)}
	rapid.Check(t, func(rt *rapid.T) {
		shared.accounts++
		m := &model{shared: shared, acct: shared.accounts, boxes: map[string]*modelBox{}}
		storetest.Account(t, shared.s, m.acct)
		for _, b := range m.list(rt) {
			m.boxes[b.Name] = &modelBox{id: b.ID, validity: b.UIDValidity, next: 1}
		}
		defer m.closeViews()
		rt.Repeat(map[string]func(*rapid.T){
			"deliver": m.deliver, "append": m.append, "flags": m.flags, "copy": m.copy, "move": m.move, "expunge": m.expunge,
			"create": m.create, "rename": m.rename, "delete": m.delete, "open": m.open, "sync": m.sync, "restart": m.restart,
			"verify": m.verify, "": m.check,
		})
	})
}

type modelStore struct {
	t        *testing.T
	dir      string
	open     storetest.Opener
	s        *store.Store
	accounts store.AccountID
	contents int
}

type modelEntry struct {
	text     string
	flags    store.Flags
	keywords string // sorted, joined
}

type modelBox struct {
	id       store.MailboxID
	validity uint32
	next     store.UID
	entries  map[store.UID]modelEntry
	dead     []store.UID // ever expunged
}

func (b *modelBox) uids() []store.UID { return slices.Sorted(maps.Keys(b.entries)) }

func (b *modelBox) add(e modelEntry) store.UID {
	if b.entries == nil {
		b.entries = map[store.UID]modelEntry{}
	}
	uid := b.next
	b.next++
	b.entries[uid] = e
	return uid
}

func (b *modelBox) remove(uids []store.UID) {
	for _, u := range uids {
		delete(b.entries, u)
	}
	b.dead = append(b.dead, uids...)
}

// client is a View and the list of UIDs that it has been told.
type client struct {
	v    *store.View
	box  *modelBox
	list []store.UID
}

type model struct {
	shared    *modelStore
	acct      store.AccountID
	boxes     map[string]*modelBox
	clients   []*client
	validites uint32
}

func (m *model) store() *store.Store { return m.shared.s }

func (m *model) list(rt *rapid.T) []store.Mailbox {
	list, err := m.store().Mailboxes(m.shared.t.Context(), m.acct)
	if err != nil {
		rt.Fatal(err)
	}
	return list
}

func (m *model) names() []string { return slices.Sorted(maps.Keys(m.boxes)) }

func (m *model) box(rt *rapid.T, label string) *modelBox {
	return m.boxes[rapid.SampledFrom(m.names()).Draw(rt, label)]
}

// some draws UIDs, most of which exist.
func (m *model) some(rt *rapid.T, b *modelBox) []store.UID {
	set := map[store.UID]bool{}
	for _, u := range rapid.SliceOfN(rapid.Uint32Range(1, uint32(b.next)+1), 0, 12).Draw(rt, "uids") {
		set[store.UID(u)] = true
	}
	if rapid.Bool().Draw(rt, "range") && b.next > 1 {
		lo := rapid.Uint32Range(1, uint32(b.next)).Draw(rt, "lo")
		for u := lo; u < min(lo+10, uint32(b.next)); u++ {
			set[store.UID(u)] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (b *modelBox) present(uids []store.UID) []store.UID {
	return slices.DeleteFunc(slices.Clone(uids), func(u store.UID) bool { _, ok := b.entries[u]; return !ok })
}

var modelKeywords = []string{"$Forwarded", "发票", "work", "later"}

func (m *model) drawFlags(rt *rapid.T) (store.Flags, []string) {
	f := store.Flags(rapid.Uint8Range(0, 31).Draw(rt, "flags"))
	k := rapid.SliceOfNDistinct(rapid.SampledFrom(modelKeywords), 0, 3, rapid.ID[string]).Draw(rt, "keywords")
	return f, k
}

func joined(keywords []string) string {
	k := slices.Clone(keywords)
	slices.Sort(k)
	return strings.Join(k, " ")
}

// text makes a content; some are the same.
func (m *model) text(rt *rapid.T) string {
	if rapid.IntRange(0, 3).Draw(rt, "same") == 0 {
		return fmt.Sprintf("Subject: same %d\r\n\r\n", rapid.IntRange(0, 2).Draw(rt, "which"))
	}
	m.shared.contents++
	return fmt.Sprintf("Subject: %d\r\n\r\n%s", m.shared.contents, strings.Repeat("x", m.shared.contents%97))
}

func (m *model) deliver(rt *rapid.T) {
	b := m.box(rt, "mailbox")
	text := m.text(rt)
	f, k := m.drawFlags(rt)
	d, err := m.store().Deliver(rt.Context(), store.Delivery{Content: strings.NewReader(text), Local: []store.NewEntry{{Account: m.acct, Mailbox: b.id, Flags: f, Keywords: k}}})
	if err != nil {
		rt.Fatal(err)
	}
	if uid := b.add(modelEntry{text, f, joined(k)}); d.Local[0].UID != uid || d.Local[0].UIDValidity != b.validity {
		rt.Fatalf("placed %+v, want UID %d", d.Local[0], uid)
	}
}

func (m *model) append(rt *rapid.T) {
	b := m.box(rt, "mailbox")
	var msgs []store.NewMessage
	var want []store.UID
	most := 5
	if rapid.IntRange(0, 9).Draw(rt, "many") == 0 {
		most = 60
	}
	for range rapid.IntRange(1, most).Draw(rt, "n") {
		text := m.text(rt)
		f, k := m.drawFlags(rt)
		msgs = append(msgs, store.NewMessage{Content: strings.NewReader(text), Flags: f, Keywords: k})
		want = append(want, b.add(modelEntry{text, f, joined(k)}))
	}
	placed, err := m.store().Append(rt.Context(), m.acct, b.id, msgs)
	if err != nil {
		rt.Fatal(err)
	}
	for i, p := range placed {
		if p.UID != want[i] {
			rt.Fatalf("placed %+v, want %d", p, want[i])
		}
	}
}

func (m *model) flags(rt *rapid.T) {
	b := m.box(rt, "mailbox")
	uids := m.some(rt, b)
	f, k := m.drawFlags(rt)
	op := rapid.SampledFrom([]store.FlagOp{store.FlagsSet, store.FlagsAdd, store.FlagsRemove}).Draw(rt, "op")
	var want []store.UID
	for _, u := range b.present(uids) {
		e := b.entries[u]
		after := e
		had := strings.Fields(e.keywords)
		switch op {
		case store.FlagsSet:
			after.flags, after.keywords = f, joined(k)
		case store.FlagsAdd:
			after.flags |= f
			all := append(had, k...)
			slices.Sort(all)
			after.keywords = joined(slices.Compact(all))
		case store.FlagsRemove:
			after.flags &^= f
			after.keywords = joined(slices.DeleteFunc(had, func(h string) bool { return slices.Contains(k, h) }))
		}
		if after != e {
			want = append(want, u)
			b.entries[u] = after
		}
	}
	changed, failed, err := m.store().StoreFlags(rt.Context(), m.acct, b.id, uids, store.FlagChange{Op: op, Flags: f, Keywords: k})
	if err != nil || len(failed) > 0 || !slices.Equal(changed, want) {
		rt.Fatalf("changed %v, failed %v, error %v; want %v", changed, failed, err, want)
	}
}

func (m *model) transfer(rt *rapid.T, keep bool) {
	a, b := m.box(rt, "from"), m.box(rt, "to")
	uids := m.some(rt, a)
	there := a.present(uids)
	do := m.store().Move
	if keep {
		do = m.store().Copy
	}
	from, to, validity, err := do(rt.Context(), m.acct, a.id, uids, b.id)
	if err != nil {
		rt.Fatal(err)
	}
	var want []store.UID
	for _, u := range there {
		want = append(want, b.add(a.entries[u]))
	}
	if !keep {
		a.remove(there)
	}
	if !slices.Equal(from, there) || !slices.Equal(to, want) || validity != b.validity {
		rt.Fatalf("from %v to %v (%d), want %v to %v (%d)", from, to, validity, there, want, b.validity)
	}
}

func (m *model) copy(rt *rapid.T) { m.transfer(rt, true) }
func (m *model) move(rt *rapid.T) { m.transfer(rt, false) }

func (m *model) expunge(rt *rapid.T) {
	b := m.box(rt, "mailbox")
	uids := m.some(rt, b)
	only := rapid.Bool().Draw(rt, "onlyDeleted")
	all := rapid.IntRange(0, 5).Draw(rt, "all") == 0
	want := b.present(uids)
	if all {
		want = b.uids()
	}
	if only {
		want = slices.DeleteFunc(want, func(u store.UID) bool { return b.entries[u].flags&store.Deleted == 0 })
	}
	var got []store.UID
	var err error
	if all {
		got, err = m.store().ExpungeAll(rt.Context(), m.acct, b.id, only)
	} else {
		got, err = m.store().Expunge(rt.Context(), m.acct, b.id, uids, only)
	}
	if err != nil || !slices.Equal(got, want) {
		rt.Fatalf("expunged %v, error %v; want %v", got, err, want)
	}
	b.remove(want)
}

func (m *model) create(rt *rapid.T) {
	if len(m.boxes) > 14 {
		rt.Skip("enough mailboxes")
	}
	name := rapid.SampledFrom([]string{"a", "a/b", "a/b/c", "d", "工作", "工作/发票"}).Draw(rt, "name")
	_, err := m.store().CreateMailbox(rt.Context(), m.acct, name, "")
	if _, ok := m.boxes[name]; ok != (err != nil) {
		rt.Fatalf("create %s: %v", name, err)
	}
	m.adopt(rt)
}

// adopt takes over the mailboxes that the store has and the model lacks.
func (m *model) adopt(rt *rapid.T) {
	for _, b := range m.list(rt) {
		if m.boxes[b.Name] != nil {
			continue
		}
		if b.UIDValidity <= m.validites {
			rt.Fatalf("UIDVALIDITY %d of %s after %d", b.UIDValidity, b.Name, m.validites)
		}
		m.boxes[b.Name] = &modelBox{id: b.ID, validity: b.UIDValidity, next: 1}
	}
	for _, b := range m.boxes {
		m.validites = max(m.validites, b.validity)
	}
}

func (m *model) rename(rt *rapid.T) {
	from := rapid.SampledFrom(m.names()).Draw(rt, "from")
	to := rapid.SampledFrom([]string{"r", "a/r", "d/x/y", "工作"}).Draw(rt, "to")
	b := m.boxes[from]
	err := m.store().RenameMailbox(rt.Context(), m.acct, b.id, to)
	if m.boxes[to] != nil || strings.HasPrefix(to, from+"/") {
		if err == nil {
			rt.Fatalf("renamed %s to %s", from, to)
		}
		return
	}
	if err != nil {
		rt.Fatal(err)
	}
	if from == "INBOX" {
		m.adopt(rt)
		for _, u := range b.uids() {
			m.boxes[to].add(b.entries[u])
		}
		b.remove(b.uids())
		return
	}
	for _, name := range m.names() {
		if name == from || strings.HasPrefix(name, from+"/") {
			m.boxes[to+name[len(from):]] = m.boxes[name]
			delete(m.boxes, name)
		}
	}
	m.adopt(rt)
}

func (m *model) delete(rt *rapid.T) {
	name := rapid.SampledFrom(m.names()).Draw(rt, "name")
	b := m.boxes[name]
	err := m.store().DeleteMailbox(rt.Context(), m.acct, b.id)
	child := slices.ContainsFunc(m.names(), func(n string) bool { return strings.HasPrefix(n, name+"/") })
	if refuse := name == "INBOX" || child; refuse != (err != nil) {
		rt.Fatalf("delete %s: %v", name, err)
	} else if refuse {
		return
	}
	delete(m.boxes, name)
	m.clients = slices.DeleteFunc(m.clients, func(c *client) bool {
		if c.box != b {
			return false
		}
		if !c.v.Sync(true).Gone {
			rt.Fatalf("view of %s is not told", name)
		}
		c.v.Close()
		return true
	})
}

func (m *model) open(rt *rapid.T) {
	if len(m.clients) > 4 {
		rt.Skip("enough views")
	}
	b := m.box(rt, "mailbox")
	v, err := m.store().View(rt.Context(), m.acct, b.id, nil)
	if err != nil {
		rt.Fatal(err)
	}
	m.clients = append(m.clients, &client{v, b, b.uids()})
}

func (m *model) sync(rt *rapid.T) {
	if len(m.clients) == 0 {
		rt.Skip("no views")
	}
	c := m.clients[rapid.IntRange(0, len(m.clients)-1).Draw(rt, "client")]
	expunge := rapid.Bool().Draw(rt, "expunge")
	u := c.v.Sync(expunge)
	if !expunge && len(u.Expunged) > 0 {
		rt.Fatal("told of expunges out of time")
	}
	for _, seq := range u.Expunged {
		c.list = slices.Delete(c.list, seq-1, seq)
	}
	for seq := len(c.list) + 1; seq <= u.Exists; seq++ {
		c.list = append(c.list, c.v.UID(seq))
	}
	c.compare(rt)
	if expunge && !slices.Equal(c.list, c.box.uids()) {
		rt.Fatalf("client has %v, mailbox %v", c.list, c.box.uids())
	}
}

// compare checks the numbers of a View against what its client knows.
func (c *client) compare(rt *rapid.T) {
	if c.v.Len() != len(c.list) {
		rt.Fatalf("length %d, client has %v", c.v.Len(), c.list)
	}
	for i, u := range c.list {
		if c.v.UID(i+1) != u {
			rt.Fatalf("number %d is %d, client has %v", i+1, c.v.UID(i+1), c.list)
		}
		e, ok := c.v.Entry(i + 1)
		want, there := c.box.entries[u]
		if ok != there || ok && (e.UID != u || e.Flags != want.flags || joined(e.Keywords) != want.keywords || e.Size != int64(len(want.text))) {
			rt.Fatalf("entry %d: %+v, %v; want %+v, %v", i+1, e, ok, want, there)
		}
	}
}

// marked checks what a View says of flags, with a client that has been told of everything.
func (c *client) marked(rt *rapid.T) {
	unseen := 0
	var deleted []store.UID
	for i, u := range c.list {
		flags := c.box.entries[u].flags
		if unseen == 0 && flags&store.Seen == 0 {
			unseen = i + 1
		}
		if flags&store.Deleted != 0 {
			deleted = append(deleted, u)
		}
	}
	if got, err := c.v.FirstUnseen(); err != nil || got != unseen {
		rt.Fatalf("first unseen %d, %v; want %d", got, err, unseen)
	}
	if got, err := c.v.Deleted(); err != nil || !slices.Equal(got, deleted) {
		rt.Fatalf("deleted %v, %v; want %v", got, err, deleted)
	}
	all := 0
	if err := c.v.ChangedSince(0, func(int, *store.Entry) bool { all++; return true }); err != nil || all != len(c.list) {
		rt.Fatalf("%d changed ever, %v; want %d", all, err, len(c.list))
	}
}

func (m *model) closeViews() {
	for _, c := range m.clients {
		c.v.Close()
	}
	m.clients = nil
}

func (m *model) restart(rt *rapid.T) {
	if rapid.IntRange(0, 4).Draw(rt, "really") > 0 {
		rt.Skip("not every time")
	}
	m.closeViews()
	if err := m.store().Close(); err != nil {
		rt.Fatal(err)
	}
	m.shared.s = m.shared.open(m.shared.t, m.shared.dir, nil)
	if err := m.store().Housekeep(rt.Context()); err != nil {
		rt.Fatal(err)
	}
}

// verify proves the rows of the account.
func (m *model) verify(rt *rapid.T) {
	found := func(p store.Problem) { rt.Errorf("%+v", p) }
	if _, err := m.store().Verify(rt.Context(), store.VerifyOptions{Account: m.acct, RowsOnly: true, Found: found}); err != nil {
		rt.Fatal(err)
	}
}

// check compares all mailboxes.
func (m *model) check(rt *rapid.T) {
	list := m.list(rt)
	var names []string
	var used int64
	for _, b := range list {
		names = append(names, b.Name)
		used += b.Size
		want := m.boxes[b.Name]
		if want == nil || b.ID != want.id || b.UIDValidity != want.validity || b.UIDNext != want.next || int(b.Messages) != len(want.entries) {
			rt.Fatalf("mailbox %+v, want %+v", b, want)
		}
		m.checkBox(rt, want)
	}
	if !slices.Equal(names, m.names()) {
		rt.Fatalf("mailboxes %v, want %v", names, m.names())
	}
	if u, err := m.store().Usage(rt.Context(), m.acct); err != nil || u.Bytes != used {
		rt.Fatalf("usage %+v, %v; want %d", u, err, used)
	}
}

func (m *model) checkBox(rt *rapid.T, want *modelBox) {
	v, err := m.store().View(rt.Context(), m.acct, want.id, nil, store.Peek())
	if err != nil {
		rt.Fatal(err)
	}
	defer v.Close()
	c := &client{v, want, want.uids()}
	c.marked(rt)
	c.compare(rt)
	var buf []byte
	readErr := v.Entries(1, v.Len(), func(_ int, e *store.Entry) bool {
		if buf, err = m.store().ReadBlob(rt.Context(), m.acct, e.Message, buf); err != nil || !bytes.Equal(buf, []byte(want.entries[e.UID].text)) {
			rt.Fatalf("content of %d: %q, %v; want %q", e.UID, buf, err, want.entries[e.UID].text)
		}
		return true
	})
	if readErr != nil {
		rt.Fatal(readErr)
	}
	dead, err := m.store().Vanished(rt.Context(), m.acct, want.id, 0)
	slices.Sort(want.dead)
	if err != nil || !slices.Equal(dead, want.dead) {
		rt.Fatalf("vanished %v, %v; want %v", dead, err, want.dead)
	}
}
