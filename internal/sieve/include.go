package sieve

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// maxIncluded bounds how many scripts one compilation reads.
const maxIncluded = 100

// library is the scripts that were included, each compiled once.
type library struct {
	units map[string]*unit
	errs  map[string]error
}

// compileInclude compiles the script that is named into this one (RFC 6609, section 3.2). One that is missing or wrong is
// an error of the run: whoever stores scripts may store this one first.
func compileInclude(c *compiler, k *call) (stmt, error) {
	name, err := c.constant(k.pos[0], "the name of the script")
	if err != nil {
		return nil, err
	}
	where := "personal"
	if k.has("global") {
		where = "global"
	}
	id := where + " script " + strconv.Quote(name)
	if c.opt.Load == nil {
		return func(*run) error { return errors.New("no " + id) }, nil
	}
	if slices.Contains(c.including, id) {
		return nil, faultAt(k.node.pos, id, " includes itself")
	}
	if len(c.including) >= c.opt.Limits.Includes {
		return nil, faultAt(k.node.pos, "more than ", strconv.Itoa(c.opt.Limits.Includes), " scripts inside each other")
	}
	u, late, there := c.included(id, name, where == "global")
	if late != nil {
		return func(*run) error { return late }, nil
	}
	if !there {
		if k.has("optional") {
			return func(*run) error { return nil }, nil
		}
		return func(*run) error { return errors.New("no " + id) }, nil
	}
	once := k.has("once")
	return func(r *run) error {
		if once && r.once[id] {
			return nil
		}
		r.once[id] = true
		around := r.frame
		r.frame = &frame{vars: map[string]string{}}
		err := r.all(u.program)
		r.frame = around
		if errors.Is(err, errReturn) {
			return nil
		}
		return err
	}, nil
}

// included gives a script that is included, compiled.
func (c *compiler) included(id, name string, global bool) (*unit, error, bool) {
	if u, ok := c.library.units[id]; ok {
		return u, c.library.errs[id], u != nil
	}
	if len(c.library.units) >= maxIncluded {
		return nil, fmt.Errorf("more than %d scripts are included", maxIncluded), false
	}
	text, err := c.opt.Load(global, name)
	if err != nil || text == nil {
		c.library.units[id] = nil
		return nil, nil, false
	}
	inner := newCompiler(c.opt, append(slices.Clone(c.including), id))
	inner.library = c.library
	u, err := inner.script(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", id, err)
	}
	c.library.units[id], c.library.errs[id] = u, err
	return u, err, u != nil
}

func compileGlobal(c *compiler, k *call) (stmt, error) {
	if err := c.needs("variables", "\"global\"", k.node.pos); err != nil {
		return nil, err
	}
	for i := range k.pos[0].strings {
		name, _, err := c.variable(&arg{pos: k.pos[0].strings[i].pos, strings: k.pos[0].strings[i : i+1]})
		if err != nil {
			return nil, err
		}
		c.globals[name] = true
	}
	return nil, nil
}
