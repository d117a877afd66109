// Package dnslist asks block and allow lists in the DNS about addresses and domains (RFC 5782). A list is a zone with
// weights for its answers; what several lists say adds up, and what to do about it is for others to say.
//
// No list is believed blindly: before it is used, and from time to time, it must know its own test entries and not know what
// must never be listed. One that answers everything, refuses to answer or is dead is switched off, and tried again later:
// a list that died must not cost mail. The package asks through a resolver, which caches by TTL.
//
//	c := dnslist.New(dnslist.Options{Resolver: r})
//	c.Configure([]dnslist.List{zen})
//	go c.Run(ctx)
//	for _, l := range c.Address(ctx, addr) { score += l.Weight }
package dnslist

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"waxwing/internal/address"
)

// Subject is what a list is asked about; a set of them.
type Subject uint8

// The subjects.
const (
	Address Subject = 1 << iota // of the client
	Hello                       // the name that the client gives itself
	Sender                      // the domain of the reverse-path
	Reverse                     // the confirmed name of the client's address
)

var subjects = []struct {
	name string
	s    Subject
}{{"address", Address}, {"helo", Hello}, {"sender", Sender}, {"ptr", Reverse}}

// ParseSubjects reads names separated by commas.
func ParseSubjects(text string) (set Subject, err error) {
	for name := range strings.SplitSeq(text, ",") {
		var one Subject
		for _, x := range subjects {
			if x.name == name {
				one = x.s
			}
		}
		if one == 0 {
			return 0, fmt.Errorf("%q is none of address, helo, sender, ptr", name)
		}
		set |= one
	}
	if set&Address != 0 && set != Address {
		return 0, errors.New("a list is of addresses or of domains (helo, sender, ptr), not of both")
	}
	return set, nil
}

func (s Subject) String() string {
	var names []string
	for _, x := range subjects {
		if s&x.s != 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ",")
}

// Code gives a weight to some of the answers of a list: those from First to Last or, with a Mask, those with one of its bits
// among their lower 24.
type Code struct {
	First, Last uint32 // the lower 24 bits of 127.x.y.z
	Mask        uint32
	Weight      int
}

func (c Code) fits(low uint32) bool {
	if c.Mask != 0 {
		return low&c.Mask != 0
	}
	return c.First <= low && low <= c.Last
}

func (c Code) String() string {
	what := "mask:" + strconv.FormatUint(uint64(c.Mask), 10)
	if c.Mask == 0 {
		what = loopback(c.First)
		if c.Last != c.First {
			what += "-" + loopback(c.Last)
		}
	}
	return what + "=" + strconv.Itoa(c.Weight)
}

// ParseCode reads "127.0.0.2=8", "127.0.0.10-127.0.0.11=3", "127.0.0.10-11=3" or "mask:4=3".
func ParseCode(text string) (c Code, err error) {
	what, weight, ok := strings.Cut(text, "=")
	if c.Weight, err = strconv.Atoi(weight); !ok || err != nil || c.Weight < 0 || c.Weight > maxWeight {
		return c, fmt.Errorf("%q: want an answer and a weight from 0 to %d, like 127.0.0.2=8", text, maxWeight)
	}
	if bits, masked := strings.CutPrefix(what, "mask:"); masked {
		n, err := strconv.ParseUint(bits, 10, 24)
		if err != nil || n == 0 {
			return c, fmt.Errorf("%q: want the sum of bits of the answer after mask:, 1 to 16777215", text)
		}
		c.Mask = uint32(n)
		return c, nil
	}
	first, last, ranged := strings.Cut(what, "-")
	if c.First, ok = parseLoopback(first); !ok {
		return c, fmt.Errorf("%q: want an answer from 127.0.0.0 to 127.255.254.255", text)
	}
	c.Last = c.First
	if !ranged {
		return c, nil
	}
	if !strings.Contains(last, ".") {
		last = first[:strings.LastIndexByte(first, '.')+1] + last
	}
	if c.Last, ok = parseLoopback(last); !ok || c.Last < c.First {
		return c, fmt.Errorf("%q: want a range of answers like 127.0.0.10-11", text)
	}
	return c, nil
}

func parseLoopback(text string) (low uint32, ok bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() || a.As4()[0] != 127 {
		return 0, false
	}
	low = lowBits(a)
	return low, low < refusals
}

func lowBits(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func loopback(low uint32) string {
	return netip.AddrFrom4([4]byte{127, byte(low >> 16), byte(low >> 8), byte(low)}).String()
}

// refusals is where the answers begin by which lists say that they don't want to be asked: 127.255.255.0 and above.
const refusals = 0xffff00

// List is one list.
type List struct {
	Name    string // as it is shown to peers and in logs; the zone may hold a key
	Zone    string // lower case, without dot at the end
	Allow   bool   // what it lists is spared
	Of      Subject
	Weight  int    // of any answer, when there are no codes
	Codes   []Code // weights of some answers; all others mean nothing
	Timeout time.Duration
	Probe   string // a domain that a list of domains must list
}

// Bounds and defaults.
const (
	MaxLists       = 32
	maxCodes       = 64
	maxWeight      = 100
	maxZone        = 180 // an IPv6 address takes 64 octets before it
	DefaultWeight  = 10
	DefaultTimeout = 3 * time.Second
	minTimeout     = 100 * time.Millisecond
	maxTimeout     = 10 * time.Second
	defaultProbe   = "test" // RFC 5782, section 5
)

// Parse reads the text of a list: the zone, then in any order "allow", "of=SUBJECTS", "weight=N", codes, "timeout=T",
// "name=TEXT" and "probe=DOMAIN". A list blocks by default, and is of addresses.
func Parse(text string) (List, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return List{}, errors.New("a list needs a zone, like zen.example.org")
	}
	zone, err := address.ParseDomain(strings.TrimSuffix(words[0], "."))
	if err != nil || len(zone) > maxZone || !strings.Contains(zone, ".") || zone[0] == '[' {
		return List{}, fmt.Errorf("%q is not the zone of a list, like zen.example.org", words[0])
	}
	l := List{Name: zone, Zone: zone, Of: Address, Weight: DefaultWeight, Timeout: DefaultTimeout, Probe: defaultProbe}
	for _, word := range words[1:] {
		if err := l.option(word); err != nil {
			return List{}, fmt.Errorf("list %s: %w", l.Name, err)
		}
	}
	return l, nil
}

func (l *List) option(word string) (err error) {
	key, value, _ := strings.Cut(word, "=")
	switch key {
	case "allow":
		l.Allow = true
		if word != key {
			err = errors.New("allow takes no value")
		}
	case "of":
		l.Of, err = ParseSubjects(value)
	case "weight":
		if l.Weight, err = strconv.Atoi(value); err != nil || l.Weight < 0 || l.Weight > maxWeight {
			err = fmt.Errorf("weight %q: 0 to %d", value, maxWeight)
		}
	case "timeout":
		if l.Timeout, err = time.ParseDuration(value); err != nil || l.Timeout < minTimeout || l.Timeout > maxTimeout {
			err = fmt.Errorf("timeout %q: %v to %v", value, minTimeout, maxTimeout)
		}
	case "name":
		if l.Name = value; !isName(value) {
			err = errors.New("name: 1 to 60 letters, digits and - . _")
		}
	case "probe":
		if l.Probe, err = address.ParseDomain(value); err != nil {
			err = fmt.Errorf("probe %q: a domain that the list must list", value)
		}
	default:
		var c Code
		if c, err = ParseCode(word); err == nil && len(l.Codes) < maxCodes {
			l.Codes = append(l.Codes, c)
		} else if err == nil {
			err = fmt.Errorf("more than %d answers with a weight", maxCodes)
		}
	}
	return err
}

func isName(s string) bool {
	return s != "" && len(s) <= 60 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._") == ""
}

// String is the text that Parse reads.
func (l List) String() string {
	words := []string{l.Zone}
	add := func(given bool, word string) {
		if given {
			words = append(words, word)
		}
	}
	add(l.Allow, "allow")
	add(l.Of != Address, "of="+l.Of.String())
	add(l.Weight != DefaultWeight, "weight="+strconv.Itoa(l.Weight))
	for _, c := range l.Codes {
		words = append(words, c.String())
	}
	add(l.Timeout != DefaultTimeout, "timeout="+l.Timeout.String())
	add(l.Name != l.Zone, "name="+l.Name)
	add(l.Probe != defaultProbe, "probe="+l.Probe)
	return strings.Join(words, " ")
}

// ParseAll reads lists, each of which must have a name and a zone of its own.
func ParseAll(texts []string) ([]List, error) {
	if len(texts) > MaxLists {
		return nil, fmt.Errorf("at most %d lists", MaxLists)
	}
	var out []List
	for _, t := range texts {
		l, err := Parse(t)
		if err != nil {
			return nil, err
		}
		for _, have := range out {
			if have.Zone == l.Zone || have.Name == l.Name {
				return nil, fmt.Errorf("list %s stands there twice", l.Name)
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// weigh gives the weight of an answer; ok is false for one that means nothing.
func (l *List) weigh(answer []netip.Addr) (weight int, ok bool) {
	if len(l.Codes) == 0 {
		return l.Weight, len(answer) > 0
	}
	for _, c := range l.Codes {
		for _, a := range answer {
			if c.fits(lowBits(a)) {
				weight, ok = weight+c.Weight, true
				break
			}
		}
	}
	return weight, ok
}
