package tsv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"waxwing/internal/store"
	"waxwing/internal/store/search"
	"waxwing/internal/store/search/follow"
	"waxwing/internal/store/search/searchtest"
)

// past runs statements in the schema of a directory, past the store.
func past(tb testing.TB, dir string, statements ...string) {
	tb.Helper()
	conn := connect(tb, dir)
	for _, q := range statements {
		if _, err := conn.Exec(tb.Context(), q); err != nil {
			tb.Fatalf("%s: %v", q, err)
		}
	}
}

func connect(tb testing.TB, dir string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), cluster.DSN(schemaOf(dir)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close(context.WithoutCancel(tb.Context())) })
	return conn
}

// rig is a harness whose directory, and so schema, is known.
type rig struct {
	*searchtest.Harness
	dir   string
	index *Index
}

func newRig(t *testing.T, o Options) *rig {
	r := &rig{}
	r.Harness = searchtest.New(t, func(tb testing.TB, dir string, pick follow.Pick) (*store.Store, searchtest.Index) {
		o.Pick = pick
		s, idx := openWith(tb, dir, o)
		r.dir, r.index = dir, idx
		return s, idx
	})
	return r
}

// TestAMessageThatCommitsLateUnderALowIDIsNeitherExcludedNorForgotten is what several nodes do: each has a range of ids, so a
// message may appear below others that are indexed.
func TestAMessageThatCommitsLateUnderALowIDIsNeitherExcludedNorForgotten(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	low := r.Deliver(1, "low omega")
	high := r.Deliver(1, "high")
	r.Reach()
	// The row of the first comes again in a transaction that is open while a third is delivered and indexed.
	past(t, r.dir, `CREATE TABLE kept AS SELECT * FROM message WHERE message_id = `+fmt.Sprint(low.Message),
		`DELETE FROM message WHERE message_id = `+fmt.Sprint(low.Message))
	r.Until("forget", func() bool { return len(r.Finds(1, "omega")) == 0 })
	other := connect(t, r.dir)
	tx, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO message SELECT * FROM kept`); err != nil {
		t.Fatal(err)
	}
	third := r.Deliver(1, "third")
	r.Reach()
	r.Expect(1, "third", third)
	release := r.Hold()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	hits, err := r.index.Candidates(t.Context(), 1, []byte("WONDER"), search.Body)
	if err != nil || hits.Excludes(int64(low.Message)) || !hits.Excludes(int64(high.Message)) || !hits.Excludes(int64(third.Message)) {
		t.Errorf("hits %+v, %v", hits, err)
	}
	release()
	r.Reach()
	r.Expect(1, "omega", low)
	past(t, r.dir, `DROP TABLE kept`)
}

// TestOneNodeIndexesAndAnotherTakesOver has two nodes on one database; the second sees nothing but its rows.
func TestOneNodeIndexesAndAnotherTakesOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	first := r.Deliver(1, "alpha")
	r.Reach()
	second, err := New(Options{DSN: cluster.DSN(schemaOf(r.dir)), Poll: r.index.opts.Poll, Pick: r.index.opts.Pick})
	if err != nil {
		t.Fatal(err)
	}
	second.Start(r.Store, 0)
	t.Cleanup(func() {
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	finds := func(needle string) *search.Hits {
		hits, err := second.Candidates(t.Context(), 1, []byte(needle), search.Body)
		if err != nil {
			t.Fatal(err)
		}
		return hits
	}
	r.Until("ask the second", func() bool { return finds("ALPHA") != nil })
	if hits := finds("WONDER"); !hits.Excludes(int64(first.Message)) {
		t.Errorf("the second node finds %+v", hits)
	}
	if n := second.Status().Indexed; n != 0 {
		t.Errorf("the second node indexed %d messages beside the first", n)
	}
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	r.Deliver(1, "beta")
	r.Until("take over", func() bool { return second.Status().Indexed == 1 })
	if hits := finds("BETA"); hits == nil || len(hits.IDs) != 1 {
		t.Errorf("after the change: %+v", hits)
	}
	r.Index = second
}

func TestTermsOfOtherRulesExcludeNothingAndAreMadeAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	alpha := r.Deliver(1, "alpha")
	r.Reach()
	past(t, r.dir, `UPDATE search_state SET version = 'other rules'`)
	if got := r.Finds(1, "wonder"); got != nil {
		t.Errorf("terms of other rules exclude: %v", got)
	}
	release := r.Hold()
	r.Stop()
	r.Start()
	r.Until("note all", func() bool { return r.Finds(1, "wonder") != nil })
	r.Expect(1, "wonder", alpha) // not looked at yet
	release()
	r.Reach()
	r.Expect(1, "wonder")
	if n := r.index.Status().Rebuilds; n != 1 {
		t.Errorf("made anew %d times", n)
	}
}

func TestWhatTheDatabaseRefusesStaysACandidate(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	past(t, r.dir, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.terms @@ 'bPOI' THEN RAISE EXCEPTION 'too much' USING ERRCODE = '54000'; END IF; RETURN NEW; END $$`,
		`CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON search_term FOR EACH ROW EXECUTE FUNCTION refuse()`)
	release := r.Hold()
	r.Deliver(1, "alpha")
	poison := r.Deliver(1, "poison")
	omega := r.Deliver(1, "omega")
	release()
	r.Reach()
	r.Expect(1, "omega", poison, omega)
	r.Expect(1, "nowhere", poison)
}

func TestALostConnectionIsMadeGoodAndSearchesGoOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, Options{})
	r.Deliver(1, "alpha")
	r.Reach()
	for i := range 3 {
		past(t, r.dir, fmt.Sprintf(`SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %d
			AND objid = hashtext('%s')::bigint & 4294967295`, lockClass, schemaOf(r.dir)))
		text := fmt.Sprint("after", 100+i)
		p := r.Deliver(1, text)
		r.Reach()
		r.Expect(1, text, p)
	}
}

func TestAProofFindsWhatIsWrongAndARenewalMendsIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm string
		want string
	}{
		"no row":        {`DELETE FROM search_term WHERE message_id = %d`, "does not know"},
		"a term is off": {`UPDATE search_term SET terms = ts_delete(terms, 'bALP') WHERE message_id = %d`, "lacks terms"},
		"it is gone": {
			`DO $$ BEGIN SET LOCAL session_replication_role = replica; DELETE FROM message WHERE message_id = %d; END $$`,
			"it is gone",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Options{})
			r.Deliver(1, "beta")
			alpha := r.Deliver(1, "alpha")
			r.Reach()
			r.Sound()
			past(t, r.dir, fmt.Sprintf(c.harm, alpha.Message))
			var found []string
			v, err := r.Store.Verify(t.Context(), store.VerifyOptions{Found: func(p store.Problem) {
				if p.Kind == store.ProblemSearch {
					found = append(found, fmt.Sprint(p.Message, p.Text))
				}
			}})
			if err != nil || len(found) == 0 || !strings.Contains(found[0], c.want) || !strings.HasPrefix(found[0], fmt.Sprint(alpha.Message)) {
				t.Errorf("found %q, %+v, %v", found, v, err)
			}
			if err := r.index.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			conn := connect(t, r.dir)
			r.Until("mend", func() bool {
				n := 1
				err := conn.QueryRow(t.Context(), `SELECT count(*) FROM search_todo`).Scan(&n)
				return err == nil && n == 0
			})
			if err := r.index.Prove(t.Context(), 0, func(m store.MessageRef, text string) { t.Errorf("still: %d: %s", m.Message, text) }); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnIndexThatCannotBeReachedSaysSo(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{DSN: "x"}); err == nil {
		t.Error("an index without a picker was made")
	}
	r := newRig(t, Options{})
	r.Deliver(1, "alpha")
	r.Reach()
	if err := r.index.Close(); err != nil {
		t.Fatal(err)
	}
	if got := r.Finds(1, "wonder"); got != nil {
		t.Errorf("a closed index excludes: %v", got)
	}
	if err := r.index.Prove(t.Context(), 0, nil); !errors.Is(err, errIdle) {
		t.Errorf("a closed index proves itself: %v", err)
	}
	r.Stop()
}
