package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// popTimes is one POP3 download of a whole maildrop.
type popTimes struct {
	Messages int
	UIDL     time.Duration
	RETR     time.Duration
}

// timePOP3 lists and fetches every message, pipelined a few at a time as the faster clients do.
func timePOP3(address, user, password string, pipeline int) (popTimes, error) {
	var t popTimes
	tc, err := tls.Dial("tcp", address, benchTLS())
	if err != nil {
		return t, err
	}
	defer tc.Close()
	r := bufio.NewReaderSize(tc, 256<<10)
	if _, err := popLine(r); err != nil {
		return t, err
	}
	for _, command := range []string{"USER " + user, "PASS " + password} {
		fmt.Fprintf(tc, "%s\r\n", command)
		if _, err := popLine(r); err != nil {
			return t, err
		}
	}
	began := time.Now()
	fmt.Fprint(tc, "UIDL\r\n")
	if _, err := popLine(r); err != nil {
		return t, err
	}
	lines, err := popBody(r)
	if err != nil {
		return t, err
	}
	t.Messages, t.UIDL = lines, time.Since(began)

	began = time.Now()
	sent := 0
	for got := 1; got <= t.Messages; got++ {
		for sent < t.Messages && sent < got+pipeline-1 {
			sent++
			fmt.Fprintf(tc, "RETR %d\r\n", sent)
		}
		if _, err := popLine(r); err != nil {
			return t, err
		}
		if _, err := popBody(r); err != nil {
			return t, err
		}
	}
	t.RETR = time.Since(began)
	fmt.Fprint(tc, "QUIT\r\n")
	_, err = popLine(r)
	return t, err
}

func popLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("pop3: %s", strings.TrimSpace(line))
	}
	return line, err
}

// popBody reads a multi-line answer and counts its lines.
func popBody(r *bufio.Reader) (lines int, err error) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return lines, err
		}
		if len(line) == 3 && line[0] == '.' {
			return lines, nil
		}
		lines++
	}
}
