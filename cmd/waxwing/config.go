package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"waxwing/internal/config"
	"waxwing/internal/control"
)

type configCommand struct {
	Show     configShow     `cmd:"" help:"Show the settings, with what each means."`
	Check    configCheck    `cmd:"" help:"Check waxwing.toml, and a file of settings, without changing anything."`
	Export   configExport   `cmd:"" help:"Print the settings as TOML, to be kept in git and applied."`
	Diff     configDiff     `cmd:"" help:"Show what applying a file would change."`
	Apply    configApply    `cmd:"" help:"Set the settings to those of a file; what it doesn't name goes back to its default."`
	History  configHistory  `cmd:"" help:"List changes of settings, newest first."`
	Rollback configRollback `cmd:"" help:"Set all settings to what they were at a version."`
}

// maxSettingsFile bounds a file of settings.
const maxSettingsFile = 1 << 20

type configShow struct {
	Version *int64 `help:"As they were at this version." placeholder:"N"`
}

func (c *configShow) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		set, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{Version: c.Version})
		if err != nil {
			return err
		}
		return s.print(set, func(p *printer) {
			p.row("SETTING", "VALUE", "", "MEANING")
			for _, x := range set.Settings {
				mark := ""
				if x.Changed {
					mark = "(changed)"
				}
				p.row(x.Name, string(x.Value), mark, x.Doc)
			}
			p.line("")
			p.row("version", set.Version)
		})
	})
}

type configCheck struct {
	File string `arg:"" optional:"" help:"A file of settings, as export prints it."`
}

func (c *configCheck) Run(s *session) error {
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if c.File != "" {
		if err := s.withConfig(cfg, func(k control.Carrier) error {
			now, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{})
			if err != nil {
				return err
			}
			_, err = readSettings(s, c.File, now)
			return err
		}); err != nil {
			return err
		}
	}
	return s.print(map[string]any{"ok": true, "file": cfg.Path}, func(p *printer) { p.row(cfg.Path, "is right") })
}

type configExport struct{}

func (c *configExport) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		set, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{})
		if err != nil {
			return err
		}
		if s.json {
			return s.print(set, nil)
		}
		_, err = io.WriteString(s.out, settingsTOML(set))
		return err
	})
}

// settingsTOML writes settings as tables; one at its default stands in a comment, so that later defaults take effect.
func settingsTOML(set control.Settings) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Settings of Waxwing, version %d. `waxwing config apply FILE` takes them; those in comments are defaults.\n", set.Version)
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
	return b.String()
}

// tomlValue writes a JSON number, boolean or string as TOML: the same, but for escapes that JSON allows beyond TOML's.
func tomlValue(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(text); err != nil {
		return string(raw)
	}
	return strings.ReplaceAll(strings.TrimSpace(b.String()), "\u007f", `\u007F`)
}

// readSettings reads a file of settings and gives the changes from now; null is back to the default.
func readSettings(s *session, file string, now control.Settings) (map[string]json.RawMessage, error) {
	text, err := readFile(s, file)
	if err != nil {
		return nil, err
	}
	var tables map[string]any
	if err := toml.Unmarshal(text, &tables); err != nil {
		var bad *toml.DecodeError
		if errors.As(err, &bad) {
			line, column := bad.Position()
			return nil, usagef("%s:%d:%d: %s", file, line, column, strings.TrimPrefix(bad.Error(), "toml: "))
		}
		return nil, usagef("%s: %v", file, err)
	}
	given := map[string]json.RawMessage{}
	for head, v := range tables {
		table, ok := v.(map[string]any)
		if !ok {
			return nil, usagef("%s: %s: is not in a table", file, head)
		}
		for key, value := range table {
			raw, err := json.Marshal(value)
			if err != nil {
				return nil, usagef("%s: %s.%s: %v", file, head, key, err)
			}
			given[head+"."+key] = raw
		}
	}
	changes := map[string]json.RawMessage{}
	for _, x := range now.Settings {
		raw, ok := given[x.Name]
		delete(given, x.Name)
		switch {
		case !ok && x.Changed:
			changes[x.Name] = json.RawMessage("null")
		case ok && !bytes.Equal(raw, x.Value):
			changes[x.Name] = raw
		}
	}
	for _, name := range sortedNames(given) {
		return nil, usagef("%s: %s: no such setting%s", file, name, nearest(name, now))
	}
	return changes, nil
}

// nearest suggests a setting of nearly this name.
func nearest(name string, now control.Settings) string {
	names := make([]string, len(now.Settings))
	for i, x := range now.Settings {
		names[i] = x.Name
	}
	if best := config.Nearest(name, names); best != "" {
		return "; did you mean " + strconv.Quote(best) + "?"
	}
	return ""
}

func sortedNames(m map[string]json.RawMessage) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func readFile(s *session, file string) ([]byte, error) {
	in := s.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, control.Errorf(control.NotFound, "read settings: %w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxSettingsFile+1))
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	if len(text) > maxSettingsFile {
		return nil, usagef("%s is larger than %d octets", file, maxSettingsFile)
	}
	return text, nil
}

// settingDiff is one line of a diff.
type settingDiff struct {
	Name string          `json:"name"`
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
}

func diffSettings(now control.Settings, changes map[string]json.RawMessage) []settingDiff {
	out := []settingDiff{}
	for _, x := range now.Settings {
		to, ok := changes[x.Name]
		if !ok {
			continue
		}
		if string(to) == "null" {
			to = x.Default
		}
		out = append(out, settingDiff{x.Name, x.Value, to})
	}
	return out
}

func (s *session) printDiff(diff []settingDiff, nothing string) error {
	return s.print(diff, func(p *printer) {
		if len(diff) == 0 {
			p.line(nothing)
		}
		for _, d := range diff {
			p.row(d.Name, string(d.From), "->", string(d.To))
		}
	})
}

type configDiff struct {
	File string `arg:"" help:"File of settings; - is standard input."`
}

func (c *configDiff) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		now, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{})
		if err != nil {
			return err
		}
		changes, err := readSettings(s, c.File, now)
		if err != nil {
			return err
		}
		return s.printDiff(diffSettings(now, changes), "no difference")
	})
}

type configApply struct {
	File string `arg:"" help:"File of settings; - is standard input."`
}

func (c *configApply) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		now, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{})
		if err != nil {
			return err
		}
		changes, err := readSettings(s, c.File, now)
		if err != nil {
			return err
		}
		diff := diffSettings(now, changes)
		if len(changes) > 0 {
			// Based on the version that was read: a change that somebody made meanwhile is not overwritten unseen.
			if _, err := control.SettingsChange.Call(s.ctx, k, control.SettingsEdit{Base: now.Version, Changes: changes}); err != nil {
				return err
			}
		}
		return s.printDiff(diff, "nothing to change")
	})
}

type configHistory struct {
	Limit int `help:"Lines at most." default:"50"`
}

func (c *configHistory) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		h, err := control.SettingsHistory.Call(s.ctx, k, control.HistoryPage{Limit: c.Limit})
		if err != nil {
			return err
		}
		return s.print(h.Changes, func(p *printer) {
			p.row("VERSION", "TIME", "WHO", "SETTING", "VALUE")
			for _, x := range h.Changes {
				value := string(x.Value)
				if value == "null" {
					value = "(default)"
				}
				p.row(x.Version, x.Time.Format(timeFormat), x.Actor, x.Name, value)
			}
		})
	})
}

type configRollback struct {
	Version int64 `arg:"" help:"Version, as history shows it; 0 for all defaults."`
}

func (c *configRollback) Run(s *session) error {
	return s.with(func(k control.Carrier) error {
		before, err := control.SettingsShow.Call(s.ctx, k, control.SettingsAt{})
		if err != nil {
			return err
		}
		after, err := control.SettingsRollback.Call(s.ctx, k, control.Rollback{Version: c.Version})
		if err != nil {
			return err
		}
		diff := []settingDiff{}
		for i, x := range after.Settings {
			if i < len(before.Settings) && !bytes.Equal(x.Value, before.Settings[i].Value) {
				diff = append(diff, settingDiff{x.Name, before.Settings[i].Value, x.Value})
			}
		}
		return s.printDiff(diff, "nothing to change")
	})
}
