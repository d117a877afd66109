package system

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/store/upgrade"
	"waxwing/test/rig"
)

// nextVersion builds a server of a version to come: this tree with one migration more.
func nextVersion(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	migration := filepath.Join(dir, "9001_next.sql")
	text := "-- +goose Up\nCREATE TABLE next_version (id INTEGER PRIMARY KEY, note TEXT NOT NULL);\n" +
		"INSERT INTO next_version (id, note) SELECT account_id, 'upgraded' FROM mail_account;\n"
	if err := os.WriteFile(migration, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "internal/store/sqlite/migrations/9001_next.sql"): migration,
	}})
	if err != nil {
		t.Fatal(err)
	}
	list, out := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "waxwing")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-overlay", list, "-ldflags", "-X waxwing/internal/build.Version=v99.0-next", "-o", out, "waxwing/cmd/waxwing")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the next version: %v\n%s", err, text)
	}
	return out
}

// TestFault29UpgradeIsTakenBack upgrades a server, mails on, and goes back: the older version refuses the newer store and
// says what to do, finds all that was there before the upgrade, and gives no number twice.
func TestFault29UpgradeIsTakenBack(t *testing.T) {
	next := nextVersion(t)
	n := node(t, rig.WaxwingOptions{Relay: rig.Loopback(1)})
	for i := range 5 {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, fmt.Sprint("old-", i)))
	}
	if err := submit(t, n, ada, []string{"someone@far.test"}, letter(ada.Address, "someone@far.test", "on its way")); err != nil {
		t.Fatal(err)
	}
	before := waitForMail(t, n, ada, "INBOX", 5)
	restart(t, n, next)
	for i := range 3 {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, fmt.Sprint("new-", i)))
	}
	after := waitForMail(t, n, ada, "INBOX", 8)
	sameMail(t, after[:5], before)
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}

	n.Use(binary)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := n.Command(ctx, nil, "serve", "--dir", n.Dir)
	if err == nil || !strings.Contains(err.Error(), "waxwing v99.0-next has brought this store to schema 9001") || !strings.Contains(err.Error(), "waxwing store rollback") {
		t.Fatalf("the older version: %v", err)
	}
	var copies []upgrade.Copy
	commandJSON(t, n, &copies, "store", "copies", "--dir", n.Dir, "--json")
	if len(copies) != 1 || copies[0].To != 9001 || copies[0].Upgraded != "v99.0-next" {
		t.Fatalf("copies %+v", copies)
	}
	if _, err := n.Command(ctx, nil, "store", "rollback", "--yes", "--dir", n.Dir); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(ctx); err != nil {
		t.Fatal(err)
	}
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "after the way back"))
	back := waitForMail(t, n, ada, "INBOX", 6)
	sameMail(t, back[:5], before)
	if len(back) != 6 || back[5].uid <= after[7].uid {
		t.Errorf("%d messages; UID %d after the way back, %d was given out before it", len(back), back[len(back)-1].uid, after[7].uid)
	}
	if out, err := n.Command(ctx, nil, "queue", "list", "--dir", n.Dir); err != nil || !strings.Contains(out, "held") {
		t.Errorf("the queue: %s, %v", out, err)
	}
	// What came in between is still in the packs.
	if out, err := n.Command(ctx, nil, "store", "repair", "--recover-to", bob.Address, "--dir", n.Dir); err != nil {
		t.Errorf("repair: %s, %v", out, err)
	}
	if got := waitForMail(t, n, bob, "Recovered", 3); len(got) != 3 {
		t.Errorf("%d messages were recovered, want 3", len(got))
	}
	if out, err := n.Command(ctx, nil, "store", "verify", "--dir", n.Dir); err != nil {
		t.Errorf("verify: %s, %v", out, err)
	}
}

// restart ends a server and starts it with another binary.
func restart(t *testing.T, n *rig.Node, binary string) {
	t.Helper()
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	n.Use(binary)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// sameMail holds messages to what they were.
func sameMail(t *testing.T, got, want []fetched) {
	t.Helper()
	for i := range want {
		if got[i].uid != want[i].uid || string(got[i].body) != string(want[i].body) {
			t.Errorf("message %d: UID %d of %d octets, was UID %d of %d", i+1, got[i].uid, len(got[i].body), want[i].uid, len(want[i].body))
		}
	}
}

// commandJSON runs a command and reads what it printed.
func commandJSON(t *testing.T, n *rig.Node, v any, args ...string) {
	t.Helper()
	out, err := n.Command(t.Context(), nil, args...)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		t.Fatalf("%v printed %s: %v", args, out, err)
	}
}
