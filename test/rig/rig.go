// Package rig starts the built binary and its peers — Postfix, Dovecot, a sink — for the tests and the benchmarks: each
// in a directory of its own, on free loopback ports, ended by process id. It is no library of the server: nothing in
// internal imports it.
package rig

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Account is one account that a rig makes.
type Account struct {
	Address  string
	Password string
}

// Server is a running mail system. An address is empty when the system does not offer the protocol.
type Server struct {
	Name        string
	Dir         string
	SMTP        string // port 25's
	Submission  string // STARTTLS
	Submissions string // TLS at once
	IMAP        string
	IMAPS       string
	POP3        string
	POP3S       string
	Sieve       string // "" where there is none
	CAFile      string
	Metrics     string

	stop []func() error
	pids func() []int
}

// Stop ends the system in the reverse order of its start. It may be called twice.
func (s *Server) Stop() error {
	var errs []error
	for i := len(s.stop) - 1; i >= 0; i-- {
		errs = append(errs, s.stop[i]())
	}
	s.stop = nil
	return errors.Join(errs...)
}

// PIDs lists the processes of the system as they are now.
func (s *Server) PIDs() []int {
	if s.pids == nil {
		return nil
	}
	return s.pids()
}

// Memory is the proportional set size of all processes of the system, in octets.
func (s *Server) Memory() int64 {
	var total int64
	for _, pid := range s.PIDs() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it ended meanwhile
		}
		for _, line := range strings.Split(string(b), "\n") {
			if kib, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(kib), " kB"), 10, 64)
				total += n << 10
			}
		}
	}
	return total
}

// descendants lists a process and all that it started.
func descendants(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, task := range tasks {
			b, _ := os.ReadFile(task)
			for _, f := range strings.Fields(string(b)) {
				if n, err := strconv.Atoi(f); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	return all
}

// Loopback writes a port of 127.0.0.1 as an address.
func Loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// WaitForPort returns when something accepts at the address.
func WaitForPort(ctx context.Context, address string) error {
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nothing listens at %s: %w", address, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// process starts a program that stays in the foreground; its output goes to a log file in dir.
func process(dir, name string, args ...string) (cmd *exec.Cmd, stop func() error, err error) {
	log, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd = exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(35 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			<-done
			return fmt.Errorf("%s did not end within 35 s of SIGTERM", name)
		}
		return nil
	}
	return cmd, stop, nil
}

// Certificate writes a self-signed certificate for localhost and the names or addresses given, and returns its two files.
func Certificate(dir string, names ...string) (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", err
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "rig"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return "", "", err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", err
	}
	certFile, keyFile = filepath.Join(dir, "rig.crt"), filepath.Join(dir, "rig.key")
	if err := os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), 0o600)
}

// CPU is the processor time that all processes of the system have used, those that ended and were waited for included.
func (s *Server) CPU() time.Duration {
	var ticks int64
	for _, pid := range s.PIDs() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name in parentheses may hold spaces; utime, stime, cutime and cstime are fields 14 to 17 (proc(5)).
		_, rest, ok := strings.Cut(string(b), ") ")
		if !ok {
			continue
		}
		for _, f := range strings.Fields(rest)[11:15] {
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}
