package sieve

import (
	"errors"
	"slices"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// The times within which a sender is answered once: as asked, within these bounds (RFC 5230, section 4.1; RFC 6131).
const (
	vacationDefault = 7 * 24 * time.Hour
	vacationMost    = 365 * 24 * time.Hour
)

func compileVacation(c *compiler, k *call) (stmt, error) {
	var parts [4]*text
	for i, a := range []*arg{k.pos[0], k.tags["subject"], k.tags["from"], k.tags["handle"]} {
		var err error
		if parts[i], err = c.one(a); err != nil {
			return nil, err
		}
	}
	mine, err := c.texts(k.tags["addresses"])
	if err != nil {
		return nil, err
	}
	if from := parts[2]; from != nil && from.parts == nil && len(message.ParseAddressList([]byte(from.lit), 2)) != 1 {
		return nil, faultAt(k.tags["from"].pos, "expected one address after \":from\"")
	}
	every := vacationDefault
	if a := k.tags["days"]; a != nil {
		every = time.Duration(min(max(a.number, 1), 365)) * 24 * time.Hour
	} else if a := k.tags["seconds"]; a != nil {
		every = time.Duration(min(a.number, int64(vacationMost/time.Second))) * time.Second
	}
	return func(r *run) error {
		if r.replied {
			return errors.New("vacation stands twice")
		}
		r.replied = true
		if r.refused {
			return errors.New("reject can't be combined with other actions")
		}
		if !r.answerable(values(r, mine)) {
			return nil
		}
		v := Vacation{
			To: r.in.From, Reason: parts[0].value(r), Subject: parts[1].value(r), From: oneLine(parts[2].value(r)), MIME: k.has("mime"), Every: every,
		}
		handle := parts[3].value(r)
		if handle == "" {
			handle = digestOf(v.Reason, v.Subject, v.From, boolWord(v.MIME))
		}
		v.Key = digestOf("vacation", handle, v.To.Key())
		return r.act(v)
	}, nil
}

func boolWord(b bool) string {
	if b {
		return "mime"
	}
	return ""
}

func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 127 {
			return ' '
		}
		return c
	}, s)
}

// machines are local parts that no person answers (RFC 5230, section 4.6).
var machines = []string{"mailer-daemon", "postmaster", "listserv", "majordomo", "noreply", "no-reply", "donotreply", "do-not-reply", "bounce", "bounces"}

// answerable tells whether a person wrote the message to this user (RFC 5230, sections 4.5 and 4.6; RFC 3834, section 2).
func (r *run) answerable(more []string) bool {
	if r.in.From.IsNull() || len(r.in.Mine) == 0 {
		return false
	}
	local := strings.ToLower(r.in.From.Local)
	if slices.Contains(machines, local) || strings.HasPrefix(local, "owner-") || strings.HasSuffix(local, "-request") ||
		strings.HasSuffix(local, "-owner") || strings.Contains(local, "bounces+") {
		return false
	}
	if r.automatic() {
		return false
	}
	mine := make(map[string]bool)
	for _, a := range r.in.Mine {
		mine[a.Key()] = true
	}
	for _, s := range more {
		if a, err := address.Parse(strings.TrimSpace(s)); err == nil {
			mine[a.Key()] = true
		}
	}
	if mine[r.in.From.Key()] {
		return false
	}
	for _, name := range []string{"To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc"} {
		for _, f := range r.fields(r.header, name) {
			r.spend(16 * len(f.Value))
			if r.err != nil {
				return false
			}
			if r.names(f.Value, mine) {
				return true
			}
		}
	}
	return false
}

// names tells whether a field names one of the user's addresses, with a detail or without.
func (r *run) names(value []byte, mine map[string]bool) bool {
	for _, m := range message.ParseAddressList(value, maxAddresses) {
		a, err := address.Parse(m.Addr())
		if err != nil {
			continue
		}
		if mine[a.Key()] {
			return true
		}
		if base, _, found := a.SplitDetail(r.in.Separator); r.in.Separator != "" && found && mine[base.Key()] {
			return true
		}
	}
	return false
}

// automatic tells whether a program made the message, or a list sent it on.
func (r *run) automatic() bool {
	h := r.in.Message.Header
	for i := range h {
		name := strings.ToLower(h[i].Name)
		value := strings.ToLower(strings.TrimSpace(string(h[i].Unfolded())))
		r.spend(len(value))
		switch name {
		case "auto-submitted":
			word, _, _ := strings.Cut(value, ";")
			if strings.TrimSpace(word) != "no" {
				return true
			}
		case "precedence":
			if value == "bulk" || value == "list" || value == "junk" {
				return true
			}
		case "x-auto-response-suppress":
			if strings.Contains(value, "oof") || strings.Contains(value, "all") || strings.Contains(value, "autoreply") {
				return true
			}
		case "return-path":
			if strings.ReplaceAll(value, " ", "") == "<>" {
				return true
			}
		case "x-spam-flag":
			if value == "yes" {
				return true
			}
		default:
			if strings.HasPrefix(name, "list-") || name == "mailing-list" {
				return true
			}
		}
	}
	return false
}
