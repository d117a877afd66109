package store

import (
	"context"
	"database/sql"
	"errors"
)

// Database is an opened SQL back-end with its schema up to date. Store.Close closes it.
type Database struct {
	Writer  *sql.DB // one connection, which the store's writer goroutine keeps
	Reader  *sql.DB // a bounded pool, which sees committed rows only
	Side    *sql.DB // for what must not wait for those: the table of data keys; nil where keys stand in files
	Dialect Dialect
	Peers   Peers // the way to the other nodes that write to the same database; nil when no other can
}

// Close closes all ends.
func (db *Database) Close() error {
	var err error
	if db.Peers != nil {
		err = db.Peers.Close()
	}
	err = errors.Join(err, db.Reader.Close(), db.Writer.Close())
	if db.Side != nil {
		err = errors.Join(err, db.Side.Close())
	}
	return err
}

// Peers is the way to the other nodes on one database. It has connections of its own.
type Peers interface {
	// Tell sends a text to the other nodes. It is lost when none listens, or the connection breaks. One caller at a time.
	Tell(ctx context.Context, text string) error
	// Hear calls ready when it listens and heard for each text that another node sent from then on, its own too, until ctx
	// ends or the connection breaks.
	Hear(ctx context.Context, ready func(), heard func(text string)) error
	// Lead waits until no other node leads, and calls fn with a context that ends when this one doesn't lead any more. It
	// returns when fn has returned, or ctx ends, or the connection broke.
	Lead(ctx context.Context, fn func(ctx context.Context)) error
	// Now is an expression for the clock of the database, in milliseconds since 1970.
	Now() string
	Close() error
}

// Dialect is what differs between SQL back-ends beyond their schema. All queries use $n placeholders and run on all.
type Dialect interface {
	// Begin is the statement that opens a transaction that will write.
	Begin() string
	// BeginRead is the statement that opens a transaction that only reads, and sees one moment.
	BeginRead() string
	// BeginSnapshot is BeginRead for a transaction that may stay open for long, and idle.
	BeginSnapshot() string
	// LastID gives the highest number that the database itself ever gave to a row of the table, in its column id.
	LastID(q Querier, table string) (int64, error)
	// RaiseLastID lets the database give numbers above id.
	RaiseLastID(tx *Tx, table string, id int64) error
	// In gives a condition that holds when column is one of the numbers in the parameter, e.g. In("uid", "$3").
	In(column, param string) string
	// Table gives a FROM item named alias with one row for each number in the parameter, in their order, as column v.
	Table(alias, param string) string
	// Numbers makes the parameter of In and Table.
	Numbers(n []int64) any
	// State says what a failed statement left of a connection.
	State(conn *sql.Conn) ConnState
	// Fault says what kind of failure the driver's error is.
	Fault(err error) Fault
}

// Fault is the kind of a database failure.
type Fault uint8

const (
	FaultOther    Fault = iota
	FaultUnique         // a unique key is taken
	FaultBusy           // passing: locked, interrupted, connection lost
	FaultFull           // no space
	FaultReadOnly       // writing was refused or failed; it may work later
	FaultFailed         // a sync failed: what is on disk is unknown until the database is opened anew
	FaultCorrupt        // damaged pages or a damaged row
	FaultLost           // the connection broke; another can be opened, by and by
	FaultRetry          // the database chose this transaction to give way to another: it may run again
	FaultUnknown        // the connection broke during a commit: it may have been carried out or not
)

// ConnState is what is left of a connection.
type ConnState uint8

const (
	ConnSound   ConnState = iota
	ConnAborted           // the transaction can only be rolled back
	ConnLost
)
