package srs_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"waxwing/internal/address"
	"waxwing/internal/srs"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, srs.KeySize) }

func codec(t testing.TB, keys ...[]byte) *srs.Codec {
	t.Helper()
	c, err := srs.New(keys, 21)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnAddressComesBack(t *testing.T) {
	t.Parallel()
	c := codec(t, key(1))
	for _, s := range []string{"user@sender.example", "a=b=c@sender.example", "User.Name+tag@sender.example", `"a b"@sender.example`, "SRS@x.example"} {
		out, err := c.Forward(addr(t, s), "forward.test", noon)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		again := addr(t, out.String()) // as it comes in a RCPT command
		back, err := c.Reverse(again, noon.Add(20*24*time.Hour))
		if err != nil || back != addr(t, s) {
			t.Errorf("%s became %s and then %s, %v", s, out, back, err)
		}
		damaged := address.Address{Local: strings.ToLower(out.Local), Domain: out.Domain}
		if back, err = c.Reverse(damaged, noon); err != nil || back.Key() != addr(t, s).Key() {
			t.Errorf("%s in small letters: %s, %v", out, back, err)
		}
	}
	if null, err := c.Forward(address.Address{}, "forward.test", noon); err != nil || !null.IsNull() {
		t.Errorf("the null sender became %s, %v", null, err)
	}
}

func TestSeveralForwardersLeadBackToTheFirst(t *testing.T) {
	t.Parallel()
	a, b, c := codec(t, key(1)), codec(t, key(2)), codec(t, key(3))
	sender := addr(t, "u@s.example")
	first, err := a.Forward(sender, "a.test", noon)
	if err != nil {
		t.Fatal(err)
	}
	second, err := b.Forward(first, "b.test", noon)
	if err != nil {
		t.Fatal(err)
	}
	third, err := c.Forward(second, "c.test", noon)
	if err != nil || !strings.HasPrefix(third.Local, "SRS1=") || len(third.Local) != len(second.Local) {
		t.Fatalf("%s, %s: %v", second, third, err)
	}
	back, err := c.Reverse(third, noon)
	if err != nil || back != first {
		t.Fatalf("the third leads to %s, %v, not to %s", back, err, first)
	}
	if back, err = a.Reverse(back, noon); err != nil || back != sender {
		t.Errorf("the first leads to %s, %v", back, err)
	}
}

func TestForgedAndOldAddressesAreRefused(t *testing.T) {
	t.Parallel()
	old, now := codec(t, key(1)), codec(t, key(2), key(1))
	made, err := old.Forward(addr(t, "u@s.example"), "f.test", noon)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := now.Reverse(made, noon); err != nil {
		t.Errorf("of a key that was replaced: %v", err)
	}
	if _, err := codec(t, key(2)).Reverse(made, noon); !errors.Is(err, srs.ErrForged) {
		t.Errorf("of a key that is gone: %v", err)
	}
	for at, want := range map[time.Duration]error{
		-24 * time.Hour: nil, -48 * time.Hour: srs.ErrExpired, 21 * 24 * time.Hour: nil, 22 * 24 * time.Hour: srs.ErrExpired,
	} {
		if _, err := old.Reverse(made, noon.Add(at)); !errors.Is(err, want) {
			t.Errorf("after %v: %v, not %v", at, err, want)
		}
	}
	for _, local := range []string{
		strings.Replace(made.Local, "=u", "=v", 1), strings.Replace(made.Local, "s.example", "t.example", 1), "SRS0=", "SRS0=a=b=c=d", "SRS1=x",
		"SRS0=AAAAAAAA=AA=x.example=u", "SRS1=AAAAAAAA=x.example==y", "SRS0==A==u", "SRS1" + made.Local[4:], "SRS0-" + made.Local[5:] + "x",
	} {
		if back, err := old.Reverse(address.Address{Local: local, Domain: "f.test"}, noon); err == nil {
			t.Errorf("%s leads to %s", local, back)
		}
	}
	if _, err := old.Reverse(addr(t, "u@f.test"), noon); !errors.Is(err, srs.ErrNotSRS) {
		t.Errorf("an address of another form: %v", err)
	}
}

func TestAnAddressThatWouldBeTooLongIsNotMade(t *testing.T) {
	t.Parallel()
	c := codec(t, key(1))
	_, err := c.Forward(addr(t, strings.Repeat("a", 50)+"@sender.example"), "forward.test", noon)
	if !errors.Is(err, srs.ErrTooLong) {
		t.Error(err)
	}
	if _, err := srs.New(nil, 21); err == nil {
		t.Error("a codec without a key")
	}
	if _, err := srs.New([][]byte{[]byte("short")}, 21); err == nil {
		t.Error("a codec with a key of five octets")
	}
}

func TestWhatIsMadeComesBackOrIsTooLong(t *testing.T) {
	t.Parallel()
	c := codec(t, key(1))
	rapid.Check(t, func(t *rapid.T) {
		local := rapid.StringMatching(`[a-zA-Z0-9=+_-]{1,30}(\.[a-z0-9]{1,9})?`).Draw(t, "local")
		sender, err := address.Parse(local + "@" + rapid.StringMatching(`[a-z][a-z0-9]{0,20}\.(example|test)`).Draw(t, "domain"))
		if err != nil {
			t.Skip(err)
		}
		out, err := c.Forward(sender, "f.test", noon)
		if errors.Is(err, srs.ErrTooLong) {
			return
		}
		if err != nil || len(out.Local) > 64 || len(out.String()) > 254 {
			t.Fatalf("%s: %s, %v", sender, out, err)
		}
		back, err := c.Reverse(out, noon)
		if srs.Is(sender.Local) && err == nil { // of the second form: it leads to the server that is said to have made it
			return
		}
		if err != nil || back != sender {
			t.Fatalf("%s became %s and then %s, %v", sender, out, back, err)
		}
	})
}

func FuzzReverse(f *testing.F) {
	c := codec(f, key(1))
	made, err := c.Forward(addr(f, "u@s.example"), "f.test", noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(made.Local)
	f.Add("SRS1=AAAAAAAA=x.example==AAAAAAAA=AA=y.example=u")
	f.Add("srs0=\x00=")
	f.Fuzz(func(t *testing.T, local string) {
		back, err := c.Reverse(address.Address{Local: local, Domain: "f.test"}, noon)
		if err != nil {
			return
		}
		if !strings.EqualFold(local[5:], made.Local[5:]) {
			t.Fatalf("%q was made by nobody and leads to %s", local, back)
		}
	})
}
