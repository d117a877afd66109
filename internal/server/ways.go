package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/mailrule"
	"waxwing/internal/routing"
	"waxwing/internal/transport"
)

// ways turns the rules of the directory into ways out, for transport.
type ways struct {
	dir *directory.Directory

	mu    sync.Mutex // guards what follows
	of    *mailrule.Set
	since time.Time
	known map[any]way // by the rule
}

// way is what was made of a rule, or why that can't be.
type way struct {
	hosts []*transport.SmartHost
	err   error
}

// wayFresh is how long the password of a route is used before its file is read again.
const wayFresh = time.Minute

// find implements transport.Options.Find: a route by name or domain, then the relay domain, then the widest route.
func (w *ways) find(destination string) (transport.Onward, error) {
	set := w.dir.RuleSet()
	rule, domain := set.Find(destination)
	out := transport.Onward{Domain: domain}
	if relay := set.Relay(domain); relay != nil && (rule == nil || rule.Wide()) {
		out.Found = true
		var err error
		out.Hosts, err = w.made(set, relay, func() ([]*transport.SmartHost, error) { return relayHosts(relay) })
		return out, err
	}
	if rule == nil || rule.Action != mailrule.ActionRelay {
		out.Found = rule != nil
		return out, nil
	}
	out.Found = true
	var err error
	out.Hosts, err = w.made(set, rule, func() ([]*transport.SmartHost, error) { return routeHosts(rule) })
	return out, err
}

// made remembers what fresh gives for a rule.
func (w *ways) made(set *mailrule.Set, rule any, fresh func() ([]*transport.SmartHost, error)) ([]*transport.SmartHost, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if age := time.Since(w.since); w.of != set || age > wayFresh {
		w.of, w.since, w.known = set, time.Now(), map[any]way{}
	}
	got, ok := w.known[rule]
	if !ok {
		got.hosts, got.err = fresh()
		w.known[rule] = got
	}
	return got.hosts, got.err
}

func relayHosts(r *mailrule.Relay) ([]*transport.SmartHost, error) {
	mode := transport.TLSMode(r.TLS)
	if mode == "" {
		mode = transport.TLSOpportunistic
	}
	return smartHosts(r.Hosts, transport.SmartHost{TLS: mode})
}

func routeHosts(r *mailrule.Route) ([]*transport.SmartHost, error) {
	like := transport.SmartHost{TLS: transport.TLSMode(r.TLS), Username: r.Username, LMTP: r.LMTP}
	if like.TLS == "" {
		like.TLS = transport.TLSRequired
	}
	if r.PasswordFile != "" {
		var err error
		if like.Password, err = readPassword(r.PasswordFile); err != nil {
			return nil, fmt.Errorf("password of route %s: %w", r.Name, err)
		}
	}
	return smartHosts(r.Hosts, like)
}

// maxPassword bounds a file with a password.
const maxPassword = 4096

func readPassword(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPassword))
	if err != nil {
		return nil, err
	}
	if text = bytes.TrimRight(text, "\r\n"); len(text) == 0 {
		return nil, errors.New("the file is empty")
	}
	return text, nil
}

// smartHosts are like one, with the names and ports of a rule. Where TLS is opportunistic the standard port is 25.
func smartHosts(list []string, like transport.SmartHost) ([]*transport.SmartHost, error) {
	out := make([]*transport.SmartHost, 0, len(list))
	for _, text := range list {
		h, err := mailrule.ParseHost(text)
		if err != nil {
			return nil, err
		}
		one := like
		one.Host, one.Port = h.Name, h.Port
		if one.Port == 0 && one.TLS == transport.TLSOpportunistic {
			one.Port = 25
		}
		out = append(out, &one)
	}
	return out, nil
}

// asker asks the next server about recipients. The transport is there once the server is built.
type asker struct {
	out atomic.Pointer[transport.Transport]
}

// Ask implements routing.Asker. A refusal for another reason than the recipient says nothing of it.
func (a *asker) Ask(ctx context.Context, destination string, to address.Address) (routing.Verdict, string) {
	out := a.out.Load()
	if out == nil {
		return routing.Unasked, "the server is starting"
	}
	r := out.Ask(ctx, destination, to.String())
	words := strings.ReplaceAll(r.Message, "\n", " ")
	switch {
	case r.Status == transport.Delivered:
		return routing.Taken, words
	case r.Status == transport.Failed && r.Stage == "RCPT" && r.Enhanced.Subject != 7:
		return routing.Unknown, words
	}
	return routing.Unasked, words
}
