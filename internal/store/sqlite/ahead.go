package sqlite

import (
	"context"
	"errors"
	"fmt"

	"waxwing/internal/sqlitefile"
)

// How far JumpAhead goes: more than a server gives out while a copy is kept, and little of what there is.
const (
	aheadUIDs     = 1_000_000
	aheadIDs      = 1 << 32 // MODSEQ, ids of messages and contents
	aheadValidity = 1 << 16 // UIDVALIDITY is the clock at least: what was given out lies less than that ahead of it
	aheadQueue    = 1 << 20
	aheadAccounts = 1 << 16
)

// ahead lets a database of an earlier moment go on as if all numbers that may have been given out since had been: UIDs,
// UIDVALIDITY, MODSEQ and ids are never used twice. Clients that know a later MODSEQ are told of all entries anew.
// Outgoing mail is held, since it may have been sent. It names only tables that the first schema has; see optional.
var ahead = []string{
	fmt.Sprintf(`UPDATE sequence SET next = next + %d`, aheadIDs),
	fmt.Sprintf(`UPDATE mail_account SET modseq = modseq + %d, next_mailbox = next_mailbox + %d,
		last_validity = min(last_validity + %d, 4294967295)`, aheadIDs, aheadAccounts, aheadValidity),
	fmt.Sprintf(`UPDATE mailbox SET uid_next = min(uid_next + %d, 4294967295),
		modseq = (SELECT a.modseq FROM mail_account AS a WHERE a.account_id = mailbox.account_id)`, aheadUIDs),
	`UPDATE entry SET modseq = (SELECT a.modseq FROM mail_account AS a WHERE a.account_id = entry.account_id)`,
	fmt.Sprintf(`UPDATE directory_counter SET value = value + %d WHERE name = 'account'`, aheadAccounts),
	fmt.Sprintf(`UPDATE sqlite_sequence SET seq = seq + %d WHERE name LIKE 'queue%%'`, aheadQueue),
	`UPDATE queue_recipient SET state = 'held', lease_until = 0, lease_owner = '' WHERE state IN ('waiting', 'leased')`,
}

// optional are statements for columns that came with a later schema.
var optional = []struct{ table, column, statement string }{
	{"mail_account", "horizon", `UPDATE mail_account SET horizon = modseq`},
	{"uid_map", "gone", `DELETE FROM uid_map`}, // made anew: now there is a gap
	{"uid_gap", "gone", `DELETE FROM uid_gap`},
}

// JumpAhead prepares a database that is an older copy to take the place of the one that went on from it. Nobody may have it
// open. All of it is in the file at path when it returns.
func JumpAhead(ctx context.Context, path string) (err error) {
	o := Options{}
	o.setDefaults()
	file, err := sqlitefile.Look(path, nil, sqlitefile.Below{}) // and no conversion: the older program must read it
	if err != nil {
		return fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	db, err := file.Pool(ctx, writing(o))
	if err != nil {
		return fmt.Errorf("sqlite: open %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	statements := ahead
	for _, x := range optional {
		var n int
		err := tx.QueryRowContext(ctx, `SELECT count(*) FROM pragma_table_info($1) WHERE name = $2`, x.table, x.column).Scan(&n)
		if err != nil {
			return fmt.Errorf("sqlite: %w", err)
		}
		if n > 0 {
			statements = append(statements[:len(statements):len(statements)], x.statement)
		}
	}
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("sqlite: jump ahead: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	return checkpoint(ctx, db)
}
