package smtpserver

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"waxwing/internal/intake"
	"waxwing/internal/smtp"
)

// null takes messages and forgets them.
type null struct{}

func (null) MaxSize() int64                { return 1 << 25 }
func (null) MaxRecipients() int            { return 100 }
func (null) Offer() intake.Offer           { return intake.Offer{} }
func (null) Begin(intake.Peer) Transaction { return nullTransaction{} }

type nullTransaction struct{}

func (nullTransaction) Mail(context.Context, smtp.Mail) error { return nil }
func (nullTransaction) Rcpt(context.Context, smtp.Rcpt) error { return nil }
func (nullTransaction) Spool() (io.Writer, error)             { return io.Discard, nil }
func (nullTransaction) Abort()                                {}
func (nullTransaction) Commit(context.Context) (intake.Receipt, error) {
	return intake.Receipt{TraceID: "01J00000000000000000000000"}, nil
}

// envelope and message of 10 KB, as a pipelining client sends them.
var (
	benchEnvelope = "MAIL FROM:<sender@one.test> SIZE=10240 BODY=8BITMIME\r\nRCPT TO:<recipient@two.test>\r\nDATA\r\n"
	benchMessage  = strings.Repeat("A line of a message, as long as they usually are in mail: about 76 octets.\r\n", 131) + ".\r\n"
	benchWhole    = benchEnvelope + benchMessage
)

// endless is a peer that sends n messages in one session.
type endless struct {
	script
	n    int
	left string
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left == "" {
		if e.n == 0 {
			return 0, io.EOF
		}
		e.n--
		e.left = benchWhole
	}
	n := copy(b, e.left)
	e.left = e.left[n:]
	return n, nil
}

func (e *endless) Write(b []byte) (int, error) { return len(b), nil }

func benchServer() *Server {
	return New(Options{Hostname: "mx.test", Intake: null{}, Limits: Limits{Messages: 1 << 30, Early: -1}})
}

// BenchmarkMessage is the session's own work on one message of 10 KB, without sockets.
func BenchmarkMessage(b *testing.B) {
	srv := benchServer()
	defer srv.Shutdown(context.Background())
	b.ReportAllocs()
	b.SetBytes(int64(len(benchMessage)))
	nc := &endless{n: b.N, left: "HELO client.test\r\n"}
	b.ResetTimer()
	oneSession(srv, nc, MX)
	if nc.n != 0 {
		b.Fatalf("%d messages left", nc.n)
	}
}

// BenchmarkSession delivers 10 KB over loopback, a connection each message.
func BenchmarkSession(b *testing.B) {
	srv := benchServer()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l, MX)
	defer srv.Shutdown(context.Background())
	b.ReportAllocs()
	b.SetBytes(int64(len(benchMessage)))
	read, in := make([]byte, 4096), []byte("EHLO client.test\r\n"+benchWhole+"QUIT\r\n")
	for b.Loop() {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := nc.Write(in); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := nc.Read(read); err != nil {
				break
			}
		}
		nc.Close()
	}
}

// TestAllocationsOfAMessage holds the budget of the session's own work.
func TestAllocationsOfAMessage(t *testing.T) {
	srv := benchServer()
	defer srv.Shutdown(context.Background())
	const messages = 200
	n := testing.AllocsPerRun(3, func() {
		oneSession(srv, &endless{n: messages, left: "HELO client.test\r\n"}, MX)
	})
	if a := n / messages; a > 14 {
		t.Errorf("%.1f allocations a message", a)
	}
}
