package imapserver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing/internal/dialogtest"
)

// BenchmarkSearchIndexed searches 100,000 messages of 4 KB through the index; BenchmarkFetch searches 10,000 without.
func BenchmarkSearchIndexed(b *testing.B) {
	const messages = 100_000
	st, wait := newIndexedStore(b)
	r := serve(b, st, func(o *Options) { o.Limits.TimeBefore = time.Hour })
	body := strings.Repeat("The quick brown fox jumps over the lazy dog, said the letter.\r\n", 60)
	var batch []string
	for i := range messages {
		text := testMessage(i) + body
		switch i {
		case 70_000:
			text += "wonderland 会议纪要\r\n"
		case 80_000:
			text = strings.Replace(text, "Subject: ", "Subject: quarterly ", 1)
		}
		if batch = append(batch, text); len(batch) == 500 {
			r.fill("INBOX", batch...)
			batch = batch[:0]
		}
	}
	wait()
	p := r.trusted(b)
	p.ok("SELECT INBOX")
	for _, c := range []struct{ name, keys string }{
		{"rare word in body", "BODY wonderland"},
		{"rare word in text", "TEXT wonderland"},
		{"two characters", "BODY {6+}\r\n会议"},
		{"subject", "SUBJECT quarterly"},
		{"from", "FROM anna4711@"},
		{"nowhere", "TEXT xylophone"},
		{"two rare words", "BODY wonderland NOT SUBJECT quarterly"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := &peer{Peer: &dialogtest.Peer{TB: b, Conn: p.Conn, R: p.R}, tag: p.tag + 1000}
			b.ReportAllocs()
			for b.Loop() {
				p.drain(fmt.Sprintf("SEARCH CHARSET UTF-8 %s", c.keys))
			}
		})
	}
}
