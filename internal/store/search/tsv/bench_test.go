package tsv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/searchtest"
)

// letters is a source of messages that are written when they are read.
type letters struct {
	store.SearchSource
	w *searchtest.Writer
}

func (l *letters) ReadBlob(_ context.Context, _ store.AccountID, id store.MessageID, buf []byte) ([]byte, error) {
	return append(buf, l.w.Letter(rand.New(rand.NewPCG(7, uint64(id))))...), nil
}

func (l *letters) WatchMessages(func()) (stop func()) { return func() {} }

// BenchmarkCandidates asks an index of 100,000 messages of one account and 10,000 of another: so many are made of fewer letters,
// each of which stands there some times, and the lists are made at the end. What feeding costs, BenchmarkIndex tells.
func BenchmarkCandidates(b *testing.B) {
	const written, copies = 2_750, 40
	src := &letters{w: searchtest.NewWriter()}
	dir := fill(b, written)
	idx := feed(b, dir, src, written)
	rare := termList(searchtest.Rare)
	past(b, dir, `SET maintenance_work_mem = '512MB'`, `DROP INDEX search_term_terms`,
		fmt.Sprintf(`INSERT INTO search_term SELECT message_id + n * 1000000, account_id, terms FROM search_term, generate_series(1, %d) AS n`, copies-1),
		`INSERT INTO search_term VALUES (999999, 1, array_to_tsvector(ARRAY['`+strings.Join(rare, "','")+`']))`,
		`CREATE INDEX search_term_terms ON search_term USING gin (terms)`)
	searchtest.BenchmarkCandidates(b, idx, src.w)
}

// termList are the terms of a text in a message of account 1.
func termList(text string) []string {
	var d search.Document
	d.Text(search.Body, []byte(text))
	d.Words(search.Body, text)
	terms, _ := termsOf(1, &d)
	return terms
}

// BenchmarkIndex is what one message of 4 KB costs, in the background.
func BenchmarkIndex(b *testing.B) {
	dir := fill(b, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	feed(b, dir, &letters{w: searchtest.NewWriter()}, b.N)
	b.StopTimer()
	var octets int64
	err := connect(b, dir).QueryRow(b.Context(), `SELECT pg_total_relation_size('search_term')`).Scan(&octets)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(octets)/float64(b.N), "octets/message")
}

// fill makes the rows of messages in a new schema.
func fill(b *testing.B, messages int) (dir string) {
	dir = b.TempDir()
	db, err := postgres.Open(b.Context(), postgres.Options{DSN: cluster.Schema(b, schemaOf(dir))})
	if err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	past(b, dir, fmt.Sprintf(`INSERT INTO message (account_id, message_id, blob_id, size, thread_id, summary)
		SELECT CASE WHEN n %% 11 = 0 THEN 2 ELSE 1 END, n, n, 4096, 0, '' FROM generate_series(1, %d) AS n`, messages))
	return dir
}

// feed indexes them all.
func feed(b *testing.B, dir string, src *letters, messages int) *Index {
	done := make(chan struct{}, 1)
	var idx *Index
	idx, err := New(Options{DSN: cluster.DSN(schemaOf(dir)), Pick: searchtest.PickAll, Poll: time.Hour, Progress: func() {
		if idx.Status().Indexed >= int64(messages) {
			select {
			case done <- struct{}{}:
			default:
			}
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = idx.Close() })
	idx.Start(src, 0)
	<-done
	return idx
}
