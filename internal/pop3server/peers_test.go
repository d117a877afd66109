package pop3server

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"waxwing/internal/dialogtest"
)

// TestPoplib lets Python's poplib fetch mail; python3 is one of the packages that the project's tests need.
func TestPoplib(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, dialogtest.KeysFor(t, hostname).PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"plain", "tls"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			texts := []string{letter(1), letter(2), "Subject: dots\r\n\r\n.\r\n..\r\n...a\r\n", "Subject: no end\r\n\r\nx"}
			r.fill(texts...)
			addr := r.plain
			if mode == "tls" {
				addr = r.implicit
			}
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, "python3", "testdata/poplib_session.py", host, port, mode, testLogin, ca)
			cmd.Stdin = strings.NewReader(testPassword)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("poplib: %v\n%s", err, stderr.Bytes())
			}
			checkPoplib(t, out, texts)
			if m, err := r.store.Mailbox(ctx, testAccount, "INBOX"); err != nil || m.Messages != 3 {
				t.Errorf("%d messages afterwards, %v", m.Messages, err)
			}
		})
	}
}

// checkPoplib compares what poplib got with what is stored; the last text lacks its CRLF.
func checkPoplib(t *testing.T, out []byte, texts []string) {
	t.Helper()
	var got struct {
		Capabilities map[string][]string
		Count        int
		Octets       int
		Sizes        []int
		UIDLs        []string
		Messages     []string
		Top          []string
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	texts = slices.Clone(texts)
	texts[len(texts)-1] += "\r\n"
	if !slices.Equal(got.Messages, texts) {
		t.Errorf("messages %q", got.Messages)
	}
	sum := 0
	for i, text := range texts {
		sum += len(text)
		if got.Sizes[i] != len(text) {
			t.Errorf("size %d of %q", got.Sizes[i], text)
		}
	}
	if got.Count != len(texts) || got.Octets != sum || len(got.UIDLs) != len(texts) {
		t.Errorf("%d messages, %d octets, ids %q", got.Count, got.Octets, got.UIDLs)
	}
	if want := strings.Split(texts[0], "\r\n")[:4]; !slices.Equal(got.Top, want) {
		t.Errorf("top %q", got.Top)
	}
	for _, name := range []string{"TOP", "UIDL", "PIPELINING", "RESP-CODES", "UTF8"} {
		if _, ok := got.Capabilities[name]; !ok {
			t.Errorf("no %s in %v", name, got.Capabilities)
		}
	}
}
