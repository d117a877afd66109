-- Several nodes on one database: each transaction that changes anything of an account that a node holds in memory raises its
-- version, so that the others see with one number whether what they hold is old.

-- +goose Up
ALTER TABLE mail_account ADD COLUMN version INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE mail_account DROP COLUMN version;
