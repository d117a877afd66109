-- What other domains publish about TLS, what came of sessions with them, and what the sender of a queued message asked for.

-- +goose Up

ALTER TABLE queue_message ADD COLUMN tls INTEGER NOT NULL DEFAULT 0; -- smtp.TLSNeed (RFC 8689)

-- Policies of other domains (MTA-STS, RFC 8461). All times are Unix milliseconds.
CREATE TABLE sts_policy (
	domain    TEXT PRIMARY KEY, -- A-labels, lower case
	policy_id TEXT NOT NULL,
	body      TEXT NOT NULL,    -- as package mtasts writes it
	fetched   INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	used      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What came of sessions with domains that want reports (TLSRPT, RFC 8460).
CREATE TABLE tls_outcome (
	day      INTEGER NOT NULL, -- days since 1970-01-01, UTC
	domain   TEXT NOT NULL,
	policy   TEXT NOT NULL,    -- JSON
	result   TEXT NOT NULL,    -- JSON of a failure, '' for success
	sessions INTEGER NOT NULL,
	PRIMARY KEY (day, domain, policy, result)
) STRICT, WITHOUT ROWID;

-- Reports that went out, each to one address.
CREATE TABLE tls_report_sent (
	day    INTEGER NOT NULL,
	domain TEXT NOT NULL,
	rua    TEXT NOT NULL,
	PRIMARY KEY (day, domain, rua)
) STRICT, WITHOUT ROWID;

-- +goose Down

DROP TABLE tls_report_sent;
DROP TABLE tls_outcome;
DROP TABLE sts_policy;
ALTER TABLE queue_message DROP COLUMN tls;
