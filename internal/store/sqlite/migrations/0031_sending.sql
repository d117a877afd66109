-- What users have sent lately, and who may not send on.

-- +goose Up
CREATE TABLE sending_count (
    subject         TEXT    NOT NULL PRIMARY KEY, -- "account:7", "domain:example.test"
    messages_hour   INTEGER NOT NULL,             -- when each allowance is whole again, Unix milliseconds
    messages_day    INTEGER NOT NULL,
    recipients_hour INTEGER NOT NULL,
    recipients_day  INTEGER NOT NULL,
    usual           INTEGER NOT NULL,             -- recipients of an hour in which anything is sent, thousandths
    touched         INTEGER NOT NULL              -- Unix milliseconds
);

-- Accounts whose mail is kept in the queue until an administrator has looked.
CREATE TABLE sending_hold (
    account_id INTEGER NOT NULL PRIMARY KEY,
    reason     TEXT    NOT NULL,
    since      INTEGER NOT NULL -- Unix milliseconds
);

-- +goose Down
DROP TABLE sending_hold;
DROP TABLE sending_count;
