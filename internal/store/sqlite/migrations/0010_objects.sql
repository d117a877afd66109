-- Contents that commit with their rows, until they are moved to objects in a bucket. Times are seconds since 1970, UTC.

-- +goose Up

-- The octets of contents whose row in blob names segment 0; place there is the blob_id.
CREATE TABLE fresh_content (
    blob_id INTEGER NOT NULL PRIMARY KEY,
    data    BLOB    NOT NULL
);

-- Objects that may go: those being uploaded, which a crash may leave behind, and those that no row names any more. A
-- transaction that lets a row name an object takes it out of here.
CREATE TABLE object_garbage (
    segment INTEGER NOT NULL PRIMARY KEY,
    since   INTEGER NOT NULL
);

-- +goose Down
DROP TABLE object_garbage;
DROP TABLE fresh_content;
