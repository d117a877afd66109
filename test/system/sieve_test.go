package system

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"waxwing/test/rig"
)

// TestSieveConnect stores, lists, activates, reads and deletes a script with Debian's sieve-connect: check 18's client.
func TestSieveConnect(t *testing.T) {
	t.Parallel()
	c := newClient(t, node(t, rig.WaxwingOptions{}))
	script := c.file("s.sieve", "require [\"fileinto\"];\nif header :contains \"subject\" \"never-matches\" { fileinto \"Junk\"; }\n")
	wrong := c.file("wrong.sieve", "fileinto \"Junk\";\n")
	_, port, _ := strings.Cut(c.n.Sieve, ":")
	connect := func(args ...string) string {
		t.Helper()
		return c.run(ada.Password+"\n", "sieve-connect", append([]string{
			"-s", "localhost", "-p", port, "-u", ada.Address, "--passwordfd", "0", "--tlscafile", c.n.CAFile,
		}, args...)...)
	}
	connect("--localsieve", script, "--remotesieve", "filter", "--upload")
	if list := connect("--list"); !strings.Contains(list, `"filter"`) {
		t.Errorf("list: %s", list)
	}
	connect("--remotesieve", "filter", "--activate")
	if list := connect("--list"); !strings.Contains(list, "ACTIVE") {
		t.Errorf("list: %s", list)
	}
	connect("--remotesieve", "filter", "--localsieve", c.home+"/back.sieve", "--download")
	if b, err := os.ReadFile(c.home + "/back.sieve"); err != nil || !strings.Contains(string(b), "never-matches") {
		t.Errorf("%q, %v", b, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	refused := exec.CommandContext(ctx, "sieve-connect", "-s", "localhost", "-p", port, "-u", ada.Address, "--passwordfd", "0", "--tlscafile", c.n.CAFile,
		"--localsieve", wrong, "--remotesieve", "wrong", "--upload")
	refused.Stdin = strings.NewReader(ada.Password + "\n")
	if out, err := refused.CombinedOutput(); err == nil || !strings.Contains(string(out), "line 1, column 1") {
		t.Errorf("a wrong script was taken: %v, %s", err, out)
	}
	connect("--deactivate")
	connect("--remotesieve", "filter", "--delete")
}
