package store

import (
	"fmt"
	"slices"
	"strings"
)

// Record is one row of a table, in a form that no back-end colours: a value is an int64, a string of valid UTF-8 without NUL,
// a []byte, or nil.
type Record struct {
	Columns []string // shared by the records of a table: do not change
	Values  []any
}

// Table is what a Snapshot has under one name.
type Table struct {
	Name    string
	Account string // the column that names the account of a row, "" for tables that aren't by account

	key     []string // primary key, the order of Snapshot.Rows
	where   string   // only these rows are truth
	seeds   string   // these rows stand in an empty store too
	counted bool     // the database gives the numbers in column id
}

// lastIDs is the name of the table of the highest numbers that the database gave to rows by itself. No back-end has it as a
// table; its columns are name, of the table, and id.
const lastIDs = "last_id"

// tables is all that holds truth, in loading order: what others name comes first. What is missing here is made anew by whoever
// keeps it: where contents lie (blob, segment, fresh_content, object_garbage, damaged_content), how far the scrub is
// (house_state), which UIDs of a large mailbox are taken (uid_map, uid_gap), by what traces are found (trace_index), the data keys,
// of which each store has its own (data_keys), who brings mail back (returning_right), and the index of text. A test compares the
// list with the schema.
var tables = []Table{
	{Name: "sequence", key: []string{"name"}, where: "name NOT IN ('pack', 'large')"}, // those number objects
	{Name: "directory_domain", key: []string{"name"}},
	{Name: "directory_account", Account: "account_id", key: []string{"account_id"}},
	{Name: "directory_address", Account: "account_id", key: []string{"address_key"}},
	{Name: "directory_target", key: []string{"address_key", "position"}},
	{Name: "directory_counter", key: []string{"name"}, seeds: "value = 0"},
	{Name: "setting", key: []string{"name"}},
	{Name: "setting_history", key: []string{"version", "name"}},
	{Name: "domain_policy", key: []string{"domain"}},
	{Name: "mail_rule", key: []string{"kind", "name"}},
	{Name: "srs_key", key: []string{"id"}},
	{Name: "greylist", key: []string{"greylist_key"}},
	{Name: "contact", Account: "account_id", key: []string{"account_id", "address_key"}},
	{Name: "surge", Account: "account_id", key: []string{"account_id"}},
	{Name: "mail_account", Account: "account_id", key: []string{"account_id"}},
	{Name: "returning_account", Account: "account_id", key: []string{"account_id"}},
	{Name: "returning_mailbox", Account: "account_id", key: []string{"account_id", "mailbox_id"}},
	{Name: "mail_hold", Account: "account_id", key: []string{"account_id", "number"}},
	{Name: "modseq_mark", Account: "account_id", key: []string{"account_id", "at"}},
	{Name: "mailbox", Account: "account_id", key: []string{"account_id", "mailbox_id"}},
	{Name: "keyword", Account: "account_id", key: []string{"account_id", "mailbox_id", "number"}},
	{Name: "subscription", Account: "account_id", key: []string{"account_id", "name"}},
	{Name: "dead_mailbox", Account: "account_id", key: []string{"account_id", "mailbox_id"}},
	{Name: "deleted_mailbox", Account: "account_id", key: []string{"account_id", "mailbox_id"}},
	{Name: "sieve_script", Account: "account_id", key: []string{"account_id", "name"}},
	{Name: "sieve_memory", Account: "account_id", key: []string{"account_id", "memory"}},
	{Name: "message", Account: "account_id", key: []string{"message_id"}},
	{Name: "shared_message", Account: "account_id", key: []string{"account_id", "message_id"}},
	{Name: "thread_ref", Account: "account_id", key: []string{"account_id", "ref"}},
	{Name: "entry", Account: "account_id", key: []string{"account_id", "mailbox_id", "uid"}},
	{Name: "expunged_entry", Account: "account_id", key: []string{"account_id", "mailbox_id", "uid"}},
	{Name: "tombstone", Account: "account_id", key: []string{"account_id", "mailbox_id", "modseq", "uid"}},
	{Name: "mailbox_tombstone", Account: "account_id", key: []string{"account_id", "modseq", "mailbox_id"}},
	{Name: "queue_message", Account: "account_id", key: []string{"id"}, counted: true},
	{Name: "queue_recipient", key: []string{"id"}, counted: true},
	{Name: "queue_destination", key: []string{"domain", "lane"}},
	{Name: "queue_clock", key: []string{"id"}},
	{Name: "queue_rule", key: []string{"kind", "name"}, seeds: "kind = 'version' AND value = '0'"},
	{Name: "queue_suppressed", key: []string{"address", "sender_domain"}},
	{Name: "queue_sent", key: []string{"source", "provider", "day"}},
	{Name: "sending_count", key: []string{"subject"}},
	{Name: "sending_hold", Account: "account_id", key: []string{"account_id"}},
	{Name: "trace", key: []string{"trace_id", "part"}},
	{Name: "sts_policy", key: []string{"domain"}},
	{Name: "tls_outcome", key: []string{"day", "domain", "policy", "result"}},
	{Name: "tls_report_sent", key: []string{"day", "domain", "rua"}},
	{Name: lastIDs, key: []string{"name"}},
}

// Tables lists the tables of a Snapshot in the order in which they are loaded.
func Tables() []Table { return slices.Clone(tables) }

func tableNamed(name string) (*Table, error) {
	for i := range tables {
		if tables[i].Name == name {
			return &tables[i], nil
		}
	}
	return nil, fmt.Errorf("table %q: %w", name, ErrNotFound)
}

// listing is the query of one page of a table, after the row with the key in its first parameters unless first.
func (t *Table) listing(acct AccountID, first bool) string {
	var where []string
	if t.where != "" {
		where = append(where, t.where)
	}
	order := t.order(acct)
	n := 0
	if !first {
		marks := make([]string, len(order))
		for i := range marks {
			n++
			marks[i] = fmt.Sprintf("$%d", n)
		}
		where = append(where, "("+strings.Join(order, ", ")+") > ("+strings.Join(marks, ", ")+")")
	}
	if acct != 0 {
		n++
		where = append(where, fmt.Sprintf("%s = $%d", t.Account, n))
	}
	query := "SELECT * FROM " + t.Name
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	return fmt.Sprintf("%s ORDER BY %s LIMIT %d", query, strings.Join(order, ", "), snapshotPage)
}

// order is the columns that tell the rows apart, of one account or of all.
func (t *Table) order(acct AccountID) []string {
	if acct != 0 && t.key[0] == t.Account && len(t.key) > 1 {
		return t.key[1:]
	}
	return t.key
}
