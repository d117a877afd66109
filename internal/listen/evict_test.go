package listen

import (
	"io"
	"slices"
	"testing"
)

func TestEvictEndsTheSessionsOfAnOwner(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} { // one that doesn't end by itself is cut
		b := start(t, Options{Name: "test", Sessions: 9, PerPeer: 9}, loopback(t), deaf)
		one, two := b.hears("hello"), b.hears("hello")
		b.pool.mu.Lock()
		var all []Session
		for s := range b.pool.sessions {
			all = append(all, s)
		}
		b.pool.mu.Unlock()
		if len(all) != 2 {
			t.Fatalf("%d sessions", len(all))
		}
		b.pool.Own(all[0], 7)
		b.pool.Own(all[1], 8)
		if got := b.pool.Owners(); !slices.Equal(got, []int64{7, 8}) {
			t.Fatalf("owners %v", got)
		}
		if n := b.pool.Evict(9); n != 0 {
			t.Errorf("%d sessions of nobody", n)
		}
		if n := b.pool.Evict(7); n != 1 || !b.pool.Evicted(all[0]) || b.pool.Evicted(all[1]) {
			t.Errorf("%d sessions evicted", n)
		}
		if b.pool.Evict(7) != 0 {
			t.Error("evicted twice")
		}
		ended, stays := one, two
		if all[0].Conn().RemoteAddr().String() != one.LocalAddr().String() {
			ended, stays = two, one
		}
		if n, err := ended.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the evicted session goes on: %d, %v", n, err)
		}
		if _, err := io.WriteString(stays, "still here\r\n"); err != nil {
			t.Error(err)
		}
	}
}
