package store_test

import (
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
)

// BenchmarkOpenQueued is what the content of a queued message costs that was just taken, and that of one known by its id alone.
func BenchmarkOpenQueued(b *testing.B) {
	s := storetest.New(b)
	enqueue(b, s, "body\r\n", rcpt("x@b.test"))
	m := take(b, s, queueClock, nil).Work[0].Messages[0]
	for name, open := range map[string]func() (store.Blob, error){
		"taken": func() (store.Blob, error) { return s.OpenQueued(b.Context(), &m) },
		"by id": func() (store.Blob, error) { return s.OpenBlobID(b.Context(), m.Blob) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := open()
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
