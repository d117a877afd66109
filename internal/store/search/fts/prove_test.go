package fts

import (
	"fmt"
	"strings"
	"testing"

	"waxwing/internal/store"
)

// proved lists what a proof finds.
func (r *rig) proved() (found []string) {
	r.tb.Helper()
	err := r.idx.Prove(r.tb.Context(), 0, func(_ store.MessageRef, text string) { found = append(found, text) })
	if err != nil {
		r.tb.Fatal(err)
	}
	return found
}

func TestAProofFindsWhatIsWrongAndARenewalMendsIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm []string
		want string
	}{
		"no row":        {[]string{`DELETE FROM term WHERE rowid = $1`}, "does not know"},
		"a term is off": {[]string{`DELETE FROM term WHERE rowid = $1`, `INSERT INTO term (rowid, terms) VALUES ($1, '@1 bALP')`}, "lacks terms"},
		"it is gone":    {[]string{`INSERT INTO term (rowid, terms) VALUES ($1 + 5, '@1 bALP')`}, "it is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.start()
			r.reach(r.mail.add(1, "alpha", "beta"))
			if found := r.proved(); found != nil {
				t.Fatalf("a sound index is found to be wrong: %v", found)
			}
			row, _ := rowOf(1, 1)
			for _, q := range c.harm {
				if _, err := r.idx.db.writer.ExecContext(t.Context(), q, row); err != nil {
					t.Fatal(err)
				}
			}
			if found := r.proved(); len(found) == 0 || !strings.Contains(found[0], c.want) {
				t.Errorf("found %q", found)
			}
			if err := r.idx.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.reach(2)
			if found := r.proved(); found != nil || r.idx.Status().Rebuilds != 1 {
				t.Errorf("after the renewal: %v, %+v", found, r.idx.Status())
			}
		})
	}
}

func TestAProofFindsDamagedLists(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha", "beta"))
	if _, err := r.idx.db.writer.ExecContext(t.Context(), `UPDATE term_data SET block = x'ffffffffffffffff' WHERE id > 10`); err != nil {
		t.Fatal(err)
	}
	if found := r.proved(); len(found) == 0 {
		t.Error("a proof finds nothing")
	}
}

func TestAProofJudgesWhatTheIndexClaimedWhenItBegan(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	r.start()
	r.reach(r.mail.add(1, "alpha"))
	var found []string
	p := r.idx.proof(0, func(m store.MessageRef, text string) { found = append(found, fmt.Sprint(m.Message, " ", text)) })
	r.reach(r.mail.add(1, "beta"))
	for _, id := range []store.MessageID{1, 2} { // it is as if the second came between the look at its terms and the question why they are missing
		row, _ := rowOf(1, id)
		if _, err := r.idx.db.writer.ExecContext(t.Context(), `DELETE FROM term WHERE rowid = $1`, row); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Error("what was claimed is not judged")
	}
	for _, f := range found {
		if !strings.HasPrefix(f, "1 ") {
			t.Errorf("found %q", f)
		}
	}
}
