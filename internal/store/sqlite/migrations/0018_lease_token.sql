-- Each lease of a recipient has a token of its own, which whoever writes what became of it must show: who lost a lease to
-- another attempt changes nothing.

-- +goose Up
ALTER TABLE queue_recipient ADD COLUMN lease_token INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE queue_recipient DROP COLUMN lease_token;
