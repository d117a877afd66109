// Package tlsrpt reads and writes reports about TLS between mail servers (RFC 8460): the record by which a domain asks for
// them, the report itself, and the message that carries it. Pure functions over bytes; counting and sending is the work of
// package transport/tlsreport.
//
//	rua, err := tlsrpt.ParseRecord(texts)
//	data, err := report.Gzip()
//	report, err := tlsrpt.Parse(data)
package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/message"
)

// MediaType is that of a compressed report.
const MediaType = "application/tlsrpt+gzip"

// Bounds of what others send.
const (
	MaxData  = 4 << 20  // octets of a report as it comes
	MaxJSON  = 32 << 20 // and when it is unpacked
	maxURIs  = 4
	maxParts = 10_000 // policies and failures of one report
)

// Failures; errors.Is finds them.
var (
	ErrNoRecord = errors.New("no TLSRPT record")
	ErrInvalid  = errors.New("not a TLS report")
)

// ParseRecord finds where a domain wants its reports, among the TXT records at _smtp._tls.DOMAIN: "mailto:" and "https:"
// addresses. ErrNoRecord when there is no record, or several (section 3).
func ParseRecord(texts []string) ([]string, error) {
	var out []string
	found := 0
	for _, text := range texts {
		version, rest, _ := strings.Cut(text, ";")
		if strings.TrimRight(version, " \t") != "v=TLSRPTv1" {
			continue
		}
		if found++; found > 1 {
			return nil, fmt.Errorf("%w: there are several", ErrNoRecord)
		}
		for field := range strings.SplitSeq(rest, ";") {
			name, value, _ := strings.Cut(strings.Trim(field, " \t"), "=")
			if strings.TrimRight(name, " \t") != "rua" {
				continue
			}
			for uri := range strings.SplitSeq(value, ",") {
				if uri = strings.Trim(uri, " \t"); wellFormed(uri) && len(out) < maxURIs {
					out = append(out, uri)
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, ErrNoRecord
	}
	return out, nil
}

func wellFormed(uri string) bool {
	if len(uri) > 1000 {
		return false
	}
	if _, err := MailTo(uri); err == nil {
		return true
	}
	u, err := url.Parse(uri)
	return err == nil && strings.EqualFold(u.Scheme, "https") && u.Hostname() != "" && u.User == nil
}

// MailTo gives the address of a "mailto:" URI.
func MailTo(uri string) (address.Address, error) {
	u, err := url.Parse(uri)
	if err != nil || !strings.EqualFold(u.Scheme, "mailto") {
		return address.Address{}, fmt.Errorf("%w: not a mailto", ErrNoRecord)
	}
	text, err := url.PathUnescape(u.Opaque)
	if err != nil {
		return address.Address{}, err
	}
	return address.Parse(text)
}

// Report is what came of the sessions of one sender with one domain in some time (section 4.4).
type Report struct {
	Organization string    `json:"organization-name"`
	Range        DateRange `json:"date-range"`
	Contact      string    `json:"contact-info"`
	ID           string    `json:"report-id"`
	Policies     []Result  `json:"policies"`
}

// DateRange is the time that a report is about.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// Result is what came of the sessions under one policy.
type Result struct {
	Policy   Policy    `json:"policy"`
	Summary  Summary   `json:"summary"`
	Failures []Failure `json:"failure-details,omitempty"`
}

// Policy is the policy that sessions were held to.
type Policy struct {
	Type   string   `json:"policy-type"` // "tlsa", "sts" or "no-policy-found"
	String []string `json:"policy-string,omitempty"`
	Domain string   `json:"policy-domain"`
	MXHost []string `json:"mx-host,omitempty"`
}

// Summary counts sessions.
type Summary struct {
	Successful int64 `json:"total-successful-session-count"`
	Failed     int64 `json:"total-failure-session-count"`
}

// Failure is sessions that failed in one way.
type Failure struct {
	Type       string `json:"result-type"`
	SendingIP  string `json:"sending-mta-ip,omitempty"`
	Host       string `json:"receiving-mx-hostname,omitempty"`
	HELO       string `json:"receiving-mx-helo,omitempty"`
	ReceiverIP string `json:"receiving-ip,omitempty"`
	Sessions   int64  `json:"failed-session-count"`
	More       string `json:"additional-information,omitempty"`
	Code       string `json:"failure-reason-code,omitempty"`
}

// UnmarshalJSON takes a list of strings and also one string, which some senders write for lists of one.
func (p *Policy) UnmarshalJSON(data []byte) error {
	type plain Policy
	var x struct {
		plain
		String words `json:"policy-string"`
		MXHost words `json:"mx-host"`
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return err
	}
	*p = Policy(x.plain)
	p.String, p.MXHost = x.String, x.MXHost
	return nil
}

type words []string

func (w *words) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*w = words{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(w))
}

// Gzip is the report as it is sent.
func (r *Report) Gzip() ([]byte, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := json.NewEncoder(z).Encode(r); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Parse reads a report, compressed or not, within bounds.
func Parse(data []byte) (*Report, error) {
	if len(data) > MaxData {
		return nil, fmt.Errorf("%w: more than %d octets", ErrInvalid, MaxData)
	}
	var in io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		in = z
	}
	text, err := io.ReadAll(io.LimitReader(in, MaxJSON+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(text) > MaxJSON {
		return nil, fmt.Errorf("%w: unpacked it has more than %d octets", ErrInvalid, MaxJSON)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	n := len(r.Policies)
	for _, p := range r.Policies {
		n += len(p.Failures)
		if p.Summary.Successful < 0 || p.Summary.Failed < 0 {
			return nil, fmt.Errorf("%w: a count below zero", ErrInvalid)
		}
	}
	if n == 0 || n > maxParts || r.Organization == "" && r.ID == "" {
		return nil, fmt.Errorf("%w: %d policies and failures", ErrInvalid, n)
	}
	return &r, nil
}

// FileName is the name of the attached report (section 5.1).
func (r *Report) FileName(submitter, domain string) string {
	return fmt.Sprintf("%s!%s!%d!%d!%s.json.gz", submitter, domain, r.Range.Start.Unix(), r.Range.End.Unix(), r.ID)
}

// Compose writes the message that carries a report to one address (section 5.3). It asks that no policy of the recipient's
// domain holds it up, since it may be about that very policy.
func (r *Report) Compose(submitter, domain string, from, to address.Address, now time.Time) ([]byte, error) {
	data, err := r.Gzip()
	if err != nil {
		return nil, err
	}
	failed, fine := int64(0), int64(0)
	for _, p := range r.Policies {
		failed, fine = failed+p.Summary.Failed, fine+p.Summary.Successful
	}
	text := fmt.Sprintf("This is a report of %s about TLS with the mail servers of %s\nfrom %s to %s (RFC 8460).\n\nSessions that succeeded: %d\nSessions that failed: %d\n",
		submitter, domain, r.Range.Start.Format(time.RFC3339), r.Range.End.Format(time.RFC3339), fine, failed)
	b := message.NewBuilder()
	b.Date(now)
	b.Addresses("From", message.Address{Name: "TLS reports", Local: from.Local, Domain: from.Domain})
	b.Addresses("To", message.Address{Local: to.Local, Domain: to.Domain})
	b.Text("Subject", fmt.Sprintf("Report Domain: %s Submitter: %s Report-ID: <%s>", domain, submitter, r.ID))
	b.Raw("Message-ID", "<tlsrpt."+r.ID+"@"+submitter+">")
	b.Raw("TLS-Report-Domain", domain)
	b.Raw("TLS-Report-Submitter", submitter)
	b.Raw("TLS-Required", "No")
	b.Raw("Auto-Submitted", "auto-generated")
	b.Body(message.Report("tlsrpt", message.PlainText(text), message.Attachment(r.FileName(submitter, domain), MediaType, data), nil))
	return b.Bytes()
}
