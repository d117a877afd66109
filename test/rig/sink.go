package rig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// Sink is an SMTP server that accepts and throws away: where mail that leaves a system under test goes.
type Sink struct {
	Address string
	// OnMessage sees each message before it is answered; it runs on the connection's goroutine. nil throws away.
	OnMessage func(from string, to []string, body []byte)

	answer   func(command string) string
	received atomic.Int64
	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	wg       sync.WaitGroup
}

// StartSink listens on a free loopback port. onMessage may be nil.
func StartSink(onMessage func(from string, to []string, body []byte)) (*Sink, error) {
	return StartSinkAt("127.0.0.1:0", nil, onMessage)
}

// StartSinkAt listens at an address. answer, unless nil, gives the reply to a command (MAIL, RCPT or DATA), "" for the
// usual one; it runs on the connections' goroutines.
func StartSinkAt(address string, answer func(command string) string, onMessage func(from string, to []string, body []byte)) (*Sink, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	k := &Sink{Address: l.Addr().String(), OnMessage: onMessage, answer: answer, listener: l, conns: map[net.Conn]struct{}{}}
	k.wg.Go(k.accept)
	return k, nil
}

// Received counts the messages that the sink has answered 250 to.
func (k *Sink) Received() int64 { return k.received.Load() }

// Stop closes the sink and its connections.
func (k *Sink) Stop() {
	k.listener.Close()
	k.mu.Lock()
	for c := range k.conns {
		c.Close()
	}
	k.mu.Unlock()
	k.wg.Wait()
}

func (k *Sink) accept() {
	for {
		c, err := k.listener.Accept()
		if err != nil {
			return
		}
		k.mu.Lock()
		k.conns[c] = struct{}{}
		k.mu.Unlock()
		k.wg.Go(func() {
			k.session(c)
			c.Close()
			k.mu.Lock()
			delete(k.conns, c)
			k.mu.Unlock()
		})
	}
}

func (k *Sink) session(c net.Conn) {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	fmt.Fprint(w, "220 sink.test ESMTP\r\n")
	var from string
	var to []string
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb := strings.ToUpper(strings.TrimSpace(line))
		if reply := k.scripted(verb, strings.TrimSpace(line)); reply != "" {
			fmt.Fprintf(w, "%s\r\n", reply)
			continue
		}
		switch {
		case strings.HasPrefix(verb, "EHLO"):
			fmt.Fprint(w, "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n")
		case strings.HasPrefix(verb, "MAIL"):
			from, to = strings.TrimSpace(line), nil
			fmt.Fprint(w, "250 ok\r\n")
		case strings.HasPrefix(verb, "RCPT"):
			to = append(to, strings.TrimSpace(line))
			fmt.Fprint(w, "250 ok\r\n")
		case verb == "DATA":
			if len(to) == 0 {
				fmt.Fprint(w, "554 no recipients\r\n")
				continue
			}
			fmt.Fprint(w, "354 go on\r\n")
			if w.Flush() != nil {
				return
			}
			body, ok := readBody(r, k.OnMessage != nil)
			if !ok {
				return
			}
			if k.OnMessage != nil {
				k.OnMessage(from, to, body)
			}
			k.received.Add(1)
			fmt.Fprint(w, "250 taken\r\n")
		case verb == "QUIT":
			fmt.Fprint(w, "221 bye\r\n")
			w.Flush()
			return
		default:
			fmt.Fprint(w, "250 ok\r\n")
		}
	}
}

// scripted is the reply that the test wants to a command, "" for none.
func (k *Sink) scripted(verb, command string) string {
	if k.answer == nil || !strings.HasPrefix(verb, "MAIL") && !strings.HasPrefix(verb, "RCPT") && verb != "DATA" {
		return ""
	}
	return k.answer(command)
}

// readBody reads to the lone dot; it keeps the unstuffed octets only when asked to.
func readBody(r *bufio.Reader, keep bool) (body []byte, ok bool) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil, false
		}
		if string(line) == ".\r\n" {
			return body, true
		}
		if keep {
			body = append(body, bytes.TrimPrefix(line, []byte("."))...)
		}
	}
}
