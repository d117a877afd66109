package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// smtpJob is one load of SMTP: Messages of Size octets over Connections connections, one after the other on each.
type smtpJob struct {
	Address     string
	Connections int
	Messages    int
	Size        int
	From        string
	To          []string // recipients in turn
	User        string   // with Password: STARTTLS and AUTH PLAIN first
	Password    string
}

// smtpResult says how it went; Latencies are from MAIL to the answer after the final dot.
type smtpResult struct {
	Accepted  int
	Took      time.Duration
	Latencies []time.Duration
}

func (r smtpResult) perSecond() float64 { return float64(r.Accepted) / r.Took.Seconds() }

// run drives the load. Every message has its own body, so that nothing is shared by its content.
func (j smtpJob) run(ctx context.Context) (smtpResult, error) {
	var next atomic.Int64
	results := make([]smtpResult, j.Connections)
	errs := make([]error, j.Connections)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range j.Connections {
		wg.Go(func() { results[i], errs[i] = j.session(ctx, &next) })
	}
	wg.Wait()
	total := smtpResult{Took: time.Since(start)}
	for _, r := range results {
		total.Accepted += r.Accepted
		total.Latencies = append(total.Latencies, r.Latencies...)
	}
	return total, errors.Join(errs...)
}

func (j smtpJob) session(ctx context.Context, next *atomic.Int64) (smtpResult, error) {
	var r smtpResult
	c, err := dialSMTP(ctx, j.Address, j.User, j.Password)
	if err != nil {
		return r, err
	}
	defer c.close()
	var body bytes.Buffer
	for {
		n := int(next.Add(1)) - 1
		if n >= j.Messages || ctx.Err() != nil {
			return r, ctx.Err()
		}
		to := j.To[n%len(j.To)]
		body.Reset()
		writeMessage(&body, n, j.Size, j.From, to)
		began := time.Now()
		if err := c.send(j.From, to, body.Bytes()); err != nil {
			return r, fmt.Errorf("message %d: %w", n, err)
		}
		r.Accepted++
		r.Latencies = append(r.Latencies, time.Since(began))
	}
}

type smtpConn struct {
	net.Conn
	r *bufio.Reader
}

func dialSMTP(ctx context.Context, address, user, password string) (*smtpConn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &smtpConn{nc, bufio.NewReader(nc)}
	if err := c.greet(user, password); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (c *smtpConn) greet(user, password string) error {
	if err := c.expect("220"); err != nil {
		return err
	}
	if err := c.command("250", "EHLO bench.test"); err != nil || user == "" {
		return err
	}
	if err := c.command("220", "STARTTLS"); err != nil {
		return err
	}
	tc := tls.Client(c.Conn, benchTLS())
	if err := tc.Handshake(); err != nil {
		return err
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
	if err := c.command("250", "EHLO bench.test"); err != nil {
		return err
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	return c.command("235", "AUTH PLAIN "+plain)
}

// send pipelines the envelope, as every modern client does (RFC 2920).
func (c *smtpConn) send(from, to string, body []byte) error {
	if _, err := fmt.Fprintf(c, "MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n", from, to); err != nil {
		return err
	}
	for _, code := range []string{"250", "250", "354"} {
		if err := c.expect(code); err != nil {
			return err
		}
	}
	if _, err := c.Write(body); err != nil {
		return err
	}
	return c.command("250", ".")
}

func (c *smtpConn) command(code, line string) error {
	if _, err := fmt.Fprintf(c, "%s\r\n", line); err != nil {
		return err
	}
	return c.expect(code)
}

func (c *smtpConn) expect(code string) error {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return err
		}
		if len(line) >= 4 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("wanted %s, got %q", code, strings.TrimSpace(line))
		}
		return nil
	}
}

func (c *smtpConn) close() {
	fmt.Fprint(c, "QUIT\r\n")
	c.Close()
}

// writeMessage makes a message of about size octets in CRLF lines: half words, half base64, as mail is.
func writeMessage(b *bytes.Buffer, n, size int, from, to string) {
	fmt.Fprintf(b, "From: Bench <%s>\r\nTo: <%s>\r\nSubject: message %d of the bench\r\nMessage-ID: <%d.%d@bench.test>\r\n",
		from, to, n, n, size)
	fmt.Fprintf(b, "Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n")
	b.WriteString("Content-Type: multipart/mixed; boundary=\"frontier\"\r\n\r\n--frontier\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
	seed := uint64(n)*2654435761 + 1
	for b.Len() < size/2 {
		for col := 0; col < 66; {
			w := benchWords[next(&seed)%uint64(len(benchWords))]
			b.WriteString(w)
			b.WriteByte(' ')
			col += len(w) + 1
		}
		b.WriteString("\r\n")
	}
	b.WriteString("--frontier\r\nContent-Type: application/octet-stream; name=\"data.bin\"\r\nContent-Transfer-Encoding: base64\r\n" +
		"Content-Disposition: attachment; filename=\"data.bin\"\r\n\r\n")
	raw := make([]byte, 57)
	for b.Len() < size-90 {
		for i := range raw {
			raw[i] = byte(next(&seed) >> 24)
		}
		b.WriteString(base64.StdEncoding.EncodeToString(raw))
		b.WriteString("\r\n")
	}
	b.WriteString("--frontier--\r\n")
}

// next is a small xorshift: the same mail in every run.
func next(seed *uint64) uint64 {
	*seed ^= *seed << 13
	*seed ^= *seed >> 7
	*seed ^= *seed << 17
	return *seed
}

var benchWords = strings.Fields(`the letter arrived early this morning and nobody had opened it before noon because everyone was busy with
invoices reports meetings numbers plans deliveries schedules customers contracts summer winter station harbour window garden
quiet bright heavy simple useful careful between under above toward within without after while until`)

func benchTLS() *tls.Config {
	// The peers' certificates are made for this run and live on loopback; the load generator measures, it does not trust.
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
}
