package fts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/sqlitefile"
	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

func flip(path string, at ...int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, i := range at {
		b[i] ^= 0x40
	}
	return os.WriteFile(path, b, 0o600)
}

func TestAFlippedByteCostsNothing(t *testing.T) {
	t.Parallel()
	for _, at := range []int{3, 20, 3000, 4096 + 1, 2*4096 + 4000} {
		flipOne(t, func(int) int { return at })
	}
}

func TestSoakAFlippedByteCostsNothing(t *testing.T) {
	o := ordeal.Soak(t)
	chance := o.Chance(0)
	for range o.Times(1000) {
		flipOne(t, chance.IntN)
		o.Fault(1)
	}
}

// flipOne flips one octet of an index, at a place that is chosen by its size, and goes on.
func flipOne(t *testing.T, place func(size int) int) {
	t.Helper()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha", "beta"))
	r.stop()
	fi, err := os.Stat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	at := place(int(fi.Size()))
	if err := flip(r.path, at); err != nil {
		t.Fatal(err)
	}
	r.mail.add(1, "gamma")
	r.start()
	r.reach(3)
	r.expect(1, "beta", 2)
	r.expect(1, "gamma", 3)
	if n := r.idx.Status().Rebuilds; n != 0 {
		t.Errorf("octet %d: made anew %d times", at, n)
	}
	r.stop()
}

func TestALostOrDamagedFileIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(path string) error{
		"deleted":        os.Remove,
		"emptied":        func(path string) error { return os.Truncate(path, 0) },
		"cut":            func(path string) error { return os.Truncate(path, 5000) },
		"scribbled":      func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("scribble"), 1000), 0o600) },
		"damaged header": func(path string) error { return flip(path, 3, 5) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.start()
			r.reach(r.mail.add(1, "alpha", "beta"))
			r.stop()
			if err := harm(r.path); err != nil {
				t.Fatal(err)
			}
			r.start()
			r.stand(2)
			r.expect(1, "beta", 2)
		})
	}
}

func TestDamageThatASearchFindsLeadsToANewIndex(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha", "beta"))
	r.stop()
	// The lists alone are damaged: neither opening the file nor the sweep looks into them.
	f, err := sqlitefile.Open(t.Context(), r.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	db, err := f.Pool(t.Context(), sqlitefile.Pool{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE term_data SET block = x'ffffffffffffffff' WHERE id > 10`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var found error
	for found == nil && ctx.Err() == nil { // until the file is open there is nothing to find
		_, found = r.idx.Candidates(ctx, 1, []byte("ALPHA"), search.Body)
		runtime.Gosched()
	}
	if !mustDiscard(found) {
		t.Fatalf("the search ended with %v", found)
	}
	r.reach(2)
	r.expect(1, "alpha", 1)
	if n := r.idx.Status().Rebuilds; n != 1 {
		t.Errorf("made anew %d times", n)
	}
}

func TestAnIndexOfOtherRulesOrOfALaterStateIsMadeAnew(t *testing.T) {
	t.Parallel()
	t.Run("other rules", func(t *testing.T) {
		t.Parallel()
		stem := false
		r := newRig(t, func(o *Options) { o.Stem = stem })
		r.start()
		r.reach(r.mail.add(1, "invoices"))
		r.stop()
		stem = true
		r.start()
		r.reach(1)
		if got, _, err := r.idx.Words(t.Context(), 1, search.Body, "invoice", 1); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("later state", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		r.start()
		r.reach(r.mail.add(1, "alpha", "beta", "gamma"))
		r.stop()
		r.mail = newMail() // the store of before
		r.mail.add(1, "alpha")
		r.start()
		r.reach(r.mail.add(1, "delta"))
		r.expect(1, "delta", 2)
		r.expect(1, "beta")
		if r.idx.Status().Rebuilds != 1 {
			t.Errorf("status %+v", r.idx.Status())
		}
	})
}

func TestAnIndexOfAnotherStoreIsMadeAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		other    func(m *mail)
		rebuilds int64
	}{
		"the same store": {func(m *mail) {
			for i := range 100 {
				m.add(1, fmt.Sprint("number ", i))
			}
		}, 0},
		"other messages": {func(m *mail) {
			for i := range 150 {
				m.add(1, fmt.Sprint("letter ", i))
			}
		}, 1},
		"none of the messages": {func(m *mail) {
			for i := range 150 {
				m.add(1, fmt.Sprint("letter ", i))
			}
			for i := range 101 {
				m.drop(store.MessageID(i))
			}
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.start()
			for i := range 100 { // each is a batch, and a witness
				r.reach(r.mail.add(1, fmt.Sprint("number ", i)))
			}
			r.stop()
			r.mail = newMail()
			c.other(r.mail)
			r.start()
			last := r.mail.add(1, "omega")
			r.reach(last)
			r.expect(1, "omega", int64(last))
			if got := r.idx.Status().Rebuilds; got != c.rebuilds {
				t.Errorf("made anew %d times", got)
			}
		})
	}
}
