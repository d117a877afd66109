-- What became of each message. A trace is the rows with its id: the first one was written with the message, the others later.

-- +goose Up
CREATE TABLE trace (
    trace_id TEXT    NOT NULL, -- ULID: ascends with time
    part     INTEGER NOT NULL, -- microseconds since 1970 times 512, and a number that no other has
    steps    BLOB    NOT NULL, -- package trace
    PRIMARY KEY (trace_id, part)
) STRICT, WITHOUT ROWID;

-- By what traces are found; made anew from them. A bucket is an hour of the traces' ids, so that what is written at one time
-- lies together.
CREATE TABLE trace_word (
    bucket   INTEGER NOT NULL, -- hours since 1970
    word     INTEGER NOT NULL, -- hash of what is searched for
    trace_id TEXT    NOT NULL,
    PRIMARY KEY (bucket, word, trace_id)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE trace_word;
DROP TABLE trace;
