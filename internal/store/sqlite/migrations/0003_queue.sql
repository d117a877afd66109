-- The outbound queue: one row a message, one a recipient, one a destination that has waiting recipients.
-- Times are Unix milliseconds, UTC. queue_destination.due is the earliest moment at which something for that
-- destination may be tried, so that finding work costs the same whatever the length of the queue.

-- +goose Up
CREATE TABLE queue_message (
	account_id  INTEGER NOT NULL,                 -- submitting account, 0 for relayed and generated mail
	id          INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused
	trace_id    TEXT    NOT NULL,
	sender      TEXT    NOT NULL,                 -- reverse-path, '' for null
	body        TEXT    NOT NULL,
	utf8        INTEGER NOT NULL,
	ret         TEXT    NOT NULL,
	envid       TEXT    NOT NULL,
	prefix      BLOB,
	size        INTEGER NOT NULL,
	created     INTEGER NOT NULL,
	expires     INTEGER NOT NULL,
	description TEXT    NOT NULL,
	blob_id     INTEGER NOT NULL
) STRICT;

CREATE TABLE queue_recipient (
	id            INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused
	message_id    INTEGER NOT NULL,
	rcpt          TEXT    NOT NULL,
	domain        TEXT    NOT NULL,
	notify        INTEGER NOT NULL,
	orcpt         TEXT    NOT NULL,
	state         TEXT    NOT NULL,                 -- waiting, leased, held, damaged
	attempts      INTEGER NOT NULL DEFAULT 0,
	next_attempt  INTEGER NOT NULL,
	lease_until   INTEGER NOT NULL DEFAULT 0,
	lease_owner   TEXT    NOT NULL DEFAULT '',
	outcome       TEXT    NOT NULL DEFAULT '',      -- final, but its report to the sender is still owed
	last_error    TEXT    NOT NULL DEFAULT '',
	last_status   TEXT    NOT NULL DEFAULT '',
	last_host     TEXT    NOT NULL DEFAULT '',
	last_attempt  INTEGER NOT NULL DEFAULT 0,
	first_attempt INTEGER NOT NULL DEFAULT 0,
	delay_warned  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX queue_recipient_due ON queue_recipient (domain, state, next_attempt, id);
CREATE INDEX queue_recipient_message ON queue_recipient (message_id, id);
CREATE INDEX queue_recipient_lease ON queue_recipient (lease_until, id) WHERE state = 'leased';

CREATE TABLE queue_destination (
	domain     TEXT    NOT NULL PRIMARY KEY,
	due        INTEGER NOT NULL,
	not_before INTEGER NOT NULL DEFAULT 0           -- a destination that did not answer rests until then
) STRICT, WITHOUT ROWID;
CREATE INDEX queue_destination_due ON queue_destination (due, domain);

CREATE TABLE queue_clock (
	id    INTEGER PRIMARY KEY CHECK (id = 1),
	seen  INTEGER NOT NULL,                         -- the wall clock when the scheduler last looked
	grace INTEGER NOT NULL DEFAULT 0                -- until when nothing expires, after a gap in the clock
) STRICT;

-- +goose Down
DROP TABLE queue_clock;
DROP TABLE queue_destination;
DROP TABLE queue_recipient;
DROP TABLE queue_message;
