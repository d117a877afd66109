-- The nodes on one database, where several may be. A node alone has no rows here.

-- +goose Up

-- seen is when the node last said that it lives: Unix milliseconds by the clock of the database. What a node holds that is not
-- here, or was not seen for a while, is free. While one has pinned contents no object goes.
CREATE TABLE node (
    node   TEXT    NOT NULL PRIMARY KEY,
    name   TEXT    NOT NULL,
    seen   INTEGER NOT NULL,
    pinned INTEGER NOT NULL
);

-- Accounts whose maildrop a POP3 session has.
CREATE TABLE maildrop (
    account_id INTEGER NOT NULL PRIMARY KEY,
    node       TEXT    NOT NULL
);

-- +goose Down
DROP TABLE maildrop;
DROP TABLE node;
