package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
)

const phc = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// overEach runs a test over every repository there is.
func overEach(t *testing.T, test func(t *testing.T, repo directory.Repository)) {
	for name, open := range repositories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open(t))
		})
	}
}

var repositories = map[string]func(t testing.TB) directory.Repository{
	"memory": func(testing.TB) directory.Repository { return directorytest.NewMemory() },
}

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func open(t testing.TB, repo directory.Repository) *directory.Directory {
	t.Helper()
	d, err := directory.New(context.Background(), repo, directory.Options{Clock: func() time.Time { return start }})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addAccount(t testing.TB, d *directory.Directory, a string) directory.Account {
	t.Helper()
	acct, err := d.AddAccount(context.Background(), directory.NewAccount{Address: addr(t, a), PasswordHash: phc})
	must(t, err)
	return acct
}

func addAlias(t testing.TB, d *directory.Directory, a string, targets ...string) {
	t.Helper()
	al := directory.Alias{Address: addr(t, a)}
	for _, s := range targets {
		al.Targets = append(al.Targets, addr(t, s))
	}
	must(t, d.AddAlias(context.Background(), al))
}

// house is example.test with anna, bo and chen, and other.test with dee.
func house(t testing.TB, repo directory.Repository) *directory.Directory {
	t.Helper()
	d := open(t, repo)
	for _, name := range []string{"example.test", "other.test"} {
		_, err := d.AddDomain(context.Background(), directory.Domain{Name: name})
		must(t, err)
	}
	for _, a := range []string{"anna@example.test", "bo@example.test", "chen@example.test", "dee@other.test"} {
		addAccount(t, d, a)
	}
	return d
}

func names(res directory.Resolution) string {
	var list []string
	for _, r := range res.Recipients {
		s := r.Remote.String()
		if r.Account != nil {
			s = r.Account.Address.String()
		}
		if r.Detail != "" {
			s += "#" + r.Detail
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func TestResolve(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "sales@example.test", "anna@example.test", "bo@example.test")
		addAlias(t, d, "all@example.test", "sales@example.test", "chen@example.test", "anna@example.test", "out@remote.test")
		addAlias(t, d, "ring1@example.test", "ring2@example.test", "bo@example.test")
		addAlias(t, d, "ring2@example.test", "ring1@example.test")
		addAlias(t, d, "loop1@example.test", "loop2@example.test")
		addAlias(t, d, "loop2@example.test", "loop1@example.test")
		addAlias(t, d, "tagged@example.test", "anna+inner@example.test")
		addAlias(t, d, "ghost@example.test", "nobody@example.test")
		addAlias(t, d, "away@example.test", "dee@other.test")
		dee, err := d.Account(ctx, addr(t, "dee@other.test"))
		must(t, err)
		must(t, d.Suspend(ctx, dee.ID, true))

		tests := []struct {
			to     string
			status directory.Status
			want   string
		}{
			{"anna@example.test", directory.OK, "anna@example.test"},
			{"ANNA@Example.TEST", directory.OK, "anna@example.test"},
			{"anna+news@example.test", directory.OK, "anna@example.test#news"},
			{"anna+a+b@example.test", directory.OK, "anna@example.test#a+b"},
			{"sales@example.test", directory.OK, "anna@example.test bo@example.test"},
			{"sales+x@example.test", directory.OK, "anna@example.test#x bo@example.test#x"},
			{"all@example.test", directory.OK, "anna@example.test bo@example.test chen@example.test out@remote.test"},
			{"ring1@example.test", directory.OK, "bo@example.test"},
			{"loop1@example.test", directory.NoMailbox, ""},
			{"tagged@example.test", directory.OK, "anna@example.test#inner"},
			{"ghost@example.test", directory.NoMailbox, ""},
			{"away@example.test", directory.Suspended, ""},
			{"dee@other.test", directory.Suspended, ""},
			{"nobody@example.test", directory.NoMailbox, ""},
			{"anna@elsewhere.test", directory.NotLocal, ""},
			{"anna@sub.example.test", directory.NotLocal, ""},
			{"postmaster@example.test", directory.OK, "anna@example.test"},
			{"abuse@other.test", directory.OK, "anna@example.test"}, // dee is suspended: the server's oldest
			{`"anna@remote.test"@example.test`, directory.NoMailbox, ""},
			{"anna%remote.test@example.test", directory.NoMailbox, ""},
		}
		for _, tt := range tests {
			for range 2 { // read, and remembered
				res, err := d.Resolve(ctx, addr(t, tt.to))
				must(t, err)
				if res.Status != tt.status || names(res) != tt.want {
					t.Errorf("Resolve(%s) = %v %q, want %v %q", tt.to, res.Status, names(res), tt.status, tt.want)
				}
			}
		}
		res, err := d.Resolve(ctx, address.Address{Local: "Postmaster"})
		if must(t, err); names(res) != "anna@example.test" {
			t.Errorf("bare <Postmaster> goes to %q", names(res))
		}
		if res, _ := d.Resolve(ctx, address.Address{Local: "anna"}); res.Status != directory.NotLocal {
			t.Errorf("bare <anna> is %v", res.Status)
		}
	})
}

func TestRoleAddressesReachAnAdministrator(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := open(t, repo)
		_, err := d.AddDomain(ctx, directory.Domain{Name: "example.test"})
		must(t, err)
		check := func(want string) {
			t.Helper()
			for _, local := range []string{"postmaster", "ABUSE"} {
				res, err := d.Resolve(ctx, address.Address{Local: local, Domain: "example.test"})
				if must(t, err); names(res) != want {
					t.Errorf("%s goes to %q, want %q", local, names(res), want)
				}
			}
		}
		check("") // no account at all
		anna := addAccount(t, d, "anna@example.test")
		check("anna@example.test")
		bo := addAccount(t, d, "bo@example.test")
		bo.Admin = true
		must(t, d.SetAccount(ctx, bo))
		check("bo@example.test")
		addAccount(t, d, "chen@example.test")
		must(t, d.SetDomain(ctx, directory.Domain{Name: "example.test", Postmaster: addr(t, "chen@example.test")}))
		check("chen@example.test")
		chen, err := d.Account(ctx, addr(t, "chen@example.test"))
		must(t, err)
		must(t, d.Suspend(ctx, chen.ID, true))
		check("bo@example.test")
		must(t, d.RemoveAccount(ctx, bo.ID))
		check("anna@example.test")
		if owns, err := d.Owns(ctx, anna.ID, addr(t, "postmaster@example.test")); err != nil || !owns {
			t.Errorf("who reads postmaster can't send as it: %v %v", owns, err)
		}
		addAlias(t, d, "postmaster@example.test", "out@remote.test")
		if res, _ := d.Resolve(ctx, addr(t, "postmaster@example.test")); names(res) != "out@remote.test" {
			t.Errorf("an alias named postmaster is passed over: %q", names(res))
		}
	})
}

func TestCatchAllTakesWhatNobodyElseDoes(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		must(t, d.SetDomain(ctx, directory.Domain{Name: "example.test", CatchAll: addr(t, "bo@example.test")}))
		for to, want := range map[string]string{
			"nobody@example.test":               "bo@example.test",
			"anna@example.test":                 "anna@example.test",
			"nobody@other.test":                 "",
			"postmaster@example.test":           "anna@example.test",
			"victim%remote.test@example.test":   "",
			"remote.test!victim@example.test":   "",
			`"victim@remote.test"@example.test`: "",
		} {
			res, err := d.Resolve(ctx, addr(t, to))
			if must(t, err); names(res) != want {
				t.Errorf("%s goes to %q, want %q", to, names(res), want)
			}
		}
		bo, err := d.Account(ctx, addr(t, "bo@example.test"))
		must(t, err)
		if owns, _ := d.Owns(ctx, bo.ID, addr(t, "nobody@example.test")); owns {
			t.Error("a catch-all lets its account send as any address")
		}
	})
}

func TestExpansionIsBounded(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "a0@example.test", "bo@example.test")
		for i := range directory.MaxAliasDepth + 1 {
			addAlias(t, d, fmt.Sprintf("a%d@example.test", i+1), fmt.Sprintf("a%d@example.test", i))
		}
		if _, err := d.Resolve(ctx, addr(t, fmt.Sprintf("a%d@example.test", directory.MaxAliasDepth-1))); err != nil {
			t.Errorf("the deepest that is allowed: %v", err)
		}
		if _, err := d.Resolve(ctx, addr(t, fmt.Sprintf("a%d@example.test", directory.MaxAliasDepth))); !errors.Is(err, directory.ErrExpansion) {
			t.Errorf("one deeper: %v, want ErrExpansion", err)
		}
		for g := range 2 {
			al := directory.Alias{Address: addr(t, fmt.Sprintf("g%d@example.test", g))}
			for i := range 600 {
				al.Targets = append(al.Targets, addr(t, fmt.Sprintf("r%d-%d@remote.test", g, i)))
			}
			must(t, d.AddAlias(ctx, al))
		}
		addAlias(t, d, "both@example.test", "g0@example.test", "g1@example.test")
		if _, err := d.Resolve(ctx, addr(t, "both@example.test")); !errors.Is(err, directory.ErrExpansion) {
			t.Errorf("1,200 recipients: %v, want ErrExpansion", err)
		}
	})
}

func TestOwnsOnlyOwnAddresses(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "info@example.test", "anna@example.test")
		addAlias(t, d, "team@example.test", "anna@example.test", "bo@example.test")
		addAlias(t, d, "nested@other.test", "team@example.test")
		addAlias(t, d, "hers@example.test", "bo@example.test")
		anna, err := d.Account(ctx, addr(t, "anna@example.test"))
		must(t, err)
		for a, want := range map[string]bool{
			"anna@example.test": true, "Anna@EXAMPLE.test": true, "anna+any@example.test": true,
			"info@example.test": true, "team@example.test": true, "nested@other.test": true, "info+x@example.test": true,
			"hers@example.test": false, "bo@example.test": false, "nobody@example.test": false,
			"anna@other.test": false, "anna@elsewhere.test": false, "аnna@example.test": false, // Cyrillic а
		} {
			owns, err := d.Owns(ctx, anna.ID, addr(t, a))
			if must(t, err); owns != want {
				t.Errorf("Owns(anna, %s) = %v", a, owns)
			}
		}
	})
}

func TestByLogin(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "info@example.test", "anna@example.test")
		addAlias(t, d, "info2@example.test", "info@example.test")
		addAlias(t, d, "team@example.test", "anna@example.test", "bo@example.test")
		addAlias(t, d, "loop1@example.test", "loop2@example.test")
		addAlias(t, d, "loop2@example.test", "loop1@example.test")
		for login, want := range map[string]string{
			"anna@example.test": "anna@example.test", "ANNA@EXAMPLE.TEST": "anna@example.test",
			"info@example.test": "anna@example.test", "info2@example.test": "anna@example.test",
			"team@example.test": "", "loop1@example.test": "", "anna": "", "anna+x@example.test": "", "": "",
			"anna@elsewhere.test": "", "anna@example.test\x00": "", "x' OR '1'='1@example.test": "", "*@example.test": "", "%@example.test": "",
			"postmaster@example.test": "",
		} {
			a, err := d.ByLogin(ctx, login)
			if want == "" {
				if !errors.Is(err, directory.ErrNotFound) {
					t.Errorf("ByLogin(%q) = %v, %v", login, a.Address, err)
				}
				continue
			}
			if err != nil || a.Address.String() != want {
				t.Errorf("ByLogin(%q) = %v, %v, want %s", login, a.Address, err, want)
			}
		}
	})
}

func TestChangesAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		to := addr(t, "new@example.test")
		status := func() directory.Status {
			res, err := d.Resolve(ctx, to)
			must(t, err)
			return res.Status
		}
		if s := status(); s != directory.NoMailbox {
			t.Fatal(s)
		}
		a := addAccount(t, d, "new@example.test")
		if s := status(); s != directory.OK {
			t.Errorf("after AddAccount: %v", s)
		}
		must(t, d.Suspend(ctx, a.ID, true))
		if s := status(); s != directory.Suspended {
			t.Errorf("after Suspend: %v", s)
		}
		must(t, d.SetPasswordHash(ctx, a.ID, phc))
		if b, err := d.ByLogin(ctx, "new@example.test"); err != nil || b.PasswordVersion != a.PasswordVersion+1 {
			t.Errorf("after SetPasswordHash: version %d, %v", b.PasswordVersion, err)
		}
		must(t, d.RemoveAccount(ctx, a.ID))
		if s := status(); s != directory.NoMailbox {
			t.Errorf("after RemoveAccount: %v", s)
		}
		if b := addAccount(t, d, "new@example.test"); b.ID <= a.ID {
			t.Errorf("account id %d is used again after %d", b.ID, a.ID)
		}
		if _, err := d.ChangeSettings(ctx, -1, "test", map[string]json.RawMessage{"address.subaddress_separator": []byte(`"-"`)}); err != nil {
			t.Fatal(err)
		}
		if res, _ := d.Resolve(ctx, addr(t, "anna-x@example.test")); res.Status != directory.OK {
			t.Errorf("after the new separator: %v", res.Status)
		}
	})
}

func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "team@example.test", "anna@example.test", "out@remote.test")
		must(t, d.SetDomain(ctx, directory.Domain{Name: "other.test", CatchAll: addr(t, "dee@other.test"), MaxAccounts: 7}))
		_, err := d.ChangeSettings(ctx, -1, "cli", map[string]json.RawMessage{"message.size": []byte("1000000"), "folder.sent": []byte(`"已发送"`)})
		must(t, err)
		d = open(t, repo)
		if res, _ := d.Resolve(ctx, addr(t, "team@example.test")); names(res) != "anna@example.test out@remote.test" {
			t.Errorf("alias: %q", names(res))
		}
		dom, err := d.Domain("OTHER.test")
		if err != nil || dom.CatchAll != addr(t, "dee@other.test") || dom.MaxAccounts != 7 || !dom.Created.Equal(start) {
			t.Errorf("domain: %+v, %v", dom, err)
		}
		if s := d.Settings(); s.MessageSize != 1_000_000 || s.SentFolder != "已发送" || s.Version != 9 {
			t.Errorf("settings: %+v", s)
		}
		a, err := d.Account(ctx, addr(t, "anna@example.test"))
		if err != nil || a.QuotaBytes != directory.DefaultSettings().QuotaBytes || a.Language != "en" || !a.Created.Equal(start) {
			t.Errorf("account: %+v, %v", a, err)
		}
		if got, version, err := d.PasswordHash(ctx, a.ID); got != phc || version != 1 || err != nil {
			t.Errorf("password: %q %d %v", got, version, err)
		}
	})
}

func TestWhatIsNotAllowedIsNamed(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "sales@example.test", "anna@example.test")
		account := func(n directory.NewAccount) error { _, err := d.AddAccount(ctx, n); return err }
		ok := directory.NewAccount{Address: addr(t, "x@example.test")}
		with := func(fn func(*directory.NewAccount)) error {
			n := ok
			fn(&n)
			return account(n)
		}
		alias := func(a string, targets ...string) error {
			al := directory.Alias{Address: addr(t, a)}
			for _, s := range targets {
				al.Targets = append(al.Targets, addr(t, s))
			}
			return d.AddAlias(ctx, al)
		}
		domain := func(dom directory.Domain) error { _, err := d.AddDomain(ctx, dom); return err }
		many := make([]string, directory.MaxTargets+1)
		for i := range many {
			many[i] = fmt.Sprintf("t%d@remote.test", i)
		}
		fields := []struct {
			name  string
			err   error
			field string
		}{
			{"foreign domain", with(func(n *directory.NewAccount) { n.Address = addr(t, "x@foreign.test") }), "address"},
			{"percent", with(func(n *directory.NewAccount) { n.Address = addr(t, "x%y@example.test") }), "address"},
			{"bang", with(func(n *directory.NewAccount) { n.Address = addr(t, "x!y@example.test") }), "address"},
			{"quoted @", with(func(n *directory.NewAccount) { n.Address = addr(t, `"x@y"@example.test`) }), "address"},
			{"quoted space", with(func(n *directory.NewAccount) { n.Address = addr(t, `"x y"@example.test`) }), "address"},
			{"slash", with(func(n *directory.NewAccount) { n.Address = addr(t, "x/y@example.test") }), "address"},
			{"separator", with(func(n *directory.NewAccount) { n.Address = addr(t, "x+y@example.test") }), "address"},
			{"no address", with(func(n *directory.NewAccount) { n.Address = address.Address{} }), "address"},
			{"control in name", with(func(n *directory.NewAccount) { n.Name = "x\r\nBcc: y" }), "name"},
			{"long name", with(func(n *directory.NewAccount) { n.Name = strings.Repeat("x", 201) }), "name"},
			{"plain password", with(func(n *directory.NewAccount) { n.PasswordHash = "secret" }), "password"},
			{"language", with(func(n *directory.NewAccount) { n.Language = "fr" }), "language"},
			{"quota", with(func(n *directory.NewAccount) { n.QuotaBytes = -2 }), "quota_bytes"},
			{"alias to itself", alias("l@example.test", "L@example.test"), "targets"},
			{"alias without targets", alias("l@example.test"), "targets"},
			{"alias twice the same", alias("l@example.test", "bo@example.test", "BO@example.test"), "targets"},
			{"alias to a literal", alias("l@example.test", "x@[192.0.2.1]"), "targets"},
			{"alias with too many targets", alias("l@example.test", many...), "targets"},
			{"alias elsewhere", alias("l@foreign.test", "bo@example.test"), "address"},
			{"domain without letters", domain(directory.Domain{Name: "-"}), "domain"},
			{"literal as domain", domain(directory.Domain{Name: "[192.0.2.1]"}), "domain"},
			{"postmaster elsewhere", d.SetDomain(ctx, directory.Domain{Name: "example.test", Postmaster: addr(t, "x@remote.test")}), "postmaster"},
			{"negative limit", d.SetDomain(ctx, directory.Domain{Name: "example.test", MaxAccounts: -1}), "max_accounts"},
		}
		for _, tt := range fields {
			var fe *directory.FieldError
			if !errors.As(tt.err, &fe) || fe.Field != tt.field || fe.Want == "" {
				t.Errorf("%s: %v, want an error about %s", tt.name, tt.err, tt.field)
			}
		}
		kinds := []struct {
			name string
			err  error
			kind error
		}{
			{"account twice", with(func(n *directory.NewAccount) { n.Address = addr(t, "ANNA@example.test") }), directory.ErrExists},
			{"account over alias", with(func(n *directory.NewAccount) { n.Address = addr(t, "sales@example.test") }), directory.ErrExists},
			{"alias over account", alias("anna@example.test", "bo@example.test"), directory.ErrExists},
			{"alias twice", alias("sales@example.test", "bo@example.test"), directory.ErrExists},
			{"domain twice", domain(directory.Domain{Name: "Example.Test"}), directory.ErrExists},
			{"domain in use", d.RemoveDomain(ctx, "example.test"), directory.ErrNotEmpty},
			{"domain unknown", d.RemoveDomain(ctx, "foreign.test"), directory.ErrNotFound},
			{"change unknown domain", d.SetDomain(ctx, directory.Domain{Name: "foreign.test"}), directory.ErrNotFound},
			{"remove unknown alias", d.RemoveAlias(ctx, addr(t, "l@example.test")), directory.ErrNotFound},
			{"remove account as alias", d.RemoveAlias(ctx, addr(t, "anna@example.test")), directory.ErrNotFound},
			{"replace account by alias", d.SetAlias(ctx, directory.Alias{Address: addr(t, "anna@example.test"), Targets: []address.Address{addr(t, "bo@example.test")}}), directory.ErrNotFound},
			{"suspend unknown", d.Suspend(ctx, 999, true), directory.ErrNotFound},
			{"password of unknown", d.SetPasswordHash(ctx, 999, phc), directory.ErrNotFound},
			{"change unknown account", d.SetAccount(ctx, directory.Account{ID: 999, Language: "en"}), directory.ErrNotFound},
			{"remove unknown account", d.RemoveAccount(ctx, 999), directory.ErrNotFound},
		}
		for _, tt := range kinds {
			if !errors.Is(tt.err, tt.kind) {
				t.Errorf("%s: %v, want %v", tt.name, tt.err, tt.kind)
			}
		}
	})
}

func TestBatchIsAllOrNothing(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		batch := make([]directory.NewAccount, 1000)
		for i := range batch {
			batch[i] = directory.NewAccount{Address: addr(t, fmt.Sprintf("u%d@example.test", i)), PasswordHash: phc, QuotaBytes: -1}
		}
		bad := append(batch[:len(batch):len(batch)], directory.NewAccount{Address: addr(t, "U7@example.test")})
		var be *directory.BatchError
		if _, err := d.AddAccounts(ctx, bad); !errors.As(err, &be) || be.Index != 1000 || !errors.Is(err, directory.ErrExists) {
			t.Fatalf("a repeated address: %v", err)
		}
		if list, err := d.Accounts(ctx, directory.Filter{Domain: "example.test"}); err != nil || len(list) != 3 {
			t.Fatalf("%d accounts after a refused batch, %v", len(list), err)
		}
		made, err := d.AddAccounts(ctx, batch)
		if err != nil || len(made) != 1000 {
			t.Fatal(len(made), err)
		}
		a, err := d.AccountByID(ctx, made[999].ID)
		if err != nil || a.Address.Local != "u999" || a.QuotaBytes != 0 {
			t.Errorf("%+v, %v", a, err)
		}
		page, err := d.Accounts(ctx, directory.Filter{Search: "U99", After: "u992@example.test", Limit: 5})
		if err != nil || len(page) != 5 || page[0].Address.Local != "u993" {
			t.Errorf("page: %v, %v", page, err)
		}
		if list, _ := d.Accounts(ctx, directory.Filter{Search: "%"}); len(list) != 0 {
			t.Errorf("a %% in a search matches %d accounts", len(list))
		}
		if _, err := d.AddAccounts(ctx, batch[:1]); !errors.Is(err, directory.ErrExists) {
			t.Errorf("the same again: %v", err)
		}
	})
}

func TestDomainLimitOfAccounts(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		must(t, d.SetDomain(ctx, directory.Domain{Name: "other.test", MaxAccounts: 2}))
		addAccount(t, d, "second@other.test")
		if _, err := d.AddAccount(ctx, directory.NewAccount{Address: addr(t, "third@other.test")}); !errors.Is(err, directory.ErrLimit) {
			t.Errorf("third of two: %v", err)
		}
	})
}

func TestDomainLifeCycle(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		if _, err := d.AddDomain(ctx, directory.Domain{Name: "例子.测试"}); err != nil {
			t.Fatal(err)
		}
		a := addAccount(t, d, "李伟@例子.测试")
		if res, err := d.Resolve(ctx, addr(t, "李伟@xn--fsqu00a.xn--0zwm56d")); err != nil || len(res.Recipients) != 1 || res.Recipients[0].Account.ID != a.ID {
			t.Errorf("A-labels and U-labels differ: %+v, %v", res, err)
		}
		if err := d.RemoveDomain(ctx, "例子.测试"); !errors.Is(err, directory.ErrNotEmpty) {
			t.Errorf("with an account: %v", err)
		}
		must(t, d.RemoveAccount(ctx, a.ID))
		must(t, d.RemoveDomain(ctx, "例子.测试"))
		if d.Local("xn--fsqu00a.xn--0zwm56d") {
			t.Error("still local after it was removed")
		}
		if got := len(d.Domains()); got != 2 {
			t.Errorf("%d domains", got)
		}
	})
}

func TestAliasLists(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, repo directory.Repository) {
		ctx := context.Background()
		d := house(t, repo)
		addAlias(t, d, "b@example.test", "anna@example.test", "bo@example.test")
		addAlias(t, d, "a@example.test", "bo@example.test")
		addAlias(t, d, "c@other.test", "bo@example.test", "x@remote.test")
		list, err := d.Aliases(ctx, directory.Filter{Limit: 2})
		if err != nil || len(list) != 2 || list[0].Address.Local != "a" || len(list[1].Targets) != 2 || list[1].Targets[0].Local != "anna" {
			t.Errorf("%+v, %v", list, err)
		}
		if list, _ = d.AliasesOf(ctx, addr(t, "ANNA@example.test")); len(list) != 1 || list[0].Address.Local != "b" {
			t.Errorf("aliases of anna: %+v", list)
		}
		must(t, d.SetAlias(ctx, directory.Alias{Address: addr(t, "b@example.test"), Targets: []address.Address{addr(t, "chen@example.test")}}))
		if res, _ := d.Resolve(ctx, addr(t, "b@example.test")); names(res) != "chen@example.test" {
			t.Errorf("replaced: %q", names(res))
		}
		must(t, d.RemoveAlias(ctx, addr(t, "b@example.test")))
		if list, _ = d.Aliases(ctx, directory.Filter{}); len(list) != 2 {
			t.Errorf("%d aliases after one was removed", len(list))
		}
	})
}
