-- How much mail accounts usually get, so that a mail bomb stands out. Times are seconds since 1970, UTC.

-- +goose Up

CREATE TABLE surge (
    account_id INTEGER NOT NULL PRIMARY KEY,
    action     TEXT    NOT NULL, -- the account's own choice, '' for the server's
    usual      BLOB    NOT NULL, -- averages and senders heard before, as package surge writes them
    saved      INTEGER NOT NULL,
    told       INTEGER NOT NULL  -- when its owner was last told of one
);

-- +goose Down
DROP TABLE surge;
