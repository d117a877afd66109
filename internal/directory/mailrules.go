package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"waxwing/internal/mailrule"
	"waxwing/internal/store"
)

// Kind is the kind of a rule, as its row and the history have it.
type Kind string

// The kinds of rules.
const (
	RelayRule   Kind = "relay"
	RouteRule   Kind = "route"
	JournalRule Kind = "journal"
)

// MailRules are those that belong to no address. In a Document a nil list says nothing.
type MailRules struct {
	Relays   []mailrule.Relay
	Routes   []mailrule.Route
	Journals []mailrule.Journal
}

// ruleSet is the rules with what finds them.
type ruleSet struct {
	MailRules
	*mailrule.Set
}

// MailRules gives all of them, in order of name. Shared: do not change.
func (d *Directory) MailRules() MailRules { return d.rules.Load().MailRules }

// RuleSet finds the rule for an envelope, from memory.
func (d *Directory) RuleSet() *mailrule.Set { return d.rules.Load().Set }

func (d *Directory) reloadMailRules(ctx context.Context) error {
	d.tables.Lock()
	defer d.tables.Unlock()
	rows, err := d.repo.DirectoryRules(ctx)
	if err != nil {
		return wrap("read", "rules", err)
	}
	r := d.readMailRules(rows)
	d.rules.Store(&ruleSet{r, mailrule.Compile(r.Relays, r.Routes, r.Journals)})
	return nil
}

// readMailRules reads rows. One that can't be read, or of a later version's kind, harms only itself.
func (d *Directory) readMailRules(rows []store.DirectoryRule) MailRules {
	out := MailRules{Relays: []mailrule.Relay{}, Routes: []mailrule.Route{}, Journals: []mailrule.Journal{}}
	for _, row := range rows {
		var err error
		switch Kind(row.Kind) {
		case RelayRule:
			err = decodeRule(&out.Relays, row.Value)
		case RouteRule:
			err = decodeRule(&out.Routes, row.Value)
		case JournalRule:
			err = decodeRule(&out.Journals, row.Value)
		default:
			err = errors.New("unknown kind")
		}
		if err != nil {
			d.log.Error("a rule can't be read", "kind", row.Kind, "name", row.Name, "error", err)
		}
	}
	return out
}

func decodeRule[T any](list *[]T, value string) error {
	var v T
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

// ruleKind is what the rules of a kind have in common.
type ruleKind[T any] struct {
	kind  Kind
	list  func(*MailRules) *[]T
	name  func(T) string
	clean func(T) (T, error)
}

var (
	relayRules = ruleKind[mailrule.Relay]{
		RelayRule, func(r *MailRules) *[]mailrule.Relay { return &r.Relays }, func(r mailrule.Relay) string { return r.Domain }, mailrule.Relay.Clean,
	}
	routeRules = ruleKind[mailrule.Route]{
		RouteRule, func(r *MailRules) *[]mailrule.Route { return &r.Routes }, func(r mailrule.Route) string { return r.Name }, mailrule.Route.Clean,
	}
	journalRules = ruleKind[mailrule.Journal]{
		JournalRule, func(r *MailRules) *[]mailrule.Journal { return &r.Journals }, func(r mailrule.Journal) string { return r.Name }, mailrule.Journal.Clean,
	}
)

// row checks a rule and gives its row.
func (k ruleKind[T]) row(d *Directory, v T) (store.DirectoryRule, error) {
	v, err := k.clean(v)
	if err != nil {
		return store.DirectoryRule{}, fieldOf(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return store.DirectoryRule{}, fmt.Errorf("directory: %s %s: %w", k.kind, k.name(v), err)
	}
	return store.DirectoryRule{Kind: string(k.kind), Name: k.name(v), Value: string(raw), Created: d.clock()}, nil
}

func fieldOf(err error) error {
	if f, ok := errors.AsType[*mailrule.FieldError](err); ok {
		return &FieldError{Field: f.Field, Value: f.Value, Want: f.Want}
	}
	return err
}

func (k ruleKind[T]) save(ctx context.Context, d *Directory, v T, replace bool) error {
	row, err := k.row(d, v)
	if err != nil {
		return err
	}
	rules := d.MailRules()
	have := slices.ContainsFunc(*k.list(&rules), func(o T) bool { return k.name(o) == row.Name })
	edit := store.DirectoryEdit{Base: -1}
	switch {
	case replace && !have:
		return wrap("change "+string(k.kind), row.Name, store.ErrNotFound)
	case replace:
		edit.PutRules = []store.DirectoryRule{row}
	case len(*k.list(&rules)) >= mailrule.MaxRules:
		return wrap("add "+string(k.kind), row.Name, store.ErrLimit)
	default:
		edit.AddRules = []store.DirectoryRule{row}
	}
	_, err = d.edit(ctx, edit)
	return wrap("save "+string(k.kind), row.Name, err)
}

// SaveRelay makes the rule of a relay domain, or replaces it; ErrExists, ErrNotFound, ErrLimit.
func (d *Directory) SaveRelay(ctx context.Context, r mailrule.Relay, replace bool) error {
	return relayRules.save(ctx, d, r, replace)
}

// SaveRoute makes a route, or replaces it.
func (d *Directory) SaveRoute(ctx context.Context, r mailrule.Route, replace bool) error {
	return routeRules.save(ctx, d, r, replace)
}

// SaveJournal makes a journal, or replaces it.
func (d *Directory) SaveJournal(ctx context.Context, j mailrule.Journal, replace bool) error {
	return journalRules.save(ctx, d, j, replace)
}

// RemoveRule removes a rule by its name, a relay domain by its domain; ErrNotFound.
func (d *Directory) RemoveRule(ctx context.Context, kind Kind, name string) error {
	_, err := d.edit(ctx, store.DirectoryEdit{Base: -1, RemoveRules: []store.DirectoryRule{{Kind: string(kind), Name: name}}})
	return wrap("remove "+string(kind), name, err)
}

func (p *planner) planMailRules() error {
	if err := relayRules.plan(p, "relays"); err != nil {
		return err
	}
	if err := routeRules.plan(p, "routes"); err != nil {
		return err
	}
	return journalRules.plan(p, "journals")
}

// plan compares the rules of one kind.
func (k ruleKind[T]) plan(p *planner, field string) error {
	want := *k.list(&p.want.MailRules)
	if want == nil {
		return nil
	}
	if len(want) > mailrule.MaxRules {
		return &FieldError{Field: field, Want: fmt.Sprintf("at most %d", mailrule.MaxRules)}
	}
	have := map[string]string{}
	for _, v := range *k.list(&p.now.MailRules) {
		row, err := k.row(p.d, v)
		if err != nil {
			return err
		}
		have[row.Name] = row.Value
	}
	seen := map[string]bool{}
	for i, v := range want {
		row, err := k.row(p.d, v)
		if err != nil {
			return at(field, i, err)
		}
		if seen[row.Name] {
			return at(field, i, &FieldError{Field: "name", Value: row.Name, Want: "each name once"})
		}
		seen[row.Name] = true
		switch old, ok := have[row.Name]; {
		case !ok:
			p.edit.AddRules = append(p.edit.AddRules, row)
			p.change(Change{Act: Make, Kind: string(k.kind), Name: row.Name, To: json.RawMessage(row.Value)})
		case old != row.Value:
			p.edit.PutRules = append(p.edit.PutRules, row)
			p.change(Change{Act: Alter, Kind: string(k.kind), Name: row.Name, Field: "rule", From: json.RawMessage(old), To: json.RawMessage(row.Value)})
		}
	}
	for _, v := range *k.list(&p.now.MailRules) {
		if name := k.name(v); !seen[name] {
			p.edit.RemoveRules = append(p.edit.RemoveRules, store.DirectoryRule{Kind: string(k.kind), Name: name})
			p.change(Change{Act: Remove, Kind: string(k.kind), Name: name, From: json.RawMessage(have[name])})
		}
	}
	return nil
}
