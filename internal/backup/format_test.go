package backup

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func genValue() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.Just[any](nil),
		rapid.Map(rapid.Int64(), func(v int64) any { return v }),
		rapid.Map(rapid.String(), func(v string) any { return v }),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(v []byte) any { return append([]byte{}, v...) }),
	)
}

func TestRowsSurviveTheirForm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		row := rapid.SliceOfN(genValue(), 1, 9).Draw(t, "row")
		b, err := appendRow([]byte("x"), row)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := parseRow(append(b[1:], "behind"...), len(row))
		if err != nil || string(rest) != "behind" || !reflect.DeepEqual(got, row) {
			t.Fatalf("%v, %q, %v", got, rest, err)
		}
	})
	if _, err := appendRow(nil, []any{3.5}); err == nil {
		t.Error("a value of another type was taken")
	}
}

func FuzzRow(f *testing.F) {
	b, err := appendRow(nil, []any{nil, int64(-3), "text", []byte("octets")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, 4)
	f.Add([]byte{valueText, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		if n < 0 || n > 100 {
			return
		}
		row, rest, err := parseRow(b, n)
		if err != nil {
			return
		}
		again, err := appendRow(nil, row)
		if err != nil || len(rest) > len(b) {
			t.Fatal(err)
		}
		if got, _, err := parseRow(again, n); err != nil || !reflect.DeepEqual(got, row) {
			t.Fatalf("%v became %v, %v", row, got, err)
		}
	})
}

func FuzzPieces(f *testing.F) {
	f.Add(appendPieces(nil, []piece{{sum: Sum{1}, length: 5, stored: 5}, {sum: Sum{2}, length: 500, stored: 20, packed: true}}))
	f.Add([]byte{0xff, 0xff, 0x3f})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, rest, err := parsePieces(b)
		if err != nil {
			return
		}
		got, _, err := parsePieces(appendPieces(nil, list))
		if err != nil || len(rest) > len(b) || len(list) > 0 && !reflect.DeepEqual(got, list) {
			t.Fatalf("%v became %v, %v", list, got, err)
		}
	})
}

func FuzzIndex(f *testing.F) {
	b, err := appendKnown(nil, &known{Part: Part{Name: "bundles/x", Size: 7}, For: "me", pieces: []piece{{length: 3, stored: 3}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, rest, ok := parseKnown(b); ok && len(rest) >= len(b) {
			t.Fatal("nothing was read")
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add("20260301T120000.000Z-00000000000000000000000000000000", []byte(`{"format":1,"created":"2026-03-01T12:00:00Z","catalog":{"name":"catalogs/../../etc/passwd"}}`))
	f.Add("", []byte(`{`))
	f.Fuzz(func(t *testing.T, id string, raw []byte) {
		m, err := parseManifest(id, raw)
		if err != nil {
			return
		}
		for _, p := range m.Bundles {
			if bytes.Contains([]byte(p.Name), []byte("..")) {
				t.Fatalf("a name leads elsewhere: %q", p.Name)
			}
		}
	})
}

func TestPlacesOfTargets(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Place{
		"/srv/backup/":                                {Dir: "/srv/backup"},
		"https://s3.example.net/b":                    {Endpoint: "s3.example.net", Bucket: "b"},
		"https://s3.example.net:444/b/p/q/?region=eu": {Endpoint: "s3.example.net:444", Bucket: "b", Prefix: "p/q/", Region: "eu"},
		"http://127.0.0.1:9000/b":                     {Endpoint: "127.0.0.1:9000", Bucket: "b", Plain: true},
	} {
		if got, err := ParsePlace(text); err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "relative/path", "s3://bucket", "https://", "https://host", "http://s3.example.net/b", "https://user:secret@host/b", "https://host/b?key=x",
		"https://host/b/a//b", "https://host/b/../c", "https://host/b#x", "ftp://host/b",
	} {
		if got, err := ParsePlace(text); err == nil {
			t.Errorf("%q was taken as %+v", text, got)
		}
	}
}
