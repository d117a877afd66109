package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// imapConn is the cheapest client that still keeps in step: it skips literals and stops at the tagged answer.
type imapConn struct {
	*tls.Conn
	r   *bufio.Reader
	tag int
}

func dialIMAP(address, user, password string) (*imapConn, error) {
	tc, err := tls.Dial("tcp", address, benchTLS())
	if err != nil {
		return nil, err
	}
	c := &imapConn{Conn: tc, r: bufio.NewReaderSize(tc, 256<<10)}
	if _, err := c.r.ReadSlice('\n'); err != nil {
		tc.Close()
		return nil, err
	}
	if _, err := c.do("LOGIN %s %s", user, password); err != nil {
		tc.Close()
		return nil, err
	}
	return c, nil
}

// do sends one command and reads to its tagged answer; it returns the octets that came back.
func (c *imapConn) do(format string, args ...any) (int64, error) {
	c.tag++
	tag := "a" + strconv.Itoa(c.tag)
	if _, err := fmt.Fprintf(c, "%s %s\r\n", tag, fmt.Sprintf(format, args...)); err != nil {
		return 0, err
	}
	return c.await(tag)
}

func (c *imapConn) await(tag string) (int64, error) {
	prefix := []byte(tag + " ")
	var octets int64
	for atStart := true; ; {
		line, err := c.r.ReadSlice('\n')
		octets += int64(len(line))
		if err == bufio.ErrBufferFull {
			atStart = false
			continue
		}
		if err != nil {
			return octets, err
		}
		if atStart && bytes.HasPrefix(line, prefix) {
			if !bytes.HasPrefix(line[len(prefix):], []byte("OK")) {
				return octets, fmt.Errorf("imap: %s", bytes.TrimSpace(line))
			}
			return octets, nil
		}
		if n := literalSize(line); n > 0 {
			if _, err := io.CopyN(io.Discard, c.r, n); err != nil {
				return octets, err
			}
			octets += n
			atStart = false
			continue
		}
		atStart = true
	}
}

func literalSize(line []byte) int64 {
	line = bytes.TrimRight(line, "\r\n")
	open := bytes.LastIndexByte(line, '{')
	if open < 0 || !bytes.HasSuffix(line, []byte("}")) {
		return 0
	}
	n, err := strconv.ParseInt(string(line[open+1:len(line)-1]), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (c *imapConn) append(mailbox string, body []byte) error {
	c.tag++
	tag := "a" + strconv.Itoa(c.tag)
	if _, err := fmt.Fprintf(c, "%s APPEND %s {%d}\r\n", tag, mailbox, len(body)); err != nil {
		return err
	}
	if line, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+") {
		return fmt.Errorf("append: %q %w", line, err)
	}
	if _, err := c.Write(append(body, '\r', '\n')); err != nil {
		return err
	}
	_, err := c.await(tag)
	return err
}

// fillIMAP appends count messages of size octets to INBOX over a few connections.
func fillIMAP(address, user, password string, count, size int) error {
	const connections = 4
	errs := make(chan error, connections)
	for k := range connections {
		go func() {
			c, err := dialIMAP(address, user, password)
			if err != nil {
				errs <- err
				return
			}
			defer c.Close()
			var b bytes.Buffer
			for n := k; n < count && err == nil; n += connections {
				b.Reset()
				writeMessage(&b, n, size, "sender@bench.test", user)
				err = c.append("INBOX", b.Bytes())
			}
			errs <- err
		}()
	}
	for range connections {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// imapTask is one timed command; it is run a few times and the median counts.
type imapTask struct {
	name, command string
}

var imapTasks = []imapTask{
	{"SELECT", "SELECT INBOX"},
	{"FETCH FLAGS", "FETCH 1:* (FLAGS)"},
	{"FETCH ENVELOPE", "FETCH 1:* (ENVELOPE)"},
	{"FETCH header fields", "FETCH 1:* (BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT MESSAGE-ID)])"},
	{"FETCH BODYSTRUCTURE", "FETCH 1:* (BODYSTRUCTURE)"},
	{"FETCH full bodies", "FETCH 1:* (BODY.PEEK[])"},
	{"SEARCH FROM", "SEARCH FROM nobody"},
	{"SEARCH SUBJECT", "SEARCH SUBJECT 4242"},
	{"SEARCH TEXT", "SEARCH TEXT unfindable"},
	{"STORE flag on all", "STORE 1:* +FLAGS.SILENT (\\Flagged)"},
	{"UNSTORE flag on all", "STORE 1:* -FLAGS.SILENT (\\Flagged)"},
}

// timeIMAP runs the tasks on a filled mailbox: one round unmeasured, so that both sides have their caches warm.
func timeIMAP(address, user, password string, rounds int) (map[string]time.Duration, error) {
	c, err := dialIMAP(address, user, password)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	samples := map[string][]time.Duration{}
	for round := -1; round < rounds; round++ {
		for _, task := range imapTasks {
			began := time.Now()
			if _, err := c.do("%s", task.command); err != nil {
				return nil, fmt.Errorf("%s: %w", task.name, err)
			}
			if round >= 0 {
				samples[task.name] = append(samples[task.name], time.Since(began))
			}
		}
	}
	medians := map[string]time.Duration{}
	for name, s := range samples {
		medians[name] = median(s)
	}
	return medians, nil
}

// idleIMAP opens count sessions that have INBOX selected and wait in IDLE. Close ends them.
func idleIMAP(address, user, password string, count int) (closeAll func(), err error) {
	var conns []*imapConn
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for range count {
		c, err := dialIMAP(address, user, password)
		if err != nil {
			closeAll()
			return nil, err
		}
		conns = append(conns, c)
		if _, err := c.do("SELECT INBOX"); err != nil {
			closeAll()
			return nil, err
		}
		fmt.Fprintf(c, "i IDLE\r\n")
		if _, err := c.r.ReadSlice('\n'); err != nil {
			closeAll()
			return nil, err
		}
	}
	return closeAll, nil
}

// messages asks STATUS for the number of messages in a mailbox.
func (c *imapConn) messages(mailbox string) (int, error) {
	c.tag++
	fmt.Fprintf(c, "a%d STATUS %s (MESSAGES)\r\n", c.tag, mailbox)
	n := -1
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if _, rest, ok := strings.Cut(line, "(MESSAGES "); ok {
			if n, err = strconv.Atoi(rest[:strings.IndexByte(rest, ')')]); err != nil {
				return 0, err
			}
		}
		if strings.HasPrefix(line, fmt.Sprintf("a%d ", c.tag)) {
			if n < 0 {
				return 0, fmt.Errorf("imap: no STATUS: %s", strings.TrimSpace(line))
			}
			return n, nil
		}
	}
}
