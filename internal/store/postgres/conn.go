package postgres

import (
	"context"
	"database/sql/driver"
	"reflect"
	"strings"

	"github.com/jackc/pgx/v5/stdlib"
)

// connector opens connections of type conn.
type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn{opened.(*stdlib.Conn)}, nil
}

// conn is a connection that stores any text.
type conn struct{ *stdlib.Conn }

// CheckNamedValue makes strings such as PostgreSQL stores: valid UTF-8 without NUL. What others wrote, a remote server's
// answer say, may be anything, and one such octet would refuse the transaction that it comes in.
func (conn) CheckNamedValue(v *driver.NamedValue) error {
	switch s := v.Value.(type) {
	case string:
		v.Value = storable(s)
	case nil, int64, int, []byte:
	default:
		if r := reflect.ValueOf(s); r.Kind() == reflect.String {
			v.Value = storable(r.String())
		}
	}
	return nil
}

func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
