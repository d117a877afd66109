package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// udpSize is the UDP payload that we say we take: it avoids fragments on all usual paths (DNS flag day 2020).
const udpSize = 1232

// packets holds buffers that any DNS message fits in.
var packets = sync.Pool{New: func() any { b := make([]byte, 65535); return &b }}

// try asks one server once: over UDP, over TCP when the answer did not fit, and without EDNS when it is not understood.
func (r *Resolver) try(ctx context.Context, s server, q question) (*mdns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	msg, err := r.exchange(ctx, "udp", s.addr, q, true)
	if errors.Is(err, errTruncated) {
		msg, err = r.exchange(ctx, "tcp", s.addr, q, true)
	}
	if errors.Is(err, errFormat) { // RFC 6891, section 6.2.2
		msg, err = r.exchange(ctx, "udp", s.addr, q, false)
		if errors.Is(err, errTruncated) {
			msg, err = r.exchange(ctx, "tcp", s.addr, q, false)
		}
	}
	return msg, err
}

// exchange sends one query on a socket of its own (so that each has a fresh random port, RFC 5452, section 9.2) and
// waits for the reply that belongs to it.
func (r *Resolver) exchange(ctx context.Context, network, addr string, q question, edns bool) (*mdns.Msg, error) {
	query := new(mdns.Msg)
	query.Id = mdns.Id() // from crypto/rand
	query.RecursionDesired = true
	query.AuthenticatedData = true // asks for AD in the answer without DO: RFC 6840, section 5.7
	query.Question = []mdns.Question{{Name: q.name, Qtype: q.qtype, Qclass: mdns.ClassINET}}
	if edns {
		query.SetEdns0(udpSize, false)
	}
	bufp := packets.Get().(*[]byte)
	defer packets.Put(bufp)
	out, err := query.PackBuffer((*bufp)[2:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	conn, err := r.opts.Dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if network == "tcp" {
		return overTCP(conn, query, out, *bufp)
	}
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	return overUDP(conn, query, *bufp)
}

// overUDP reads datagrams until one is the answer: others may be late answers to someone else, or forged.
func overUDP(conn net.Conn, query *mdns.Msg, buf []byte) (*mdns.Msg, error) {
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if n < 12 || binary.BigEndian.Uint16(buf) != query.Id {
			continue
		}
		msg := new(mdns.Msg)
		if err := msg.Unpack(buf[:n]); err != nil {
			if buf[2]&0x80 == 0 { // not a response at all
				continue
			}
			return nil, errTruncated // cut or damaged on the way: TCP tells
		}
		if !answers(msg, query) {
			continue
		}
		if msg.Truncated {
			return nil, errTruncated
		}
		return msg, formatError(msg, query)
	}
}

// overTCP sends out with its length in front and reads one message back (RFC 7766, section 8).
func overTCP(conn net.Conn, query *mdns.Msg, out, buf []byte) (*mdns.Msg, error) {
	if len(out) > 65535 {
		return nil, ErrName
	}
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, len(out)+2), uint16(len(out))), out...)
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	var head [2]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(conn, buf[:n]); err != nil {
		return nil, err
	}
	msg := new(mdns.Msg)
	if err := msg.Unpack(buf[:n]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if msg.Id != query.Id || !answers(msg, query) {
		return nil, fmt.Errorf("%w: it belongs to another question", ErrMalformed)
	}
	return msg, formatError(msg, query)
}

// answers tells whether msg is a response to query. Some servers leave the question out of an error.
func answers(msg, query *mdns.Msg) bool {
	if !msg.Response || msg.Opcode != mdns.OpcodeQuery {
		return false
	}
	if len(msg.Question) == 0 {
		return msg.Rcode != mdns.RcodeSuccess && msg.Rcode != mdns.RcodeNameError
	}
	got, want := msg.Question[0], query.Question[0]
	return len(msg.Question) == 1 && got.Qtype == want.Qtype && got.Qclass == want.Qclass && strings.EqualFold(got.Name, want.Name)
}

// formatError tells that the server choked on EDNS, when the query had it.
func formatError(msg, query *mdns.Msg) error {
	if query.IsEdns0() == nil {
		return nil
	}
	switch msg.Rcode {
	case mdns.RcodeFormatError, mdns.RcodeNotImplemented, mdns.RcodeBadVers:
		return errFormat
	}
	return nil
}
