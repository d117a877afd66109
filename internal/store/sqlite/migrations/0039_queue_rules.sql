-- What an administrator has decided about outgoing mail, addresses that nothing is sent to any more, and what each source address
-- has sent on a day.

-- +goose Up
CREATE TABLE queue_rule (
	kind  TEXT NOT NULL,                            -- limit, pause, pool; and one row, version, that counts the changes
	name  TEXT NOT NULL,                            -- of the destination, the pause, the pool
	value TEXT NOT NULL,                            -- JSON
	PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
INSERT INTO queue_rule (kind, name, value) VALUES ('version', '', '0');

CREATE TABLE queue_suppressed (
	address       TEXT    NOT NULL,                 -- lower case
	sender_domain TEXT    NOT NULL,                 -- whose mail, '' for all
	failures      INTEGER NOT NULL,                 -- for good, within the time that is set
	since         INTEGER NOT NULL,                 -- when nothing was sent any more; 0: failures are only counted
	expires       INTEGER NOT NULL,                 -- when it is forgotten
	reason        TEXT    NOT NULL,
	PRIMARY KEY (address, sender_domain)
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_suppressed_expires ON queue_suppressed (expires);

CREATE TABLE queue_sent (
	source   TEXT    NOT NULL,                      -- address
	provider TEXT    NOT NULL,
	day      INTEGER NOT NULL,                      -- since 1970, UTC
	messages INTEGER NOT NULL,
	PRIMARY KEY (source, provider, day)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE queue_sent;
DROP TABLE queue_suppressed;
DROP TABLE queue_rule;
