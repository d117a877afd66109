package system

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"

	"waxwing/test/rig"
)

// TestThousandMessagesArriveByteForByte sends 1,000 messages over 20 connections and reads them back by IMAP and POP3:
// every octet that was sent must be there, behind the header fields that the server sets.
func TestThousandMessagesArriveByteForByte(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	const messages, connections = 1000, 20
	sent := make(map[string][]byte, messages)
	for i := range messages {
		token := fmt.Sprintf("t%04d", i)
		body := letter("sender@far.test", ada.Address, token)
		sent[token] = append(body, bytes.Repeat([]byte("a line of text that makes the message longer\r\n"), i%200)...)
	}
	var wg sync.WaitGroup
	errs := make([]error, connections)
	for k := range connections {
		wg.Go(func() { errs[k] = sendShare(n.SMTP, sent, k, connections) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}

	c, _ := mailbox(t, n, ada, "INBOX")
	byIMAP := fetchAll(t, c)
	if len(byIMAP) != messages {
		t.Fatalf("IMAP shows %d messages, want %d", len(byIMAP), messages)
	}
	last := byIMAP[0].uid - 1
	for _, m := range byIMAP {
		if m.uid <= last {
			t.Errorf("UID %d after %d", m.uid, last)
		}
		last = m.uid
		if m.size != int64(len(m.body)) {
			t.Errorf("UID %d: RFC822.SIZE %d, but %d octets came", m.uid, m.size, len(m.body))
		}
		checkArrived(t, sent, m.body)
	}

	byPOP3 := popAll(t, n, ada)
	if len(byPOP3) != messages {
		t.Fatalf("POP3 shows %d messages, want %d", len(byPOP3), messages)
	}
	for i, body := range byPOP3 {
		if !bytes.Equal(body, byIMAP[i].body) {
			t.Errorf("message %d differs between POP3 and IMAP", i+1)
		}
	}
}

func sendShare(address string, sent map[string][]byte, k, of int) error {
	c, err := smtp.Dial(address)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := k; i < len(sent); i += of {
		body := sent[fmt.Sprintf("t%04d", i)]
		if err := c.SendMail("sender@far.test", []string{ada.Address}, bytes.NewReader(body)); err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	return c.Quit()
}

// checkArrived finds the token of a stored message and compares it with what was sent.
func checkArrived(t *testing.T, sent map[string][]byte, stored []byte) {
	t.Helper()
	_, rest, _ := bytes.Cut(stored, []byte("Subject: letter "))
	token, _, _ := bytes.Cut(rest, []byte("\r\n"))
	want, ok := sent[string(token)]
	if !ok {
		t.Errorf("no message has the token %q", token)
		return
	}
	trace, ok := bytes.CutSuffix(stored, want)
	if !ok {
		t.Errorf("%s: what is stored does not end in what was sent", token)
		return
	}
	for _, line := range strings.Split(strings.TrimSuffix(string(trace), "\r\n"), "\r\n") {
		if !strings.HasPrefix(line, "Return-Path:") && !strings.HasPrefix(line, "Received:") &&
			!strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, " ") {
			t.Errorf("%s: the server set an unexpected line: %q", token, line)
		}
	}
}

// popAll downloads a maildrop over POP3 with TLS and checks the announced sizes.
func popAll(t *testing.T, n *rig.Node, a rig.Account) [][]byte {
	t.Helper()
	nc, err := tls.Dial("tcp", n.POP3S, trust(t, n.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	r := textproto.NewReader(bufio.NewReader(nc))
	command := func(format string, args ...any) string {
		if format != "" {
			fmt.Fprintf(nc, format+"\r\n", args...)
		}
		line, err := r.ReadLine()
		if err != nil || !strings.HasPrefix(line, "+OK") {
			t.Fatalf("POP3 %s: %q %v", strings.Fields(format + " greeting")[0], line, err)
		}
		return line
	}
	command("")
	command("USER %s", a.Address)
	command("PASS %s", a.Password)
	command("LIST")
	list, err := r.ReadDotLines()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for i, line := range list {
		command("RETR %d", i+1)
		body := dotBody(t, r.R)
		if want := fmt.Sprintf("%d %d", i+1, len(body)); line != want {
			t.Errorf("LIST says %q, RETR gave %q", line, want)
		}
		all = append(all, body)
	}
	command("QUIT")
	return all
}

// dotBody reads a dot-stuffed body with its CRLFs, which textproto would turn into LF.
func dotBody(t *testing.T, r *bufio.Reader) []byte {
	t.Helper()
	var body []byte
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err, io.ErrUnexpectedEOF)
		}
		if string(line) == ".\r\n" {
			return body
		}
		body = append(body, bytes.TrimPrefix(line, []byte("."))...)
	}
}
