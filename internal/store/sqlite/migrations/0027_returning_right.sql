-- +goose Up

-- Who brings mail of a backup back into an account: the last who began, on whatever node. What others go on with is refused.
CREATE TABLE returning_right (
    account_id INTEGER NOT NULL PRIMARY KEY,
    token      TEXT    NOT NULL,
    touched    INTEGER NOT NULL
);

-- +goose Down
DROP TABLE returning_right;
