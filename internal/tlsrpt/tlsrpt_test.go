package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

func TestParseRecord(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		texts []string
		want  string
	}{
		{[]string{"v=TLSRPTv1; rua=mailto:a@b.test"}, "[mailto:a@b.test]"},
		{[]string{"x", "v=TLSRPTv1;rua=mailto:a@b.test,https://r.test/v1?x=1 ;more=y"}, "[mailto:a@b.test https://r.test/v1?x=1]"},
		{[]string{"v=TLSRPTv1; rua=mailto:a%2Bb@b.test"}, "[mailto:a%2Bb@b.test]"},
		{[]string{"v=TLSRPTv1; rua=http://r.test/,ftp://x,mailto:nobody"}, "[]"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:c@b.test"}, "[]"},
		{[]string{"v=TLSRPTv10; rua=mailto:a@b.test"}, "[]"},
		{nil, "[]"},
	} {
		got, err := ParseRecord(tc.texts)
		if fmt.Sprint(got) != tc.want || (len(got) == 0) != errors.Is(err, ErrNoRecord) {
			t.Errorf("%q: %v, %v", tc.texts, got, err)
		}
	}
	if a, err := MailTo("mailto:a%2Bb@b.test"); err != nil || a.String() != "a+b@b.test" {
		t.Errorf("%v, %v", a, err)
	}
}

func sample() *Report {
	day := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	return &Report{
		Organization: "example.test", Range: DateRange{day, day.Add(24*time.Hour - time.Second)}, Contact: "postmaster@example.test", ID: "abc",
		Policies: []Result{{
			Policy:   Policy{Type: "sts", String: []string{"version: STSv1", "mode: testing"}, Domain: "far.test", MXHost: []string{"*.far.test"}},
			Summary:  Summary{5326, 303},
			Failures: []Failure{{Type: "certificate-expired", SendingIP: "192.0.2.1", Host: "mx.far.test", ReceiverIP: "192.0.2.7", Sessions: 303}},
		}},
	}
}

func TestAReportSurvivesItsMessage(t *testing.T) {
	t.Parallel()
	r := sample()
	from, _ := address.Parse("postmaster@example.test")
	to, _ := address.Parse("reports@far.test")
	raw, err := r.Compose("mx.example.test", "far.test", from, to, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	p := message.ParseBytes(raw)
	for name, want := range map[string]string{
		"TLS-Report-Domain": "far.test", "TLS-Report-Submitter": "mx.example.test", "TLS-Required": "No",
		"Subject": "Report Domain: far.test Submitter: mx.example.test Report-ID: <abc>",
	} {
		if got := p.Header.Text(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	file := p.Section(2)
	if p.MediaType() != "multipart/report" || !strings.Contains(string(raw), `report-type="tlsrpt"`) && !strings.Contains(string(raw), "report-type=tlsrpt") ||
		file.MediaType() != MediaType || file.FileName() != "mx.example.test!far.test!1795219200!1795305599!abc.json.gz" {
		t.Errorf("%s, %s, %s:\n%s", p.MediaType(), file.MediaType(), file.FileName(), raw)
	}
	data, err := io.ReadAll(file.Decoded(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(r) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestWhatOthersWrite(t *testing.T) {
	t.Parallel()
	r, err := Parse([]byte(`{"organization-name":"x","date-range":{"start-datetime":"2026-11-21T00:00:00Z","end-datetime":"2026-11-21T23:59:59Z"},"report-id":"1",
		"policies":[{"policy":{"policy-type":"sts","policy-string":"version: STSv1","policy-domain":"a.test","mx-host":"*.a.test"},"summary":{"total-successful-session-count":1,"total-failure-session-count":0},"unknown":1}]}`))
	if err != nil || fmt.Sprint(r.Policies[0].Policy.MXHost) != "[*.a.test]" || r.Policies[0].Policy.Type != "sts" || r.Policies[0].Summary.Successful != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 40 {
		if _, err := z.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"nothing": nil, "a bomb": bomb.Bytes(), "half a gzip": {0x1f, 0x8b, 8}, "no policies": []byte(`{"report-id":"1"}`), "too large": make([]byte, MaxData+1),
		"a count below zero": []byte(`{"report-id":"1","policies":[{"summary":{"total-successful-session-count":-1}}]}`),
	} {
		if r, err := Parse(data); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, err := sample().Gzip()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"report-id":"1","policies":[{"policy":{"mx-host":["a"]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		if _, err := r.Gzip(); err != nil && r.Range.Start.Year() < 10_000 && r.Range.End.Year() < 10_000 {
			t.Errorf("what was read can't be written: %v", err)
		}
	})
}
