-- Encryption at rest where several nodes share one database.

-- +goose Up

-- The data keys, wrapped by the master key and signed: one row, and its copy in another table, so that a damaged page harms
-- one of them. Used with PostgreSQL; beside SQLite they stand in files.
CREATE TABLE data_keys (
    part       INTEGER NOT NULL PRIMARY KEY, -- 0
    generation INTEGER NOT NULL,
    body       BLOB    NOT NULL
);
CREATE TABLE data_keys_copy (
    part       INTEGER NOT NULL PRIMARY KEY, -- 0
    generation INTEGER NOT NULL,
    body       BLOB    NOT NULL
);

-- The data key that fresh octets are sealed with; 0: none.
ALTER TABLE fresh_content ADD COLUMN key_id INTEGER NOT NULL DEFAULT 0;

-- The data key that all contents of an object in a bucket are sealed with; 0: none, several, or not known. Packs on disk don't
-- use it.
ALTER TABLE segment ADD COLUMN key_id INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE segment DROP COLUMN key_id;
ALTER TABLE fresh_content DROP COLUMN key_id;
DROP TABLE data_keys_copy;
DROP TABLE data_keys;
