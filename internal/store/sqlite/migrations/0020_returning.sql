-- +goose Up

-- Accounts that a backup is being brought back into and that nobody sees before they are whole: they have mail state, and no
-- row in the directory.
CREATE TABLE returning_account (
    account_id  INTEGER NOT NULL PRIMARY KEY,
    address_key TEXT    NOT NULL, -- that it will have
    source      TEXT    NOT NULL, -- the backup
    touched     INTEGER NOT NULL  -- when something was last done: what nobody goes on with goes
);
CREATE UNIQUE INDEX returning_account_address ON returning_account (address_key);

-- Mailboxes that are being filled: their entries and keywords are there, their own rows come when they are whole.
CREATE TABLE returning_mailbox (
    account_id   INTEGER NOT NULL,
    mailbox_id   INTEGER NOT NULL,
    source       TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    subscribed   INTEGER NOT NULL,
    uid_validity INTEGER NOT NULL,
    uid_next     INTEGER NOT NULL, -- that it will have
    touched      INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX returning_mailbox_name ON returning_mailbox (account_id, name);

-- +goose Down
DROP TABLE returning_mailbox;
DROP TABLE returning_account;
