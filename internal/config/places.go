package config

import (
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// place is where a key stands in the file.
type place struct{ line, column int }

// Place tells where a dotted key of a TOML document stands, or else the nearest table above it; tables of an array carry
// their index: "domains.1.name". Line and column count from 1; 0 when neither stands there or the document doesn't parse.
func Place(text []byte, key string) (line, column int) {
	at := nearestPlace(findPlaces(text), key)
	return at.line, at.column
}

func nearestPlace(places map[string]place, key string) place {
	for key != "" {
		if at, ok := places[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexByte(key, '.'), 0)]
	}
	return place{}
}

// findPlaces maps each dotted key of a document that parses to its place. Tables of an array carry their index:
// "listener.1.address".
func findPlaces(text []byte) map[string]place {
	places := map[string]place{}
	seen := map[string]int{} // tables of each array so far
	var p unstable.Parser
	p.Reset(text)
	prefix := ""
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			key, at := keyOf(&p, e.Key())
			prefix = indexed(key, seen)
			if e.Kind == unstable.ArrayTable {
				n := seen[key]
				seen[key] = n + 1
				prefix = indexed(key, seen)
			}
			places[prefix] = at
		case unstable.KeyValue:
			addPair(&p, places, prefix, e)
		}
	}
	return places
}

// addPair records a key and, for an inline table or an array of them, the keys inside.
func addPair(p *unstable.Parser, places map[string]place, prefix string, e *unstable.Node) {
	key, at := keyOf(p, e.Key())
	key = join(prefix, key)
	places[key] = at
	addValue(p, places, key, e.Value())
}

func addValue(p *unstable.Parser, places map[string]place, key string, v *unstable.Node) {
	switch v.Kind {
	case unstable.InlineTable:
		for it := v.Children(); it.Next(); {
			addPair(p, places, key, it.Node())
		}
	case unstable.Array:
		i := 0
		for it := v.Children(); it.Next(); i++ {
			addValue(p, places, join(key, strconv.Itoa(i)), it.Node())
		}
	}
}

func keyOf(p *unstable.Parser, it unstable.Iterator) (string, place) {
	var parts []string
	var at place
	for it.Next() {
		n := it.Node()
		if len(parts) == 0 {
			start := p.Shape(n.Raw).Start
			at = place{start.Line, start.Column}
		}
		parts = append(parts, string(n.Data))
	}
	return strings.Join(parts, "."), at
}

// indexed puts the index of its current table behind each array in a dotted key.
func indexed(key string, seen map[string]int) string {
	if n := seen[key]; n > 0 {
		return join(key, strconv.Itoa(n-1))
	}
	return key
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}
