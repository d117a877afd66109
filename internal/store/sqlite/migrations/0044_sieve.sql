-- Filter scripts of the accounts, and what their runs remember: whom vacation has answered, which messages duplicate has seen.

-- +goose Up
CREATE TABLE sieve_script (
    account_id INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    text       BLOB    NOT NULL, -- UTF-8
    active     INTEGER NOT NULL, -- of one script of an account at most
    changed    INTEGER NOT NULL, -- Unix microseconds
    PRIMARY KEY (account_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE sieve_memory (
    account_id INTEGER NOT NULL,
    memory     TEXT    NOT NULL, -- package sieve
    expires    INTEGER NOT NULL, -- Unix seconds
    PRIMARY KEY (account_id, memory)
) STRICT, WITHOUT ROWID;
CREATE INDEX sieve_memory_expires ON sieve_memory (expires);

-- Which scripts deliveries run: another number with each change of them, 0 while none is active.
ALTER TABLE mail_account ADD COLUMN sieve INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE mail_account DROP COLUMN sieve;
DROP TABLE sieve_memory;
DROP TABLE sieve_script;
