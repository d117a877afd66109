-- Where mail goes beside the addresses of accounts and aliases. What the options and values say is package directory's to know:
-- they are JSON.

-- +goose Up
ALTER TABLE directory_domain ADD COLUMN options TEXT NOT NULL DEFAULT '';  -- '' for none: another domain that it stands for, ...
ALTER TABLE directory_address ADD COLUMN options TEXT NOT NULL DEFAULT ''; -- '' for none: forwarding of an account, senders of a group

-- Rules that belong to no one address: relay domains, routes, rewriting, journals.
CREATE TABLE mail_rule (
    kind    TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    value   TEXT    NOT NULL, -- JSON
    created INTEGER NOT NULL, -- Unix microseconds
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

-- Keys that the reverse-paths of forwarded mail are signed with. The newest signs, all are believed.
CREATE TABLE srs_key (
    id      INTEGER NOT NULL PRIMARY KEY,
    secret  BLOB    NOT NULL,
    created INTEGER NOT NULL -- Unix microseconds
);

-- +goose Down
DROP TABLE srs_key;
DROP TABLE mail_rule;
ALTER TABLE directory_address DROP COLUMN options;
ALTER TABLE directory_domain DROP COLUMN options;
