package system

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing/internal/control"
	"waxwing/test/rig"
)

// TestStoredMessagesTellNothing looks into every file of the packs for what was mailed: short, long and large messages. The
// server reads them back, but not without its key.
func TestStoredMessagesTellNothing(t *testing.T) {
	n := node(t, rig.WaxwingOptions{})
	raw := make([]byte, 2<<20)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	bodies := []string{"the short secret", strings.Repeat("the long secret is told again and again\r\n", 3000), base64.StdEncoding.EncodeToString(raw)}
	var sent [][]byte
	for i, body := range bodies {
		text := fmt.Appendf(nil, "From: <sender@far.test>\r\nTo: <%s>\r\nSubject: secret %d\r\n\r\n", ada.Address, i)
		for len(body) > 70 && !strings.Contains(body, "\r\n") {
			text = fmt.Appendf(text, "%s\r\n", body[:70])
			body = body[70:]
		}
		text = fmt.Appendf(text, "%s\r\n", body)
		sent = append(sent, text)
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, text)
	}
	same := func() {
		t.Helper()
		got := waitForMail(t, n, ada, "INBOX", len(sent))
		for i, m := range got {
			if !bytes.HasSuffix(m.body, sent[i]) {
				t.Errorf("message %d is read as %d octets", i, len(m.body))
			}
		}
	}
	same()
	if err := n.Terminate(); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(n.Dir, "data", "packs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for i, text := range sent {
			for _, piece := range [][]byte{[]byte("secret"), []byte("sender@far.test"), text[len(text)-40 : len(text)-2], text[len(text)/2 : len(text)/2+24]} {
				if bytes.Contains(b, piece) {
					t.Errorf("%s holds %q of message %d", d.Name(), piece, i)
				}
			}
		}
		return nil
	})
	if err != nil || files < 3 {
		t.Fatalf("%d files, %v", files, err)
	}
	key := filepath.Join(n.Dir, "keys", "master.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := n.Command(ctx, nil, "serve", "--dir", n.Dir)
	if err == nil || !strings.Contains(err.Error()+out, "master key") {
		t.Errorf("started without its key: %v", err)
	}
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	same()
}

// rotateWork changes the data key, and now and then the master key, of a server that runs, so that kills hit both and what
// follows: all mail is encrypted anew.
func rotateWork(ctx context.Context, _ *testing.T, n *rig.Node, j *journal) error {
	c, err := control.Dial(ctx, filepath.Join(n.Dir, "data"))
	if err != nil {
		return err
	}
	defer c.Close()
	keys, err := control.KeyRotate.Call(ctx, c, control.Rotate{})
	if err != nil {
		return err
	}
	j.note(func() { j.rotated++ })
	if len(keys.Keys)%3 == 0 {
		_, err = control.KeyRewrap.Call(ctx, c, control.Rewrap{})
	}
	select {
	case <-ctx.Done():
	case <-time.After(500 * time.Millisecond): // a ring holds 4,096 keys, and the soak is long
	}
	return err
}

// dataKeys is how many data keys a running server has.
func dataKeys(t *testing.T, n *rig.Node) int {
	t.Helper()
	c, err := control.Dial(t.Context(), filepath.Join(n.Dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	keys, err := control.KeyList.Call(t.Context(), c, control.Done{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d data keys, master key %s", len(keys.Keys), keys.Master)
	return len(keys.Keys)
}
