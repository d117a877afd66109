package intake

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"waxwing/internal/address"
	"waxwing/internal/message"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

func TestTraceFieldsOfAStranger(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	got, err := h.send(t, stranger(), from(t, "x@remote.test"),
		"Return-Path: <forged@remote.test>\r\nReceived: from a by b; date\r\nSubject: folded\r\n line\r\nReturn-path: <again@x.test>\r\n"+
			"Bcc: stays@remote.test\r\nX-Odd : spaced\r\n\r\nbody \r\n.\r\n\r\n", "anna@example.test")
	must(t, err)
	want := "Return-Path: <x@remote.test>\r\n" +
		"Received: from client.remote.test ([192.0.2.7])\r\n\tby mx.example.test with ESMTP id TRACE\r\n\tfor <anna@example.test>;\r\n" +
		"\tSat, 21 Nov 2026 12:00:00 +0800\r\n" +
		"Received: from a by b; date\r\nSubject: folded\r\n line\r\nBcc: stays@remote.test\r\nX-Odd : spaced\r\n\r\nbody \r\n.\r\n\r\n"
	if got.text != want {
		t.Errorf("stored:\n%s\nwant:\n%s", got.text, want)
	}
	if got.Queue != nil || len(got.Local) != 1 {
		t.Errorf("%d local, queue %v", len(got.Local), got.Queue)
	}
}

func TestTraceFieldsOfAUser(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := h.user("anna")
	p.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
	raw := "From: anna@example.test\r\nBcc: secret@remote.test,\r\n other@remote.test\r\nResent-Bcc: s@x.test\r\nTo: x@remote.test\r\n\r\nbody\r\n"
	got, err := h.send(t, p, from(t, "anna@example.test"), raw, "x@remote.test", "secret@remote.test")
	must(t, err)
	want := "Received: from [IPv6:2001:db8::7]\r\n\tby mx.example.test with ESMTPSA id TRACE\r\n\ttls TLS_AES_128_GCM_SHA256 (TLS 1.3);\r\n" +
		"\tSat, 21 Nov 2026 12:00:00 +0800\r\nDate: Sat, 21 Nov 2026 12:00:00 +0800\r\nMessage-ID: <TRACE@example.test>\r\n" +
		"From: anna@example.test\r\nTo: x@remote.test\r\n\r\nbody\r\n"
	if got.text != want {
		t.Errorf("queued:\n%s\nwant:\n%s", got.text, want)
	}
	if got.Summary.MessageID != "TRACE@example.test" || got.Summary.HeaderSize != int64(strings.Index(got.text, "body")) {
		t.Errorf("digest of another text: %+v", got.Summary)
	}
	raw = "From: anna@example.test\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\nMessage-Id: <own@x.test>\r\n\r\nx\r\n"
	if got, err = h.send(t, p, from(t, "anna@example.test"), raw, "bo@example.test"); err != nil ||
		strings.Count(got.text, "Date:") != 1 || got.Summary.MessageID != "own@x.test" || !strings.HasPrefix(got.text, "Return-Path: <anna@example.test>\r\n") {
		t.Errorf("%v\n%s", err, got.text)
	}
	named := newHouse(t, func(o *Options) { o.TraceClientName = true })
	if got, err = named.send(t, p, from(t, "anna@example.test"), raw, "bo@example.test"); err != nil || !strings.Contains(got.text, "from annas-laptop ([IPv6:") {
		t.Errorf("by policy: %v\n%s", err, got.text)
	}
}

func TestProtocolInReceived(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	state := &tls.ConnectionState{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	for want, change := range map[string]func(*Peer, *smtp.Mail){
		" with SMTP id":      func(p *Peer, _ *smtp.Mail) { p.ESMTP = false },
		" with ESMTP id":     func(*Peer, *smtp.Mail) {},
		" with ESMTPS id":    func(p *Peer, _ *smtp.Mail) { p.TLS = state },
		" with ESMTPSA id":   func(p *Peer, _ *smtp.Mail) { p.TLS, p.Identity = state, h.user("anna").Identity },
		" with UTF8SMTP id":  func(_ *Peer, m *smtp.Mail) { m.UTF8 = true },
		" with UTF8SMTPS id": func(p *Peer, m *smtp.Mail) { p.TLS, m.UTF8 = state, true },
		"from unknown (":     func(p *Peer, _ *smtp.Mail) { p.HELO = "a b\r\nX: y" },
		"from [192.0.2.9] (": func(p *Peer, _ *smtp.Mail) { p.HELO = "[192.0.2.9]" },
		"tls TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 (TLS 1.2)": func(p *Peer, _ *smtp.Mail) { p.TLS = state },
	} {
		p, m := stranger(), from(t, "anna@example.test")
		change(&p, &m)
		got, err := h.send(t, p, m, "From: anna@example.test\r\n\r\nx\r\n", "bo@example.test")
		if err != nil || !strings.Contains(got.text, want) {
			t.Errorf("want %q: %v\n%s", want, err, got.text)
		}
	}
}

func TestLoopsEnd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	hop := func(by string) string {
		return "Received: from a (by mx.example.test)\r\n by " + by + " with SMTP; date\r\n"
	}
	for name, tt := range map[string]struct{ header, to, want string }{
		"49 hops":                    {strings.Repeat(hop("other.test"), 49), "anna@example.test", "250"},
		"50 hops":                    {strings.Repeat(hop("other.test"), 50), "anna@example.test", "554 5.4.6"},
		"9 times here":               {strings.Repeat(hop("MX.example.test"), 9), "anna@example.test", "250"},
		"10 times here":              {strings.Repeat(hop("MX.example.test"), 10), "anna@example.test", "554 5.4.6"},
		"forwarded before":           {"Delivered-To: Away@example.test\r\n", "away@example.test", "554 5.4.6"},
		"forwarded before, in <>":    {"Delivered-To: <away@example.test>\r\n", "away@example.test", "554 5.4.6"},
		"forwarded by another":       {"Delivered-To: other@example.test\r\n", "away@example.test", "250"},
		"delivered here, no forward": {"Delivered-To: anna@example.test\r\n", "anna@example.test", "250"},
	} {
		if _, err := h.send(t, stranger(), from(t, "x@remote.test"), tt.header+"\r\nx\r\n", tt.to); code(t, err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
	got, err := h.send(t, stranger(), from(t, "x@remote.test"), plain, "away@example.test")
	if err != nil || string(got.Queue.Prefix) != "Delivered-To: away@example.test\r\n" {
		t.Errorf("forwarded mail isn't marked: %v", err)
	}
	if strings.Contains(got.text, "Return-Path") {
		t.Error("a Return-Path goes to another server")
	}
	if got, err = h.send(t, stranger(), from(t, "x@remote.test"), plain, "away@example.test", "mixed@example.test"); err != nil || len(got.More) != 1 {
		t.Fatalf("%d more rows, %v", len(got.More), err)
	}
	for _, q := range append(got.More, got.Queue) { // the mark tells nobody's readers of another address
		want := "mixed"
		if q.Recipients[0].To == "anna@remote.test" {
			want = "away"
		}
		if string(q.Prefix) != "Delivered-To: "+want+"@example.test\r\n" || !strings.HasPrefix(q.From, "SRS0=") {
			t.Errorf("to %s: %q from %s", q.Recipients[0].To, q.Prefix, q.From)
		}
	}
}

func TestOwnAuthenticationResultsAreStripped(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for value, stays := range map[string]bool{
		"mx.example.test; spf=pass": false, "MX.Example.Test 1; dkim=pass": false, "mx.example.test": false, "mx.example.test.; x": false,
		"(comment (nested) ) mx.example.test(x); spf=pass": false, "\"mx.example.test\"; none": false, "\"mx.exa\\mple.test\"; none": false,
		"\r\n mx.example.test;\r\n dmarc=pass": false, "mx.example.test/2; x": false,
		"other.test; spf=pass": true, "mx.example.test.other.test; x": true, "xmx.example.test; x": true, "": true, "(": true, "\"": true, "(mx.example.test) other.test; x": true,
	} {
		got, err := h.send(t, stranger(), from(t, "x@remote.test"), "authentication-Results: "+value+"\r\nSubject: x\r\n\r\nx\r\n", "anna@example.test")
		if err != nil || strings.Contains(got.text, "uthentication-Results") != stays {
			t.Errorf("%q stays: %v, want %v (%v)", value, !stays, stays, err)
		}
	}
}

func TestLimitsOfTheContent(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(o *Options) { o.Limits.HeaderBytes, o.Limits.Fields, o.Limits.Line = 10_000, 100, 5000 })
	_, err := h.dir.ChangeSettings(t.Context(), -1, "t", map[string]json.RawMessage{"message.size": json.RawMessage("100000")})
	must(t, err)
	for name, tt := range map[string]struct{ raw, want string }{
		"100 fields":         {strings.Repeat("To: x@y.test\r\n", 100) + "\r\nx\r\n", "250"},
		"101 fields":         {strings.Repeat("To: x@y.test\r\n", 101) + "\r\nx\r\n", "554 5.6.0"},
		"large header":       {strings.Repeat("X: "+strings.Repeat("x", 490)+"\r\n", 30) + "\r\nx\r\n", "552 5.3.4"},
		"header never ends":  {strings.Repeat("X: "+strings.Repeat("x", 490)+"\r\n", 30), "552 5.3.4"},
		"line of 5000":       {"\r\n" + strings.Repeat("x", 5000) + "\r\n", "250"},
		"line of 5001":       {"\r\n" + strings.Repeat("x", 5001) + "\r\n", "554 5.6.0"},
		"long last line":     {"\r\n" + strings.Repeat("x", 5001), "554 5.6.0"},
		"100,000 octets":     {"\r\n" + strings.Repeat(strings.Repeat("x", 98)+"\r\n", 999) + strings.Repeat("x", 96) + "\r\n", "250"},
		"100,001 octets":     {"\r\n" + strings.Repeat(strings.Repeat("x", 98)+"\r\n", 1000), "552 5.3.4"},
		"bare LF":            {"Subject: x\n\r\nx\r\n", "554 5.6.0"},
		"bare LF in body":    {"\r\na\nb\r\n", "554 5.6.0"},
		"bare CR":            {"\r\na\rb\r\n", "554 5.6.0"},
		"CR at the end":      {"\r\na\r", "554 5.6.0"},
		"smuggled end":       {"\r\na\n.\r\nMAIL FROM:<x>\r\n", "554 5.6.0"},
		"empty":              {"", "250"},
		"only a body":        {"hello\r\n", "250"},
		"no end of line":     {"Subject: x", "250"},
		"header without end": {"Subject: x\r\n", "250"},
		"mbox line":          {"From x@y Sat Nov 21\r\nSubject: x\r\n\r\nx\r\n", "250"},
		"NUL octets":         {"Subject: \x00\r\n\r\n\x00\x00\r\n", "250"},
	} {
		got, err := h.send(t, stranger(), from(t, "x@remote.test"), tt.raw, "anna@example.test")
		if code(t, err) != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
		if err == nil {
			checkDigest(t, name, got)
		}
	}
}

// checkDigest holds that the stored text and what is kept beside it are of the same message.
func checkDigest(t *testing.T, name string, got filed) {
	t.Helper()
	p := message.ParseBytes([]byte(got.text))
	if got.Summary.HeaderSize != p.BodyOffset {
		t.Errorf("%s: header of %d octets, a parser of the stored text says %d:\n%q", name, got.Summary.HeaderSize, p.BodyOffset, got.text)
	}
	structure := string(message.AppendBodyStructure(nil, p, true))
	if string(got.Summary.BodyStructure) != structure {
		t.Errorf("%s: structure %s, of the stored text %s", name, got.Summary.BodyStructure, structure)
	}
}

func TestPartsAreFoundInTheStoredText(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	raw := "Return-Path: <forged@x.test>\r\nFrom: anna@example.test\r\nContent-Type: multipart/mixed; boundary=b\r\nBcc: x@y.test\r\n\r\npreamble\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nfirst\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\ninner body\r\n--b--\r\n"
	for _, p := range []Peer{stranger(), h.user("anna")} {
		tx, err := h.envelope(t, p, from(t, "anna@example.test"), "bo@example.test")
		must(t, err)
		sp, err := tx.Spool()
		must(t, err)
		_, err = io.WriteString(sp, raw)
		must(t, err)
		part, err := tx.parse()
		must(t, err)
		c := tx.compose(part, "TRACE", noon)
		text, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
		must(t, err)
		fresh := message.ParseBytes(text)
		var a, b []string
		list := func(dst *[]string) func(*message.Part) bool {
			return func(p *message.Part) bool {
				*dst = append(*dst, fmt.Sprint(p.Offset, p.BodyOffset, p.End, p.Lines, p.MediaType()))
				for _, f := range p.Header {
					*dst = append(*dst, fmt.Sprint(f.Name, f.Offset, string(f.Raw)))
				}
				return true
			}
		}
		part.Walk(list(&a))
		fresh.Walk(list(&b))
		if strings.Join(a, "\n") != strings.Join(b, "\n") {
			t.Errorf("moved:\n%s\nparsed again:\n%s", strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
		tx.Abort()
	}
}

func TestSpoolKeepsEveryOctet(t *testing.T) {
	t.Parallel()
	text := func(n int) string {
		line := strings.Repeat("0123456789", 7) + "\r\n"
		s := "Subject: x\r\n\r\n" + strings.Repeat(line, n/len(line)+1)
		return s[:n-2] + "\r\n"
	}
	for _, n := range []int{20, chunkSize - 1, chunkSize, chunkSize + 1, memorySpool - 1, memorySpool, memorySpool + 1, 3*memorySpool + 5} {
		for name, memory := range map[string]int64{"memory": 0, "scarce memory": 2 * chunkSize, "no memory": 1} {
			h := newHouse(t, func(o *Options) { o.Limits.SpoolMemory = memory })
			want := text(n)
			for way, reader := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "error with data": iotest.DataErrReader} {
				sp := newSpool(h.Intake, 1<<30)
				if _, err := sp.ReadFrom(reader(strings.NewReader(want))); err != nil {
					t.Fatal(err)
				}
				compareSpool(t, fmt.Sprint(n, name, way), sp, want)
			}
			sp := newSpool(h.Intake, 1<<30)
			for rest := want; rest != ""; {
				m := min(len(rest), 1777)
				if _, err := sp.Write([]byte(rest[:m])); err != nil {
					t.Fatal(err)
				}
				rest = rest[m:]
			}
			compareSpool(t, fmt.Sprint(n, name, "writes"), sp, want)
			left, err := os.ReadDir(h.opts.SpoolDir)
			if err != nil || len(left) != 0 {
				t.Errorf("files left: %v, %v", left, err)
			}
		}
	}
}

func compareSpool(t *testing.T, name string, sp *Spool, want string) {
	t.Helper()
	defer sp.free()
	if sp.Size() != int64(len(want)) || sp.seen.Facts().Bare {
		t.Errorf("%s: %d octets, bare %v", name, sp.Size(), sp.seen.Facts().Bare)
	}
	got, err := io.ReadAll(io.NewSectionReader(sp, 0, sp.Size()))
	if err != nil || string(got) != want {
		t.Errorf("%s: %d octets came back, %v", name, len(got), err)
	}
	for _, off := range []int64{0, 1, chunkSize - 3, chunkSize, sp.Size() - 5} {
		if off < 0 || off > sp.Size() {
			continue
		}
		buf := make([]byte, 10)
		n, err := sp.ReadAt(buf, off)
		if string(buf[:n]) != want[off:min(off+10, sp.Size())] || (n < 10) != (err == io.EOF) {
			t.Errorf("%s: ReadAt(%d) = %q, %v", name, off, buf[:n], err)
		}
	}
	if sp.Size() != memorySpool && sp.Size() > memorySpool != (sp.file != nil) && sp.in.limits.SpoolMemory > memorySpool {
		t.Errorf("%s: in a file: %v", name, sp.file != nil)
	}
}

func TestSpoolIsBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, func(o *Options) { o.Limits.SpoolBytes = 1 << 20 })
	first, second := newSpool(h.Intake, 1<<30), newSpool(h.Intake, 1<<30)
	big := make([]byte, 700<<10)
	if _, err := first.Write(big); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Write(big); code(t, err) != "452 4.3.1" {
		t.Errorf("both together are too much: %v", err)
	}
	if _, err := second.Write([]byte("x")); code(t, err) != "452 4.3.1" {
		t.Errorf("after an error: %v", err)
	}
	second.free()
	first.free()
	again := newSpool(h.Intake, 1000)
	defer again.free()
	if _, err := again.ReadFrom(strings.NewReader(strings.Repeat("x", 1001))); code(t, err) != "552 5.3.4" {
		t.Errorf("too large: %v", err)
	}
	broken := newHouse(t, func(o *Options) { o.SpoolDir = "/nonexistent/spool" })
	sp := newSpool(broken.Intake, 1<<30)
	defer sp.free()
	if _, err := sp.Write(big); code(t, err) != "451 4.3.0" {
		t.Errorf("no place for files: %v", err)
	}
}

func TestCommitAfterARefusedSpoolRepeatsTheRefusal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	_, err := h.dir.ChangeSettings(t.Context(), -1, "t", map[string]json.RawMessage{"message.size": json.RawMessage("65536")})
	must(t, err)
	if _, err := h.send(t, stranger(), from(t, "x@remote.test"), strings.Repeat("x", 70_000), "anna@example.test"); code(t, err) != "552 5.3.4" {
		t.Errorf("%v", err)
	}
}

func TestBinaryContentBecomesBase64(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	binary := "\x00\x01bare\nlf and\rcr\xff"
	raw := "From: x@remote.test\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\nclean\r\n" +
		"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: BINARY\r\n\r\n" + binary + "\r\n--b\r\n\r\nno\nheader\r\n--b--\r\n"
	m := from(t, "x@remote.test")
	m.Body = smtp.BodyBinary
	got, err := h.send(t, stranger(), m, raw, "anna@example.test", "away@example.test")
	must(t, err)
	if strings.ContainsAny(strings.ReplaceAll(got.text, "\r\n", ""), "\r\n\x00") {
		t.Errorf("bare octets are stored:\n%q", got.text)
	}
	p := message.ParseBytes([]byte(got.text))
	read := func(path int) string {
		text, err := io.ReadAll(p.Section(path).Decoded(strings.NewReader(got.text)))
		must(t, err)
		return string(text)
	}
	if read(1) != "clean" || read(2) != binary || read(3) != "no\nheader" {
		t.Errorf("parts: %q %q %q", read(1), read(2), read(3))
	}
	if p.Encoding != "8bit" || p.Section(1).Encoding != "8bit" || p.Section(2).Encoding != "base64" {
		t.Errorf("encodings: %s %s %s", p.Encoding, p.Section(1).Encoding, p.Section(2).Encoding)
	}
	if got.Queue.Body != "" {
		t.Errorf("queued as %q", got.Queue.Body)
	}
	checkDigest(t, "binary", got)

	clean := "From: x@remote.test\r\n\r\nclean\r\n"
	if got, err = h.send(t, stranger(), m, clean, "anna@example.test"); err != nil || !strings.HasSuffix(got.text, clean) {
		t.Errorf("clean content changed: %v\n%s", err, got.text)
	}
	for name, raw := range map[string]string{
		"bare LF in the header": "Subject: a\nb\r\n\r\nx\n",
		"between parts":         "Content-Type: multipart/mixed; boundary=b\r\n\r\npre\namble\r\n--b\r\n\r\nx\r\n--b--\r\n",
		"in base64":             "Content-Transfer-Encoding: base64\r\n\r\nAAAA\nAAAA\r\n",
	} {
		if _, err := h.send(t, stranger(), m, raw, "anna@example.test"); code(t, err) != "554 5.6.3" {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := strings.Repeat("\x00\n\xff", 100_000)
	if got, err = h.send(t, stranger(), m, "Subject: x\r\n\r\n"+whole, "anna@example.test"); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(message.ParseBytes([]byte(got.text)).Decoded(strings.NewReader(got.text)))
	if err != nil || string(text) != whole {
		t.Errorf("%d octets of %d came back, %v", len(text), len(whole), err)
	}
}

type notices struct {
	list []Notice
	raw  string
	err  error
}

func (n *notices) Delivered(x Notice) ([]byte, error) {
	n.list = append(n.list, x)
	return []byte(n.raw), n.err
}

// The notification is committed together with the message that it is about.
func TestNotificationOfSuccessIsOneTransaction(t *testing.T) {
	t.Parallel()
	n := &notices{raw: "From: MAILER-DAEMON@mx.example.test\r\nSubject: delivered\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n"}
	h := newHouse(t, func(o *Options) { o.Notifier = n })
	for sender, here := range map[string]bool{"x@remote.test": false, "bo@example.test": true, "gone@example.test": false} {
		before := len(h.ledger.got)
		tx := h.Begin(stranger())
		must(t, tx.Mail(t.Context(), from(t, sender)))
		must(t, tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, "anna@example.test"), Notify: smtp.NotifySuccess}))
		sp, err := tx.Spool()
		must(t, err)
		_, err = io.WriteString(sp, plain)
		must(t, err)
		_, err = tx.Commit(t.Context())
		must(t, err)
		if sender == "gone@example.test" { // one that can't be sent keeps nothing from its recipients
			if got := h.ledger.got[before]; len(got.Local) != 1 || len(got.Also) != 0 {
				t.Errorf("%+v", got)
			}
			continue
		}
		if len(h.ledger.got) != before+1 || len(h.ledger.got[before].Also) != 1 {
			t.Fatalf("%s: %d deliveries", sender, len(h.ledger.got)-before)
		}
		note := h.ledger.got[before].Also[0]
		switch {
		case here && (len(note.Local) != 1 || note.Local[0].Account != h.ids["bo"] || note.Queue != nil):
			t.Errorf("%s: %+v", sender, note)
		case !here && (len(note.Local) != 0 || note.Queue == nil || note.Queue.From != "" || note.Queue.Recipients[0].To != sender):
			t.Errorf("%s: %+v", sender, note)
		}
	}
}

func TestNotificationOfSuccess(t *testing.T) {
	t.Parallel()
	n := &notices{err: errors.New("no notification today")} // delivery stands all the same
	h := newHouse(t, func(o *Options) { o.Notifier = n })
	run := func(sender string) filed {
		t.Helper()
		tx := h.Begin(stranger())
		must(t, tx.Mail(t.Context(), smtp.Mail{From: addr(t, sender), EnvID: "QQ314", Ret: "HDRS"}))
		for to, notify := range map[string]smtp.Notify{
			"anna@example.test": smtp.NotifySuccess, "bo@example.test": smtp.NotifyFailure,
			"mixed@example.test": smtp.NotifySuccess | smtp.NotifyFailure, "away@example.test": smtp.NotifySuccess,
		} {
			must(t, tx.Rcpt(t.Context(), smtp.Rcpt{To: addr(t, to), Notify: notify, ORcpt: "rfc822;orig-" + to}))
		}
		sp, err := tx.Spool()
		must(t, err)
		_, err = io.WriteString(sp, plain)
		must(t, err)
		_, err = tx.Commit(t.Context())
		must(t, err)
		return h.ledger.got[len(h.ledger.got)-1]
	}
	got := run("x@remote.test")
	if len(n.list) != 1 {
		t.Fatalf("%d notices", len(n.list))
	}
	x := n.list[0]
	told := map[string]string{}
	for _, r := range x.Recipients {
		told[r.To] = r.Action + " " + r.ORcpt
	}
	if x.From != "x@remote.test" || x.EnvID != "QQ314" || x.Ret != "HDRS" || len(told) != 2 ||
		told["anna@example.test"] != "delivered rfc822;orig-anna@example.test" || told["mixed@example.test"] != "expanded rfc822;orig-mixed@example.test" {
		t.Errorf("%+v", x)
	}
	for _, r := range got.Queue.Recipients {
		want := smtp.NotifyFailure // behind a group success is no longer reported
		if r.To == "anna@remote.test" {
			want = smtp.NotifySuccess
		}
		if smtp.Notify(r.Notify) != want {
			t.Errorf("%s: NOTIFY %d, want %d", r.To, r.Notify, want)
		}
	}
	if got.Queue.EnvID != "QQ314" || got.Queue.Ret != "HDRS" {
		t.Errorf("%+v", got.Queue)
	}
	if run(""); len(n.list) != 1 {
		t.Error("a notification for the null sender")
	}
}

func TestSubmitTakesMailOfThisServer(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	raw := "From: Mail Delivery System <postmaster@mx.example.test>\r\nBcc: x@y.test\r\nSubject: failed\r\n\r\nsorry\r\n"
	r, err := h.Submit(t.Context(), address.Address{}, []address.Address{addr(t, "anna@example.test"), addr(t, "x@remote.test")}, []byte(raw))
	if err != nil || r.Local != 1 || r.Remote != 1 || r.Queue == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	got := h.ledger.got[0]
	want := "Return-Path: <>\r\nReceived: by mx.example.test with LOCAL id TRACE;\r\n\tSat, 21 Nov 2026 12:00:00 +0800\r\n" +
		"Date: Sat, 21 Nov 2026 12:00:00 +0800\r\nMessage-ID: <TRACE@mx.example.test>\r\n" + strings.Replace(raw, "Bcc: x@y.test\r\n", "", 1)
	if got.text != want || got.Queue.From != "" || got.Queue.Account != 0 {
		t.Errorf("%+v\n%s", got.Queue, got.text)
	}
	for name, to := range map[string]string{"unknown": "nobody@example.test", "suspended": "sue@example.test"} {
		_, err := h.Submit(t.Context(), address.Address{}, []address.Address{addr(t, "anna@example.test"), addr(t, to)}, []byte(raw))
		if !isReply(err) || !strings.Contains(err.Error(), to) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.Submit(t.Context(), address.Address{}, nil, []byte(raw)); !isReply(err) {
		t.Errorf("without recipients: %v", err)
	}
	if len(h.ledger.got) != 1 {
		t.Errorf("%d filed: all or none", len(h.ledger.got))
	}
	h.ledger.err = store.ErrFull
	if _, err := h.Submit(t.Context(), address.Address{}, []address.Address{addr(t, "x@remote.test")}, []byte(raw)); !isReply(err) {
		t.Errorf("full: %v", err)
	}
}

// TestSubmitTellsByTheContentWhetherSMTPUTF8IsNeeded holds that a notification with an internationalized header goes only
// where it can be read, though its null sender is ASCII.
func TestSubmitTellsByTheContentWhetherSMTPUTF8IsNeeded(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, to, header string
		utf8             bool
	}{
		{"ASCII", "x@remote.test", "To: <x@remote.test>\r\n", false},
		{"header", "x@remote.test", "To: 张三 <x@remote.test>\r\n", true},
		{"recipient", "张三@remote.test", "Subject: x\r\n", true},
	} {
		h := newHouse(t)
		raw := "From: <postmaster@mx.example.test>\r\n" + tc.header + "\r\n邮件未能送达\r\n"
		if _, err := h.Submit(t.Context(), address.Address{}, []address.Address{addr(t, tc.to)}, []byte(raw)); err != nil {
			t.Fatal(tc.name, err)
		}
		if q := h.ledger.got[0].Queue; q.UTF8 != tc.utf8 || q.Body != string(smtp.Body8Bit) {
			t.Errorf("%s: SMTPUTF8 %v, BODY %q", tc.name, q.UTF8, q.Body)
		}
	}
}

// TestNeedsTLS: what the sender asks of the way on stands in the queue's row (RFC 8689, sections 3 and 4.1).
func TestNeedsTLS(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	for _, tc := range []struct {
		mail   smtp.TLSNeed
		header string
		want   smtp.TLSNeed
	}{
		{smtp.TLSDefault, "", smtp.TLSDefault},
		{smtp.TLSRequired, "", smtp.TLSRequired},
		{smtp.TLSDefault, "TLS-Required: No\r\n", smtp.TLSOptional},
		{smtp.TLSDefault, "tls-required:\r\n NO\r\n", smtp.TLSOptional},
		{smtp.TLSDefault, "TLS-Required: Yes\r\n", smtp.TLSDefault},
		{smtp.TLSDefault, "TLS-Required: No\r\nTLS-Required: No\r\n", smtp.TLSDefault},
		{smtp.TLSRequired, "TLS-Required: No\r\n", smtp.TLSRequired},
	} {
		m := from(t, "x@remote.test")
		m.TLS = tc.mail
		got, err := h.send(t, stranger(), m, tc.header+"\r\nx\r\n", "away@example.test")
		if must(t, err); smtp.TLSNeed(got.Queue.TLS) != tc.want {
			t.Errorf("%d with %q: %d, want %d", tc.mail, tc.header, got.Queue.TLS, tc.want)
		}
	}
}
