-- The index of the text of messages. It is PostgreSQL's alone: with SQLite it has a file of its own.

-- +goose Up

-- By which rules the terms were made; '' before there are any.
CREATE TABLE search_state (
    one     BOOLEAN NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
    version TEXT    NOT NULL
);
INSERT INTO search_state (version) VALUES ('');

-- Messages whose row in search_term is not right yet: they came or went since. The triggers below write it in the same
-- transaction as the message, on whichever node that runs.
CREATE TABLE search_todo (
    todo_id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id BIGINT NOT NULL,
    message_id BIGINT NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 2000);
CREATE INDEX search_todo_account ON search_todo (account_id);

CREATE TABLE search_term (
    message_id BIGINT   NOT NULL PRIMARY KEY,
    account_id BIGINT   NOT NULL,
    terms      TSVECTOR NOT NULL
);
-- Statistics of terms help no plan, and cost reading them.
ALTER TABLE search_term ALTER COLUMN terms SET STATISTICS 0;
CREATE INDEX search_term_terms ON search_term USING gin (terms);

-- +goose StatementBegin
CREATE FUNCTION search_note() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO search_todo (account_id, message_id) VALUES (NEW.account_id, NEW.message_id);
    ELSE
        INSERT INTO search_todo (account_id, message_id) VALUES (OLD.account_id, OLD.message_id);
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER search_note AFTER INSERT OR DELETE ON message FOR EACH ROW EXECUTE FUNCTION search_note();

-- +goose Down
DROP TRIGGER search_note ON message;
DROP FUNCTION search_note();
DROP TABLE search_term;
DROP TABLE search_todo;
DROP TABLE search_state;
