package control

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"waxwing/internal/message"
	"waxwing/internal/store"
	"waxwing/internal/tlsrpt"
)

// Operations on reports that other servers sent about TLS with this one (RFC 8460). They are mail: they stand in the
// mailboxes of the account that the domain's record names, and go with it.
var (
	TLSReportList = operation("tls.report.list", (*Service).tlsReportList)
	TLSReportShow = operation("tls.report.show", (*Service).tlsReportShow)
)

// Bounds of a look for reports.
const (
	maxReportScan = 20_000 // newest messages of one mailbox
	maxReportMail = 8 << 20
	maxReports    = 1000
)

// TLSReportPage asks for the reports in an account, the newest first.
type TLSReportPage struct {
	Account string    `json:"account"`
	Since   time.Time `json:"since,omitzero"` // that came then or later
	Limit   int       `json:"limit,omitempty"`
}

// TLSReports is reports in short.
type TLSReports struct {
	Reports []TLSReport `json:"reports"`
}

// TLSReport is one report in short.
type TLSReport struct {
	ID           int64     `json:"id"`      // of the message, for TLSReportShow
	Came         time.Time `json:"came"`    // when the message came
	Organization string    `json:"from"`    // who says to have made it: anybody can send one
	Domains      []string  `json:"domains"` // that it is about
	Start        time.Time `json:"start,omitzero"`
	End          time.Time `json:"end,omitzero"`
	Successful   int64     `json:"successful"`
	Failed       int64     `json:"failed"`
	Problem      string    `json:"problem,omitempty"` // why it can't be read
}

// entryRef is a message that may be a report.
type entryRef struct {
	id   store.MessageID
	came time.Time
}

func (s *Service) tlsReportList(ctx context.Context, req TLSReportPage) (TLSReports, error) {
	a, err := s.account(ctx, req.Account)
	if err != nil {
		return TLSReports{}, err
	}
	limit := req.Limit
	if limit <= 0 || limit > maxReports {
		limit = maxReports
	}
	refs, err := s.reportMail(ctx, a.ID, req.Since)
	if err != nil {
		return TLSReports{}, err
	}
	out := TLSReports{Reports: []TLSReport{}}
	for _, ref := range refs[:min(len(refs), limit)] {
		short := TLSReport{ID: int64(ref.id), Came: ref.came.UTC(), Domains: []string{}}
		report, err := s.readReport(ctx, a.ID, ref.id)
		switch {
		case errors.Is(err, store.ErrNotFound): // gone meanwhile
			continue
		case err != nil:
			short.Problem = err.Error()
		default:
			short.sum(report)
		}
		out.Reports = append(out.Reports, short)
	}
	return out, nil
}

// sum takes in what a report says.
func (t *TLSReport) sum(r *tlsrpt.Report) {
	t.Organization, t.Start, t.End = r.Organization, r.Range.Start, r.Range.End
	for _, p := range r.Policies {
		t.Successful += p.Summary.Successful
		t.Failed += p.Summary.Failed
		if !slices.Contains(t.Domains, p.Policy.Domain) && len(t.Domains) < 20 {
			t.Domains = append(t.Domains, p.Policy.Domain)
		}
	}
}

// reportMail finds the messages of an account whose structure says that they hold a report, the newest first.
func (s *Service) reportMail(ctx context.Context, acct store.AccountID, since time.Time) ([]entryRef, error) {
	boxes, err := s.store.Mailboxes(ctx, acct)
	if err != nil {
		return nil, err
	}
	came := map[store.MessageID]time.Time{}
	for _, b := range boxes {
		if err := s.newest(ctx, acct, b.ID, func(e *store.Entry) {
			if !e.InternalDate.Before(since) && e.Size <= maxReportMail {
				came[e.Message] = e.InternalDate
			}
		}); err != nil {
			return nil, err
		}
	}
	ids := make([]store.MessageID, 0, len(came))
	for id := range came {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var out []entryRef
	err = s.store.Summaries(ctx, acct, ids, func(id store.MessageID, m *store.Summary) error {
		if bytes.Contains(bytes.ToLower(m.BodyStructure), []byte("tlsrpt")) {
			out = append(out, entryRef{id, came[id]})
		}
		return nil
	})
	if err != nil && !errors.Is(err, store.ErrCorrupt) { // one damaged message hides no others
		return nil, err
	}
	slices.SortFunc(out, func(a, b entryRef) int { return cmp.Or(b.came.Compare(a.came), cmp.Compare(b.id, a.id)) })
	return out, nil
}

// newest calls fn for the newest entries of a mailbox.
func (s *Service) newest(ctx context.Context, acct store.AccountID, box store.MailboxID, fn func(*store.Entry)) error {
	view, err := s.store.View(ctx, acct, box, func() {}, store.Peek())
	if errors.Is(err, store.ErrNotFound) { // removed meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer view.Close()
	last := view.Len()
	if last == 0 {
		return nil
	}
	return view.Entries(max(1, last-maxReportScan+1), last, func(_ int, e *store.Entry) bool {
		fn(e)
		return ctx.Err() == nil
	})
}

func (s *Service) tlsReportShow(ctx context.Context, req MessageRef) (*tlsrpt.Report, error) {
	a, err := s.account(ctx, req.Account)
	if err != nil {
		return nil, err
	}
	report, err := s.readReport(ctx, a.ID, store.MessageID(req.ID))
	if errors.Is(err, tlsrpt.ErrInvalid) {
		return nil, Errorf(Invalid, "message %d: %w", req.ID, err)
	}
	return report, err
}

// readReport reads the report in a message.
func (s *Service) readReport(ctx context.Context, acct store.AccountID, id store.MessageID) (*tlsrpt.Report, error) {
	blob, err := s.store.OpenBlob(ctx, acct, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = blob.Close() }() // it was only read
	if blob.Size() > maxReportMail {
		return nil, fmt.Errorf("%w: the message has more than %d octets", tlsrpt.ErrInvalid, maxReportMail)
	}
	part, err := message.Parse(blob, blob.Size(), message.DefaultLimits)
	if err != nil {
		return nil, err
	}
	var file *message.Part
	part.Walk(func(p *message.Part) bool {
		if p.MediaType() == tlsrpt.MediaType || p.MediaType() == "application/tlsrpt+json" {
			file = p
		}
		return file == nil
	})
	if file == nil {
		return nil, fmt.Errorf("%w: the message has none", tlsrpt.ErrInvalid)
	}
	data, err := io.ReadAll(io.LimitReader(file.Decoded(blob), tlsrpt.MaxData+1))
	if err != nil {
		return nil, err
	}
	return tlsrpt.Parse(data)
}
