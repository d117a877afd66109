package tlsreport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/store"
	"waxwing/internal/tlsrpt"
)

const (
	quiet    = 30 * time.Minute // after midnight: until all nodes have brought their counts
	spread   = 3 * time.Hour    // over which servers begin, so that not all send at midnight (RFC 8460, section 4.1)
	patience = 2 * day          // for a report that can't be sent
	maxDue   = 1000             // reports of one round
)

// errRefused is a web server that doesn't take a report.
var errRefused = errors.New("the web server refused the report")

// send sends the reports of days that have ended.
func (r *Reporter) send(ctx context.Context) error {
	h := fnv.New32a()
	_, _ = io.WriteString(h, r.o.Hostname) // never fails
	wait := quiet + time.Duration(h.Sum32())%spread
	now := r.o.Clock()
	today := now.Add(-wait).Unix() / int64(day/time.Second)
	due, err := r.o.Store.TLSReportsDue(ctx, today, maxDue)
	if err != nil {
		return err
	}
	var errs []error
	for _, d := range due {
		if ctx.Err() != nil {
			break
		}
		if err := r.report(ctx, d, now); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// report sends one report to all who want it, and forgets what it is about when that is done or no longer worth a try.
func (r *Reporter) report(ctx context.Context, d store.TLSReportDomain, now time.Time) error {
	ended := time.Unix((d.Day+1)*int64(day/time.Second), 0)
	rua, err := r.record(ctx, d.Domain)
	_, wanted := r.o.Contact()
	switch {
	case now.Sub(ended) > patience, !wanted:
		r.o.Logger.Warn("tlsreport: a report was given up", "domain", d.Domain, "ended", ended.UTC())
		return r.o.Store.TLSReportDone(ctx, d)
	case err != nil && dns.Temporary(err) && !errors.Is(err, tlsrpt.ErrNoRecord):
		return nil // it is asked for again
	case err != nil: // the domain wants none any more
		return r.o.Store.TLSReportDone(ctx, d)
	}
	list, sent, err := r.o.Store.TLSOutcomes(ctx, d, maxRows)
	if err != nil {
		return err
	}
	report := r.compose(d, list)
	left := 0
	for _, uri := range rua {
		if slices.Contains(sent, uri) {
			continue
		}
		if err := r.deliver(ctx, d, report, uri, now); err != nil {
			left++
			r.o.Logger.Warn("tlsreport: a report can't be sent now", "domain", d.Domain, "to", uri, "error", err)
			continue
		}
		r.o.Logger.Info("tlsreport: report sent", "domain", d.Domain, "to", uri, "id", report.ID)
		if err := r.o.Store.TLSReportSent(ctx, d, uri); err != nil {
			return err
		}
	}
	if left > 0 {
		return nil
	}
	return r.o.Store.TLSReportDone(ctx, d)
}

// compose makes the report of a day. Its id is the same whenever it is made.
func (r *Reporter) compose(d store.TLSReportDomain, list []store.TLSOutcome) *tlsrpt.Report {
	contact, _ := r.o.Contact()
	start := time.Unix(d.Day*int64(day/time.Second), 0).UTC()
	id := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", r.o.Hostname, d.Domain, d.Day))
	out := &tlsrpt.Report{
		Organization: contact.Domain, Range: tlsrpt.DateRange{Start: start, End: start.Add(day - time.Second)},
		Contact: contact.String(), ID: hex.EncodeToString(id[:12]),
	}
	at := map[string]int{}
	for _, o := range list {
		i, ok := at[o.Policy]
		if !ok {
			var p tlsrpt.Policy
			if json.Unmarshal([]byte(o.Policy), &p) != nil {
				continue // nothing here wrote it
			}
			i = len(out.Policies)
			at[o.Policy] = i
			out.Policies = append(out.Policies, tlsrpt.Result{Policy: p})
		}
		res := &out.Policies[i]
		if o.Result == "" {
			res.Summary.Successful += o.Sessions
			continue
		}
		var f tlsrpt.Failure
		if json.Unmarshal([]byte(o.Result), &f) != nil {
			continue
		}
		f.Sessions = o.Sessions
		res.Summary.Failed += o.Sessions
		res.Failures = append(res.Failures, f)
	}
	return out
}

// deliver sends a report to one address.
func (r *Reporter) deliver(ctx context.Context, d store.TLSReportDomain, report *tlsrpt.Report, uri string, now time.Time) error {
	if to, err := tlsrpt.MailTo(uri); err == nil {
		from, _ := r.o.Contact()
		raw, err := report.Compose(r.o.Hostname, d.Domain, from, to, now)
		if err != nil {
			return err
		}
		return r.o.Mail(ctx, to, raw)
	}
	data, err := report.Gzip()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", tlsrpt.MediaType)
	req.Header.Set("User-Agent", "Waxwing")
	resp, err := r.o.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%w: %s", errRefused, strings.TrimSpace(resp.Status))
	}
	return nil
}
