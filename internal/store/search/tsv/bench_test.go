package tsv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"waxwing/internal/store"
	"waxwing/internal/store/postgres"
	"waxwing/internal/store/search/searchtest"
)

// letters is a source of messages that are written when they are read.
type letters struct {
	store.SearchSource
	w     *searchtest.Writer
	extra map[store.MessageID]string
}

func (l *letters) ReadBlob(_ context.Context, _ store.AccountID, id store.MessageID, buf []byte) ([]byte, error) {
	return append(append(buf, l.w.Letter(rand.New(rand.NewPCG(7, uint64(id))))...), l.extra[id]...), nil
}

func (l *letters) WatchMessages(func()) (stop func()) { return func() {} }

// BenchmarkCandidates asks an index of 100,000 messages of one account and 10,000 of another. The rows of the messages are made
// by one statement, and the lists at the end: what a delivery costs is measured elsewhere, and feeding by BenchmarkIndex.
func BenchmarkCandidates(b *testing.B) {
	const messages = 110_000
	src := &letters{w: searchtest.NewWriter(), extra: map[store.MessageID]string{70_001: searchtest.Rare}}
	dir := fill(b, messages)
	past(b, dir, `DROP INDEX search_term_terms`)
	idx := feed(b, dir, src, messages)
	past(b, dir, `SET maintenance_work_mem = '256MB'`, `CREATE INDEX search_term_terms ON search_term USING gin (terms)`)
	searchtest.BenchmarkCandidates(b, idx, src.w)
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
