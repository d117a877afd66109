package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
)

// accountCheck is the look at one account.
type accountCheck struct {
	v        *verification
	q        *reader
	id       AccountID
	sums     map[MailboxID]*boxSums
	names    map[MailboxID]string
	messages []int64 // of all entries, those too that can be restored
	maps     map[MailboxID]*boxMap
}

// boxSums is what the entries of a mailbox come to.
type boxSums struct {
	countDelta
	uid    UID
	modseq ModSeq
}

func (a *accountCheck) entries() error {
	return a.q.each(func(rows *sql.Rows) error {
		var box MailboxID
		var r entryRow
		var id, size, content sql.NullInt64
		if err := rows.Scan(&box, &r.uid, &r.message, &r.flags, &r.modseq, &r.size, &id, &size, &content); err != nil {
			return err
		}
		b := a.sums[box]
		if b == nil {
			b = &boxSums{}
			a.sums[box] = b
		}
		p := Problem{Kind: ProblemEntry, Account: a.id, Mailbox: box, UID: r.uid, Message: r.message}
		if r.uid <= b.uid {
			p.Text = fmt.Sprintf("UID %d stands behind UID %d", r.uid, b.uid)
			a.v.found(p)
		}
		if m := a.maps[box]; m != nil && r.uid > b.uid {
			m.note(&r)
		}
		b.add(1, r.flags, int64(r.size))
		b.uid, b.modseq = max(b.uid, r.uid), max(b.modseq, r.modseq)
		switch {
		case !id.Valid:
			p.Text = "its message has no row"
			a.v.found(p)
		case size.Int64 != int64(r.size):
			p.Text = fmt.Sprintf("it has %d octets, its message %d", r.size, size.Int64)
			a.v.found(p)
		}
		a.name(r.message, content)
		a.v.done.Entries++
		return nil
	}, `SELECT e.mailbox_id, e.uid, e.message_id, e.flags, e.modseq, e.size, m.message_id, m.size, m.blob_id FROM entry AS e
		LEFT JOIN message AS m ON m.message_id = e.message_id AND m.account_id = e.account_id
		WHERE e.account_id = $1 ORDER BY e.mailbox_id, e.uid`, a.id)
}

// boxMap is what uid_map says of a mailbox, and what its entries say.
type boxMap struct {
	gone      int64
	seenBelow UID
	next      UID
	uids      uidSet
	unseen    UID // the first entry without \Seen
}

func (m *boxMap) note(r *entryRow) {
	m.uids = m.uids.add(r.uid)
	if m.unseen == 0 && r.flags&Seen == 0 {
		m.unseen = r.uid
	}
}

func (a *accountCheck) readMaps() error {
	a.maps = make(map[MailboxID]*boxMap)
	return a.q.each(func(rows *sql.Rows) error {
		var box MailboxID
		m := &boxMap{}
		err := rows.Scan(&box, &m.gone, &m.seenBelow, &m.next)
		a.maps[box] = m
		return err
	}, `SELECT u.mailbox_id, u.gone, u.seen_below, m.uid_next FROM uid_map AS u
		JOIN mailbox AS m ON m.account_id = u.account_id AND m.mailbox_id = u.mailbox_id WHERE u.account_id = $1`, a.id)
}

// compareMaps compares the maps of large mailboxes with their entries.
func (a *accountCheck) compareMaps() error {
	for box, m := range a.maps {
		text := ""
		uids, err := readMap(a.q, a.id, box, m.next)
		switch {
		case errors.Is(err, errMap):
			text = err.Error()
		case err != nil:
			return err
		case !slices.Equal(uids, m.uids):
			text = fmt.Sprintf("%d UIDs are taken by the map, there are %d entries, or others", uids.count(), m.uids.count())
		case m.gone != int64(m.next)-1-int64(m.uids.count()):
			text = fmt.Sprintf("%d UIDs are gone by the map, %d have no entry", m.gone, int64(m.next)-1-int64(m.uids.count()))
		case m.unseen != 0 && m.unseen < m.seenBelow:
			text = fmt.Sprintf("UID %d is unseen, all below %d are recorded as seen", m.unseen, m.seenBelow)
		default:
			continue
		}
		a.v.found(Problem{Kind: ProblemMap, Account: a.id, Mailbox: box, Text: text})
	}
	return nil
}

// name notes that an entry names a message.
func (a *accountCheck) name(id MessageID, content sql.NullInt64) {
	a.messages = append(a.messages, int64(id))
	a.v.seen.set(int64(id))
	if a.v.opts.Account != 0 && content.Valid {
		a.v.named.set(content.Int64)
	}
}

func (a *accountCheck) expunged() error {
	return a.q.each(func(rows *sql.Rows) error {
		p := Problem{Kind: ProblemEntry, Account: a.id, Text: "an expunged entry: its message has no row"}
		var id, content sql.NullInt64
		if err := rows.Scan(&p.Mailbox, &p.UID, &p.Message, &id, &content); err != nil {
			return err
		}
		if !id.Valid {
			a.v.found(p)
		}
		a.name(p.Message, content)
		return nil
	}, `SELECT e.mailbox_id, e.uid, e.message_id, m.message_id, m.blob_id FROM expunged_entry AS e
		LEFT JOIN message AS m ON m.message_id = e.message_id AND m.account_id = e.account_id WHERE e.account_id = $1`, a.id)
}

// mailboxes compares the rows of the mailboxes and of the account with what their entries come to.
func (a *accountCheck) mailboxes() error {
	var c counters
	err := a.q.QueryRow(`SELECT modseq, next_mailbox, last_validity, used_octets, used_messages FROM mail_account WHERE account_id = $1`, a.id).
		Scan(&c.modseq, &c.nextMailbox, &c.lastValidity, &c.usedOctets, &c.usedMessages)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // deleted since it was listed
	}
	if err != nil {
		return err
	}
	var used countDelta
	err = a.q.each(func(rows *sql.Rows) error {
		var m Mailbox
		if err := rows.Scan(&m.ID, &m.Name, &m.UIDValidity, &m.UIDNext, &m.HighestModSeq, &m.Messages, &m.Unseen, &m.Deleted, &m.Size); err != nil {
			return err
		}
		a.v.done.Mailboxes++
		b := a.sums[m.ID]
		if b == nil {
			b = &boxSums{}
		}
		used.messages, used.octets = used.messages+b.messages, used.octets+b.octets
		for _, text := range boxFaults(&m, b, &c) {
			a.v.found(Problem{Kind: ProblemCounts, Account: a.id, Mailbox: m.ID, Name: m.Name, Text: text})
		}
		return nil
	}, `SELECT mailbox_id, name, uid_validity, uid_next, modseq, messages, unseen, deleted, octets FROM mailbox WHERE account_id = $1`, a.id)
	if err != nil {
		return err
	}
	if used.messages != c.usedMessages || used.octets != c.usedOctets {
		a.v.found(Problem{Kind: ProblemCounts, Account: a.id, Text: fmt.Sprintf("the account records %d messages and %d octets, its mailboxes hold %d and %d",
			c.usedMessages, c.usedOctets, used.messages, used.octets)})
	}
	return nil
}

// boxFaults says what is wrong with the row of a mailbox.
func boxFaults(m *Mailbox, b *boxSums, c *counters) []string {
	var out []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	got := countDelta{int64(m.Messages), int64(m.Unseen), int64(m.Deleted), m.Size}
	add(got != b.countDelta, "it records %d messages, %d unseen, %d deleted, %d octets; its entries are %d, %d, %d, %d",
		got.messages, got.unseen, got.deleted, got.octets, b.messages, b.unseen, b.deleted, b.octets)
	add(m.UIDNext <= b.uid, "UIDNEXT is %d, but UID %d is taken", m.UIDNext, b.uid)
	add(m.HighestModSeq < b.modseq, "HIGHESTMODSEQ is %d, an entry has %d", m.HighestModSeq, b.modseq)
	add(c.modseq < m.HighestModSeq, "HIGHESTMODSEQ is %d, the account is at %d", m.HighestModSeq, c.modseq)
	add(c.lastValidity < m.UIDValidity, "UIDVALIDITY is %d, the last one given was %d", m.UIDValidity, c.lastValidity)
	add(c.nextMailbox <= m.ID, "its id is not below the next one, %d", c.nextMailbox)
	return out
}

// sharing compares how often messages are named with what is recorded.
func (a *accountCheck) sharing() error {
	recorded := make(map[int64]int64)
	err := a.q.each(func(rows *sql.Rows) error {
		var id, n int64
		err := rows.Scan(&id, &n)
		recorded[id] = n
		return err
	}, `SELECT message_id, entries FROM shared_message WHERE account_id = $1`, a.id)
	if err != nil {
		return err
	}
	fault := func(id, n, want int64) {
		a.v.found(Problem{Kind: ProblemSharing, Account: a.id, Message: MessageID(id), Text: fmt.Sprintf("%d entries are recorded, there are %d", n, want)})
	}
	slices.Sort(a.messages)
	for i := 0; i < len(a.messages); {
		id, n := a.messages[i], int64(0)
		for ; i < len(a.messages) && a.messages[i] == id; i++ {
			n++
		}
		was, ok := recorded[id]
		delete(recorded, id)
		if !ok {
			was = 1
		}
		if was != n {
			fault(id, was, n)
		}
	}
	for id, n := range recorded {
		// Entries of a deleted mailbox that are still to be removed are entries too: only a message without any is left here.
		fault(id, n, 0)
	}
	return nil
}
