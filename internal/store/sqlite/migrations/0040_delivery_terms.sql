-- What a message's sender asked of its delivery: not before (FUTURERELEASE, RFC 4865), by when (DELIVERBY, RFC 2852), and
-- only to the owner that a mailbox had at a time (RRVS, RFC 7293).

-- +goose Up
ALTER TABLE queue_message ADD COLUMN hold_until INTEGER NOT NULL DEFAULT 0; -- Unix milliseconds, 0: none
ALTER TABLE queue_message ADD COLUMN deliver_by INTEGER NOT NULL DEFAULT 0; -- Unix milliseconds, 0: none
ALTER TABLE queue_message ADD COLUMN by_mode TEXT NOT NULL DEFAULT '';      -- N, NT, R, RT
ALTER TABLE queue_recipient ADD COLUMN valid_since TEXT NOT NULL DEFAULT ''; -- the value of RRVS

-- +goose Down
ALTER TABLE queue_recipient DROP COLUMN valid_since;
ALTER TABLE queue_message DROP COLUMN by_mode;
ALTER TABLE queue_message DROP COLUMN deliver_by;
ALTER TABLE queue_message DROP COLUMN hold_until;
