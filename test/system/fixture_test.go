package system

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/textproto"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/klauspost/compress/zstd"

	"waxwing/internal/build"
	"waxwing/internal/config"
	"waxwing/internal/sqlitefile"
	"waxwing/internal/store/upgrade"
	"waxwing/test/rig"
)

var updateFixture = flag.Bool("update", false, "make the fixture store of this version anew")

// The fixtures: the directory of a server as a version left it, and what was in it.
const (
	fixtureDir  = "testdata/stores"
	fixtureType = ".tar.zst"
	maxFixture  = 300 << 10
)

// contents is what a server shows of its store.
type contents struct {
	Schema    int64                     `json:"schema"`
	Program   string                    `json:"program"`
	Mailboxes map[string]mailboxContent `json:"mailboxes"` // of ada
	UIDLs     []string                  `json:"uidls"`     // of ada, over POP3
	Queue     int                       `json:"queue"`
	Deleted   int                       `json:"deleted"` // of ada, can be restored
}

type mailboxContent struct {
	UIDValidity uint32           `json:"uidvalidity"`
	UIDNext     imap.UID         `json:"uidnext"`
	Messages    []messageContent `json:"messages"`
}

type messageContent struct {
	UID   imap.UID `json:"uid"`
	Flags []string `json:"flags"`
	Size  int64    `json:"size"`
	Hash  string   `json:"sha256"`
}

// TestStoresOfEarlierVersionsOpen opens each fixture with the built server, reads all of it by IMAP and POP3, verifies it,
// and mails on. With -update it makes the fixture of this version first.
func TestStoresOfEarlierVersionsOpen(t *testing.T) {
	if *updateFixture {
		makeFixture(t)
	}
	archives, err := filepath.Glob(filepath.Join(fixtureDir, "*"+fixtureType))
	if err != nil || len(archives) == 0 {
		t.Fatalf("fixtures %v, %v", archives, err)
	}
	for _, archive := range archives {
		name := strings.TrimSuffix(archive, fixtureType)
		t.Run(filepath.Base(name), func(t *testing.T) { openFixture(t, archive, name+".json") })
	}
}

func openFixture(t *testing.T, archive, expected string) {
	if fi, err := os.Stat(archive); err != nil || fi.Size() > maxFixture {
		t.Errorf("the fixture is too large: %v, %v", fi, err)
	}
	b, err := os.ReadFile(expected)
	if err != nil {
		t.Fatal(err)
	}
	var want contents
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "waxwing")
	unpack(t, archive, dir)
	n, err := rig.OpenNode(t.TempDir(), dir, rig.WaxwingOptions{Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	var did struct{ From, Schema int64 }
	commandJSON(t, n, &did, "store", "upgrade", "--json", "--dir", n.Dir)
	if did.From != 0 && did.From != want.Schema {
		t.Errorf("upgraded from schema %d, the fixture has %d", did.From, want.Schema)
	}
	var copies []upgrade.Copy
	commandJSON(t, n, &copies, "store", "copies", "--json", "--dir", n.Dir)
	if (len(copies) == 1) != (did.From != 0) {
		t.Errorf("upgraded from schema %d to %d, copies %+v", did.From, did.Schema, copies)
	}
	if f, err := sqlitefile.Look(filepath.Join(dir, "data", "waxwing.db"), nil, sqlitefile.Below{}); err != nil || !f.Summed() {
		t.Errorf("the database has no sums of its pages: %v", err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	got := readContents(t, n)
	got.Schema, got.Program = want.Schema, want.Program
	if !reflect.DeepEqual(got, want) {
		shown, _ := json.MarshalIndent(got, "", "  ")
		t.Errorf("the server shows %s", shown)
	}
	if out, err := n.Command(t.Context(), nil, "store", "verify", "--dir", n.Dir); err != nil {
		t.Errorf("verify: %s, %v", out, err)
	}
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, letter("sender@far.test", ada.Address, "next"))
	inbox := want.Mailboxes["INBOX"]
	mail := waitForMail(t, n, ada, "INBOX", len(inbox.Messages)+1)
	if last := mail[len(mail)-1].uid; last != inbox.UIDNext {
		t.Errorf("new mail has UID %d, want %d", last, inbox.UIDNext)
	}
}

// readContents reads all that a fixture is held to.
func readContents(t *testing.T, n *rig.Node) contents {
	t.Helper()
	all := contents{Mailboxes: map[string]mailboxContent{}}
	c, _ := mailbox(t, n, ada, "INBOX")
	list, err := c.List("", "*", nil).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		c, data := mailbox(t, n, ada, l.Mailbox)
		box := mailboxContent{UIDValidity: data.UIDValidity, UIDNext: data.UIDNext, Messages: []messageContent{}}
		for _, m := range fetchAll(t, c) {
			sum := sha256.Sum256(m.body)
			flags := []string{}
			for _, f := range m.flags {
				if f != `\Recent` {
					flags = append(flags, strings.ToLower(string(f)))
				}
			}
			slices.Sort(flags)
			box.Messages = append(box.Messages, messageContent{UID: m.uid, Flags: flags, Size: m.size, Hash: hex.EncodeToString(sum[:])})
		}
		all.Mailboxes[l.Mailbox] = box
	}
	all.UIDLs = uidls(t, n)
	var queue []json.RawMessage
	var deleted struct{ Messages []json.RawMessage }
	commandJSON(t, n, &queue, "queue", "list", "--json", "--dir", n.Dir)
	commandJSON(t, n, &deleted, "account", "deleted", ada.Address, "--json", "--dir", n.Dir)
	all.Queue, all.Deleted = len(queue), len(deleted.Messages)
	return all
}

// uidls asks POP3 for the lasting ids of the inbox.
func uidls(t *testing.T, n *rig.Node) []string {
	t.Helper()
	conn, err := tls.Dial("tcp", n.POP3S, trust(t, n.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	c := textproto.NewConn(conn)
	defer c.Close()
	for _, line := range []string{"", "USER " + ada.Address, "PASS " + ada.Password, "UIDL"} {
		if line != "" {
			if err := c.PrintfLine("%s", line); err != nil {
				t.Fatal(err)
			}
		}
		if answer, err := c.ReadLine(); err != nil || !strings.HasPrefix(answer, "+OK") {
			t.Fatalf("%s: %s, %v", line, answer, err)
		}
	}
	lines, err := c.ReadDotLines()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// makeFixture fills a server with a little of everything and packs its directory.
func makeFixture(t *testing.T) {
	t.Helper()
	n := node(t, rig.WaxwingOptions{Relay: rig.Loopback(1)})
	fillFixture(t, n)
	all := readContents(t, n)
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	var status struct{ Schema int64 }
	commandJSON(t, n, &status, "store", "upgrade", "--json", "--dir", n.Dir)
	all.Schema, all.Program = status.Schema, build.Version
	// The configuration that init writes: ports and certificate are changed by who opens it.
	plain := filepath.Join(t.TempDir(), "plain")
	if _, err := n.Command(t.Context(), nil, "init", "--dir", plain, "--domain", domain, "--loopback"); err != nil {
		t.Fatal(err)
	}
	toml, err := os.ReadFile(filepath.Join(plain, config.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, config.FileName), toml, 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(fixtureDir, fmt.Sprintf("schema-%04d", all.Schema))
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name+".json", append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	pack(t, n.Dir, name+fixtureType)
}

// fillFixture leaves behind what each table and each format of the store is for.
func fillFixture(t *testing.T, n *rig.Node) {
	t.Helper()
	// Whenever it is opened, the deleted message can be restored and the queued one waits.
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, []byte("[undelete]\ndays = 36500\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Command(t.Context(), nil, "config", "apply", settings, "--yes", "--dir", n.Dir); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address, bob.Address}, letter("sender@far.test", ada.Address, fmt.Sprint("fixture-", i)))
	}
	large := append(letter("sender@far.test", ada.Address, "large"), bytes.Repeat([]byte("a line of a message that is a file of its own\r\n"), 30_000)...)
	sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, large)
	waitForMail(t, n, ada, "INBOX", 7)
	if err := submit(t, n, ada, []string{"someone@far.test"}, letter(ada.Address, "someone@far.test", "queued")); err != nil {
		t.Fatal(err)
	}
	c, _ := mailbox(t, n, ada, "INBOX")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Create("项目/2026", nil).Wait())
	must(c.Subscribe("项目/2026").Wait())
	_, err := c.Copy(imap.UIDSetNum(1, 2), "项目/2026").Wait()
	must(err)
	must(changeFlags(c, 1, imap.FlagSeen))
	must(changeFlags(c, 2, "$Forwarded"))
	must(changeFlags(c, 3, imap.FlagFlagged))
	must(moveTo(c, 4, "Archive"))
	must(changeFlags(c, 5, imap.FlagDeleted))
	_, err = c.UIDExpunge(imap.UIDSetNum(5)).Collect()
	must(err)
	_, err = n.Command(t.Context(), nil, "queue", "hold", "--all", "--dir", n.Dir)
	must(err)
	_, err = n.Command(t.Context(), nil, "alias", "add", "office@"+domain, ada.Address, "--dir", n.Dir)
	must(err)
	_, err = n.Command(t.Context(), nil, "store", "key", "rotate", "--dir", n.Dir)
	must(err)
	sendPlain(t, n.SMTP, "sender@far.test", []string{"office@" + domain}, letter("sender@far.test", "office@"+domain, "under another key"))
	waitForMail(t, n, ada, "INBOX", 6)
}

func moveTo(c *imapclient.Client, uid imap.UID, name string) error {
	_, err := c.Move(imap.UIDSetNum(uid), name).Wait()
	return err
}

// pack writes what makes a server: its configuration, its master key and its data.
func pack(t *testing.T, dir, archive string) {
	t.Helper()
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() || !d.Type().IsRegular() || strings.HasPrefix(name, "tls") || filepath.Base(name) == "lock" {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err := errors.Join(err, w.Close(), z.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// unpack is the opposite.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		b, err := io.ReadAll(r)
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, b, 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
