package store

import (
	"context"
	"database/sql"
	"fmt"

	"waxwing/internal/store/search"
)

// Searcher is an index of the text of messages, kept beside the store and behind it: it may know too little, and it may
// fail, and mail goes on. Open starts it and Close ends it.
type Searcher interface {
	// Start begins to follow the messages of src in the background. No message has an id of next or above yet.
	Start(src SearchSource, next MessageID)
	// Candidates are the messages of an account in one of whose fields the needle may occur, folded by search.AppendFold.
	// Messages that it excludes do not have it. It is nil when the index is of no help.
	Candidates(ctx context.Context, acct AccountID, needle []byte, fields ...search.Field) (*search.Hits, error)
	// Words are the newest messages, newest first, that have all words of the text in one field, cut by search.Analyzer.
	// Messages above upto are not known to the index yet.
	Words(ctx context.Context, acct AccountID, f search.Field, text string, limit int) (ids []MessageID, upto MessageID, err error)
	// Close ends what Start began.
	Close() error
}

// SearchProver is a Searcher that can prove its index, and make it anew.
type SearchProver interface {
	// Prove compares the index with the messages of an account, 0 for all: no message is left out, nothing of one that is gone
	// stays, and the terms of a random sample are all in the lists. What the index does not claim to know is no fault.
	Prove(ctx context.Context, acct AccountID, found func(m MessageRef, text string)) error
	// Renew has the index made anew in the background.
	Renew(ctx context.Context) error
}

// SearchSource is what a Searcher reads. On one node ids of messages ascend over all accounts in the order of commits; on
// several they don't.
type SearchSource interface {
	MessagesAfter(ctx context.Context, after MessageID, limit int) ([]MessageRef, error)
	GoneMessages(ctx context.Context, ids []MessageID) ([]MessageID, error)
	Fingerprints(ctx context.Context, ids []MessageID) (map[MessageID]int64, error)
	LastMessage(ctx context.Context) (MessageID, error)
	OpenBlob(ctx context.Context, acct AccountID, id MessageID) (Blob, error)
	ReadBlob(ctx context.Context, acct AccountID, id MessageID, buf []byte) ([]byte, error)
	WatchMessages(notify func()) (stop func())
	Writable(size int64) error
}

// MessageRef names a message of any account.
type MessageRef struct {
	Account AccountID
	Message MessageID
	Size    int64
}

// startSearch starts the index, if there is one; all messages have ids below next.
func (s *Store) startSearch(next MessageID) {
	if s.opts.Search != nil {
		s.opts.Search.Start(s, next)
	}
}

func (s *Store) closeSearch() error {
	if s.opts.Search == nil {
		return nil
	}
	return s.opts.Search.Close()
}

// Candidates narrows a search for a needle, folded by search.AppendFold, in any of the fields: messages that the result
// excludes do not have it, all others must be read. Without an index, or when it fails, nothing is excluded.
func (s *Store) Candidates(ctx context.Context, acct AccountID, needle []byte, fields ...search.Field) *search.Hits {
	if s.opts.Search == nil {
		return nil
	}
	hits, err := s.opts.Search.Candidates(ctx, acct, needle, fields...)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Warn("store: the search index does not answer, messages are read instead", "account", acct, "err", err)
		}
		return nil
	}
	return hits
}

// FindWords returns the newest messages that have all words of the text in a field, newest first, at most limit. The index
// has not yet seen the messages above upto.
func (s *Store) FindWords(ctx context.Context, acct AccountID, f search.Field, text string, limit int) (ids []MessageID, upto MessageID, err error) {
	if s.opts.Search == nil {
		return nil, 0, nil
	}
	ids, upto, err = s.opts.Search.Words(ctx, acct, f, text, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("store: words in account %d: %w", acct, err)
	}
	return ids, upto, nil
}

// MessagesAfter returns the messages of all accounts above an id, in ascending order.
func (s *Store) MessagesAfter(ctx context.Context, after MessageID, limit int) ([]MessageRef, error) {
	var out []MessageRef
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var m MessageRef
		err := rows.Scan(&m.Account, &m.Message, &m.Size)
		out = append(out, m)
		return err
	}, `SELECT account_id, message_id, size FROM message WHERE message_id > $1 ORDER BY message_id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("store: messages after %d: %w", after, err)
	}
	return out, nil
}

// GoneMessages returns those of the ids that no message has any more.
func (s *Store) GoneMessages(ctx context.Context, ids []MessageID) ([]MessageID, error) {
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = int64(id)
	}
	d := s.db.Dialect
	var gone []MessageID
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var id MessageID
		err := rows.Scan(&id)
		gone = append(gone, id)
		return err
	}, `SELECT t.v FROM `+d.Table("t", "$1")+` LEFT JOIN message AS m ON m.message_id = t.v WHERE m.message_id IS NULL`, d.Numbers(list))
	if err != nil {
		return nil, fmt.Errorf("store: gone messages: %w", err)
	}
	return gone, nil
}

// Fingerprints returns a part of the hash of each message's content: a message that has another is another message.
// Messages that are gone are left out.
func (s *Store) Fingerprints(ctx context.Context, ids []MessageID) (map[MessageID]int64, error) {
	list := make([]int64, len(ids))
	for i, id := range ids {
		list[i] = int64(id)
	}
	d := s.db.Dialect
	out := make(map[MessageID]int64, len(ids))
	err := s.reads.each(ctx, func(rows *sql.Rows) error {
		var id MessageID
		var key int64
		err := rows.Scan(&id, &key)
		out[id] = key
		return err
	}, `SELECT m.message_id, b.hash_key FROM `+d.Table("t", "$1")+` JOIN message AS m ON m.message_id = t.v
		JOIN blob AS b ON b.blob_id = m.blob_id`, d.Numbers(list))
	if err != nil {
		return nil, fmt.Errorf("store: fingerprints: %w", err)
	}
	return out, nil
}

// LastMessage returns the highest id of a message, 0 when there is none.
func (s *Store) LastMessage(ctx context.Context) (MessageID, error) {
	var id MessageID
	if err := s.reads.row(ctx, []any{&id}, `SELECT coalesce(max(message_id), 0) FROM message`); err != nil {
		return 0, fmt.Errorf("store: last message: %w", err)
	}
	return id, nil
}
