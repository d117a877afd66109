// Command generate writes the tables of the reference pages: the commands, extensions, replies and limits of SMTP, IMAP,
// POP3 and ManageSieve, the settings, and the metrics. What there is comes from the code that does it, so that a page can't fall
// behind; what it means, in English and Chinese, stands in the words files of this package. A thing without words, or
// words without their thing, is an error.
//
// It is no part of the server. A table stands between two comments of the page; everything else on the page is written
// by hand.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:generate go run .

// pages are the pages with tables, below docs and docs/zh.
var pages = []string{
	"reference/smtp.md", "reference/imap.md", "reference/pop3.md", "reference/sieve.md", "reference/settings.md", "reference/metrics.md",
}

// language is an index into words.
type language int

const (
	english language = iota
	chinese
)

// folder is where the pages of a language stand, below docs.
func (l language) folder() string { return [...]string{"", "zh"}[l] }

// words are a text in each language.
type words [2]string

func main() {
	if err := run("../.."); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

// run rewrites the tables of all pages below root.
func run(root string) error {
	fresh, err := render(root)
	if err != nil {
		return err
	}
	for path, text := range fresh {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render gives the text that each page should have.
func render(root string) (map[string]string, error) {
	tables, err := allTables(root)
	if err != nil {
		return nil, err
	}
	fresh := map[string]string{}
	used := map[string]bool{}
	for _, lang := range []language{english, chinese} {
		for _, page := range pages {
			path := filepath.Join(root, "docs", lang.folder(), page)
			old, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			if fresh[path], err = insert(string(old), tables, lang, used); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	for name := range tables {
		if !used[name] {
			return nil, fmt.Errorf("table %s stands on no page", name)
		}
	}
	return fresh, nil
}

const (
	tableBegin = "<!-- table "
	tableMark  = ", generated: `make generate` -->\n"
	tableEnd   = "<!-- end of table -->\n"
)

// insert replaces what stands between the comments of each table.
func insert(page string, tables map[string]table, lang language, used map[string]bool) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(page, tableBegin)
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, rest, ok := strings.Cut(rest, tableMark)
		if !ok {
			return "", fmt.Errorf("the comment of table %.40q is not closed as it should be", name)
		}
		_, rest, ok = strings.Cut(rest, tableEnd)
		if !ok {
			return "", fmt.Errorf("table %s has no end", name)
		}
		t, ok := tables[name]
		if !ok {
			return "", fmt.Errorf("there is no table %s", name)
		}
		used[name] = true
		out.WriteString(tableBegin + name + tableMark + t.markdown(lang) + tableEnd)
		page = rest
	}
}

// table is a table in both languages.
type table struct {
	head []words
	rows [][]words
}

func (t table) markdown(lang language) string {
	var b strings.Builder
	line := func(cells []words) {
		b.WriteString("|")
		for _, c := range cells {
			b.WriteString(" " + strings.ReplaceAll(c[lang], "|", `\|`) + " |")
		}
		b.WriteString("\n")
	}
	line(t.head)
	b.WriteString("|" + strings.Repeat("---|", len(t.head)) + "\n")
	for _, r := range t.rows {
		line(r)
	}
	return b.String()
}

// same is a text that is the same in both languages.
func same(s string) words { return words{s, s} }

// code is same, set as code.
func code(s string) words {
	if s == "" {
		return words{}
	}
	return same("`" + s + "`")
}
