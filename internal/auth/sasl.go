package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// maxResponse bounds one decoded response: three fields of maxField octets and two NULs (PLAIN).
const maxResponse = 3*maxField + 2

// MaxLine is the most octets that one line of base64 in an exchange may have.
const MaxLine = (maxResponse + 2) / 3 * 4

// Exchange is one run of a SASL mechanism.
type Exchange interface {
	// Next takes the client's response, decoded: nil on the first call when the command had no initial response. The
	// exchange is over when id or err isn't nil; else the challenge (maybe empty) is to be sent in base64. The response's
	// octets are cleared.
	Next(ctx context.Context, response []byte) (challenge []byte, id *Identity, err error)
}

// Decode reads one line of the client in an exchange: "*" cancels, "=" is an empty response (RFC 4954, section 4).
func Decode(line []byte) ([]byte, error) {
	switch {
	case len(line) == 1 && line[0] == '*':
		return nil, ErrAborted
	case len(line) == 1 && line[0] == '=', len(line) == 0:
		return []byte{}, nil
	case len(line) > MaxLine || bytes.ContainsAny(line, "\r\n"): // the decoder would pass over line ends
		return nil, ErrMalformed
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(out, line)
	if err != nil || n > maxResponse {
		clear(out)
		return nil, ErrMalformed
	}
	return out[:n], nil
}

// Mechanisms lists what Start takes, in the order of preference; none without TLS.
func (a *Auth) Mechanisms(tls bool) []string {
	if !tls {
		return nil
	}
	return []string{"PLAIN", "LOGIN"}
}

// Start begins an exchange. ErrTLS, ErrMechanism.
func (a *Auth) Start(_ context.Context, at Attempt, mechanism string) (Exchange, error) {
	if !at.TLS {
		return nil, ErrTLS
	}
	switch strings.ToUpper(mechanism) {
	case "PLAIN":
		return &plain{auth: a, at: at}, nil
	case "LOGIN":
		return &login{auth: a, at: at}, nil
	}
	return nil, ErrMechanism
}

// plain is RFC 4616: authorization identity NUL authentication identity NUL password.
type plain struct {
	auth    *Auth
	at      Attempt
	started bool
	over    bool
}

func (p *plain) Next(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	defer clear(response)
	if p.over {
		return nil, nil, ErrMalformed
	}
	if response == nil && !p.started {
		p.started = true
		return []byte{}, nil, nil
	}
	p.over = true
	authzid, rest, ok1 := bytes.Cut(response, []byte{0})
	authcid, password, ok2 := bytes.Cut(rest, []byte{0})
	if !ok1 || !ok2 || bytes.IndexByte(password, 0) >= 0 || !utf8.Valid(authzid) || !utf8.Valid(authcid) {
		return nil, nil, ErrMalformed
	}
	if len(authcid) == 0 || len(password) == 0 || len(authzid) > maxField || len(authcid) > maxField || len(password) > maxField {
		return nil, nil, ErrMalformed
	}
	// Nobody acts for another: an authorization identity may only repeat the authentication identity. It is never used.
	if len(authzid) > 0 && !strings.EqualFold(string(authzid), string(authcid)) {
		return nil, nil, ErrCredentials
	}
	id, err := p.auth.password(ctx, p.at, string(authcid), password, "PLAIN")
	return nil, id, err
}

// login asks for the name and the password in turn; an initial response is the name.
type login struct {
	auth  *Auth
	at    Attempt
	state int // what comes next: 0 the start, 1 the name, 2 the password, 3 nothing
	name  string
}

func (l *login) Next(ctx context.Context, response []byte) ([]byte, *Identity, error) {
	defer clear(response)
	if l.state == 0 {
		l.state = 1
		if response == nil {
			return []byte("Username:"), nil, nil
		}
	}
	if len(response) == 0 || len(response) > maxField || bytes.IndexByte(response, 0) >= 0 {
		l.state = 3
		return nil, nil, ErrMalformed
	}
	switch l.state {
	case 1:
		if !utf8.Valid(response) {
			l.state = 3
			return nil, nil, ErrMalformed
		}
		l.name, l.state = string(response), 2
		return []byte("Password:"), nil, nil
	case 2:
		l.state = 3
		id, err := l.auth.password(ctx, l.at, l.name, response, "LOGIN")
		return nil, id, err
	}
	return nil, nil, ErrMalformed
}
