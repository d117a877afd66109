package dnstest

import (
	"net"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
)

// serve answers one query.
func (s *Server) serve(w mdns.ResponseWriter, query *mdns.Msg) {
	if len(query.Question) != 1 {
		return
	}
	network := "udp"
	if _, ok := w.RemoteAddr().(*net.TCPAddr); ok {
		network = "tcp"
	}
	f := s.note(query, network, w.RemoteAddr())
	if f.Delay > 0 {
		t := time.NewTimer(f.Delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.stop:
			return
		}
	}
	if f.Hold != nil {
		select {
		case <-f.Hold:
		case <-s.stop:
			return
		}
	}
	if f.Drop {
		return
	}
	if f.NoTCP && network == "tcp" {
		_ = w.Close() // the client sees the end of the stream either way
		return
	}
	if f.Forge && network == "udp" {
		s.forge(w, query)
	}
	if f.Garbage {
		_, _ = w.Write(append([]byte{byte(query.Id >> 8), byte(query.Id), 0x84, 0}, "\x00\x01\xff\xff\x00\x00\x00\x00\xc0\xff\xc0\xff"...))
		return
	}
	_ = w.WriteMsg(s.answer(query, network, f)) // a client that left is no matter
}

// note records the query and picks the fault that applies.
func (s *Server) note(query *mdns.Msg, network string, remote net.Addr) Fault {
	q := query.Question[0]
	name := strings.ToLower(q.Name)
	port := 0
	switch a := remote.(type) {
	case *net.UDPAddr:
		port = a.Port
	case *net.TCPAddr:
		port = a.Port
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, Query{strings.TrimSuffix(name, "."), mdns.TypeToString[q.Qtype], network, port, query.Id})
	for _, key := range []string{name, "*."} {
		for i, f := range s.faults[key] {
			if f.Type != "" && f.Type != mdns.TypeToString[q.Qtype] {
				continue
			}
			out := *f
			if f.Times > 0 {
				if f.Times--; f.Times == 0 {
					s.faults[key] = append(s.faults[key][:i:i], s.faults[key][i+1:]...)
				}
			}
			return out
		}
	}
	return Fault{}
}

// answer builds the response.
func (s *Server) answer(query *mdns.Msg, network string, f Fault) *mdns.Msg {
	m := new(mdns.Msg)
	m.SetReply(query)
	m.RecursionAvailable = true
	if f.NoEDNS && query.IsEdns0() != nil {
		m.Rcode = mdns.RcodeFormatError
		return m
	}
	if query.IsEdns0() != nil {
		m.SetEdns0(1232, false)
		if f.EDE != 0 {
			opt := m.IsEdns0()
			opt.Option = append(opt.Option, &mdns.EDNS0_EDE{InfoCode: f.EDE})
		}
	}
	if f.Rcode != "" {
		m.Rcode = mdns.StringToRcode[f.Rcode]
		return m
	}
	s.mu.Lock()
	s.fill(m, query.Question[0], f.Cut)
	m.AuthenticatedData = s.ad
	s.mu.Unlock()
	for size := 0; size < f.Huge; size += 250 {
		m.Extra = append(m.Extra, &mdns.TXT{
			Hdr: mdns.RR_Header{Name: "filler.invalid.", Rrtype: mdns.TypeTXT, Class: mdns.ClassINET},
			Txt: []string{strings.Repeat("x", 240)},
		})
	}
	limit := 512
	if opt := query.IsEdns0(); opt != nil {
		limit = int(opt.UDPSize())
	}
	if network == "udp" && (f.Truncate || m.Len() > limit) {
		m.Truncated = true
		m.Answer, m.Ns, m.Extra = nil, nil, nil
	}
	return m
}

// fill adds the records that answer q, following aliases inside the zone unless cut. s.mu is held.
func (s *Server) fill(m *mdns.Msg, q mdns.Question, cut bool) {
	name := strings.ToLower(q.Name)
	for range 20 { // as many aliases as a test may want to be refused
		rrs, exists := s.find(name)
		if !exists {
			m.Rcode = mdns.RcodeNameError
			s.authority(m, name)
			return
		}
		next := ""
		found := false
		for _, rr := range rrs {
			if rr.Header().Rrtype != q.Qtype && rr.Header().Rrtype != mdns.TypeCNAME {
				continue
			}
			rr = mdns.Copy(rr)
			rr.Header().Name = name
			m.Answer = append(m.Answer, rr)
			found = true
			if c, ok := rr.(*mdns.CNAME); ok && q.Qtype != mdns.TypeCNAME {
				next = strings.ToLower(c.Target)
			}
		}
		if !found {
			s.authority(m, name)
			return
		}
		if next == "" || cut {
			return
		}
		name = next
	}
}

// find gives the records of a name, or those of the nearest wildcard. A name with others below it exists too.
func (s *Server) find(name string) ([]mdns.RR, bool) {
	if rrs, ok := s.records[name]; ok {
		return rrs, true
	}
	for other := range s.records {
		if strings.HasSuffix(other, "."+name) {
			return nil, true
		}
	}
	for parent := name; ; {
		i := strings.IndexByte(parent, '.')
		if i < 0 || i+1 >= len(parent) {
			return nil, false
		}
		parent = parent[i+1:]
		if rrs, ok := s.records["*."+parent]; ok {
			return rrs, true
		}
	}
}

// authority adds the SOA of the zone that name is in, if there is one.
func (s *Server) authority(m *mdns.Msg, name string) {
	for {
		for _, rr := range s.records[name] {
			if rr.Header().Rrtype == mdns.TypeSOA {
				m.Ns = append(m.Ns, rr)
				return
			}
		}
		i := strings.IndexByte(name, '.')
		if i < 0 || i+1 >= len(name) {
			return
		}
		name = name[i+1:]
	}
}

// forge sends what an attacker would: an answer under another id, one to another question, and garbage.
func (s *Server) forge(w mdns.ResponseWriter, query *mdns.Msg) {
	lie := func(id uint16, name string) {
		m := new(mdns.Msg)
		m.SetReply(query)
		m.Id = id
		m.AuthenticatedData = true
		m.Question[0].Name = name
		m.Answer = []mdns.RR{&mdns.A{
			Hdr: mdns.RR_Header{Name: name, Rrtype: mdns.TypeA, Class: mdns.ClassINET, Ttl: 86400},
			A:   net.IPv4(192, 0, 2, 66),
		}}
		_ = w.WriteMsg(m)
	}
	lie(query.Id+1, query.Question[0].Name)
	lie(query.Id, "forged.invalid.")
	_, _ = w.Write([]byte("not dns"))
}
