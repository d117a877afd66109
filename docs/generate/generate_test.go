package main

import (
	"os"
	"strings"
	"testing"
)

func TestPagesAreCurrent(t *testing.T) {
	t.Parallel()
	fresh, err := render("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(fresh) != 2*len(pages) {
		t.Errorf("%d pages were rendered, %d are in the list", len(fresh), 2*len(pages))
	}
	for path, want := range fresh {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is behind the code: run `make generate`", path)
		}
	}
}

func TestAThingWithoutWordsIsAnError(t *testing.T) {
	t.Parallel()
	m := match("command", map[string]words{"MAIL": {"a", "b"}, "OLD": {"a", "b"}})
	m.of("MAIL")
	m.of("NEW")
	err := m.done()
	for _, want := range []string{`"NEW" has no words`, `"OLD" are about nothing`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want it to say %s", err, want)
		}
	}
}

func TestTablesAreReplaced(t *testing.T) {
	t.Parallel()
	tables := map[string]table{"x": {head: []words{{"A", "甲"}}, rows: [][]words{{{"a|b", "甲|乙"}}}}}
	mark := tableBegin + "x" + tableMark
	tests := []struct{ name, page, want, err string }{
		{"fresh", "one\n" + mark + tableEnd + "two\n", "one\n" + mark + "| 甲 |\n|---|\n| 甲\\|乙 |\n" + tableEnd + "two\n", ""},
		{"stale", mark + "| old |\n" + tableEnd, mark + "| 甲 |\n|---|\n| 甲\\|乙 |\n" + tableEnd, ""},
		{"without an end", mark + "| old |\n", "", "no end"},
		{"unknown", tableBegin + "y" + tableMark + tableEnd, "", "no table y"},
		{"with another comment", tableBegin + "x -->\n", "", "not closed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := insert(test.page, tables, chinese, map[string]bool{})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error is %v, want %s", err, test.err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestAmountsHaveUnits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		l    limit
		want string
	}{
		{limit{n: 100}, "100"},
		{limit{n: 10_000}, "10,000"},
		{limit{n: 1_000_000}, "1,000,000"},
		{limit{n: 64 << 10}, "64 KiB"},
		{limit{n: 64 << 20}, "64 MiB"},
		{limit{d: 90e9}, "90 s"},
		{limit{d: 120e9}, "2 min"},
		{limit{d: 7200e9}, "2 h"},
	} {
		if got := amount(test.l)[english]; got != test.want {
			t.Errorf("%+v is written %s, want %s", test.l, got, test.want)
		}
	}
}
