// Package srs writes and reads the reverse-paths of forwarded mail (the Sender Rewriting Scheme, SRS0 and SRS1): a server
// that forwards a message sends it under an address of its own, which holds the true sender, so that SPF (RFC 7208) holds
// and a notification of failure still finds its way back.
//
//	SRS0=hash=day=sender.example=user@forwarder.example
//	SRS1=hash=first.example==hash=day=sender.example=user@forwarder.example
//
// The second form is for a sender that is such an address already: it leads to the server that made the first one, however
// many forward in between. The hash is a keyed one (HMAC-SHA256), so that nobody else can make such an address: what it
// leads to is only ever a sender that was forwarded here lately. Changes of letter case on the way do no harm.
//
// It is pure: keys and the time are given to it, and whether mail to such an address is taken is its caller's to say.
package srs

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"strings"
	"time"

	"waxwing/internal/address"
)

// Errors of Reverse, and ErrTooLong of Forward.
var (
	ErrNotSRS  = errors.New("srs: not a rewritten address")
	ErrForged  = errors.New("srs: the address was not made here")
	ErrExpired = errors.New("srs: the address is too old")
	ErrTooLong = errors.New("srs: the rewritten address would be too long") // RFC 5321, section 4.5.3.1: 64 and 255 octets
	errNoKey   = errors.New("srs: no key")
)

const (
	hashLen = 8       // characters of base32: 40 bits
	dayLen  = 2       // characters of base32: days modulo 1024
	window  = 1 << 10 // days until the day of an address comes again
	KeySize = 32      // octets of a key
	MaxDays = window/2 - 1
)

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// Codec makes and reads addresses. It is safe for concurrent use.
type Codec struct {
	keys [][]byte
	days int
}

// New gives a Codec. The first key signs, all of them are believed; days is how long an address is good for.
func New(keys [][]byte, days int) (*Codec, error) {
	if len(keys) == 0 {
		return nil, errNoKey
	}
	for _, k := range keys {
		if len(k) < KeySize/2 {
			return nil, errNoKey
		}
	}
	return &Codec{keys: keys, days: min(max(days, 1), MaxDays)}, nil
}

// Is tells whether a local part has the form of a rewritten address.
func Is(local string) bool {
	return kind(local) != 0
}

// kind is '0' or '1' for the forms, 0 for all else. The character behind it is "=", "-" or "+".
func kind(local string) byte {
	if len(local) < 6 || !strings.EqualFold(local[:3], "srs") || strings.IndexByte("=-+", local[4]) < 0 {
		return 0
	}
	if local[3] == '0' || local[3] == '1' {
		return local[3]
	}
	return 0
}

// Forward gives the address under which mail of a sender goes on from a domain. The null sender stays null.
func (c *Codec) Forward(sender address.Address, domain string, now time.Time) (address.Address, error) {
	if sender.IsNull() {
		return sender, nil
	}
	var local string
	if first, rest, ok := inner(sender); ok {
		local = "SRS1=" + c.sign(c.keys[0], first, rest) + "=" + first + "=" + rest
	} else {
		day := dayOf(now)
		local = "SRS0=" + c.sign(c.keys[0], day, sender.Domain, sender.Local) + "=" + day + "=" + sender.Domain + "=" + sender.Local
	}
	out := address.Address{Local: local, Domain: domain}
	if len(local) > address.MaxLocal || len(local)+1+len(domain) > address.MaxTotal {
		return address.Address{}, ErrTooLong
	}
	return out, nil
}

// inner takes a sender apart that was rewritten elsewhere: the server that made the first address, and what it made.
func inner(sender address.Address) (first, rest string, ok bool) {
	switch kind(sender.Local) {
	case '0':
		return sender.Domain, sender.Local[4:], sender.Domain != "" && !sender.IsLiteral()
	case '1':
		_, tail, found := strings.Cut(sender.Local[5:], "=")
		if !found {
			return "", "", false
		}
		first, rest, found = strings.Cut(tail, "=")
		if !found || rest == "" || strings.IndexByte("=-+", rest[0]) < 0 {
			return "", "", false
		}
		domain, err := address.ParseDomain(first)
		return domain, rest, err == nil
	}
	return "", "", false
}

// Reverse gives the address that a rewritten one stands for. Its domain is the caller's to check. ErrNotSRS, ErrForged,
// ErrExpired.
func (c *Codec) Reverse(a address.Address, now time.Time) (address.Address, error) {
	switch kind(a.Local) {
	case '0':
		return c.reverse0(a.Local[5:], now)
	case '1':
		return c.reverse1(a.Local[5:])
	}
	return address.Address{}, ErrNotSRS
}

func (c *Codec) reverse0(text string, now time.Time) (address.Address, error) {
	part := strings.SplitN(text, "=", 4)
	if len(part) != 4 || len(part[0]) != hashLen || len(part[1]) != dayLen || part[2] == "" || part[3] == "" {
		return address.Address{}, ErrForged
	}
	if !c.signed(part[0], part[1], part[2], part[3]) {
		return address.Address{}, ErrForged
	}
	if !c.fresh(part[1], now) {
		return address.Address{}, ErrExpired
	}
	return parse(part[3], part[2])
}

func (c *Codec) reverse1(text string) (address.Address, error) {
	part := strings.SplitN(text, "=", 3)
	if len(part) != 3 || len(part[0]) != hashLen || part[1] == "" || len(part[2]) < 2 || strings.IndexByte("=-+", part[2][0]) < 0 {
		return address.Address{}, ErrForged
	}
	if !c.signed(part[0], part[1], part[2]) {
		return address.Address{}, ErrForged
	}
	return parse("SRS0"+part[2], part[1])
}

// parse makes an address of its two halves. What doesn't make one was never signed by an honest sender's name.
func parse(local, domain string) (address.Address, error) {
	a, err := address.Parse(address.Address{Local: local, Domain: domain}.String())
	if err != nil {
		return address.Address{}, ErrForged
	}
	return a, nil
}

// sign is the keyed hash of the parts of an address. Case is left out of it, as it gets lost on the way.
func (c *Codec) sign(key []byte, parts ...string) string {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write([]byte(strings.ToLower(p)))
		mac.Write([]byte{0})
	}
	return encoding.EncodeToString(mac.Sum(nil))[:hashLen]
}

// signed tells whether one of the keys made the hash, in a time that says nothing of which or how much of it was right.
func (c *Codec) signed(hash string, parts ...string) bool {
	given := []byte(strings.ToUpper(hash))
	good := 0
	for _, key := range c.keys {
		good |= subtle.ConstantTimeCompare(given, []byte(c.sign(key, parts...)))
	}
	return good == 1
}

const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

func dayOf(t time.Time) string {
	n := int(t.Unix()/(24*60*60)) & (window - 1)
	return string([]byte{digits[n>>5], digits[n&31]})
}

// fresh tells whether a day lies within the time that addresses are good for. A clock that went back one day does no harm.
func (c *Codec) fresh(day string, now time.Time) bool {
	hi, lo := strings.IndexByte(digits, upper(day[0])), strings.IndexByte(digits, upper(day[1]))
	if hi < 0 || lo < 0 {
		return false
	}
	today := int(now.Unix() / (24 * 60 * 60))
	age := (today - (hi<<5 | lo)) & (window - 1)
	return age <= c.days || age == window-1
}

func upper(b byte) byte {
	if 'a' <= b && b <= 'z' {
		return b - 'a' + 'A'
	}
	return b
}
