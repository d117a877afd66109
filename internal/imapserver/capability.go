package imapserver

import (
	"context"
	"slices"
)

// extension is a capability without a command of its own.
type extension struct {
	name   string
	states states
	rfc    string
}

// extensionList holds the capabilities that are not a column of the command table, in the order in which they are
// announced. IMAP4rev1 comes first: clients were seen to stumble when it does not.
var extensionList = []extension{
	{"IMAP4rev1", anyState, "RFC 3501"},
	{"LITERAL+", anyState, "RFC 7888"},
	{"SASL-IR", anyState, "RFC 4959"},
	{"CHILDREN", loggedIn, "RFC 3348"},
	{"SPECIAL-USE", loggedIn, "RFC 6154"},
	{"LIST-EXTENDED", loggedIn, "RFC 5258"},
	{"LIST-STATUS", loggedIn, "RFC 5819"},
	{"STATUS=SIZE", loggedIn, "RFC 8438"},
	{"ESEARCH", loggedIn, "RFC 4731"},
	{"CONDSTORE", loggedIn, "RFC 7162"},
}

// Capabilities lists every capability with its RFC, for the reference documentation.
func Capabilities() map[string]string {
	all := make(map[string]string)
	for _, e := range extensionList {
		all[e.name] = e.rfc
	}
	for _, c := range commandList() {
		if c.capability != "" {
			all[c.capability] = c.rfc
		}
	}
	return all
}

// capabilities writes what holds in the session's present state.
func (s *session) capabilities() string {
	_, overTLS := s.conn.TLS()
	b := make([]byte, 0, 256)
	for _, e := range extensionList {
		if e.states&s.state != 0 {
			b = append(append(b, e.name...), ' ')
		}
	}
	for _, c := range s.srv.announced {
		if c.states&s.state != 0 || c.states&loggedIn != 0 && s.state&loggedIn != 0 {
			b = append(append(b, c.capability...), ' ')
		}
	}
	if s.state == notAuthenticated {
		if overTLS {
			for _, m := range s.srv.opt.Auth.Mechanisms(true) {
				b = append(append(append(b, "AUTH="...), m...), ' ')
			}
		} else {
			if s.srv.opt.TLS != nil {
				b = append(b, "STARTTLS "...)
			}
			b = append(b, "LOGINDISABLED "...)
		}
	}
	return string(b[:len(b)-1])
}

// capabilityRequest is CAPABILITY, RFC 3501, section 6.1.1.
type capabilityRequest struct{}

func (*capabilityRequest) parse(p *parser) { p.end() }

func (*capabilityRequest) run(_ context.Context, s *session) (reply, error) {
	s.put("* CAPABILITY ", s.capabilities(), "\r\n")
	return reply{}, nil
}

// noopRequest is NOOP, and CHECK: everything is on stable storage already (RFC 3501, section 6.4.1).
type noopRequest struct{}

func (*noopRequest) parse(p *parser)                                  { p.end() }
func (*noopRequest) run(_ context.Context, _ *session) (reply, error) { return reply{}, nil }

// logoutRequest is LOGOUT, RFC 3501, section 6.1.3.
type logoutRequest struct{}

func (*logoutRequest) parse(p *parser) { p.end() }

func (*logoutRequest) run(_ context.Context, s *session) (reply, error) {
	s.untagged(reply{statusBye, "", "Logging out"})
	s.ending = true
	return reply{}, nil
}

// idRequest is ID, RFC 2971: at most 30 pairs, names of 30 octets and values of 1,024.
type idRequest struct{ fields []string }

func (r *idRequest) parse(p *parser) {
	p.space()
	if p.peek() != '(' {
		p.nstring(0)
		p.end()
		return
	}
	p.list(30, func() {
		name := p.str(30)
		p.space()
		value, _ := p.nstring(1024)
		r.fields = append(r.fields, name, value)
	})
	p.end()
}

func (r *idRequest) run(ctx context.Context, s *session) (reply, error) {
	if len(r.fields) > 0 {
		s.log.DebugContext(ctx, "client identified itself", "id", r.fields)
	}
	s.put(`* ID ("name" "Waxwing")`, "\r\n")
	return reply{}, nil
}

// enableRequest is ENABLE, RFC 5161.
type enableRequest struct{ names []string }

func (r *enableRequest) parse(p *parser) {
	for p.ok() && len(r.names) < 64 {
		p.space()
		r.names = append(r.names, p.word("a capability"))
		if p.pos == len(p.line) {
			return
		}
	}
	p.fail("too many capabilities")
}

func (r *enableRequest) run(_ context.Context, s *session) (reply, error) {
	if slices.Contains(r.names, "CONDSTORE") && !s.condstore {
		s.put("* ENABLED CONDSTORE\r\n")
		s.enableCondstore()
		return reply{}, nil
	}
	s.put("* ENABLED\r\n")
	return reply{}, nil
}

// namespaceRequest is NAMESPACE, RFC 2342: one personal namespace, no others yet.
type namespaceRequest struct{}

func (*namespaceRequest) parse(p *parser) { p.end() }

func (*namespaceRequest) run(_ context.Context, s *session) (reply, error) {
	s.put(`* NAMESPACE (("" "/")) NIL NIL`, "\r\n")
	return reply{}, nil
}
