package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds the file: a configuration is read whole.
const maxFile = 1 << 20

// Problem is one thing wrong with the file, at its place. Line and Column count from 1; 0 where the file has no place
// for it, as with a key that is missing.
type Problem struct {
	File         string
	Line, Column int
	Key          string // dotted key, "" for a syntax error
	Text         string
}

func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key)
		b.WriteString(": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems is everything wrong with a file, in its order: one run shows all of it.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks the file at path. Errors in its content are Problems.
func Load(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("read configuration: %s is larger than %d octets", path, maxFile)
	}
	cfg, err := Parse(path, text)
	if err != nil {
		return nil, err
	}
	cfg.Path = path
	cfg.resolvePaths(filepath.Dir(path))
	return cfg, nil
}

// Parse reads text as a configuration; name stands for the file in messages. Paths are left as they are written.
func Parse(name string, text []byte) (*Config, error) {
	cfg := Default()
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		return nil, problemsOf(name, err)
	}
	c := checker{file: name, places: findPlaces(text)}
	c.config(&cfg)
	if len(c.problems) > 0 {
		slices.SortStableFunc(c.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, c.problems
	}
	return &cfg, nil
}

// problemsOf turns the decoder's errors into Problems, with a suggestion for each unknown key.
func problemsOf(name string, err error) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) {
		var out Problems
		for i := range missing.Errors {
			e := &missing.Errors[i]
			line, column := e.Position()
			out = append(out, Problem{File: name, Line: line, Column: column, Key: strings.Join(e.Key(), "."), Text: unknownKey(e.Key())})
		}
		return out
	}
	var bad *toml.DecodeError
	if errors.As(err, &bad) {
		line, column := bad.Position()
		text := plainType(strings.TrimPrefix(bad.Error(), "toml: "))
		return Problems{{File: name, Line: line, Column: column, Key: strings.Join(bad.Key(), "."), Text: text}}
	}
	return fmt.Errorf("read configuration %s: %w", name, err)
}

// plainType says a mismatch of types in words of the file rather than of the program.
func plainType(text string) string {
	rest, ok := strings.CutPrefix(text, "cannot decode TOML ")
	if !ok {
		return text
	}
	got, rest, _ := strings.Cut(rest, " into ")
	_, want, ok := strings.Cut(rest, " of type ")
	if !ok {
		return text
	}
	switch {
	case want == "int":
		want = "an integer"
	case want == "bool":
		want = "true or false"
	case want == "string" || strings.HasPrefix(want, "config."):
		want = "text in quotes"
	case strings.HasPrefix(want, "[]"):
		want = "a list"
	case strings.HasPrefix(want, "map["):
		want = "a table"
	}
	return "must be " + want + ", not " + got
}
