-- What the front door remembers of strangers. Times are seconds since 1970, UTC.

-- +goose Up

-- Greylisting: attempts of a network, a sender and a recipient, and networks that have shown that they try again. What it is
-- about is hashed.
CREATE TABLE greylist (
    greylist_key TEXT    NOT NULL PRIMARY KEY,
    first_seen   INTEGER NOT NULL,
    last_seen    INTEGER NOT NULL,
    passed       INTEGER NOT NULL -- when it last passed, 0: it hasn't yet
) WITHOUT ROWID;
CREATE INDEX greylist_time ON greylist (passed, last_seen);

-- Whom the users have written to.
CREATE TABLE contact (
    account_id  INTEGER NOT NULL,
    address_key TEXT    NOT NULL,
    wrote       INTEGER NOT NULL,
    PRIMARY KEY (account_id, address_key)
) WITHOUT ROWID;
CREATE INDEX contact_address ON contact (address_key);

-- +goose Down
DROP TABLE contact;
DROP TABLE greylist;
