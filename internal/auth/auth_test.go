package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/directory/directorytest"
)

// cheap is a hash of "right password" with the least parameters, so that tests of other things don't wait.
func cheap(t testing.TB, password string) string {
	t.Helper()
	h := phc{time: 1, memory: 8, threads: 1, salt: []byte("somesaltsomesalt"), key: make([]byte, 32)}
	prepared := prepare([]byte(password))
	parsed, err := parsePHC(h.String())
	if err != nil {
		t.Fatal(err)
	}
	parsed.key = derive(parsed, prepared)
	return parsed.String()
}

// fixture is an Auth over a directory with anna, the suspended sue, blank without a password and broken with a damaged
// hash, and the alias info of anna.
type fixture struct {
	*Auth
	dir  *directory.Directory
	repo *directorytest.Memory
	ids  map[string]directory.Account
}

func newFixture(t testing.TB, opts Options) *fixture {
	t.Helper()
	ctx := context.Background()
	f := &fixture{repo: directorytest.NewMemory(), ids: map[string]directory.Account{}}
	dir, err := directory.New(ctx, f.repo, directory.Options{})
	must(t, err)
	f.dir = dir
	_, err = dir.AddDomain(ctx, directory.Domain{Name: "example.test"})
	must(t, err)
	for name, hash := range map[string]string{
		"anna": cheap(t, "right password"), "bo": cheap(t, "other password"), "sue": cheap(t, "right password"),
		"blank": "", "broken": "$argon2id$v=19$m=999999999,t=1,p=1$c29tZXNhbHQ$AAAA",
	} {
		f.ids[name], err = dir.AddAccount(ctx, directory.NewAccount{Address: addr(t, name+"@example.test"), PasswordHash: hash})
		must(t, err)
	}
	must(t, dir.Suspend(ctx, f.ids["sue"].ID, true))
	must(t, dir.AddAlias(ctx, directory.Alias{Address: addr(t, "info@example.test"), Targets: []address.Address{addr(t, "anna@example.test")}}))
	f.Auth, err = New(dir, opts)
	must(t, err)
	// The real dummy costs what real hashes cost; these hashes are cheap, and so must it be.
	f.dummy, err = parsePHC(cheap(t, "nothing that anyone types"))
	must(t, err)
	return f
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	must(t, err)
	return a
}

func from(ip string) Attempt {
	return Attempt{Protocol: "imap", Remote: netip.AddrPortFrom(netip.MustParseAddr(ip), 40000), TLS: true}
}

func (f *fixture) try(ip, login, password string) error {
	_, err := f.Password(context.Background(), from(ip), login, []byte(password))
	return err
}

func TestPassword(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{Throttle: ThrottleOptions{Exempt: func(netip.Addr) bool { return true }}})
	for _, tt := range []struct {
		login, password string
		want            error
	}{
		{"anna@example.test", "right password", nil},
		{"ANNA@Example.Test", "right password", nil},
		{"info@example.test", "right password", nil},
		{"anna@example.test", "Right password", ErrCredentials},
		{"anna@example.test", "right password ", ErrCredentials},
		{"anna@example.test", "right password\x00", ErrCredentials},
		{"anna@example.test", "", ErrCredentials},
		{"anna@example.test", strings.Repeat("x", maxField+1), ErrCredentials},
		{"anna", "right password", ErrCredentials},
		{"", "right password", ErrCredentials},
		{strings.Repeat("x", maxField+1), "right password", ErrCredentials},
		{"anna@example.test\x00", "right password", ErrCredentials},
		{"bo@example.test", "right password", ErrCredentials},
		{"nobody@example.test", "right password", ErrCredentials},
		{"anna@elsewhere.test", "right password", ErrCredentials},
		{"sue@example.test", "right password", ErrCredentials},
		{"blank@example.test", "right password", ErrCredentials},
		{"blank@example.test", "", ErrCredentials},
		{"broken@example.test", "right password", ErrCredentials},
		{"*)(uid=*))(|(uid=*@example.test", "right password", ErrCredentials}, // LDAP
		{"x' OR '1'='1@example.test", "right password", ErrCredentials},       // SQL
		{"../../anna@example.test", "right password", ErrCredentials},
	} {
		id, err := f.Password(context.Background(), from("192.0.2.1"), tt.login, []byte(tt.password))
		if !errors.Is(err, tt.want) || (err == nil) != (id != nil) {
			t.Errorf("Password(%.40q, %.20q) = %v, %v, want %v", tt.login, tt.password, id, err, tt.want)
		}
		if tt.want != nil && err != nil && err.Error() != tt.want.Error() {
			t.Errorf("the text of %q tells more than the others: %v", tt.login, err)
		}
		if id != nil && (id.Account != f.ids["anna"].ID || id.Address.String() != "anna@example.test") {
			t.Errorf("signed in as %+v", id)
		}
	}
}

func TestNothingWithoutTLS(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{})
	at := from("127.0.0.1")
	at.TLS = false
	if _, err := f.Password(context.Background(), at, "anna@example.test", []byte("right password")); !errors.Is(err, ErrTLS) {
		t.Errorf("Password: %v", err)
	}
	if _, err := f.Start(context.Background(), at, "PLAIN"); !errors.Is(err, ErrTLS) {
		t.Errorf("Start: %v", err)
	}
	if m := f.Mechanisms(false); len(m) != 0 {
		t.Errorf("mechanisms: %v", m)
	}
}

func TestUnknownNamesCostWhatKnownOnesDo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{Throttle: ThrottleOptions{Exempt: func(netip.Addr) bool { return true }}})
	cost := func(login string) (questions int, hashes int64) {
		_ = f.try("192.0.2.1", login, "wrong") // now the directory remembers the name
		before, hashed := f.repo.Questions(), f.Stats().Hashed
		if err := f.try("192.0.2.1", login, "wrong"); !errors.Is(err, ErrCredentials) {
			t.Errorf("%s: %v", login, err)
		}
		return f.repo.Questions() - before, f.Stats().Hashed - hashed
	}
	q1, h1 := cost("anna@example.test")
	for _, login := range []string{"nobody@example.test", "blank@example.test", "broken@example.test", "sue@example.test"} {
		if q, h := cost(login); q != q1 || h != h1 || h != 1 {
			t.Errorf("%s costs %d questions and %d hashes, a known name %d and %d", login, q, h, q1, h1)
		}
	}
}

func TestDefaultDummyCostsWhatNewHashesCost(t *testing.T) {
	t.Parallel()
	dummy, err := newDummy(strings.NewReader(strings.Repeat("x", 100)))
	must(t, err)
	text, err := HashPassword([]byte("some password"))
	must(t, err)
	real, err := parsePHC(text)
	must(t, err)
	if dummy.time != real.time || dummy.memory != real.memory || dummy.threads != real.threads || len(dummy.key) != len(real.key) {
		t.Errorf("dummy %v, real %v", dummy, real)
	}
	if !real.matches([]byte("some password")) || real.matches([]byte("some passwore")) {
		t.Error("the hash doesn't match its password alone")
	}
	again, err := HashPassword([]byte("some password"))
	if must(t, err); again == text {
		t.Error("two hashes have the same salt")
	}
}

func TestFailuresOfTheDirectoryAreTemporary(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{})
	f.repo.Fail(errors.New("disk on fire"))
	for range 20 {
		if err := f.try("192.0.2.1", "anna@example.test", "right password"); !errors.Is(err, ErrTemporary) || errors.Is(err, ErrCredentials) {
			t.Fatal(err)
		}
	}
	f.repo.Fail(nil)
	if err := f.try("192.0.2.1", "anna@example.test", "right password"); err != nil {
		t.Errorf("failures of the directory count as wrong passwords: %v", err)
	}
}

func TestVerifiedSignInsAreRememberedAndForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, Options{RememberFor: 5 * time.Minute})
		ctx := context.Background()
		hashed := func(password string, want error) bool {
			t.Helper()
			before := f.Stats().Remembered
			if err := f.try("192.0.2.1", "anna@example.test", password); !errors.Is(err, want) {
				t.Fatalf("%q: %v, want %v", password, err, want)
			}
			return f.Stats().Remembered == before
		}
		if !hashed("right password", nil) {
			t.Error("the first sign-in was remembered")
		}
		if hashed("right password", nil) {
			t.Error("the second was hashed again")
		}
		if !hashed("wrong password", ErrCredentials) {
			t.Error("a wrong one was remembered")
		}
		time.Sleep(5 * time.Minute)
		if !hashed("right password", nil) {
			t.Error("remembered for too long")
		}
		must(t, f.dir.SetPasswordHash(ctx, f.ids["anna"].ID, cheap(t, "new password")))
		if !hashed("right password", ErrCredentials) {
			t.Error("the old password lives on")
		}
		hashed("new password", nil)
		must(t, f.dir.Suspend(ctx, f.ids["anna"].ID, true))
		_ = hashed("new password", ErrCredentials) // right and remembered, and yet refused
	})
}

func TestMemoryOfSignInsIsBoundedAndHoldsNoPassword(t *testing.T) {
	t.Parallel()
	v, err := newVerified(Options{Rand: bytes.NewReader(make([]byte, 32)), Clock: time.Now, Remembered: 100})
	must(t, err)
	for i := range 10_000 {
		v.add(v.mac(1, 1, fmt.Appendf(nil, "password %d", i)))
	}
	if n := v.len(); n > 100 {
		t.Errorf("%d remembered of at most 100", n)
	}
	if v.mac(1, 1, []byte("p")) == v.mac(2, 1, []byte("p")) || v.mac(1, 1, []byte("p")) == v.mac(1, 2, []byte("p")) {
		t.Error("account and version of the password don't matter")
	}
}

func TestHashingIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{Concurrency: 1, Waiting: 1, Throttle: ThrottleOptions{Exempt: func(netip.Addr) bool { return true }}})
	f.hashing <- struct{}{} // one hash at work that takes for ever
	f.waiting <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error, 1)
	go func() {
		_, err := f.Password(ctx, from("192.0.2.1"), "anna@example.test", []byte("right password"))
		waiting <- err
	}()
	for len(f.waiting) < cap(f.waiting) {
		select {
		case err := <-waiting:
			t.Fatalf("the one that may wait didn't: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := f.try("192.0.2.2", "bo@example.test", "other password"); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("a client that left: %v", err)
	}
	<-f.hashing
	<-f.waiting
	if err := f.try("192.0.2.2", "bo@example.test", "other password"); err != nil {
		t.Errorf("after the rush: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{Concurrency: 2, Remembered: 4})
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			name, password := "anna@example.test", "right password"
			if i%2 == 0 {
				name, password = "bo@example.test", "other password"
			}
			if err := f.try(fmt.Sprintf("192.0.%d.1", i), name, password); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCheckPassword(t *testing.T) {
	t.Parallel()
	owner := addr(t, "anna-maria@example.test")
	for password, ok := range map[string]bool{
		"correct horse": true, "八个汉字的密码啊": true, strings.Repeat("ab", 512): true, "12345678": true,
		"short": false, "": false, "七个汉字的密码": false, strings.Repeat("ab", 513): false, "Anna-Maria": false,
		"anna-maria@example.test": false, "aaaaaaaaaaaa": false, "with\x00nul here": false, "bad \xff utf8 here": false, "tab\there it is": false,
	} {
		err := CheckPassword(owner, []byte(password))
		if (err == nil) != ok {
			t.Errorf("CheckPassword(%.30q) = %v", password, err)
		}
		var pe *PolicyError
		if err != nil && (!errors.As(err, &pe) || password != "" && strings.Contains(err.Error(), password)) {
			t.Errorf("%.30q: %v", password, err)
		}
	}
}

func TestPasswordsOfTheSameKeysAreTheSame(t *testing.T) {
	t.Parallel()
	for a, b := range map[string]string{"cafe\u0301 au lait": "caf\u00e9 au lait", "one\u3000two": "one two", "plain": "plain"} {
		if got := string(prepare([]byte(a))); got != b {
			t.Errorf("prepare(%q) = %q, want %q", a, got, b)
		}
	}
	raw := []byte("latin1 \xe9")
	if got := prepare(raw); !bytes.Equal(got, raw) {
		t.Errorf("octets that are no UTF-8 changed: %q", got)
	}
}

func TestParsePHC(t *testing.T) {
	t.Parallel()
	salt, key := base64.RawStdEncoding.EncodeToString(make([]byte, 16)), base64.RawStdEncoding.EncodeToString(make([]byte, 32))
	good := "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$" + key
	if err := CheckHash(good); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "$", "$$$$$", "plain", good + "$", good + "\n", " " + good, good[1:],
		strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "v=19", "v=16", 1),
		strings.Replace(good, "m=19456", "m=4294967296", 1), strings.Replace(good, "m=19456", "m=1048576", 1),
		strings.Replace(good, "m=19456", "m=-1", 1), strings.Replace(good, "m=19456", "m= 19456", 1),
		strings.Replace(good, "t=2", "t=0", 1), strings.Replace(good, "t=2", "t=1000", 1), strings.Replace(good, "p=1", "p=300", 1),
		strings.Replace(good, "p=1", "p=1,x=1", 1), strings.Replace(good, salt, "", 1), strings.Replace(good, key, "AAAA", 1),
		strings.Replace(good, salt, "!!!!", 1), good + strings.Repeat("A", 1000),
	} {
		if err := CheckHash(bad); err == nil {
			t.Errorf("CheckHash(%.80q) is fine", bad)
		}
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parsePHC(s)
		if err != nil {
			return
		}
		if h.memory > maxHashMemory || h.time > maxHashTime || h.threads > maxHashThreads || h.String() != s {
			t.Errorf("%q became %q", s, h.String())
		}
	})
}

func BenchmarkPasswordRemembered(b *testing.B) {
	f := newFixture(b, Options{})
	ctx, at, pw := context.Background(), from("192.0.2.1"), []byte("right password")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Password(ctx, at, "anna@example.test", pw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := HashPassword([]byte("right password")); err != nil {
			b.Fatal(err)
		}
	}
}
