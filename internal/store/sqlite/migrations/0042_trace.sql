-- What became of each message. A trace is the rows with its id: the first one was written with the message, the others later.

-- +goose Up
CREATE TABLE trace (
    trace_id TEXT    NOT NULL, -- ULID: ascends with time
    part     INTEGER NOT NULL, -- microseconds since 1970 times 512, and a number that no other has
    steps    BLOB    NOT NULL, -- package trace
    PRIMARY KEY (trace_id, part)
) STRICT, WITHOUT ROWID;

-- By what traces are found; made anew from them. A bucket is an hour of the traces' ids. A row holds the words of many traces:
-- a row a word would cost more than all the rest of a delivery.
CREATE TABLE trace_index (
    bucket INTEGER NOT NULL, -- hours since 1970
    part   INTEGER NOT NULL, -- as in trace
    traces INTEGER NOT NULL, -- how many
    ids    BLOB    NOT NULL, -- theirs, a line each
    words  BLOB    NOT NULL, -- package trace
    PRIMARY KEY (bucket, part)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE trace_index;
DROP TABLE trace;
