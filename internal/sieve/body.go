package sieve

import (
	"errors"
	"io"
	"slices"
	"strings"

	"waxwing/internal/message"
)

// body is a part's body in one of its forms: what was read once is kept for the run.
type body struct {
	part *message.Part
	form bodyForm
}

type bodyForm uint8

const (
	rawBody   bodyForm = iota // as it is encoded
	wholeBody                 // decoded, text in UTF-8
	readBody                  // the same, and HTML as one reads it
	headBody                  // the header of a message inside
)

// bodyOf reads a body, up to what a run may read in all.
func (r *run) bodyOf(p *message.Part, form bodyForm) string {
	id := body{p, form}
	if s, ok := r.bodies[id]; ok {
		return s
	}
	left := r.lim.BodyBytes - r.octets
	if left <= 0 || r.err != nil {
		return ""
	}
	s, err := r.readBody(p, form, left)
	if err != nil {
		r.fail(err)
		return ""
	}
	r.octets += int64(len(s))
	r.spend(2 * len(s))
	r.bodies[id] = s
	return s
}

func (r *run) readBody(p *message.Part, form bodyForm, most int64) (string, error) {
	var src io.Reader
	switch form {
	case rawBody:
		src = io.NewSectionReader(r.in.Content, p.BodyOffset, p.Size())
	case headBody:
		src = io.NewSectionReader(r.in.Content, p.Offset, p.BodyOffset-p.Offset)
	default:
		src = p.Text(r.in.Content)
		if form == readBody && p.Subtype == "html" {
			return message.HTMLText(src, most)
		}
	}
	b, err := io.ReadAll(io.LimitReader(src, most))
	if err != nil {
		return "", errors.New("the message can't be read")
	}
	return string(b), nil
}

// leaf tells whether a part has text of its own.
func leaf(p *message.Part) bool { return !p.IsMultipart() && p.Message == nil }

func compileBody(c *compiler, k *call) (test, error) {
	m, err := c.matcher(k, k.pos[0])
	if err != nil {
		return nil, err
	}
	m.quiet = true // RFC 5173, section 6
	types, err := c.texts(k.tags["content"])
	return func(r *run) bool {
		switch {
		case k.has("raw"):
			return m.any(r, []string{r.bodyOf(r.in.Message, rawBody)})
		case k.has("content"):
			return m.any(r, r.contents(values(r, types)))
		}
		var list []string
		r.in.Message.Walk(func(p *message.Part) bool {
			if leaf(p) && p.Type == "text" {
				list = append(list, r.bodyOf(p, readBody))
			}
			r.spend(32)
			return r.err == nil
		})
		return m.any(r, list)
	}, err
}

// contents are the bodies of the parts of some types (RFC 5173, section 5.2): "text", "text/plain", or "" for all.
func (r *run) contents(types []string) []string {
	for i := range types {
		types[i] = strings.ToLower(strings.TrimSpace(types[i]))
	}
	var list []string
	r.in.Message.Walk(func(p *message.Part) bool {
		r.spend(32)
		wanted := slices.ContainsFunc(types, func(t string) bool { return t == "" || t == p.Type || t == p.MediaType() })
		switch {
		case !wanted || p.IsMultipart():
		case p.Message != nil:
			list = append(list, r.bodyOf(p.Message, headBody))
		default:
			list = append(list, r.bodyOf(p, wholeBody))
		}
		return r.err == nil
	})
	return list
}

// mimeForm is what of a field with a media type or disposition a test compares (RFC 5703, section 4); nil: the whole value.
func (c *compiler) mimeForm(k *call) (func(*run, *message.Part, string) []string, error) {
	var form string
	for _, t := range mimeForms {
		if a := k.tags[t.name]; a != nil {
			if form = t.name; !k.has("mime") {
				return nil, faultAt(a.pos, "\":", form, "\" needs \":mime\"")
			}
		}
	}
	if form == "" {
		return nil, nil
	}
	params, err := c.texts(k.tags["param"])
	return func(r *run, p *message.Part, name string) []string {
		kind, sub, ps := p.Type, p.Subtype, p.Params
		switch strings.ToLower(name) {
		case "content-type":
		case "content-disposition":
			if kind, sub, ps = p.Disposition, "", p.DispositionParams; kind == "" {
				return nil
			}
		default:
			return nil
		}
		switch form {
		case "type":
			return []string{kind}
		case "subtype":
			return []string{sub}
		case "contenttype":
			return []string{strings.TrimSuffix(kind+"/"+sub, "/")}
		}
		var list []string
		for _, t := range params {
			if n := strings.ToLower(t.value(r)); ps.Has(n) {
				list = append(list, ps.Get(n))
			}
		}
		return list
	}, err
}

// errBreak ends the loop of a name, the innermost one when it has none.
type errBreak struct{ name string }

func (*errBreak) Error() string { return "break" }

// maxLoops is how deep loops over parts may stand in each other (RFC 5703, section 3).
const maxLoops = 4

func compileForEveryPart(c *compiler, k *call) (stmt, error) {
	name := ""
	if a := k.tags["name"]; a != nil {
		var err error
		if name, err = c.constant(a, "the name of a loop"); err != nil {
			return nil, err
		}
	}
	if len(c.loops) >= maxLoops {
		return nil, faultAt(k.node.pos, "more than 4 loops inside each other")
	}
	c.loops = append(c.loops, name)
	block, err := c.block(k.node.block)
	c.loops = c.loops[:len(c.loops)-1]
	return func(r *run) error {
		around := r.part
		defer func() { r.part = around }()
		var list []*message.Part
		top := r.in.Message
		if around != nil {
			top = around
		}
		top.Walk(func(p *message.Part) bool {
			if p != around {
				list = append(list, p)
			}
			r.spend(16)
			return r.err == nil
		})
		for _, p := range list {
			r.part = p
			err := r.all(block)
			var b *errBreak
			if errors.As(err, &b) && (b.name == "" || b.name == name) {
				return nil
			}
			if err != nil {
				return err
			}
		}
		return r.err
	}, err
}

func compileBreak(c *compiler, k *call) (stmt, error) {
	end := &errBreak{}
	if a := k.tags["name"]; a != nil {
		var err error
		if end.name, err = c.constant(a, "the name of a loop"); err != nil {
			return nil, err
		}
		if !slices.Contains(c.loops, end.name) {
			return nil, faultAt(a.pos, "no loop around has the name \"", end.name, "\"")
		}
	}
	if len(c.loops) == 0 {
		return nil, faultAt(k.node.pos, "\"break\" stands in no loop")
	}
	return func(*run) error { return end }, nil
}

func compileExtractText(c *compiler, k *call) (stmt, error) {
	if len(c.loops) == 0 {
		return nil, faultAt(k.node.pos, "\"extracttext\" stands in no loop over parts")
	}
	if err := c.needs("variables", "\"extracttext\"", k.node.pos); err != nil {
		return nil, err
	}
	name, global, err := c.variable(k.pos[0])
	modify := modifier(k)
	return func(r *run) error {
		s := ""
		if leaf(r.part) && r.part.Type == "text" {
			s = r.bodyOf(r.part, readBody)
		}
		if a := k.tags["first"]; a != nil {
			n := int64(0)
			for i := range s {
				if n++; n > a.number {
					s = s[:i]
					break
				}
			}
		}
		return r.setVariable(name, global, modify(r, cut(s, r.lim.ValueBytes)))
	}, err
}
