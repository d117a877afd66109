-- With several nodes, whoever follows traces asks for what the others wrote since.

-- +goose Up
CREATE INDEX trace_part ON trace (part);

-- +goose Down
DROP INDEX trace_part;
