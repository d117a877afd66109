package sieve

import (
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/message"
)

// kept fields can't be removed or added: what they say must stay true, and loops be found (RFC 5293, section 6).
var keptFields = []string{"received", "auto-submitted", "return-path", "delivered-to", "mime-version", "authentication-results"}

func mayEdit(name string) bool {
	name = strings.ToLower(name)
	return !slices.Contains(keptFields, name) && !strings.HasPrefix(name, "content-")
}

// edit counts a change of the header, which then is the script's own.
func (r *run) edit(name string) error {
	if r.edits++; r.edits > r.lim.Edits {
		return fmt.Errorf("more than %d changes of header fields", r.lim.Edits)
	}
	if !r.edited {
		r.header, r.edited = slices.Clone(r.header), true
	}
	r.spend(16 * len(r.header))
	clear(r.decoded)
	return nil
}

func compileAddHeader(c *compiler, k *call) (stmt, error) {
	names, err := c.names(k.pos[0], fieldName, "name of a header field")
	if err != nil {
		return nil, err
	}
	value, err := c.one(k.pos[1])
	return func(r *run) error {
		name := names[0].value(r)
		if !fieldName(name) {
			return fmt.Errorf("%q is no name of a header field", name)
		}
		if !mayEdit(name) && !strings.EqualFold(name, "Auto-Submitted") {
			return nil
		}
		if err := r.edit(name); err != nil {
			return err
		}
		f, err := newField(name, value.value(r))
		if err != nil {
			return err
		}
		if k.has("last") {
			r.header = append(r.header, f)
		} else {
			r.header = slices.Insert(r.header, 0, f)
		}
		return nil
	}, err
}

// newField makes a field; line ends and control characters in the value become spaces.
func newField(name, value string) (message.Field, error) {
	value = strings.Map(func(c rune) rune {
		if c < ' ' && c != '\t' || c == 127 {
			return ' '
		}
		return c
	}, strings.ReplaceAll(value, "\r\n", " "))
	raw, err := message.AppendTextField(nil, name, strings.TrimSpace(value))
	if err != nil {
		return message.Field{}, err
	}
	h, _ := message.ParseHeader(raw)
	if len(h) != 1 {
		return message.Field{}, fmt.Errorf("the value of %s can't stand in a header", name)
	}
	return h[0], nil
}

func compileDeleteHeader(c *compiler, k *call) (stmt, error) {
	names, err := c.names(k.pos[0], fieldName, "name of a header field")
	if err != nil {
		return nil, err
	}
	ix, err := c.index(k)
	if err != nil {
		return nil, err
	}
	patterns := k.pos[1]
	if patterns == nil {
		patterns = &arg{}
	}
	m, err := c.matcher(k, patterns)
	if err != nil {
		return nil, err
	}
	if m.how == matchCount {
		return nil, faultAt(k.node.pos, "\"deleteheader\" can't do \":count\"")
	}
	return func(r *run) error {
		name := names[0].value(r)
		if !mayEdit(name) {
			return nil
		}
		var gone []*message.Field
		for _, f := range pick(ix, r.fields(r.header, name)) {
			r.spend(len(f.Value))
			if k.pos[1] == nil || m.any(r, []string{strings.TrimSpace(message.DecodeHeader(f.Value))}) {
				gone = append(gone, f)
			}
		}
		if len(gone) == 0 || r.err != nil {
			return r.err
		}
		if err := r.edit(name); err != nil {
			return err
		}
		raw := make(map[*byte]bool, len(gone)) // fields are told apart by where their octets lie
		for _, f := range gone {
			raw[&f.Raw[0]] = true
		}
		r.header = slices.DeleteFunc(r.header, func(f message.Field) bool { return len(f.Raw) > 0 && raw[&f.Raw[0]] })
		return nil
	}, nil
}
