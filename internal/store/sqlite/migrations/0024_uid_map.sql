-- Which UIDs of a large mailbox are taken, so that it opens without reading its entries. What stands here can be made anew from
-- them.

-- +goose Up

-- Mailboxes whose gaps stand in uid_gap, kept by the transactions that remove entries.
CREATE TABLE uid_map (
    account_id INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL,
    gone       INTEGER NOT NULL, -- UIDs that were given out and have no entry any more
    seen_below INTEGER NOT NULL, -- entries with a UID below have \Seen
    PRIMARY KEY (account_id, mailbox_id)
) WITHOUT ROWID;

-- The UIDs that are gone, 4,096 in a row, bit uid % 8 of octet uid % 4096 / 8. Without octets: all of them. Without a row: none.
CREATE TABLE uid_gap (
    account_id INTEGER NOT NULL,
    mailbox_id INTEGER NOT NULL,
    page       INTEGER NOT NULL, -- uid / 4096
    gone       BLOB    NOT NULL,
    PRIMARY KEY (account_id, mailbox_id, page)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE uid_gap;
DROP TABLE uid_map;
