package rig

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"waxwing/internal/porttest"
)

// Zone is a zone that an Unbound answers from.
type Zone struct {
	Name   string // without a dot at the end
	Text   string // records in the form of zone files, names with a dot at the end; the SOA is added
	Signed bool
	// Spoil names sets of records, as "name. TYPE", that are changed after they were signed.
	Spoil []string
}

// Unbound is Debian's unbound as a validating resolver: the zones are all that there is, and the keys of the signed ones are
// its trust anchors.
type Unbound struct {
	Address string
	cmd     *exec.Cmd
	done    chan error
}

// StartUnbound starts one below dir. Stop it.
func StartUnbound(ctx context.Context, dir string, zones ...Zone) (*Unbound, error) {
	program, err := exec.LookPath("unbound")
	if err != nil {
		program = "/usr/sbin/unbound"
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("unbound is missing, run \"make deps\": %w", err)
	}
	ports, err := porttest.Reserve(1)
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`server:
	directory: %q
	username: ""
	chroot: ""
	pidfile: ""
	use-syslog: no
	logfile: ""
	num-threads: 1
	interface: 127.0.0.1@%d
	do-ip6: no
	do-daemonize: no
	module-config: "validator iterator"
	ede: yes
	cache-max-ttl: 0
	cache-max-negative-ttl: 0
	infra-cache-min-rtt: 50
`, dir, ports[0])
	tail := "remote-control:\n\tcontrol-enable: no\n"
	for _, z := range zones {
		text, anchor, err := z.file()
		if err != nil {
			return nil, fmt.Errorf("zone %s: %w", z.Name, err)
		}
		file := filepath.Join(dir, z.Name+".zone")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		if anchor != "" {
			conf += fmt.Sprintf("\ttrust-anchor: %q\n", anchor)
		}
		tail += fmt.Sprintf("auth-zone:\n\tname: %q\n\tzonefile: %q\n\tfor-downstream: no\n\tfor-upstream: yes\n\tfallback-enabled: no\n", z.Name+".", file)
	}
	file := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(conf+tail), 0o600); err != nil {
		return nil, err
	}
	u := &Unbound{Address: Loopback(ports[0]), cmd: exec.Command(program, "-d", "-p", "-c", file), done: make(chan error, 1)}
	log, err := os.Create(filepath.Join(dir, "unbound.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	u.cmd.Stdout, u.cmd.Stderr = log, log
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := u.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { u.done <- u.cmd.Wait() }()
	return u, u.ready(ctx, zones[0].Name, log.Name())
}

// ready waits until questions are answered.
func (u *Unbound) ready(ctx context.Context, name, log string) error {
	for {
		q := new(dns.Msg)
		q.SetQuestion(name+".", dns.TypeSOA)
		if r, err := dns.ExchangeContext(ctx, q, u.Address); err == nil && r.Rcode == dns.RcodeSuccess {
			return nil
		}
		select {
		case err := <-u.done:
			u.done <- err
			text, _ := os.ReadFile(log) // what can be read of it
			return fmt.Errorf("unbound ended: %w\n%s", err, text)
		case <-ctx.Done():
			text, _ := os.ReadFile(log) // what can be read of it
			return errors.Join(fmt.Errorf("unbound does not answer: %w\n%s", ctx.Err(), text), u.Stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends it.
func (u *Unbound) Stop() error {
	if err := u.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-u.done
	return nil
}

// file is the zone as text, and its trust anchor.
func (z Zone) file() (text, anchor string, err error) {
	apex := dns.Fqdn(z.Name)
	var rrs []dns.RR
	lines := fmt.Sprintf("%[1]s 300 IN SOA ns.%[1]s hostmaster.%[1]s 1 3600 600 86400 0\n%[1]s 300 IN NS ns.%[1]s\nns.%[1]s 300 IN A 127.0.0.1\n", apex) + z.Text
	parser := dns.NewZoneParser(strings.NewReader(lines), apex, "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		rrs = append(rrs, rr)
	}
	if err := parser.Err(); err != nil {
		return "", "", err
	}
	if z.Signed {
		if rrs, anchor, err = z.sign(apex, rrs); err != nil {
			return "", "", err
		}
	}
	var b strings.Builder
	for _, rr := range rrs {
		b.WriteString(rr.String() + "\n")
	}
	return b.String(), anchor, nil
}

// sign adds the key, the chain of NSEC records and the signatures (RFC 4034 and 4035), and spoils what is to be spoiled.
func (z Zone) sign(apex string, rrs []dns.RR) ([]dns.RR, string, error) {
	key := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: apex, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := key.Generate(256)
	if err != nil {
		return nil, "", err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, "", errors.New("the key can't sign")
	}
	rrs = append(rrs, key)
	rrs = append(rrs, chain(rrs)...)
	sets := map[string][]dns.RR{}
	var order []string
	for _, rr := range rrs {
		k := rr.Header().Name + " " + dns.TypeToString[rr.Header().Rrtype]
		if sets[k] == nil {
			order = append(order, k)
		}
		sets[k] = append(sets[k], rr)
	}
	now := time.Now()
	var out []dns.RR
	for _, k := range order {
		sig := &dns.RRSIG{
			Hdr:       dns.RR_Header{Ttl: 300},
			Algorithm: key.Algorithm, KeyTag: key.KeyTag(), SignerName: apex,
			Inception: uint32(now.Add(-time.Hour).Unix()), Expiration: uint32(now.Add(48 * time.Hour).Unix()),
		}
		if err := sig.Sign(signer, sets[k]); err != nil {
			return nil, "", err
		}
		if slices.Contains(z.Spoil, k) {
			spoil(sets[k][0])
		}
		out = append(append(out, sets[k]...), sig)
	}
	return out, strings.ReplaceAll(key.String(), "\t", " "), nil
}

// chain is an NSEC record for each name, that names the next one and says which types there are.
func chain(rrs []dns.RR) []dns.RR {
	types := map[string][]uint16{}
	for _, rr := range rrs {
		h := rr.Header()
		if !slices.Contains(types[h.Name], h.Rrtype) {
			types[h.Name] = append(types[h.Name], h.Rrtype)
		}
	}
	names := make([]string, 0, len(types))
	for n := range types {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int { // RFC 4034, section 6.1: by labels from the right
		la, lb := dns.SplitDomainName(a), dns.SplitDomainName(b)
		slices.Reverse(la)
		slices.Reverse(lb)
		return slices.Compare(la, lb)
	})
	var out []dns.RR
	for i, n := range names {
		bits := append(types[n], dns.TypeNSEC, dns.TypeRRSIG)
		slices.Sort(bits)
		out = append(out, &dns.NSEC{
			Hdr:        dns.RR_Header{Name: n, Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 0},
			NextDomain: names[(i+1)%len(names)], TypeBitMap: bits,
		})
	}
	return out
}

// spoil changes a record.
func spoil(rr dns.RR) {
	switch rr := rr.(type) {
	case *dns.TLSA:
		rr.Certificate = strings.Repeat("00", len(rr.Certificate)/2)
	case *dns.MX:
		rr.Preference++
	case *dns.A:
		rr.A = net.IPv4(127, 0, 0, 99)
	case *dns.TXT:
		rr.Txt = []string{"spoiled"}
	}
}
