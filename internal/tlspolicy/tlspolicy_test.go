package tlspolicy

import (
	"strings"
	"testing"
)

func TestTheNearestEntryHolds(t *testing.T) {
	t.Parallel()
	table, err := Parse("Bank.example  dane-only;; .example may ; * encrypt; partner.test secure match=.partner.net,mx.other.net;bücher.test verify")
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		"bank.example": "bank.example dane-only", "www.bank.example": ".example may", "example": "* encrypt", "a.b.example": ".example may",
		"partner.test": "partner.test secure match=.partner.net,mx.other.net", "xn--bcher-kva.test": "xn--bcher-kva.test verify", "elsewhere.org": "* encrypt",
	} {
		if e, ok := table.For(domain); !ok || e.String() != want {
			t.Errorf("%s: %q, want %q", domain, e, want)
		}
	}
	again, err := Parse(table.String())
	if err != nil || again.String() != table.String() {
		t.Errorf("%q became %q, %v", table, again, err)
	}
	if !table.Remove("BANK.example") || table.Remove("bank.example") {
		t.Error("an entry is removed once")
	}
	var none *Table
	if _, ok := none.For("a.test"); ok {
		t.Error("no table has an entry")
	}
}

func TestWhatIsNoTable(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"a.test", "a.test strong", "a.test may more", "a.test may match=b.test", "a.test verify match=*", "a.test verify match=b,c d",
		"a.test may; A.TEST none", "[192.0.2.1] may", "a..test may", "*.test may", strings.Repeat("x", MaxText+1),
	} {
		if table, err := Parse(text); err == nil {
			t.Errorf("%.60q: %v", text, table)
		}
	}
}

func TestBelow(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"b.test": false, "x.b.test": true, "X.y.B.test.": true, "*.b.test": true, "xb.test": false, ".b.test": false} {
		if Below(".b.test", name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
