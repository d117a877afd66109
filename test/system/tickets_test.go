package system

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"waxwing/test/rig"
)

// countedTickets counts the session tickets that a server hands out.
type countedTickets struct{ n atomic.Int32 }

func (c *countedTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

func (c *countedTickets) Put(_ string, state *tls.ClientSessionState) {
	if state != nil {
		c.n.Add(1)
	}
}

// TestSessionTicketsComeWhereNobodyBreaksOnThem looks for TLS 1.3 tickets: Microsoft's mail servers break off over them
// on port 25, and IMAP clients that read and write in two threads lose a command to them. Submission has them, which
// proves that the test can see one.
func TestSessionTicketsComeWhereNobodyBreaksOnThem(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	for _, tc := range []struct {
		name, address, greeting, upgrade, ready, noop string
		tickets                                       bool
	}{
		{"port 25", n.SMTP, "220", "EHLO c.test\r\nSTARTTLS", "220 ", "NOOP", false},
		{"submission", n.Submission, "220", "EHLO c.test\r\nSTARTTLS", "220 ", "NOOP", true},
		{"imap", n.IMAP, "* OK", "a STARTTLS", "a OK", "b NOOP", false},
		{"imaps", n.IMAPS, "* OK", "", "", "b NOOP", false},
		{"pop3", n.POP3, "+OK", "STLS", "+OK", "CAPA", false},
		{"pop3s", n.POP3S, "+OK", "", "", "CAPA", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tickets := &countedTickets{}
			cfg := trust(t, n.CAFile)
			cfg.ClientSessionCache = tickets
			nc, err := net.Dial("tcp", tc.address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			if tc.upgrade != "" {
				plain := bufio.NewReader(nc)
				readUntil(t, plain, tc.greeting)
				fmt.Fprintf(nc, "%s\r\n", tc.upgrade)
				if tc.greeting == "220" {
					readUntil(t, plain, "250 ")
				}
				readUntil(t, plain, tc.ready)
			}
			secure := tls.Client(nc, cfg)
			r := bufio.NewReader(secure)
			if tc.upgrade == "" {
				readUntil(t, r, tc.greeting)
			}
			fmt.Fprintf(secure, "%s\r\n", tc.noop) // a ticket comes before the answer to what follows the handshake
			if _, err := r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if got := tickets.n.Load() > 0; got != tc.tickets {
				t.Errorf("tickets came: %t, want %t", got, tc.tickets)
			}
		})
	}
}

// readUntil reads lines up to one that begins with prefix.
func readUntil(t *testing.T, r *bufio.Reader, prefix string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("waiting for %q: %v", prefix, err)
		}
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}
