-- Recipients wait in lanes, so that whoever sends much does not keep others waiting; what a refusal was about is kept with the
-- words, as is from which addresses it was tried.

-- +goose Up
ALTER TABLE queue_message ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;         -- RFC 6710: -9 to 9
ALTER TABLE queue_recipient ADD COLUMN lane INTEGER NOT NULL DEFAULT 1;           -- see lanes.go
ALTER TABLE queue_recipient ADD COLUMN category TEXT NOT NULL DEFAULT '';         -- of the last failure, see package bounce
ALTER TABLE queue_recipient ADD COLUMN provider TEXT NOT NULL DEFAULT '';         -- who runs the server that spoke last
ALTER TABLE queue_recipient ADD COLUMN held_for TEXT NOT NULL DEFAULT '';         -- why it is held: '' an administrator
ALTER TABLE queue_recipient ADD COLUMN pool TEXT NOT NULL DEFAULT '';             -- of source addresses that the last attempt came from

DROP INDEX queue_recipient_due;
CREATE INDEX queue_recipient_due ON queue_recipient (domain, lane, state, next_attempt, id);
CREATE INDEX queue_recipient_held_for ON queue_recipient (held_for, id) WHERE held_for <> '';

CREATE TABLE queue_lane (
	domain     TEXT    NOT NULL,
	lane       INTEGER NOT NULL DEFAULT 1,
	due        INTEGER NOT NULL,
	not_before INTEGER NOT NULL DEFAULT 0,          -- a destination that did not answer rests until then
	PRIMARY KEY (domain, lane)
) STRICT, WITHOUT ROWID;
INSERT INTO queue_lane (domain, lane, due, not_before) SELECT domain, 1, due, not_before FROM queue_destination;
DROP TABLE queue_destination;
ALTER TABLE queue_lane RENAME TO queue_destination;
CREATE INDEX queue_destination_due ON queue_destination (due, domain, lane);
CREATE INDEX queue_destination_lane ON queue_destination (lane, due, domain);

-- +goose Down
CREATE TABLE queue_lane (
	domain     TEXT    NOT NULL PRIMARY KEY,
	due        INTEGER NOT NULL,
	not_before INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO queue_lane (domain, due, not_before) SELECT domain, min(due), max(not_before) FROM queue_destination GROUP BY domain;
DROP TABLE queue_destination;
ALTER TABLE queue_lane RENAME TO queue_destination;
CREATE INDEX queue_destination_due ON queue_destination (due, domain);
DROP INDEX queue_recipient_held_for;
DROP INDEX queue_recipient_due;
CREATE INDEX queue_recipient_due ON queue_recipient (domain, state, next_attempt, id);
ALTER TABLE queue_recipient DROP COLUMN pool;
ALTER TABLE queue_recipient DROP COLUMN held_for;
ALTER TABLE queue_recipient DROP COLUMN provider;
ALTER TABLE queue_recipient DROP COLUMN category;
ALTER TABLE queue_recipient DROP COLUMN lane;
ALTER TABLE queue_message DROP COLUMN priority;
