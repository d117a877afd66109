-- The directory: domains, accounts as people and programs know them, aliases, and the settings of the whole server.
-- Mail state (counters, quota use, mailboxes) stands in the tables of 0001_mail.sql under the same account_id.
-- Times are Unix microseconds. Booleans are 0 and 1.

-- +goose Up
CREATE TABLE directory_domain (
	name         TEXT    NOT NULL PRIMARY KEY, -- A-labels, lower case
	catch_all    TEXT    NOT NULL DEFAULT '',  -- address that gets what no other address of the domain takes
	postmaster   TEXT    NOT NULL DEFAULT '',  -- account that gets postmaster@ and abuse@
	max_accounts INTEGER  NOT NULL DEFAULT 0,   -- 0: no limit
	created      INTEGER  NOT NULL
) STRICT;

-- account_id is given out by the counter below and never used again.
CREATE TABLE directory_account (
	account_id       INTEGER NOT NULL PRIMARY KEY,
	name             TEXT   NOT NULL DEFAULT '',
	language         TEXT   NOT NULL DEFAULT 'en',
	admin            INTEGER NOT NULL DEFAULT 0,
	suspended        INTEGER NOT NULL DEFAULT 0,
	quota_bytes      INTEGER NOT NULL DEFAULT 0, -- 0: none; mail_account holds what is enforced, set by the same transaction
	quota_messages   INTEGER NOT NULL DEFAULT 0,
	password         TEXT   NOT NULL DEFAULT '', -- argon2id in PHC form, '' for none
	password_version INTEGER NOT NULL DEFAULT 1,  -- grows with each change, so that remembered logins end
	created          INTEGER NOT NULL
) STRICT;

-- One name space for accounts and aliases: an address is the one or the other. Removing an account leaves its mail state
-- to the housekeeping of the store; its address is free again at once.
CREATE TABLE directory_address (
	address_key TEXT   NOT NULL PRIMARY KEY, -- folded, as addresses are compared
	local_part  TEXT   NOT NULL,             -- as written when it was made
	domain      TEXT   NOT NULL REFERENCES directory_domain (name),
	account_id  INTEGER,                      -- NULL: an alias
	created     INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX directory_address_account ON directory_address (account_id);

CREATE INDEX directory_address_domain ON directory_address (domain, address_key);

CREATE TABLE directory_target (
	address_key TEXT   NOT NULL REFERENCES directory_address (address_key),
	position    INTEGER NOT NULL,
	target      TEXT   NOT NULL, -- address as SMTP writes it
	target_key  TEXT   NOT NULL, -- folded: which aliases name an address
	PRIMARY KEY (address_key, position)
) STRICT;

CREATE INDEX directory_target_key ON directory_target (target_key, address_key);

CREATE TABLE directory_counter (
	name  TEXT   NOT NULL PRIMARY KEY,
	value INTEGER NOT NULL
) STRICT;

INSERT INTO directory_counter (name, value) VALUES ('account', 0), ('settings', 0);

-- Settings that differ from their default; the value is JSON.
CREATE TABLE setting (
	name    TEXT   NOT NULL PRIMARY KEY,
	value   TEXT   NOT NULL,
	version INTEGER NOT NULL, -- of the change that set it
	changed INTEGER NOT NULL
) STRICT;

-- What each version changed: value NULL means back to the default.
CREATE TABLE setting_history (
	version INTEGER NOT NULL,
	name    TEXT   NOT NULL,
	value   TEXT,
	changed INTEGER NOT NULL,
	actor   TEXT   NOT NULL,
	PRIMARY KEY (version, name)
) STRICT;

-- +goose Down
DROP TABLE setting_history;

DROP TABLE setting;

DROP TABLE directory_counter;

DROP TABLE directory_target;

DROP TABLE directory_address;

DROP TABLE directory_account;

DROP TABLE directory_domain;
