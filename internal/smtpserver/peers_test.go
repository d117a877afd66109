package smtpserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"
)

// TestGoSMTPClient talks to the server by an independent client.
func TestGoSMTPClient(t *testing.T) {
	t.Parallel()
	rec := newRecorder()
	_, addr := serve(t, options(rec), Submission)
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := gosmtp.NewClientStartTLS(nc, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, ext := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES", "LIMITS"} {
		if ok, _ := c.Extension(ext); !ok {
			t.Errorf("%s is not seen", ext)
		}
	}
	if size, ok := c.MaxMessageSize(); !ok || size != 10_000 {
		t.Errorf("size %d, %v", size, ok)
	}
	if err := c.Auth(sasl.NewPlainClient("", "user@example.test", "wrong")); err == nil {
		t.Error("signed in with a wrong password")
	}
	if err := c.Auth(sasl.NewLoginClient("user@example.test", "correct horse")); err != nil {
		t.Fatal(err)
	}
	if err := c.Mail("user@example.test", &gosmtp.MailOptions{Size: 20, Body: gosmtp.Body8BitMIME, Return: gosmtp.DSNReturnHeaders, EnvelopeID: "id+1"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt("b@two.test", &gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyFailure}, OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "b@two.test"}); err != nil {
		t.Fatal(err)
	}
	var refusal *gosmtp.SMTPError
	if err := c.Rcpt("unknown@two.test", nil); !errors.As(err, &refusal) || refusal.Code != 550 || refusal.EnhancedCode != (gosmtp.EnhancedCode{5, 1, 1}) {
		t.Errorf("unknown recipient: %v", err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("Subject: x\r\n\r\n.dot\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Error(err)
	}
	got := rec.taken()
	if len(got) != 1 || got[0].body != "Subject: x\r\n\r\n.dot\r\n" || got[0].mail.EnvID != "id+1" || strings.Join(got[0].to, ",") != "b@two.test" {
		t.Errorf("taken %+v", got)
	}
}

// pythonScript is an ordinary use of Python's smtplib; its arguments are host, port and "ssl" or "starttls".
const pythonScript = `
import smtplib, ssl, sys
host, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
ctx = ssl.create_default_context()
ctx.check_hostname = False
ctx.verify_mode = ssl.CERT_NONE
if how == "ssl":
    s = smtplib.SMTP_SSL(host, port, timeout=120, context=ctx)
else:
    s = smtplib.SMTP(host, port, timeout=120)
    s.ehlo("client.test")
    assert not s.has_extn("auth"), "AUTH before TLS"
    s.starttls(context=ctx)
s.ehlo("client.test")
assert s.has_extn("auth") and s.esmtp_features["size"] == "10000", s.esmtp_features
try:
    s.login("user@example.test", "wrong")
    sys.exit("signed in with a wrong password")
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e
s.login("user@example.test", "correct horse")
refused = s.sendmail("user@example.test", ["b@two.test", "unknown@two.test"], "Subject: python\n\n.dot\nend")
assert refused["unknown@two.test"][0] == 550, refused
s.sendmail("user@example.test", ["c@two.test"], "Subject: two\r\n\r\n", mail_options=["BODY=8BITMIME"], rcpt_options=["NOTIFY=NEVER"])
print(s.quit())
`

func TestPythonSMTPLib(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is not installed: make deps installs it")
	}
	for how, mode := range map[string]Mode{"ssl": Submissions, "starttls": Submission} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder()
			_, addr := serve(t, options(rec), mode)
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), python, "-c", pythonScript, host, port, how)
			cmd.WaitDelay = patience
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("221")) {
				t.Fatalf("%v: %s", err, out)
			}
			got := rec.taken()
			if len(got) != 2 || got[0].body != "Subject: python\r\n\r\n.dot\r\nend\r\n" || got[1].body != "Subject: two\r\n\r\n" {
				t.Errorf("taken %+v", got)
			}
		})
	}
}
