package control_test

import (
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/control"
	"waxwing/internal/control/controltest"
	"waxwing/internal/tlsrpt"
)

// TestReportsAboutTLSAreReadFromMail puts a report, a broken one and other mail into a mailbox.
func TestReportsAboutTLSAreReadFromMail(t *testing.T) {
	overBoth(t, func(t *testing.T, c control.Carrier, b *controltest.Bench) {
		ctx := t.Context()
		b.Account(t, "a@example.test")
		from, _ := address.Parse("postmaster@far.test")
		to, _ := address.Parse("a@example.test")
		start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
		report := &tlsrpt.Report{
			Organization: "far.test", Range: tlsrpt.DateRange{Start: start, End: start.Add(24*time.Hour - time.Second)}, Contact: "x", ID: "id7",
			Policies: []tlsrpt.Result{{
				Policy: tlsrpt.Policy{Type: "tlsa", Domain: "example.test"}, Summary: tlsrpt.Summary{Successful: 7, Failed: 2},
				Failures: []tlsrpt.Failure{{Type: "validation-failure", Sessions: 2}},
			}},
		}
		good, err := report.Compose("mx.far.test", "example.test", from, to, start)
		if err != nil {
			t.Fatal(err)
		}
		broken := "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/tlsrpt+gzip\r\n\r\nno gzip\r\n"
		other := "Subject: hello\r\n\r\nhello\r\n"
		boxes, err := control.MailboxList.Call(ctx, c, control.AccountRef{Address: "a@example.test"})
		if err != nil {
			t.Fatal(err)
		}
		req := control.Append{Account: "a@example.test"}
		for _, box := range boxes.Mailboxes {
			if box.Name == "INBOX" {
				req.Mailbox = box.ID
			}
		}
		all := ""
		for i, m := range []string{string(good), broken, other} {
			req.Messages = append(req.Messages, control.NewMessage{Size: int64(len(m)), InternalDate: start.Add(time.Duration(i) * time.Hour)})
			all += m
		}
		if _, err := control.MessageAppend.Call(ctx, c, req, strings.NewReader(all)); err != nil {
			t.Fatal(err)
		}
		list, err := control.TLSReportList.Call(ctx, c, control.TLSReportPage{Account: "a@example.test"})
		if err != nil || len(list.Reports) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		bad, fine := list.Reports[0], list.Reports[1]
		if bad.Problem == "" || fine.Problem != "" || fine.Organization != "far.test" || fine.Successful != 7 || fine.Failed != 2 || !fine.Start.Equal(start) {
			t.Errorf("%+v", list.Reports)
		}
		shown, err := control.TLSReportShow.Call(ctx, c, control.MessageRef{Account: "a@example.test", ID: fine.ID})
		if err != nil || shown.ID != "id7" || len(shown.Policies) != 1 || shown.Policies[0].Failures[0].Sessions != 2 {
			t.Errorf("%+v, %v", shown, err)
		}
		for id, kind := range map[int64]control.Kind{bad.ID: control.Invalid, 999: control.NotFound} {
			if _, err := control.TLSReportShow.Call(ctx, c, control.MessageRef{Account: "a@example.test", ID: id}); control.KindOf(err) != kind {
				t.Errorf("message %d: %v, want %s", id, err, kind)
			}
		}
		late := control.TLSReportPage{Account: "a@example.test", Since: start.Add(30 * time.Minute), Limit: 5}
		if list, err = control.TLSReportList.Call(ctx, c, late); err != nil || len(list.Reports) != 1 {
			t.Errorf("since: %+v, %v", list, err)
		}
	})
}
