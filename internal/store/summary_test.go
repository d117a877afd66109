package store

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleSummary() Summary {
	return Summary{
		HeaderSize: 1 << 20, Envelope: []byte(`("date" "发票" NIL)`), BodyStructure: []byte(`("text" "plain")`),
		SentAt: time.Unix(-5, 0).UTC(), MessageID: "a@b", References: []string{"c@d", "", "e@f"},
		BaseSubject: "subject", Preview: "你好", Attachments: true,
	}
}

func TestSummaryComesBack(t *testing.T) {
	t.Parallel()
	for _, m := range []Summary{{}, sampleSummary()} {
		var got Summary
		if err := decodeSummary(appendSummary(nil, &m), &got); err != nil {
			t.Fatal(err)
		}
		// Empty and nil are the same here.
		if fmt.Sprintf("%v", got) != fmt.Sprintf("%v", m) {
			t.Errorf("%+v became %+v", m, got)
		}
	}
}

func TestSummaryBoundsReferences(t *testing.T) {
	t.Parallel()
	var m, got Summary
	for i := range 1000 {
		m.References = append(m.References, fmt.Sprint(i))
	}
	if err := decodeSummary(appendSummary(nil, &m), &got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.References); n != maxReferences || got.References[0] != "0" || got.References[n-1] != "999" {
		t.Errorf("%d references: %v", n, got.References)
	}
	if len(m.References) != 1000 || m.References[1] != "1" {
		t.Error("the caller's list was changed")
	}
}

func TestEachDamagedOctetOfASummaryIsSeen(t *testing.T) {
	t.Parallel()
	m := sampleSummary()
	b := appendSummary(nil, &m)
	for i := range b {
		for _, c := range [][]byte{bytes.Clone(b), b[:i]} {
			if len(c) == len(b) {
				c[i] ^= 0x04
			}
			var got Summary
			if err := decodeSummary(c, &got); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("octet %d of %d changed or cut: %v", i, len(b), err)
			}
		}
	}
}

func FuzzDecodeSummary(f *testing.F) {
	m := sampleSummary()
	f.Add(appendSummary(nil, &m)[5:])
	f.Add([]byte(strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Behind a right checksum anything may stand.
		full := append([]byte{summaryFormat, 0, 0, 0, 0}, b...)
		sealSummary(full)
		var got, again Summary
		if decodeSummary(full, &got) != nil {
			return
		}
		if err := decodeSummary(appendSummary(nil, &got), &again); err != nil {
			t.Fatal(err)
		}
		if len(got.References) <= maxReferences && !reflect.DeepEqual(got, again) {
			t.Errorf("%+v became %+v", got, again)
		}
	})
}
