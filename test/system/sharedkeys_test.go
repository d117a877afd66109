package system

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"waxwing/internal/control"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/test/rig"
)

// databaseAndService starts a PostgreSQL and a service that speaks S3's protocol.
func databaseAndService(t *testing.T) (*pgtest.Cluster, *s3test.Service) {
	t.Helper()
	cluster, err := pgtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	service, err := s3test.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	return cluster, service
}

// onPostgresAndS3 starts a database and a bucket, and gives the edit of waxwing.toml that uses them.
func onPostgresAndS3(t *testing.T) (cluster *pgtest.Cluster, edit func(string) string) {
	t.Helper()
	cluster, service := databaseAndService(t)
	bucket := service.Bucket(t, "mail", "")
	dir := t.TempDir()
	dsn, secret := filepath.Join(dir, "dsn"), filepath.Join(dir, "s3")
	for name, text := range map[string]string{dsn: cluster.DSN(""), secret: bucket.AccessKey + "\n" + bucket.SecretKey} {
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cluster, func(toml string) string {
		kept := strings.Split(toml, "\n[store]\n")[0]
		if _, rest, found := strings.Cut(toml, "\n[store]\n"); found {
			if _, after, more := strings.Cut(rest, "\n["); more {
				kept += "\n[" + after
			}
		}
		return kept + fmt.Sprintf("\n[store]\ndriver = \"postgres\"\ndsn_file = %q\n\n[store.s3]\nendpoint = %q\nregion = %q\nbucket = \"mail\"\ncredentials_file = %q\nplain = true\n",
			dsn, bucket.Endpoint, bucket.Region, secret)
	}
}

// keyStates calls `store key` and returns the states of the data keys, in order.
func keyStates(t *testing.T, n *rig.Node, args ...string) (states []string, left int64) {
	t.Helper()
	out, err := n.Command(t.Context(), nil, append(append([]string{"store", "key"}, args...), "--dir", n.Dir, "--json")...)
	if err != nil {
		t.Fatal(err)
	}
	var keys control.Keys
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys.Keys {
		states = append(states, k.State)
	}
	return states, keys.Left
}

// TestKeysOfADatabaseAreSharedAndMissed runs the binary on PostgreSQL and S3: what stands in the database tells nothing, a
// rotation encrypts all anew, another node reads everything with the master key, and nothing without it.
func TestKeysOfADatabaseAreSharedAndMissed(t *testing.T) {
	cluster, edit := onPostgresAndS3(t)
	n := node(t, rig.WaxwingOptions{Accounts: []rig.Account{}, Edit: edit})
	command := func(stdin string, args ...string) {
		t.Helper()
		if _, err := n.Command(t.Context(), strings.NewReader(stdin), append(args, "--dir", n.Dir)...); err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(ada.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command("", "domain", "add", domain)
	command("", "account", "add", ada.Address, "--password-file", password)
	send := func(i int) {
		t.Helper()
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address},
			fmt.Appendf(nil, "From: <sender@far.test>\r\nTo: <%s>\r\nSubject: %d\r\n\r\nthe hidden word %d\r\n", ada.Address, i, i))
	}
	for i := range 3 {
		send(i)
	}
	waitForMail(t, n, ada, "INBOX", 3)
	db, err := pgx.Connect(t.Context(), cluster.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	var fresh, open int
	err = db.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE position('hidden'::bytea IN data) > 0) FROM fresh_content`).Scan(&fresh, &open)
	if err != nil || open > 0 {
		t.Errorf("%d of %d contents in the database can be read, %v", open, fresh, err)
	}
	if states, left := keyStates(t, n, "list"); fmt.Sprint(states) != "[current]" || left != 0 {
		t.Errorf("%v, %d octets left", states, left)
	}
	if states, left := keyStates(t, n, "rotate", "--wait"); fmt.Sprint(states) != "[retired current]" || left != 0 {
		t.Errorf("after a rotation: %v, %d octets left", states, left)
	}
	send(3)
	waitForMail(t, n, ada, "INBOX", 4)
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	refused := func(why string, want ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		out, err := n.Command(ctx, nil, "account", "list", "--dir", n.Dir)
		if err == nil {
			t.Errorf("%s: opened", why)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error()+out, w) {
				t.Errorf("%s: %q is not in: %v", why, w, err)
			}
		}
	}
	key := filepath.Join(n.Dir, "keys", "master.key")
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	refused("without the master key", "master key", key, "Nothing was changed")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(key, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(strings.Repeat("0123456789abcdef", 4)))
	refused("with another master key", "wrong master key", "data_keys")
	write(good)
	// The data keys are lost with a part of the database.
	for _, table := range []string{"data_keys", "data_keys_copy"} {
		if _, err := db.Exec(t.Context(), `ALTER TABLE `+table+` RENAME TO kept_`+table+`; CREATE TABLE `+table+` (LIKE kept_`+table+` INCLUDING ALL)`); err != nil {
			t.Fatal(err)
		}
	}
	refused("without the data keys", "the data keys are missing", "data_keys")
	for _, table := range []string{"data_keys", "data_keys_copy"} {
		if _, err := db.Exec(t.Context(), `DROP TABLE `+table+`; ALTER TABLE kept_`+table+` RENAME TO `+table); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range waitForMail(t, n, ada, "INBOX", 4) {
		if !strings.Contains(string(m.body), "the hidden word") {
			t.Errorf("read %q", m.body)
		}
	}
}
