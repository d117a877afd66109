package storetest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
)

// Fill puts something into every table of an empty store, in all forms that it may have: accounts 1 and 2 with what their
// owners did, the directory, settings and the queue. There are n small messages besides.
func Fill(t *testing.T, s *store.Store, n int) {
	t.Helper()
	h := &harness{T: t, s: s, now: time.Now()}
	h.keep()
	h.account(1)
	h.account(2)
	h.fillDirectory()
	h.fillMailboxes(n)
	h.fillQueue()
	h.ok(s.PutSieve(h.Context(), 1, "é", []byte("keep;"), store.SieveLimits{Scripts: 9, Octets: 99}))
	h.ok(s.ActivateSieve(h.Context(), 1, "é"))
	h.ok(s.SetHold(h.Context(), 2, true, "the auditors ask"))
	h.ok(s.SetDomainPolicy(h.Context(), store.DomainPolicy{Domain: "example.test", QuotaOctets: 1 << 40, TrashDays: 3, JunkDays: -1}))
	gone := h.create("Projects/Wax")
	h.fill(gone.ID, 3)
	h.ok(s.DeleteMailbox(h.Context(), 1, gone.ID))
	h.fillReturns()
	s.SetPolicy(store.Policy{Undelete: 14 * day, Tombstones: 30 * day})
	h.housekeep()                      // marks the MODSEQs
	h.write(func(tx *store.Tx) error { // as a kill leaves it
		_, err := tx.Exec(`INSERT INTO dead_mailbox (account_id, mailbox_id) VALUES (1, $1)`, gone.ID)
		return err
	})
}

func (h *harness) fillMailboxes(n int) {
	h.Helper()
	in, work := h.box("INBOX").ID, h.create("工作").ID
	uids := h.fill(in, 6)
	h.flags(in, uids[:3], store.FlagsAdd, store.Seen|store.Flagged, "$Forwarded", "发票")
	_, _, _, err := h.s.Copy(h.Context(), 1, in, uids[:2], work)
	h.ok(err)
	h.expunge(in, uids[5])
	h.append(in,
		store.NewMessage{Content: strings.NewReader("from elsewhere"), UIDL: "old-uidl"},
		store.NewMessage{Content: strings.NewReader("")},
		store.NewMessage{Content: strings.NewReader(strings.Repeat("a middling line of a message\r\n", 5000))},
		store.NewMessage{Content: strings.NewReader(strings.Repeat("a long line of a message\r\n", 100_000))})
	_, err = h.s.Deliver(h.Context(), store.Delivery{Content: bytes.NewReader(h.text()), Local: []store.NewEntry{
		{Account: 1, Role: store.RoleInbox}, {Account: 2, Role: store.RoleInbox, Keywords: []string{"shared"}},
	}})
	h.ok(err)
	for n > 0 {
		some := min(n, 500)
		h.fill(work, some)
		n -= some
	}
}

// fillReturns begins to bring back an account and a mailbox.
func (h *harness) fillReturns() {
	h.Helper()
	id, err := h.s.BeginReturn(h.Context(), store.ReturningAccount{Key: "back@example.test", Source: aBackup, ModSeq: 9, LastValidity: 9})
	h.ok(err)
	for _, acct := range []store.AccountID{1, id} {
		r, err := h.s.ReturnMailbox(h.Context(), h.right(acct), aBackup, store.ReturningMailbox{Name: "Back", UIDValidity: 7, UIDNext: 100, Keywords: []string{"k"}})
		h.ok(err)
		h.comeBack(acct, r.ID, h.returning(1, 5))
	}
}

// fillDirectory writes the rows that package directory would.
func (h *harness) fillDirectory() {
	h.Helper()
	h.write(func(tx *store.Tx) error {
		for _, q := range []string{
			`INSERT INTO directory_domain (name, postmaster, created) VALUES ('example.test', 'a@example.test', 1)`,
			`INSERT INTO directory_domain (name, created) VALUES ('xn--fsq.test', 2)`,
			`INSERT INTO directory_account (account_id, name, created, password, quota_bytes) VALUES (1, 'Ä 你', 3, '$argon2id$x', 1000000000)`,
			`INSERT INTO directory_account (account_id, created) VALUES (2, 4)`,
			`INSERT INTO directory_address (address_key, local_part, domain, account_id, created) VALUES ('a@example.test', 'A', 'example.test', 1, 3)`,
			`INSERT INTO directory_address (address_key, local_part, domain, account_id, created) VALUES ('b@example.test', 'b', 'example.test', 2, 4)`,
			`INSERT INTO directory_address (address_key, local_part, domain, account_id, created) VALUES ('all@example.test', 'all', 'example.test', NULL, 4)`,
			`INSERT INTO directory_target (address_key, position, target, target_key) VALUES ('all@example.test', 0, 'A@example.test', 'a@example.test')`,
			`INSERT INTO directory_target (address_key, position, target, target_key) VALUES ('all@example.test', 1, 'b@example.test', 'b@example.test')`,
			`INSERT INTO sts_policy (domain, policy_id, body, fetched, expires, used) VALUES ('far.test', 'a1', 'mode: none', 1, 2, 3)`,
			`INSERT INTO tls_outcome (day, domain, policy, result, sessions) VALUES (20000, 'far.test', '{}', '', 7)`,
			`INSERT INTO tls_report_sent (day, domain, rua) VALUES (20000, 'far.test', 'mailto:a@far.test')`,
			`UPDATE directory_address SET options = '{"keep":true}' WHERE account_id = 2`,
			`UPDATE directory_domain SET options = '{"alias_of":"example.test"}' WHERE name = 'xn--fsq.test'`,
			`INSERT INTO mail_rule (kind, name, value, created) VALUES ('route', 'far.test', '{}', 5)`,
			`INSERT INTO sieve_memory (account_id, memory, expires) VALUES (1, 'm', 2000000000)`,
			`UPDATE directory_counter SET value = 9`,
			`INSERT INTO setting (name, value, version, changed) VALUES ('mail.max_size', '"10MiB"', 9, 5)`,
			`INSERT INTO setting_history (version, name, value, changed, actor) VALUES (9, 'mail.max_size', '"10MiB"', 5, 'local')`,
			`INSERT INTO greylist (greylist_key, first_seen, last_seen, passed) VALUES ('key', 1, 2, 0)`,
			`INSERT INTO contact (account_id, address_key, wrote) VALUES (1, 'x@far.test', 5)`,
			`INSERT INTO sending_count (subject, messages_hour, messages_day, recipients_hour, recipients_day, usual, touched)
				VALUES ('account:1', 1, 2, 3, 4, 5, 6)`,
			`INSERT INTO sending_hold (account_id, reason, since) VALUES (1, 'more than ever', 5)`,
			`INSERT INTO setting_history (version, name, value, changed, actor) VALUES (8, 'mail.max_size', NULL, 4, 'local')`,
		} {
			if _, err := tx.Exec(q); err != nil {
				return err
			}
		}
		for _, q := range []string{
			`INSERT INTO srs_key (id, secret, created) VALUES (2, $1, 5)`,
			`INSERT INTO surge (account_id, action, usual, saved, told) VALUES (1, 'defer', $1, 5, 0)`,
		} {
			if _, err := tx.Exec(q, []byte("octets")); err != nil {
				return err
			}
		}
		return nil
	})
}

func (h *harness) fillQueue() {
	h.Helper()
	now := h.clock()
	h.ok(h.s.TraceWrite(h.Context(), []store.TraceRow{{ID: "T0", Part: 1, Steps: []byte{1}}}, nil, 100))
	for i := range 3 {
		_, err := h.s.Deliver(h.Context(), store.Delivery{Content: bytes.NewReader(h.text()), Queue: &store.QueueMessage{
			TraceID: fmt.Sprint("T", i), From: "a@example.test", Size: 10, Created: now, Account: store.AccountID(i % 2), UTF8: i == 1, TLS: uint8(i),
			Recipients: []store.QueueRecipient{
				{To: "x@far.test", Domain: "far.test", ORcpt: "rfc822;x@far.test"}, {To: "y@away.test", Domain: "away.test"},
			},
		}})
		h.ok(err)
	}
	_, err := h.s.QueueHold(h.Context(), store.QueueFilter{Account: 1})
	h.ok(err)
	// The highest numbers are not those of rows that are left.
	_, err = h.s.QueueDrop(h.Context(), store.QueueFilter{IDs: []store.QueueID{3}}, false, "")
	h.ok(err)
	_, _, err = h.s.QueueClock(h.Context(), now)
	h.ok(err)
	h.ok(h.s.SetQueueRule(h.Context(), store.QueueRule{Kind: "limit", Name: "far.test", Value: `{"concurrency":2}`}))
	h.ok(h.s.Suppress(h.Context(), []store.Suppression{{Address: "dead@far.test", Since: now, Expires: now.Add(time.Hour), Reason: "550 5.1.1"}}))
	h.ok(h.s.QueueCountSent(h.Context(), store.QueueDay(now), []store.QueueSource{{Address: "192.0.2.1", Provider: "other", Messages: 4}}))
	h.write(func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE queue_recipient SET last_error = $1 WHERE id = 1`, "\xff what others\x00say")
		return err
	})
}
