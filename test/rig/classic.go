package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"waxwing/internal/porttest"
)

// ClassicOptions says what a Postfix and Dovecot pair is for.
type ClassicOptions struct {
	Domain   string
	Accounts []Account
	// Relay is where Postfix sends mail for other domains, host:port; empty keeps such mail in its queue.
	Relay string
	// Extra lines for Postfix's main.cf.
	Extra []string
}

// Classic starts Postfix and Dovecot as Debian ships them, with their durable defaults: Postfix's queue, LMTP to
// Dovecot, sdbox mailboxes. It needs root, as both programs change to users of their own.
func Classic(ctx context.Context, dir string, o ClassicOptions) (*Server, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("postfix and dovecot need root to start")
	}
	ports, err := porttest.Reserve(7)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Name: "Postfix+Dovecot", Dir: dir,
		SMTP: Loopback(ports[0]), Submission: Loopback(ports[1]),
		Submissions: Loopback(ports[6]), IMAP: Loopback(ports[2]), IMAPS: Loopback(ports[3]), POP3: Loopback(ports[4]), POP3S: Loopback(ports[5]),
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	cert, key, err := Certificate(dir)
	if err != nil {
		return nil, err
	}
	s.CAFile = cert
	if err := startDovecot(ctx, s, ports, cert, key, o); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if err := startPostfix(ctx, s, ports, cert, key, o); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// startDovecot starts a Dovecot of its own below the directory of s.
func startDovecot(ctx context.Context, s *Server, ports []int, cert, key string, o ClassicOptions) error {
	home := filepath.Join(s.Dir, "dovecot")
	mail := filepath.Join(home, "mail")
	if err := os.MkdirAll(mail, 0o755); err != nil {
		return err
	}
	var users strings.Builder
	for _, a := range o.Accounts {
		fmt.Fprintf(&users, "%s:{PLAIN}%s::::::\n", a.Address, a.Password)
	}
	if err := os.WriteFile(filepath.Join(home, "users"), []byte(users.String()), 0o644); err != nil {
		return err
	}
	if err := chownTo(mail, "mail"); err != nil {
		return err
	}
	conf := fmt.Sprintf(dovecotConf, home, cert, key, ports[2], ports[3], ports[4], ports[5])
	file := filepath.Join(home, "dovecot.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return err
	}
	cmd, stop, err := process(home, "dovecot", "-F", "-c", file)
	if err != nil {
		return err
	}
	s.stop = append(s.stop, stop)
	dovecot := cmd.Process.Pid
	s.pids = func() []int { return descendants(dovecot) }
	return WaitForPort(ctx, s.IMAPS)
}

// dovecotConf is Dovecot's whole configuration: directory, certificate, key, and the ports of IMAP, IMAPS, POP3 and POP3S.
const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/dovecot.log
protocols = imap pop3 lmtp
listen = 127.0.0.1
mail_location = sdbox:%[1]s/mail/%%u
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 2000
ssl = yes
ssl_cert = <%[2]s
ssl_key = <%[3]s
ssl_min_protocol = TLSv1.2
auth_mechanisms = plain login
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=%[1]s/mail/%%u
}
service imap-login {
  inet_listener imap {
    port = %[4]d
  }
  inet_listener imaps {
    port = %[5]d
    ssl = yes
  }
  process_min_avail = 2
  service_count = 0
}
service pop3-login {
  inet_listener pop3 {
    port = %[6]d
  }
  inet_listener pop3s {
    port = %[7]d
    ssl = yes
  }
  service_count = 0
}
service imap {
  process_limit = 4096
}
service lmtp {
  unix_listener %[1]s/lmtp {
    mode = 0666
  }
  process_min_avail = 4
}
service auth {
  unix_listener %[1]s/auth {
    mode = 0666
  }
}
default_client_limit = 20000
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
`

// startPostfix starts a Postfix instance of its own below the directory of s.
func startPostfix(ctx context.Context, s *Server, ports []int, cert, key string, o ClassicOptions) error {
	home := filepath.Join(s.Dir, "postfix")
	queue, data := filepath.Join(home, "queue"), filepath.Join(home, "data")
	for _, d := range []string{home, queue, data} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := chownTo(data, "postfix"); err != nil {
		return err
	}
	if err := defaultInstance(); err != nil {
		return err
	}
	var boxes strings.Builder
	for _, a := range o.Accounts {
		fmt.Fprintf(&boxes, "%s %s\n", a.Address, a.Address)
	}
	for name, text := range map[string]string{
		"boxes":     boxes.String(),
		"main.cf":   strings.Join(mainTable(s.Dir, cert, key, o), "\n") + "\n",
		"master.cf": fmt.Sprintf(masterTable, ports[0], ports[1], ports[6]),
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if out, err := exec.Command("postfix", "-c", home, "start").CombinedOutput(); err != nil {
		return fmt.Errorf("postfix start: %w\n%s", err, out)
	}
	s.stop = append(s.stop, func() error {
		out, err := exec.Command("postfix", "-c", home, "stop").CombinedOutput()
		if err != nil {
			return fmt.Errorf("postfix stop: %w\n%s", err, out)
		}
		return nil
	})
	dovecot := s.pids
	s.pids = func() []int {
		all := dovecot()
		if b, err := os.ReadFile(filepath.Join(queue, "pid/master.pid")); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				all = append(all, descendants(pid)...)
			}
		}
		return all
	}
	return WaitForPort(ctx, s.SMTP)
}

// defaultInstance makes the main.cf of Postfix's default instance unless it is there: the tools insist on it, even when
// told of another. It comes under its name whole, as several tests may want it at once.
func defaultInstance() error {
	const name = "/etc/postfix/main.cf"
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), "main.cf.*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("compatibility_level = 3.6\n")
	return errors.Join(err, f.Chmod(0o644), f.Close(), os.Rename(f.Name(), name))
}

// mainTable is Postfix's main.cf. Its durable defaults stay as they are.
func mainTable(dir, cert, key string, o ClassicOptions) []string {
	home := filepath.Join(dir, "postfix")
	lines := []string{
		"compatibility_level = 3.6",
		"queue_directory = " + filepath.Join(home, "queue"),
		"data_directory = " + filepath.Join(home, "data"),
		"myhostname = classic.test",
		"mydestination =",
		"mynetworks = 127.0.0.0/32",
		"inet_interfaces = 127.0.0.1",
		"inet_protocols = ipv4",
		"maillog_file = " + home + "/maillog",
		"maillog_file_prefixes = " + home,
		"virtual_mailbox_domains = " + o.Domain,
		"virtual_mailbox_maps = texthash:" + home + "/boxes",
		"virtual_transport = lmtp:unix:" + filepath.Join(dir, "dovecot/lmtp"),
		"smtpd_tls_cert_file = " + cert,
		"smtpd_tls_key_file = " + key,
		"smtpd_tls_security_level = may",
		"smtpd_sasl_type = dovecot",
		"smtpd_sasl_path = " + filepath.Join(dir, "dovecot/auth"),
		"smtpd_client_connection_count_limit = 0",
		"smtpd_client_connection_rate_limit = 0",
		"disable_dns_lookups = yes",
		"smtp_dns_support_level = disabled",
		"message_size_limit = 209715200",
		"mailbox_size_limit = 0",
		"virtual_mailbox_limit = 0",
	}
	if o.Relay != "" {
		host, port, _ := strings.Cut(o.Relay, ":")
		lines = append(lines, fmt.Sprintf("relayhost = [%s]:%s", host, port))
	} else {
		lines = append(lines, "defer_transports = smtp")
	}
	return append(lines, o.Extra...)
}

// masterTable is Debian's master.cf with nothing in a chroot and three listeners of our own.
const masterTable = `
127.0.0.1:%d inet n - n - - smtpd
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

func chownTo(path, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}
