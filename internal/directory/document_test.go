package directory_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"waxwing/internal/address"
	"waxwing/internal/directory"
)

// lines writes the changes of a plan.
func lines(p directory.Plan) string {
	var out []string
	for _, c := range p.Changes {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", c.Act, c.Kind, c.Name, c.Field)))
	}
	return strings.Join(out, "\n")
}

func TestDocumentIsPlannedAndApplied(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := directory.WithActor(context.Background(), "li")
		d := house(t, repo)
		addAlias(t, d, "sales@example.test", "anna@example.test")
		before, err := d.Document(ctx)
		must(t, err)
		if p, err := d.Plan(ctx, before); err != nil || len(p.Changes) > 0 {
			t.Fatalf("a document differs from itself: %s, %v", lines(p), err)
		}

		want := before
		want.Settings = changes{"message.size": []byte("100000")}
		want.Domains = []directory.Domain{{Name: "example.test", CatchAll: addr(t, "bo@example.test"), Postmaster: addr(t, "new@third.test")}, {Name: "third.test"}}
		// The alias becomes an account, an account an alias; other.test goes with its account.
		want.Accounts = []directory.DocumentAccount{
			{Address: addr(t, "Anna@example.test"), Name: "Anna", Suspended: true},
			{Address: addr(t, "bo@example.test")},
			{Address: addr(t, "sales@example.test")},
			{Address: addr(t, "new@third.test"), Admin: true},
		}
		want.Aliases = []directory.Alias{{Address: addr(t, "chen@example.test"), Targets: before.Aliases[0].Targets}}
		p, err := d.Plan(ctx, want)
		must(t, err)
		if got, want := lines(p), strings.TrimSpace(`
change setting message.size
change domain example.test catch_all
change domain example.test postmaster
make domain third.test
remove domain other.test
change account Anna@example.test name
change account Anna@example.test suspended
make account sales@example.test
make account new@third.test
change account new@third.test language
change account new@third.test admin
change account new@third.test quota_bytes
remove account chen@example.test
remove account dee@other.test
make alias chen@example.test
remove alias sales@example.test`); sortedLines(got) != sortedLines(strings.ReplaceAll(want, "make account sales@example.test", "make account sales@example.test\nchange account sales@example.test language\nchange account sales@example.test quota_bytes")) {
			t.Errorf("planned:\n%s", got)
		}
		version, err := d.Apply(ctx, p, false)
		if err != nil || version != before.Version+1 {
			t.Fatalf("applied: %d, %v", version, err)
		}
		if again, err := d.Plan(ctx, want); err != nil || len(again.Changes) > 0 {
			t.Errorf("applied, it still differs: %s, %v", lines(again), err)
		}
		if res, _ := d.Resolve(ctx, addr(t, "nobody@example.test")); names(res) != "bo@example.test" {
			t.Errorf("catch-all: %q", names(res))
		}
		if d.Local("other.test") || d.Settings().MessageSize != 100_000 {
			t.Errorf("%v, %+v", d.Domains(), d.Settings())
		}
		history, err := d.SettingsHistory(ctx, 0, 0)
		must(t, err)
		if h := history[0]; h.Version != version || h.Actor != "li" {
			t.Errorf("history: %+v", h)
		}

		old, err := d.DocumentAt(ctx, before.Version)
		must(t, err)
		p, err = d.Plan(ctx, old)
		must(t, err)
		_, err = d.Apply(ctx, p, false)
		must(t, err)
		after, err := d.Document(ctx)
		must(t, err)
		after.Version = before.Version
		if got, want := fmt.Sprint(brief(after)), fmt.Sprint(brief(before)); got != want {
			t.Errorf("rolled back:\n%s\nwant\n%s", got, want)
		}
		d = open(t, repo)
		if restarted, err := d.Document(ctx); err != nil || fmt.Sprint(brief(restarted)) != fmt.Sprint(brief(before)) {
			t.Errorf("after a restart: %v", err)
		}
	})
}

func sortedLines(s string) string {
	set := map[string]bool{}
	for _, l := range strings.Split(s, "\n") {
		set[l] = true
	}
	return fmt.Sprint(set)
}

// brief is a document without pointers and times.
func brief(d directory.Document) (out []string) {
	for _, x := range d.Domains {
		out = append(out, fmt.Sprint(x.Name, x.CatchAll, x.Postmaster, x.MaxAccounts))
	}
	for _, x := range d.Accounts {
		out = append(out, fmt.Sprint(x.Address.Key(), x.Name, x.Admin, x.Suspended, x.Language, *x.QuotaBytes, *x.QuotaMessages))
	}
	for _, x := range d.Aliases {
		out = append(out, fmt.Sprint(x.Address, x.Targets))
	}
	return append(out, fmt.Sprint(d.Settings))
}

func TestPlanIsRefusedOnceSomethingChanged(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		doc, err := d.Document(ctx)
		must(t, err)
		doc.Accounts = doc.Accounts[1:]
		for what, meanwhile := range map[string]func() error{
			"account": func() error {
				_, err := d.AddAccount(ctx, directory.NewAccount{Address: addr(t, "late@example.test")})
				return err
			},
			"domain": func() error { return d.SetDomain(ctx, directory.Domain{Name: "other.test", MaxAccounts: 9}) },
			"alias": func() error {
				return d.AddAlias(ctx, directory.Alias{Address: addr(t, "x@example.test"), Targets: []address.Address{addr(t, "bo@example.test")}})
			},
			"suspension": func() error {
				a, err := d.Account(ctx, addr(t, "bo@example.test"))
				return errors.Join(err, d.Suspend(ctx, a.ID, true))
			},
			"setting": func() error {
				_, err := d.ChangeSettings(ctx, -1, "t", changes{"message.size": []byte("100000")})
				return err
			},
		} {
			p, err := d.Plan(ctx, doc)
			must(t, err)
			must(t, meanwhile())
			if _, err := d.Apply(ctx, p, true); !errors.Is(err, directory.ErrConflict) {
				t.Errorf("%s changed meanwhile: %v", what, err)
			}
		}
	})
}

func TestDocumentsThatCannotBeAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	d := house(t, repositories["memory"](t))
	minus, big := int64(-1), int64(1)<<61
	account := func(a directory.DocumentAccount) directory.Document {
		return directory.Document{Accounts: []directory.DocumentAccount{{Address: addr(t, "anna@example.test")}, a}}
	}
	for field, doc := range map[string]directory.Document{
		"accounts.1.address":        account(directory.DocumentAccount{Address: addr(t, "a+b@example.test")}),
		"accounts.1.name":           account(directory.DocumentAccount{Address: addr(t, "b@example.test"), Name: "a\nb"}),
		"accounts.1.language":       account(directory.DocumentAccount{Address: addr(t, "b@example.test"), Language: "fr"}),
		"accounts.1.quota_bytes":    account(directory.DocumentAccount{Address: addr(t, "b@example.test"), QuotaBytes: &minus}),
		"accounts.1.quota_messages": account(directory.DocumentAccount{Address: addr(t, "b@example.test"), QuotaMessages: &big}),
		"domains.0.name":            {Domains: []directory.Domain{{Name: "[127.0.0.1]"}}},
		"domains.1.name":            {Domains: []directory.Domain{{Name: "a.test"}, {Name: "A.test"}}},
		"domains.0.postmaster":      {Domains: []directory.Domain{{Name: "a.test", Postmaster: addr(t, "x@a.test")}}},
		"aliases.0.targets":         {Aliases: []directory.Alias{{Address: addr(t, "b@example.test")}}},
		"aliases.0.address": {
			Accounts: []directory.DocumentAccount{{Address: addr(t, "b@example.test")}},
			Aliases:  []directory.Alias{{Address: addr(t, "B@example.test"), Targets: nil}},
		},
		"message.size": {Settings: changes{"message.size": []byte("1")}},
		"no.such":      {Settings: changes{"no.such": []byte("1")}},
	} {
		_, err := d.Plan(ctx, doc)
		var f *directory.FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// Commits return in any order; the version in memory never goes back, or a base would be refused for ever.
func TestVersionFollowsChangesMadeAtOnce(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if i%4 == 0 {
					_, err := d.ChangeSettings(ctx, -1, "t", changes{"message.recipients": []byte(fmt.Sprint(100 + i))})
					if err != nil {
						t.Error(err)
					}
					return
				}
				addAccount(t, d, fmt.Sprintf("u%d@example.test", i))
			})
		}
		wg.Wait()
		version, _, err := repo.Settings(ctx)
		if err != nil || d.Settings().Version != version {
			t.Errorf("version %d in memory, %d committed, %v", d.Settings().Version, version, err)
		}
		if got, want := d.Settings(), open(t, repo).Settings(); !reflect.DeepEqual(got, want) {
			t.Errorf("in memory %+v, committed %+v", got, want)
		}
	})
}
