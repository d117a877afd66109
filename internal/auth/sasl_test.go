package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// run plays the client's lines through an exchange; "-" stands for no initial response.
func (f *fixture) run(t testing.TB, mechanism string, lines ...string) (challenges []string, id *Identity, err error) {
	t.Helper()
	ctx := context.Background()
	ex, err := f.Start(ctx, from("192.0.2.1"), mechanism)
	if err != nil {
		return nil, nil, err
	}
	for _, line := range lines {
		var response []byte
		if line != "-" {
			if response, err = Decode([]byte(line)); err != nil {
				return challenges, nil, err
			}
		}
		challenge, id, err := ex.Next(ctx, response)
		if id != nil || err != nil {
			return challenges, id, err
		}
		challenges = append(challenges, string(challenge))
	}
	return challenges, nil, errors.New("the exchange goes on")
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestExchanges(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{Throttle: ThrottleOptions{Exempt: func(netip.Addr) bool { return true }}})
	const user, pass = "anna@example.test", "right password"
	long := strings.Repeat("x", maxField)
	tests := []struct {
		name, mechanism string
		lines           []string
		challenges      string
		want            error
	}{
		{"PLAIN with initial response", "PLAIN", []string{b64("\x00" + user + "\x00" + pass)}, "", nil},
		{"PLAIN without", "plain", []string{"-", b64("\x00" + user + "\x00" + pass)}, "[]", nil},
		{"PLAIN with own authzid", "PLAIN", []string{b64("Anna@example.test\x00" + user + "\x00" + pass)}, "", nil},
		{"LOGIN without initial response", "LOGIN", []string{"-", b64(user), b64(pass)}, "[Username: Password:]", nil},
		{"LOGIN with", "LOGIN", []string{b64(user), b64(pass)}, "[Password:]", nil},
		{"wrong password", "PLAIN", []string{b64("\x00" + user + "\x00wrong")}, "", ErrCredentials},
		{"another's authzid", "PLAIN", []string{b64("bo@example.test\x00" + user + "\x00" + pass)}, "", ErrCredentials},
		{"own password, another's authzid first", "PLAIN", []string{b64("anna@example.test\x00bo@example.test\x00" + pass)}, "", ErrCredentials},
		{"PLAIN one NUL", "PLAIN", []string{b64(user + "\x00" + pass)}, "", ErrMalformed},
		{"PLAIN three NULs", "PLAIN", []string{b64("\x00" + user + "\x00" + pass + "\x00x")}, "", ErrMalformed},
		{"PLAIN no name", "PLAIN", []string{b64("\x00\x00" + pass)}, "", ErrMalformed},
		{"PLAIN no password", "PLAIN", []string{b64("\x00" + user + "\x00")}, "", ErrMalformed},
		{"PLAIN empty", "PLAIN", []string{"="}, "", ErrMalformed},
		{"PLAIN empty after prompt", "PLAIN", []string{"-", ""}, "[]", ErrMalformed},
		{"PLAIN name not UTF-8", "PLAIN", []string{b64("\x00\xff\xfe\x00" + pass)}, "", ErrMalformed},
		{"PLAIN fields at the limit", "PLAIN", []string{b64(long + "\x00" + long + "\x00" + long)}, "", ErrCredentials},
		{"PLAIN password too long", "PLAIN", []string{b64("\x00" + user + "\x00" + long + "x")}, "", ErrMalformed},
		{"PLAIN authzid too long", "PLAIN", []string{b64(long + "x\x00" + user + "\x00" + pass)}, "", ErrMalformed},
		{"too long altogether", "PLAIN", []string{b64(long + long + long + long)}, "", ErrMalformed},
		{"LOGIN NUL in name", "LOGIN", []string{b64(user + "\x00")}, "", ErrMalformed},
		{"LOGIN NUL in password", "LOGIN", []string{b64(user), b64(pass + "\x00")}, "[Password:]", ErrMalformed},
		{"LOGIN empty name", "LOGIN", []string{"="}, "", ErrMalformed},
		{"LOGIN empty password", "LOGIN", []string{b64(user), "="}, "[Password:]", ErrMalformed},
		{"LOGIN name too long", "LOGIN", []string{b64(long + "x")}, "", ErrMalformed},
		{"LOGIN name not UTF-8", "LOGIN", []string{b64("\xff")}, "", ErrMalformed},
		{"cancelled", "PLAIN", []string{"-", "*"}, "[]", ErrAborted},
		{"cancelled at password", "LOGIN", []string{b64(user), "*"}, "[Password:]", ErrAborted},
		{"no base64", "PLAIN", []string{"!!!!"}, "", ErrMalformed},
		{"base64 without padding", "PLAIN", []string{"AGE"}, "", ErrMalformed},
		{"base64 with stray bits", "PLAIN", []string{"AGF="}, "", ErrMalformed},
		{"base64 over lines", "PLAIN", []string{"AGFu\r\nbmE="}, "", ErrMalformed},
		{"base64 with spaces", "PLAIN", []string{" AGFu"}, "", ErrMalformed},
		{"unknown mechanism", "CRAM-MD5", nil, "", ErrMechanism},
		{"EXTERNAL", "EXTERNAL", nil, "", ErrMechanism},
		{"ANONYMOUS", "ANONYMOUS", nil, "", ErrMechanism},
		{"no mechanism", "", nil, "", ErrMechanism},
	}
	for _, tt := range tests {
		challenges, id, err := f.run(t, tt.mechanism, tt.lines...)
		if !errors.Is(err, tt.want) || (err == nil) != (id != nil) {
			t.Errorf("%s: %v, %v, want %v", tt.name, id, err, tt.want)
		}
		if got := fmt.Sprint(challenges); len(challenges) > 0 && got != tt.challenges {
			t.Errorf("%s: challenges %s", tt.name, got)
		}
		if id != nil && (id.Account != f.ids["anna"].ID || id.Mechanism != strings.ToUpper(tt.mechanism)) {
			t.Errorf("%s: signed in as %+v", tt.name, id)
		}
	}
}

func TestExchangeEndsOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{})
	ctx := context.Background()
	for _, mechanism := range f.Mechanisms(true) {
		ex, err := f.Start(ctx, from("192.0.2.1"), mechanism)
		must(t, err)
		_, _, _ = ex.Next(ctx, []byte("\x00x\x00y"))
		if _, id, err := ex.Next(ctx, []byte("\x00anna@example.test\x00right password")); id != nil || err == nil {
			t.Errorf("%s goes on after its end: %v, %v", mechanism, id, err)
		}
	}
}

func TestResponsesAreCleared(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Options{})
	ctx := context.Background()
	ex, err := f.Start(ctx, from("192.0.2.1"), "PLAIN")
	must(t, err)
	response := []byte("\x00anna@example.test\x00right password")
	if _, id, err := ex.Next(ctx, response); id == nil {
		t.Fatal(err)
	}
	if !bytes.Equal(response, make([]byte, len(response))) {
		t.Errorf("left in memory: %q", response)
	}
}

func FuzzExchange(f *testing.F) {
	fx := newFixture(f, Options{Throttle: ThrottleOptions{Exempt: func(netip.Addr) bool { return true }}})
	f.Add("PLAIN", b64("\x00anna@example.test\x00wrong"), "*")
	f.Add("LOGIN", b64("anna@example.test"), b64("wrong"))
	f.Add("PLAIN", "-", "=")
	f.Fuzz(func(t *testing.T, mechanism, one, two string) {
		_, id, err := fx.run(t, mechanism, one, two)
		if id != nil {
			t.Errorf("signed in as %+v", id)
		}
		if err == nil {
			t.Error("neither an identity nor an error")
		}
	})
}
