package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"waxwing/internal/config"
	"waxwing/internal/control"
)

// maxDocument bounds a file for apply: 50,000 accounts take about 8 MB.
const maxDocument = 32 << 20

// documentTOML writes settings, domains, aliases and accounts. A setting at its default stands in a comment, so that
// later defaults take effect.
func documentTOML(set control.Settings, doc control.Document) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Waxwing, version %d. `waxwing config apply FILE` makes it so again. Settings in comments have their defaults.\n", doc.Version)
	b.WriteString("# Each list is complete: what is taken out of it is removed. A list that is left out whole is left as it is.\n")
	for _, list := range []struct {
		name  string
		empty bool
	}{{"domains", len(doc.Domains) == 0}, {"aliases", len(doc.Aliases) == 0}, {"accounts", len(doc.Accounts) == 0}, {"access", len(doc.Access) == 0}, {"sending_limits", len(doc.Sending) == 0}, {"relays", len(doc.Relays) == 0}, {"routes", len(doc.Routes) == 0}, {"journals", len(doc.Journals) == 0}} {
		if list.empty { // said here, as TOML has it: before the first table
			fmt.Fprintf(&b, "%s = []\n", list.name)
		}
	}
	table := ""
	for _, x := range set.Settings {
		head, key, _ := strings.Cut(x.Name, ".")
		if head != table {
			table = head
			fmt.Fprintf(&b, "\n[%s]\n", table)
		}
		mark := "# "
		if x.Changed {
			mark = ""
		}
		fmt.Fprintf(&b, "# %s\n%s%s = %s\n", x.Doc, mark, key, tomlValue(x.Value))
	}
	tomlList(&b, "domains", doc.Domains)
	tomlList(&b, "aliases", doc.Aliases)
	tomlList(&b, "accounts", doc.Accounts)
	tomlList(&b, "access", doc.Access)
	tomlList(&b, "sending_limits", doc.Sending)
	tomlList(&b, "relays", doc.Relays)
	tomlList(&b, "routes", doc.Routes)
	tomlList(&b, "journals", doc.Journals)
	return b.String()
}

// tomlList writes a list of tables; keys that are absent in JSON are left out.
func tomlList[T any](b *strings.Builder, name string, list []T) {
	for _, x := range list {
		fmt.Fprintf(b, "\n[[%s]]\n", name)
		v := reflect.ValueOf(x)
		for i := range v.NumField() {
			key, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if key == "" { // not of the form
				continue
			}
			if options == "omitempty" && v.Field(i).IsZero() {
				continue
			}
			raw, err := json.Marshal(v.Field(i).Interface())
			if err != nil {
				continue // text, numbers and lists of text always marshal
			}
			fmt.Fprintf(b, "%s = %s\n", key, tomlValue(raw))
		}
	}
}

// tomlValue writes a JSON number, boolean, string or list of them as TOML: the same, but for escapes that JSON allows
// beyond TOML's.
func tomlValue(raw json.RawMessage) string {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return string(raw)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return string(raw)
	}
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\u007f", `\u007F`)
}

// document is a file for apply.
type document struct {
	file string
	text []byte
	doc  control.Document
}

// bad is an error at a place of the file.
func (d *document) bad(key, format string, args ...any) error {
	line, column := config.Place(d.text, key)
	return config.Problems{{File: d.file, Line: line, Column: column, Key: key, Text: fmt.Sprintf(format, args...)}}
}

// readDocument reads a file and checks its form; what it means is checked by the service.
func readDocument(s *session, file string) (*document, error) {
	text, err := readFile(s, file)
	if err != nil {
		return nil, err
	}
	d := &document{file: file, text: text, doc: control.Document{Settings: map[string]json.RawMessage{}}}
	var tables map[string]any
	if err := toml.Unmarshal(text, &tables); err != nil {
		var bad *toml.DecodeError
		if errors.As(err, &bad) {
			line, column := bad.Position()
			return nil, config.Problems{{File: file, Line: line, Column: column, Text: strings.TrimPrefix(bad.Error(), "toml: ")}}
		}
		return nil, usagef("%s: %v", file, err)
	}
	for _, head := range sortedNames(tables) {
		if err := d.take(head, tables[head]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// take takes one table or list of tables.
func (d *document) take(head string, v any) error {
	switch head {
	case "domains":
		return takeList(d, head, v, &d.doc.Domains)
	case "aliases":
		return takeList(d, head, v, &d.doc.Aliases)
	case "accounts":
		return takeList(d, head, v, &d.doc.Accounts)
	case "access":
		return takeList(d, head, v, &d.doc.Access)
	case "sending_limits":
		return takeList(d, head, v, &d.doc.Sending)
	case "relays":
		return takeList(d, head, v, &d.doc.Relays)
	case "routes":
		return takeList(d, head, v, &d.doc.Routes)
	case "journals":
		return takeList(d, head, v, &d.doc.Journals)
	}
	table, ok := v.(map[string]any)
	if !ok {
		return d.bad(head, "is no table; known here: tables of settings, and the lists domains, aliases, accounts, access, sending_limits, relays, routes and journals")
	}
	for _, key := range sortedNames(table) {
		name := head + "." + key
		raw, err := json.Marshal(table[key])
		if err != nil {
			return d.bad(name, "%v", err)
		}
		d.doc.Settings[name] = raw
	}
	return nil
}

// takeList reads a list of tables into the fields of T, by their names in JSON.
func takeList[T any](d *document, name string, v any, out *[]T) error {
	list, ok := v.([]any)
	if !ok {
		return d.bad(name, "is no list: each of its entries begins with [[%s]]", name)
	}
	*out = make([]T, len(list)) // an empty list is one too: [] removes all
	t := reflect.TypeFor[T]()
	var known []string
	for i := range t.NumField() {
		if key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); key != "" {
			known = append(known, key)
		}
	}
	for i, entry := range list {
		place := name + "." + strconv.Itoa(i)
		table, ok := entry.(map[string]any)
		if !ok {
			return d.bad(place, "is no table")
		}
		for _, key := range sortedNames(table) {
			if !slices.Contains(known, key) {
				return d.bad(place+"."+key, "unknown key%s; known here: %s", nearest(key, known), strings.Join(known, ", "))
			}
		}
		raw, err := json.Marshal(table)
		if err == nil {
			err = json.Unmarshal(raw, &(*out)[i])
		}
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return d.bad(place+"."+kind.Field, "a %s is not what stands here", kind.Value)
		}
		if err != nil {
			return d.bad(place, "%v", err)
		}
	}
	return nil
}

// nearest suggests a name that may have been meant.
func nearest(name string, names []string) string {
	if best := config.Nearest(name, names); best != "" {
		return "; did you mean " + strconv.Quote(best) + "?"
	}
	return ""
}

func sortedNames[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func readFile(s *session, file string) ([]byte, error) {
	in := s.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, control.Errorf(control.NotFound, "read file: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read file: %w", err)
	}
	if len(text) > maxDocument {
		return nil, usagef("%s is larger than %d octets", file, maxDocument)
	}
	return text, nil
}

// filePlan is a file with what it would change.
type filePlan struct {
	*document
	s     *session
	k     control.Carrier
	would control.Applied
}

// planFile reads a file and asks what applying it would change.
func planFile(s *session, k control.Carrier, file string) (*filePlan, error) {
	d, err := readDocument(s, file)
	if err != nil {
		return nil, err
	}
	p := &filePlan{document: d, s: s, k: k}
	set, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(set.Settings))
	for i, x := range set.Settings {
		names[i] = x.Name
	}
	for _, name := range sortedNames(d.doc.Settings) {
		if !slices.Contains(names, name) {
			return nil, d.bad(name, "no such setting%s", nearest(name, names))
		}
	}
	p.would, err = p.apply(control.Application{Base: -1, DryRun: true})
	return p, err
}

// apply asks the service, and gives an error about a field its place in the file.
func (p *filePlan) apply(req control.Application) (control.Applied, error) {
	req.Document = p.doc
	done, err := control.DocumentApply.Call(p.s.ctx, p.k, req)
	var e *control.Error
	if errors.As(err, &e) && e.Kind == control.Invalid && e.Field != "" {
		text := strings.TrimLeft(strings.TrimPrefix(e.Text, e.Field), ": ")
		return done, p.bad(e.Field, "%s", text)
	}
	return done, err
}

// valueText writes a value of a change for people.
func valueText(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return tomlValue(raw)
}
