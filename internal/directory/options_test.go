package directory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
	"waxwing/internal/store"
)

// where writes what an address leads to on one line.
func where(ctx context.Context, t interface{ Fatal(...any) }, d *directory.Directory, to address.Address) string {
	res, err := d.Resolve(ctx, to)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{res.Status.String()}
	for _, r := range res.Recipients {
		if r.Account != nil {
			out = append(out, r.Account.Address.String())
		} else {
			out = append(out, r.Remote.String())
		}
	}
	return strings.Join(out, " ")
}

func TestADomainStandsForAnother(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := t.Context()
		d := house(t, repo)
		_, err := d.AddDomain(ctx, directory.Domain{Name: "twin.test", AliasOf: "example.test"})
		must(t, err)
		addAlias(t, d, "info@example.test", "anna@twin.test")
		addAlias(t, d, "bo@twin.test", "anna@example.test")
		must(t, d.SetDomain(ctx, directory.Domain{Name: "example.test", CatchAll: addr(t, "bo@example.test"), CatchAllExcept: []string{"spam*", "old"}}))
		for to, want := range map[string]string{
			"anna@twin.test": "ok anna@example.test", "anna+tag@twin.test": "ok anna@example.test", "info@twin.test": "ok anna@example.test",
			"bo@twin.test": "ok anna@example.test", "unknown@twin.test": "ok bo@example.test", "Old@example.test": "no mailbox",
			"spammer@twin.test": "no mailbox", "older@example.test": "ok bo@example.test",
		} {
			if got := where(ctx, t, d, addr(t, to)); got != want {
				t.Errorf("%s: %s, want %s", to, got, want)
			}
		}
		a, err := d.ByLogin(ctx, "anna@twin.test")
		if must(t, err); a.Address.String() != "anna@example.test" {
			t.Errorf("signs in as %s", a.Address)
		}
		if owns, err := d.Owns(ctx, a.ID, addr(t, "anna@twin.test")); err != nil || !owns {
			t.Errorf("owns her address there: %v, %v", owns, err)
		}
		for name, dom := range map[string]directory.Domain{
			"itself":       {Name: "example.test", AliasOf: "example.test"},
			"back":         {Name: "example.test", AliasOf: "twin.test"},
			"not ours":     {Name: "twin.test", AliasOf: "elsewhere.test"},
			"others stand": {Name: "example.test", AliasOf: "other.test"},
			"separator":    {Name: "twin.test", Subaddress: "x"},
			"exception":    {Name: "twin.test", CatchAllExcept: []string{"a@b"}},
			"catch-all":    {Name: "twin.test", AliasOf: "example.test", CatchAll: addr(t, "bo@example.test")},
		} {
			var field *directory.FieldError
			if err := d.SetDomain(ctx, dom); !errors.As(err, &field) {
				t.Errorf("%s: %v", name, err)
			}
		}
		var field *directory.FieldError
		if err := d.RemoveDomain(ctx, "example.test"); !errors.As(err, &field) {
			t.Errorf("remove the domain that another stands for: %v", err)
		}
	})
}

func TestSubaddressesOfADomain(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := t.Context()
		d := house(t, repo)
		for separator, want := range map[string][2]string{
			"": {"ok anna@example.test", "no mailbox"}, "-": {"no mailbox", "ok anna@example.test"}, "off": {"no mailbox", "no mailbox"},
		} {
			must(t, d.SetDomain(ctx, directory.Domain{Name: "example.test", Subaddress: separator}))
			for i, to := range []string{"anna+x@example.test", "anna-x@example.test"} {
				if got := where(ctx, t, d, addr(t, to)); got != want[i] {
					t.Errorf("separator %q, %s: %s, want %s", separator, to, got, want[i])
				}
			}
		}
	})
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := t.Context()
		d := house(t, repo)
		addAlias(t, d, "team@example.test", "anna@example.test", "bo@example.test")
		anna, err := d.Account(ctx, addr(t, "anna@example.test"))
		must(t, err)
		bo, err := d.Account(ctx, addr(t, "bo@example.test"))
		must(t, err)
		set := func(id store.AccountID, f directory.Forward, to ...string) error {
			for _, s := range to {
				f.To = append(f.To, addr(t, s))
			}
			return d.SetForward(ctx, id, f)
		}
		must(t, set(anna.ID, directory.Forward{}, "x@far.test", "bo@example.test"))
		for to, want := range map[string]string{
			"anna@example.test": "ok x@far.test bo@example.test", "team@example.test": "ok x@far.test bo@example.test", "bo@example.test": "ok bo@example.test",
		} {
			if got := where(ctx, t, d, addr(t, to)); got != want {
				t.Errorf("%s: %s, want %s", to, got, want)
			}
		}
		var field *directory.FieldError
		for _, to := range []string{"anna@example.test", "team@example.test", "bo@example.test"} {
			if err := set(bo.ID, directory.Forward{}, to); !errors.As(err, &field) || field.Field != "forward" {
				t.Errorf("bo to %s, which leads back: %v", to, err)
			}
		}
		// Who forwards doesn't give the right to send as them.
		if owns, err := d.Owns(ctx, bo.ID, addr(t, "anna@example.test")); err != nil || owns {
			t.Errorf("bo may send as anna: %v", err)
		}
		must(t, set(anna.ID, directory.Forward{Paused: true}, "x@far.test"))
		if got := where(ctx, t, d, anna.Address); got != "ok anna@example.test" {
			t.Errorf("paused: %s", got)
		}
		must(t, set(anna.ID, directory.Forward{Copy: true}, "x@far.test"))
		if got := where(ctx, t, d, anna.Address); got != "ok x@far.test anna@example.test" {
			t.Errorf("with a copy: %s", got)
		}
		doc, err := d.Document(ctx)
		must(t, err)
		before := doc.Version
		must(t, set(anna.ID, directory.Forward{}))
		old, err := d.DocumentAt(ctx, before)
		must(t, err)
		plan, err := d.Plan(ctx, old)
		if must(t, err); len(plan.Changes) != 1 || plan.Changes[0].Field != "forward" {
			t.Fatalf("back to the version before changes %+v", plan.Changes)
		}
		_, err = d.Apply(ctx, plan, false)
		must(t, err)
		if got := where(ctx, t, d, anna.Address); got != "ok x@far.test anna@example.test" {
			t.Errorf("rolled back: %s", got)
		}
	})
}

func TestExpansionEndsAndNamesEachOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		repo := directorytest.NewMemory()
		d, err := directory.New(ctx, repo, directory.Options{})
		if err != nil {
			t.Fatal(err)
		}
		const n = 6
		names := make([]address.Address, n)
		edit := store.DirectoryEdit{Base: -1, AddDomains: []store.DirectoryDomain{{Name: "a.test"}, {Name: "b.test", Options: `{"alias_of":"a.test"}`}}}
		for i := range n {
			names[i] = address.Address{Local: fmt.Sprint("n", i), Domain: "a.test"}
		}
		target := func() string {
			a := names[rapid.IntRange(0, n-1).Draw(t, "target")]
			a.Domain = rapid.SampledFrom([]string{"a.test", "b.test", "far.test"}).Draw(t, "domain")
			return a.String()
		}
		accounts := 0
		for i, a := range names {
			list := rapid.SliceOfN(rapid.Custom(func(*rapid.T) string { return target() }), 0, 3).Draw(t, "targets")
			if i%2 == 0 { // written past the checks, as loops come about later
				accounts++
				row := store.NewDirectoryAccount{DirectoryAccount: store.DirectoryAccount{Key: a.Key(), Local: a.Local, Domain: a.Domain, Language: "en"}}
				if len(list) > 0 {
					row.Options = fmt.Sprintf(`{"forward":["%s"],"forward_copy":%v}`, strings.Join(list, `","`), rapid.Bool().Draw(t, "copy"))
				}
				edit.AddAccounts = append(edit.AddAccounts, row)
				continue
			}
			row := store.DirectoryAlias{Key: a.Key(), Local: a.Local, Domain: a.Domain}
			for _, to := range append(list, target()) {
				row.Targets = append(row.Targets, store.DirectoryTarget{Address: to, Key: to})
			}
			edit.AddAliases = append(edit.AddAliases, row)
		}
		if _, _, err := repo.EditDirectory(ctx, edit); err != nil {
			t.Fatal(err)
		}
		if err := d.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		for i, a := range names {
			got := strings.Fields(where(ctx, t, d, a))
			seen := map[string]bool{}
			for _, r := range got[1:] {
				if seen[r] {
					t.Fatalf("%s leads twice to %s: %v", a, r, got)
				}
				seen[r] = true
			}
			if i%2 == 0 && len(got) < 2 {
				t.Fatalf("mail for the account %s goes nowhere: %v", a, got)
			}
		}
	})
}
