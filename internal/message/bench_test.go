package message

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// ordinaryMail is what most mail looks like: a dozen trace and list fields, a plain and an HTML text, and when size asks
// for it a file in base64.
func ordinaryMail(size int) []byte {
	var b strings.Builder
	for _, f := range []string{
		"Return-Path: <bounce-12345@news.example.test>",
		"Received: from mail.example.test (mail.example.test [192.0.2.1])\r\n\tby mx.example.org with ESMTPS id 4a5b6c\r\n\tfor <bob@example.org>; Sat, 21 Nov 2026 10:00:00 +0800",
		"Received: from app.example.test ([192.0.2.2])\r\n\tby mail.example.test with ESMTP; Sat, 21 Nov 2026 09:59:59 +0800",
		"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.test; s=s1;\r\n\th=from:to:subject:date; bh=" + strings.Repeat("A", 44) + ";\r\n\tb=" + strings.Repeat("B", 70) + "\r\n\t " + strings.Repeat("C", 70),
		"From: =?utf-8?B?5byg5LiJ?= <zhang@example.test>",
		"To: Bob <bob@example.org>, \"Smith, Ann\" <ann@example.org>",
		"Subject: =?utf-8?B?5YWz5LqO5Lya6K6u55qE6YCa55+l?=",
		"Date: Sat, 21 Nov 2026 09:59:58 +0800",
		"Message-ID: <20261121095958.12345@example.test>",
		"References: <1@example.test> <2@example.test>",
		"List-Unsubscribe: <https://example.test/unsubscribe>",
		"MIME-Version: 1.0",
		"Content-Type: multipart/mixed; boundary=\"----=_Part_1\"",
	} {
		b.WriteString(f + "\r\n")
	}
	b.WriteString("\r\n------=_Part_1\r\nContent-Type: multipart/alternative; boundary=\"----=_Part_2\"\r\n\r\n" +
		"------=_Part_2\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	b.WriteString(strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eius=\r\n", 40))
	b.WriteString("\r\n------=_Part_2\r\nContent-Type: text/html; charset=utf-8\r\n\r\n")
	b.WriteString(strings.Repeat("<p>Lorem ipsum dolor sit amet, <b>consectetur</b> adipiscing elit.</p>\r\n", 40))
	b.WriteString("\r\n------=_Part_2--\r\n")
	b.WriteString("\r\n------=_Part_1\r\nContent-Type: application/pdf; name=\"report.pdf\"\r\nContent-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: attachment; filename=\"report.pdf\"\r\n\r\n")
	line := strings.Repeat("ABCDefgh0123+/ab", 5)[:76] + "\r\n"
	for b.Len() < size-25 {
		b.WriteString(line)
	}
	b.WriteString("\r\n------=_Part_1--\r\n")
	return []byte(b.String())
}

func BenchmarkParse(b *testing.B) {
	for name, raw := range map[string][]byte{
		"10KB": ordinaryMail(10 << 10),
		"1MB":  ordinaryMail(1 << 20),
		"1MB-text": []byte("Subject: x\r\n\r\n" + strings.Repeat("Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do.\r\n",
			1<<20/68)),
	} {
		b.Run(name, func(b *testing.B) {
			r := bytes.NewReader(raw)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(r, int64(len(raw)), DefaultLimits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendEnvelope(b *testing.B) {
	p := ParseBytes(ordinaryMail(10 << 10))
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEnvelope(buf[:0], p.Header)
	}
}

func BenchmarkAppendBodyStructure(b *testing.B) {
	p := ParseBytes(ordinaryMail(10 << 10))
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBodyStructure(buf[:0], p, true)
	}
}

func BenchmarkPreview(b *testing.B) {
	raw := ordinaryMail(10 << 10)
	p := ParseBytes(raw)
	r := bytes.NewReader(raw)
	b.ReportAllocs()
	for b.Loop() {
		Preview(p, r)
	}
}

func BenchmarkDecoded(b *testing.B) {
	raw := ordinaryMail(1 << 20)
	p := ParseBytes(raw).Section(2)
	r := bytes.NewReader(raw)
	b.SetBytes(p.Size())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.Copy(io.Discard, p.Decoded(r)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeHeader(b *testing.B) {
	raw := []byte("=?utf-8?B?5YWz5LqO5Lya6K6u55qE6YCa55+l?=")
	b.ReportAllocs()
	for b.Loop() {
		DecodeHeader(raw)
	}
}

// The budgets are what one delivery may allocate; raise them only with a reason.
func TestAllocationBudgets(t *testing.T) {
	raw := ordinaryMail(10 << 10)
	r := bytes.NewReader(raw)
	p := ParseBytes(raw)
	buf := make([]byte, 0, 4096)
	for name, c := range map[string]struct {
		budget float64
		fn     func()
	}{
		"parse":         {60, func() { _, _ = Parse(r, int64(len(raw)), DefaultLimits) }},
		"envelope":      {30, func() { AppendEnvelope(buf[:0], p.Header) }},
		"bodystructure": {10, func() { AppendBodyStructure(buf[:0], p, true) }},
		"preview":       {20, func() { Preview(p, r) }},
	} {
		if got := testing.AllocsPerRun(50, c.fn); got > c.budget {
			t.Errorf("%s: %.0f allocations, the budget is %.0f", name, got, c.budget)
		}
	}
}
