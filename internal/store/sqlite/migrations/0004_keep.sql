-- What users delete and what becomes of it: expunged entries that can be restored, legal holds, policies of domains,
-- warnings of quotas, the horizon of tombstones, and how far the scrub is. Times are seconds since 1970, UTC.

-- +goose Up

-- Entries that left their mailbox and can still be restored. Each holds its message as an entry does, and counts in
-- shared_message. keywords is a JSON array of names: their numbers in the mailbox are used again.
CREATE TABLE expunged_entry (
    account_id    INTEGER NOT NULL,
    mailbox_id    INTEGER NOT NULL,
    uid           INTEGER NOT NULL,
    message_id    INTEGER NOT NULL,
    flags         INTEGER NOT NULL,
    keywords      TEXT    NOT NULL,
    size          INTEGER NOT NULL,
    internal_date INTEGER NOT NULL,
    saved_at      INTEGER NOT NULL,
    expunged_at   INTEGER NOT NULL,
    actor         TEXT    NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, uid)
) WITHOUT ROWID;
CREATE INDEX expunged_entry_time ON expunged_entry (account_id, expunged_at);

-- Mailboxes that were deleted while their entries are kept. Written by the deletion.
CREATE TABLE deleted_mailbox (
    account_id   INTEGER NOT NULL,
    mailbox_id   INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    uid_validity INTEGER NOT NULL,
    deleted_at   INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) WITHOUT ROWID;

-- Legal holds, those that ended too. An account is held while it has a row whose ended is 0.
CREATE TABLE mail_hold (
    account_id   INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    since        INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    reason       TEXT    NOT NULL,
    ended        INTEGER NOT NULL,
    ended_by     TEXT    NOT NULL,
    ended_reason TEXT    NOT NULL,
    PRIMARY KEY (account_id, number)
) WITHOUT ROWID;

-- What holds for the accounts of one domain. Limits of 0 are none; days of -1 mean what holds for the whole server.
CREATE TABLE domain_policy (
    domain         TEXT    NOT NULL PRIMARY KEY,
    quota_octets   INTEGER NOT NULL,
    quota_messages INTEGER NOT NULL,
    trash_days     INTEGER NOT NULL,
    junk_days      INTEGER NOT NULL,
    mail_days      INTEGER NOT NULL,
    quota_told     INTEGER NOT NULL
) WITHOUT ROWID;

-- The highest per cent of its quota that the owner has been told of: 0, 80 or 95.
ALTER TABLE mail_account ADD COLUMN quota_told INTEGER NOT NULL DEFAULT 0;

-- Tombstones up to this MODSEQ may have been removed.
ALTER TABLE mail_account ADD COLUMN horizon INTEGER NOT NULL DEFAULT 0;

-- Which MODSEQ an account had when: tombstones carry no time of their own.
CREATE TABLE modseq_mark (
    account_id INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    modseq     INTEGER NOT NULL,
    PRIMARY KEY (account_id, at)
) WITHOUT ROWID;

-- Since when a segment holds dead octets that are still on the disk; 0: it holds none.
ALTER TABLE segment ADD COLUMN dead_since INTEGER NOT NULL DEFAULT 0;

-- Contents that were found damaged.
CREATE TABLE damaged_content (
    blob_id INTEGER NOT NULL PRIMARY KEY,
    place   TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    found   INTEGER NOT NULL
);

-- Where work that is done in steps goes on, as JSON.
CREATE TABLE house_state (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- +goose Down
DROP TABLE house_state;
DROP TABLE damaged_content;
ALTER TABLE segment DROP COLUMN dead_since;
DROP TABLE modseq_mark;
ALTER TABLE mail_account DROP COLUMN horizon;
ALTER TABLE mail_account DROP COLUMN quota_told;
DROP TABLE domain_policy;
DROP TABLE mail_hold;
DROP TABLE deleted_mailbox;
DROP INDEX expunged_entry_time;
DROP TABLE expunged_entry;
