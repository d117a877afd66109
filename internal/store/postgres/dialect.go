package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"

	"waxwing/internal/store"
	"waxwing/internal/store/schema"
)

// dialect tells package store what is peculiar to PostgreSQL.
type dialect struct{}

func (dialect) Begin() string { return "BEGIN" }

func (dialect) BeginRead() string { return "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" }

// BeginSnapshot lifts the bound that the server sets to idle transactions, for this one alone.
func (d dialect) BeginSnapshot() string {
	return d.BeginRead() + "; SET LOCAL idle_in_transaction_session_timeout = 0"
}

func (dialect) LastID(q store.Querier, table string) (id int64, err error) {
	err = q.QueryRow(`SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass), 0)`, table).Scan(&id)
	return id, err
}

func (d dialect) RaiseLastID(tx *store.Tx, table string, id int64) error {
	last, err := d.LastID(tx, table)
	if err != nil || last >= id {
		return err
	}
	return tx.QueryRow(`SELECT setval(pg_get_serial_sequence($1, 'id')::regclass, $2)`, table, id).Scan(&id)
}

func (dialect) In(column, param string) string { return column + " = ANY(" + param + "::bigint[])" }

func (dialect) Table(alias, param string) string {
	return "unnest(" + param + "::bigint[]) AS " + alias + "(v)"
}

func (dialect) Numbers(n []int64) any {
	if n == nil {
		n = []int64{} // nil would be NULL, and nothing is in NULL
	}
	return n
}

// State asks the driver, which knows without a round trip.
func (dialect) State(on *sql.Conn) store.ConnState {
	state := store.ConnLost
	err := on.Raw(func(c any) error {
		pg := c.(conn).Conn.Conn().PgConn()
		switch {
		case pg.IsClosed():
		case pg.TxStatus() == 'E':
			state = store.ConnAborted
		default:
			state = store.ConnSound
		}
		return nil
	})
	if err != nil {
		return store.ConnLost
	}
	return state
}

// byCode tells faults by SQLSTATE (PostgreSQL manual, appendix A).
var byCode = map[string]store.Fault{
	"23505": store.FaultUnique,
	"53100": store.FaultFull,
	"25006": store.FaultReadOnly, // read-only transaction: a standby, or default_transaction_read_only
	"58030": store.FaultReadOnly, // I/O error
	"XX001": store.FaultCorrupt,
	"XX002": store.FaultCorrupt,
	"40001": store.FaultRetry,
	"40P01": store.FaultRetry,
	"55P03": store.FaultBusy, // lock not available
	"25P02": store.FaultBusy, // the transaction was aborted by what failed before
	"57014": store.FaultBusy, // cancelled, statement timeout
	"25P03": store.FaultLost, // idle in transaction for too long
	"57P01": store.FaultLost, // shut down
	"57P02": store.FaultLost, // crashed
	"57P03": store.FaultLost, // starting up
	"57P05": store.FaultLost, // idle for too long
}

// byClass tells faults by the first two characters of SQLSTATE.
var byClass = map[string]store.Fault{
	"08": store.FaultLost, // connection
	"53": store.FaultBusy, // resources: connections, memory
}

func (dialect) Fault(err error) store.Fault {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if f, ok := byCode[pg.Code]; ok {
			return f
		}
		if len(pg.Code) == 5 {
			return byClass[pg.Code[:2]]
		}
		return store.FaultOther
	}
	var newer *schema.NewerError
	if errors.Is(err, ErrInUse) || errors.As(err, &newer) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return store.FaultBusy
	}
	var network net.Error
	var connect *pgconn.ConnectError
	switch {
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone), errors.Is(err, pgconn.ErrConnClosed),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network), errors.As(err, &connect):
		return store.FaultLost
	}
	return store.FaultOther
}
