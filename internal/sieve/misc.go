package sieve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// hostTest compiles a test that asks the host about each of its names.
func hostTest(ask func(h Host, ctx context.Context, name string) (bool, error)) func(*compiler, *call) (test, error) {
	return func(c *compiler, k *call) (test, error) {
		names, err := c.texts(k.pos[0])
		return func(r *run) bool {
			for _, t := range names {
				if !r.ask(func() (bool, error) { return ask(r.in.Host, r.ctx, t.value(r)) }) {
					return false
				}
			}
			return true
		}, err
	}
}

// ask asks the host. A question costs as much as many comparisons.
func (r *run) ask(question func() (bool, error)) bool {
	r.spend(64 << 10)
	if r.err != nil {
		return false
	}
	yes, err := question()
	if err != nil {
		r.fail(err)
		return false
	}
	return yes
}

func compileSpecialUse(c *compiler, k *call) (test, error) {
	name, err := c.one(k.pos[0])
	if err != nil {
		return nil, err
	}
	uses, err := c.texts(k.pos[1])
	return func(r *run) bool {
		for _, t := range uses {
			if !r.ask(func() (bool, error) { return r.in.Host.SpecialUse(r.ctx, name.value(r), t.value(r)) }) {
				return false
			}
		}
		return true
	}, err
}

// compileIHave enables what is there from here on (RFC 5463, section 4).
func compileIHave(c *compiler, k *call) (test, error) {
	all := true
	for _, t := range k.pos[0].strings {
		all = all && c.offers(t.text)
	}
	if all {
		for _, t := range k.pos[0].strings {
			c.enable(t.text)
		}
	}
	return func(*run) bool { return all }, nil
}

func compileEnvironment(c *compiler, k *call) (test, error) {
	name, err := c.one(k.pos[0])
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(k, k.pos[1])
	return func(r *run) bool {
		v, ok := r.in.Environment[strings.ToLower(name.value(r))]
		return ok && m.any(r, []string{v})
	}, err
}

func compileSpamTest(c *compiler, k *call) (test, error) {
	m, err := c.matcher(k, k.pos[0])
	percent := k.has("percent")
	return func(r *run) bool {
		n := r.in.Spam
		switch { // RFC 5235, section 2: 0 is not tested, 1 clean, 10 spam
		case n < 0:
			n = 0
		case !percent:
			n = 1 + min(n, 100)*9/100
		}
		return m.any(r, []string{strconv.Itoa(n)})
	}, err
}

func compileVirusTest(c *compiler, k *call) (test, error) {
	m, err := c.matcher(k, k.pos[0])
	return func(r *run) bool { return m.any(r, []string{strconv.Itoa(r.in.Virus)}) }, err
}

// How long messages are remembered for duplicate: as asked, within a year (RFC 7352, section 3.3).
const (
	rememberDefault = 7 * 24 * time.Hour
	rememberMost    = 365 * 24 * time.Hour
)

func compileDuplicate(c *compiler, k *call) (test, error) {
	var parts [3]*text
	for i, name := range []string{"handle", "header", "uniqueid"} {
		var err error
		if parts[i], err = c.one(k.tags[name]); err != nil {
			return nil, err
		}
	}
	keep := rememberDefault
	if a := k.tags["seconds"]; a != nil {
		keep = min(rememberMost, time.Duration(min(a.number, int64(rememberMost/time.Second)))*time.Second)
	}
	return func(r *run) bool {
		var id string
		switch {
		case k.has("uniqueid"):
			id = parts[2].value(r)
		case k.has("header"):
			if list := r.decodedFields(r.in.Message, parts[1].value(r)); len(list) > 0 {
				id = list[0]
			}
		default:
			if list := r.decodedFields(r.in.Message, "Message-ID"); len(list) > 0 {
				id = list[0]
			}
		}
		if id == "" {
			return false
		}
		key := digestOf("duplicate", parts[0].value(r), id)
		seen := r.ask(func() (bool, error) { return r.in.Host.Seen(r.ctx, key) })
		if (!seen || k.has("last")) && len(r.seen) < r.lim.Actions {
			r.seen = append(r.seen, Memory{Key: key, For: keep})
		}
		return seen
	}, nil
}

// digestOf names something that is to be remembered, in few octets whatever it is made of.
func digestOf(words ...string) string {
	h := sha256.New()
	for _, w := range words {
		h.Write([]byte(strconv.Itoa(len(w)) + ":" + w))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
