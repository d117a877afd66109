-- Mail state: accounts, mailboxes, entries, messages, blobs. Times are seconds since 1970, UTC.

-- +goose Up

-- High-water marks of ids that are handed out by the store; an id below the mark may be unused, none above it is used.
CREATE TABLE sequence (
    name TEXT NOT NULL PRIMARY KEY,
    next INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE mail_account (
    account_id     INTEGER NOT NULL PRIMARY KEY,
    modseq         INTEGER NOT NULL, -- the last one given
    next_mailbox   INTEGER NOT NULL,
    last_validity  INTEGER NOT NULL, -- the last UIDVALIDITY given
    used_octets    INTEGER NOT NULL,
    used_messages  INTEGER NOT NULL,
    quota_octets   INTEGER NOT NULL, -- 0: none
    quota_messages INTEGER NOT NULL
);

CREATE TABLE mailbox (
    account_id   INTEGER NOT NULL,
    mailbox_id   INTEGER NOT NULL,
    name         TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    uid_validity INTEGER NOT NULL,
    uid_next     INTEGER NOT NULL,
    first_recent INTEGER NOT NULL, -- UIDs from here on no session has been told of
    modseq       INTEGER NOT NULL,
    messages     INTEGER NOT NULL,
    unseen       INTEGER NOT NULL,
    deleted      INTEGER NOT NULL,
    octets       INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX mailbox_name ON mailbox (account_id, name);

-- Keywords of a mailbox: entries carry them as a bit set, bit n for number n.
CREATE TABLE keyword (
    account_id INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, number)
) WITHOUT ROWID;

CREATE TABLE subscription (
    account_id INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    PRIMARY KEY (account_id, name)
) WITHOUT ROWID;

CREATE TABLE entry (
    account_id    INTEGER NOT NULL,
    mailbox_id    INTEGER NOT NULL,
    uid           INTEGER NOT NULL,
    message_id    INTEGER NOT NULL,
    flags         INTEGER NOT NULL,
    keywords      INTEGER NOT NULL,
    modseq        INTEGER NOT NULL,
    size          INTEGER NOT NULL,
    internal_date INTEGER NOT NULL,
    saved_at      INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, uid)
) WITHOUT ROWID;

-- Entries that vanished. message_id serves JMAP, which names messages where IMAP names UIDs.
CREATE TABLE tombstone (
    account_id INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL,
    modseq     INTEGER NOT NULL,
    uid        INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, modseq, uid)
) WITHOUT ROWID;

CREATE TABLE mailbox_tombstone (
    account_id INTEGER NOT NULL,
    modseq     INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL,
    PRIMARY KEY (account_id, modseq, mailbox_id)
) WITHOUT ROWID;

-- Deleted mailboxes whose entries are still to be removed.
CREATE TABLE dead_mailbox (
    account_id INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL,
    PRIMARY KEY (account_id, mailbox_id)
) WITHOUT ROWID;

-- Messages never change. Their ids ascend over all accounts, so that new rows go to the end of the table whoever they are
-- for. summary is a checked record of what Summary holds; the columns are what SQL itself needs.
CREATE TABLE message (
    account_id INTEGER NOT NULL,
    message_id INTEGER PRIMARY KEY,
    blob_id    INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    thread_id  INTEGER NOT NULL,
    uidl       TEXT, -- POP3 unique id taken over from another server
    summary    BLOB NOT NULL
);
CREATE INDEX message_uidl ON message (account_id, message_id) WHERE uidl IS NOT NULL;

-- Messages with two or more entries, with their number.
CREATE TABLE shared_message (
    account_id INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    entries    INTEGER NOT NULL,
    PRIMARY KEY (account_id, message_id)
) WITHOUT ROWID;

-- Which thread a Message-ID belongs to; ref is a 64-bit hash of it.
CREATE TABLE thread_ref (
    account_id INTEGER NOT NULL,
    ref        INTEGER NOT NULL,
    thread_id  INTEGER NOT NULL,
    PRIMARY KEY (account_id, ref)
) WITHOUT ROWID;

-- Contents, counted. hash_key is the first eight octets of hash: a smaller index for the same use.
CREATE TABLE blob (
    blob_id  INTEGER PRIMARY KEY,
    hash     BLOB    NOT NULL,
    hash_key INTEGER NOT NULL,
    segment  INTEGER NOT NULL,
    place    INTEGER NOT NULL,
    stored   INTEGER NOT NULL,
    length   INTEGER NOT NULL,
    refs     INTEGER NOT NULL
);
CREATE INDEX blob_hash ON blob (hash_key);
CREATE INDEX blob_segment ON blob (segment, place);

-- What SQL knows of each segment: the octets of records that rows point to, and the end of the last record ever committed.
CREATE TABLE segment (
    segment INTEGER NOT NULL PRIMARY KEY,
    tail    INTEGER NOT NULL,
    live    INTEGER NOT NULL
);

-- +goose Down
DROP TABLE segment;
DROP TABLE blob;
DROP TABLE thread_ref;
DROP TABLE shared_message;
DROP TABLE message;
DROP TABLE dead_mailbox;
DROP TABLE mailbox_tombstone;
DROP TABLE tombstone;
DROP TABLE entry;
DROP TABLE subscription;
DROP TABLE keyword;
DROP TABLE mailbox;
DROP TABLE mail_account;
DROP TABLE sequence;
