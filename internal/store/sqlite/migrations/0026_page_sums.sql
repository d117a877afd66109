-- With SQLite, the pages of the file get sums after this step (package sqlitefile). The tables stay as they are: an older program,
-- which would write pages without sums, finds a store that is newer than it knows, and one that goes back finds the copy from before.

-- +goose Up
SELECT 1;

-- +goose Down
SELECT 1;
