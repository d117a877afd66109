package dns

import (
	"testing"

	mdns "github.com/miekg/dns"
)

// FuzzDigest feeds arbitrary responses to the part that reads them.
func FuzzDigest(f *testing.F) {
	m := new(mdns.Msg)
	m.SetQuestion("a.test.", mdns.TypeMX)
	m.Response = true
	for _, line := range []string{"a.test. 1 IN CNAME b.test.", "b.test. 1 IN MX 10 c.test.", "b.test. 1 IN MX 0 ."} {
		rr, err := mdns.NewRR(line)
		if err != nil {
			f.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	packed, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(t *testing.T, data []byte) {
		msg := new(mdns.Msg)
		if msg.Unpack(data) != nil {
			return
		}
		for _, qtype := range []uint16{mdns.TypeMX, mdns.TypeA, mdns.TypeTXT} {
			res, derr := digest(question{"a.test.", qtype}, msg, true)
			if derr != nil {
				continue
			}
			if res.ttl < 0 || res.ttl > maxTTL || len(res.records) > maxRecords {
				t.Errorf("ttl %v, %d records", res.ttl, len(res.records))
			}
			if res.err == nil && !res.alias && len(res.records) == 0 {
				t.Error("neither records nor an error")
			}
			for _, rr := range res.records {
				if rr.Header().Rrtype != qtype {
					t.Errorf("a record of type %d", rr.Header().Rrtype)
				}
			}
		}
	})
}

func FuzzUnescape(f *testing.F) {
	f.Add(`a\032b\\c\"d\`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := unescape(s); len(got) > len(s) {
			t.Errorf("%q became longer: %q", s, got)
		}
	})
}
