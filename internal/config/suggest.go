package config

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// unknownKey says that a key is unknown and which one may have been meant: the nearest one of the same table by edit
// distance, or a key of that name in another table.
func unknownKey(key []string) string {
	if len(key) == 0 {
		return "unknown key"
	}
	name := strings.ToLower(key[len(key)-1])
	table := tableAt(reflect.TypeFor[Config](), key[:len(key)-1])
	if table != nil {
		if best := Nearest(name, keysOf(table)); best != "" {
			return "unknown key; did you mean " + strconv.Quote(best) + "?"
		}
	}
	if where := findKey(reflect.TypeFor[Config](), "", name); where != "" {
		return "unknown key; did you mean " + strconv.Quote(where) + "?"
	}
	if table == nil {
		return "unknown key"
	}
	return "unknown key; known here: " + strings.Join(keysOf(table), ", ")
}

// Nearest is the candidate that a mistyped name was probably meant to be, "" when none is near.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", 1+(len(name)+1)/3
	for _, k := range candidates {
		if d := distance(name, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// tableAt is the struct that a dotted key leads to, nil when it leads nowhere. Indexes are passed over.
func tableAt(t reflect.Type, key []string) reflect.Type {
	for _, k := range key {
		if _, err := strconv.Atoi(k); err == nil {
			continue
		}
		f, ok := fieldNamed(t, k)
		if !ok {
			return nil
		}
		if t = structOf(f.Type); t == nil {
			return nil
		}
	}
	return t
}

// structOf is the struct under a slice or a pointer, nil when there is none.
func structOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Tag.Get("toml") == name {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

func keysOf(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		if k := t.Field(i).Tag.Get("toml"); k != "-" {
			out = append(out, k)
		}
	}
	return out
}

// findKey looks for a key of this name in any table and gives its dotted name.
func findKey(t reflect.Type, prefix, name string) string {
	for i := range t.NumField() {
		f := t.Field(i)
		k := f.Tag.Get("toml")
		if k == "-" {
			continue
		}
		if k == name {
			return join(prefix, k)
		}
		if s := structOf(f.Type); s != nil {
			if found := findKey(s, join(prefix, k), name); found != "" {
				return found
			}
		}
	}
	return ""
}

// distance is the number of single-character edits, swaps of neighbours among them, between two short strings.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = slices.Min([]int{row[j] + 1, prev[j+1] + 1, prev[j] + cost})
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(b)]
}
