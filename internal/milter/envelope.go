package milter

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strconv"

	protocol "github.com/emersion/go-milter"
)

// Mail begins the transaction: connection, HELO and sender.
func (r *Run) Mail(ctx context.Context, from string, args []string) error {
	if r == nil {
		return nil
	}
	r.from = from
	for _, a := range r.asked {
		if err := r.connect(ctx, a); err != nil {
			if err := r.failed(a, "connect", err); err != nil {
				return err
			}
			continue
		}
		if err := r.begin(ctx, a, from, args); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) begin(ctx context.Context, a *asked, from string, args []string) error {
	_, command, _ := a.Waits()
	for _, step := range []struct {
		name string
		ask  func(a *asked) (*protocol.Action, error)
	}{
		{"connect", r.askConnect},
		{"helo", r.askHelo},
		{"mail", func(a *asked) (*protocol.Action, error) {
			if err := a.s.Macros(protocol.CodeMail, r.mailMacros(from)...); err != nil {
				return nil, err
			}
			return a.s.Mail(from, args)
		}},
	} {
		if a.s == nil { // it has accepted
			return nil
		}
		a.conn.stage(command, 3*command)
		if err := r.one(ctx, a, step.name, step.ask); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) askConnect(a *asked) (*protocol.Action, error) {
	if err := a.s.Macros(protocol.CodeConn, "j", r.chain.o.Hostname, "{daemon_name}", "waxwing", "v", "Waxwing"); err != nil {
		return nil, err
	}
	addr := r.client.Remote.Addr().Unmap().WithZone("")
	return a.s.Conn(hostOf(addr), familyOf(addr), r.client.Remote.Port(), addr.String())
}

func (r *Run) askHelo(a *asked) (*protocol.Action, error) {
	if t := r.client.TLS; t != nil {
		bits := "256"
		if t.CipherSuite == tls.TLS_AES_128_GCM_SHA256 || t.CipherSuite == tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 || t.CipherSuite == tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 {
			bits = "128"
		}
		err := a.s.Macros(protocol.CodeHelo, "{tls_version}", tls.VersionName(t.Version), "{cipher}", tls.CipherSuiteName(t.CipherSuite), "{cipher_bits}", bits)
		if err != nil {
			return nil, err
		}
	}
	return a.s.Helo(r.client.HELO)
}

func (r *Run) mailMacros(from string) []string {
	kv := []string{"i", r.client.ID, "{mail_addr}", from}
	if r.client.Login != "" {
		kv = append(kv, "{auth_authen}", r.client.Login, "{auth_type}", r.client.Mechanism)
	}
	return kv
}

// hostOf is the name of a client, which is not looked up: its address in brackets, as MTAs do.
func hostOf(a netip.Addr) string {
	if !a.IsValid() {
		return "localhost"
	}
	return "[" + a.String() + "]"
}

func familyOf(a netip.Addr) protocol.ProtoFamily {
	switch {
	case !a.IsValid():
		return protocol.FamilyUnknown
	case a.Is4():
		return protocol.FamilyInet
	}
	return protocol.FamilyInet6
}

// Rcpt asks about a recipient. A refusal is of this recipient alone.
func (r *Run) Rcpt(ctx context.Context, to string, args []string) error {
	return r.each(ctx, "rcpt", func(a *asked) (*protocol.Action, error) {
		_, command, _ := a.Waits()
		a.conn.stage(command, 3*command)
		if err := a.s.Macros(protocol.CodeRcpt, "{rcpt_addr}", to); err != nil {
			return nil, err
		}
		return a.s.Rcpt(to, args)
	})
}

// Declared is the parameters of MAIL that milters see.
func Declared(size int64, body string) []string {
	var args []string
	if size > 0 {
		args = append(args, "SIZE="+strconv.FormatInt(size, 10))
	}
	if body != "" {
		args = append(args, "BODY="+body)
	}
	return args
}
