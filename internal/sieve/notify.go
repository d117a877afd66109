package sieve

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// mailto is what a URI of that scheme says (RFC 6068).
type mailto struct {
	to            []address.Address
	subject, body string
}

// maxNotified bounds the addresses of one notification.
const maxNotified = 5

var errMethod = errors.New("expected a URI such as \"mailto:someone@example.org\"")

func parseMailto(uri string) (mailto, error) {
	var m mailto
	if len(uri) < 7 || !strings.EqualFold(uri[:7], "mailto:") {
		return m, errMethod
	}
	list, query, _ := strings.Cut(uri[7:], "?")
	words := strings.Split(list, ",")
	for _, pair := range strings.Split(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		if err != nil {
			return m, errMethod
		}
		switch strings.ToLower(name) {
		case "to", "cc", "bcc":
			words = append(words, strings.Split(value, ",")...)
		case "subject":
			m.subject = oneLine(value)
		case "body":
			m.body = value
		}
	}
	for _, w := range words {
		w, err := url.PathUnescape(w)
		if err != nil {
			return m, errMethod
		}
		if w = strings.TrimSpace(w); w == "" {
			continue
		}
		a, err := address.Parse(w)
		if err != nil {
			return m, fmt.Errorf("notify: %w", err)
		}
		m.to = append(m.to, a)
	}
	if len(m.to) == 0 {
		return m, errMethod
	}
	if len(m.to) > maxNotified {
		return m, fmt.Errorf("more than %d addresses to notify", maxNotified)
	}
	return m, nil
}

func compileNotify(c *compiler, k *call) (stmt, error) {
	var parts [4]*text
	for i, a := range []*arg{k.pos[0], k.tags["from"], k.tags["importance"], k.tags["message"]} {
		var err error
		if parts[i], err = c.one(a); err != nil {
			return nil, err
		}
	}
	if m := parts[0]; m.parts == nil {
		if _, err := parseMailto(m.lit); err != nil {
			return nil, faultAt(k.pos[0].pos, err.Error())
		}
	}
	if i := parts[2]; i != nil && i.parts == nil && i.lit != "1" && i.lit != "2" && i.lit != "3" {
		return nil, faultAt(k.tags["importance"].pos, "expected \"1\", \"2\" or \"3\" after \":importance\"")
	}
	if from := parts[1]; from != nil && from.parts == nil && len(message.ParseAddressList([]byte(from.lit), 2)) != 1 {
		return nil, faultAt(k.tags["from"].pos, "expected one address after \":from\"")
	}
	return func(r *run) error {
		m, err := parseMailto(parts[0].value(r))
		if err != nil {
			return err
		}
		if r.automatic() || len(r.in.Mine) == 0 { // programs must not notify each other (RFC 5436, section 2.7)
			return nil
		}
		if r.notices++; r.notices > r.lim.Notices {
			return fmt.Errorf("more than %d notifications", r.lim.Notices)
		}
		n := Notify{To: m.to, From: oneLine(parts[1].value(r)), Importance: parts[2].value(r), Subject: m.subject, Body: m.body}
		if s := parts[3].value(r); s != "" {
			n.Subject = oneLine(cut(s, maxReason))
		}
		return r.act(n)
	}, nil
}

func compileValidMethod(c *compiler, k *call) (test, error) {
	uris, err := c.texts(k.pos[0])
	return func(r *run) bool {
		for _, t := range uris {
			if _, err := parseMailto(t.value(r)); err != nil {
				return false
			}
		}
		return true
	}, err
}

// compileMethodCapability: mail says nothing about who is there (RFC 5436, section 2.6).
func compileMethodCapability(c *compiler, k *call) (test, error) {
	uri, err := c.one(k.pos[0])
	if err != nil {
		return nil, err
	}
	name, err := c.one(k.pos[1])
	if err != nil {
		return nil, err
	}
	m, err := c.matcher(k, k.pos[2])
	return func(r *run) bool {
		if _, err := parseMailto(uri.value(r)); err != nil || !strings.EqualFold(name.value(r), "online") {
			return false
		}
		return m.any(r, []string{"maybe"})
	}, err
}
