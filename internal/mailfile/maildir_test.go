package mailfile

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMaildirIsWrittenAndReadBack(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	date := time.Date(2024, 2, 3, 4, 5, 6, 0, time.UTC)
	folders := map[string]string{"INBOX": "", "Sent": ".Sent", "工作/2024.Q1": `.&XeVPXA-.2024\2eQ1`}
	message := "Subject: 1\r\n\r\nFrom here\r\n.\r\n会议\r\n"
	flags := Flags{Seen: true, Answered: true, Flagged: true, Deleted: true, Draft: true, Keywords: []string{"$Forwarded", "work"}}
	for name, dir := range folders {
		w, err := NewMaildirFolder(root, name)
		if err != nil {
			t.Fatal(err)
		}
		if lost, err := w.Write(UniqueName(date, "V1U2"), Message{Date: date, Flags: flags}, strings.NewReader(message)); err != nil || lost != 0 {
			t.Fatal(lost, err)
		}
		if lost, err := w.Write(UniqueName(date, "V1U3"), Message{Date: date}, strings.NewReader("x\rno end")); err != nil || lost != 0 {
			t.Fatal(lost, err)
		}
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(root, dir, "cur", "1706933106.V1U2.waxwing:2,DFRSTab")
		text, err := os.ReadFile(file)
		if err != nil || string(text) != strings.ReplaceAll(message, "\r", "") {
			t.Errorf("file: %q, %v", text, err)
		}
	}
	got, err := MaildirFolders(root)
	if err != nil || len(got) != len(folders) || got[0].Name != "INBOX" {
		t.Fatalf("folders: %v, %v", got, err)
	}
	for _, f := range got {
		if _, ok := folders[f.Name]; !ok {
			t.Errorf("unknown folder %q", f.Name)
		}
		files, err := MaildirFiles(f.Dir)
		if err != nil || len(files) != 2 {
			t.Fatalf("files: %v, %v", files, err)
		}
		var b bytes.Buffer
		m, err := files[0].Copy(&b)
		if err != nil || b.String() != message || !m.Date.Equal(date) || !reflect.DeepEqual(m.Flags, flags) {
			t.Errorf("got %q, %+v, %v", b.String(), m, err)
		}
		b.Reset()
		if _, err := files[1].Copy(&b); err != nil || b.String() != "x\r\nno end" {
			t.Errorf("got %q, %v", b.String(), err)
		}
	}
}

func TestMaildirRewritesAMessageWhoseFlagsChanged(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, seen := range []bool{false, true, true} {
		w, err := NewMaildirFolder(root, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write("1.a", Message{Flags: Flags{Seen: seen, Keywords: []string{"k"}}}, strings.NewReader("x\r\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := MaildirFiles(root)
	if err != nil || len(files) != 1 || !files[0].Message.Flags.Seen || !reflect.DeepEqual(files[0].Message.Flags.Keywords, []string{"k"}) {
		t.Errorf("files: %+v, %v", files, err)
	}
}

func TestMaildirDistrustsForeignNames(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	outside := t.TempDir()
	for _, dir := range []string{"cur", "new", ".ok/cur", ".ok/new", "..up/cur", "..up/new", ".&bad/cur", ".&bad/new", ".INBOX/cur", ".INBOX/new", ".half/cur", ".utf8-é/cur", ".utf8-é/new", `.a\2fb/cur`, `.a\2fb/new`} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"cur", "new"} {
		if err := os.MkdirAll(filepath.Join(outside, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(root, ".link")); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(root, "cur", "1.link:2,S")); err != nil {
		t.Fatal(err)
	}
	folders, err := MaildirFolders(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range folders {
		names = append(names, f.Name)
	}
	if want := []string{"INBOX", "a_b", "ok", "utf8-é"}; !reflect.DeepEqual(names, want) {
		t.Errorf("folders %q, want %q", names, want)
	}
	if files, err := MaildirFiles(root); err != nil || len(files) != 0 {
		t.Errorf("a link is taken for a message: %v, %v", files, err)
	}
	w, err := NewMaildirFolder(root, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for _, unique := range []string{"", "../x", "a/b", ".x", "a:2,S"} {
		if _, err := w.Write(unique, Message{}, strings.NewReader("")); err == nil {
			t.Errorf("%q was taken for a file name", unique)
		}
	}
	if _, err := MaildirFolders(outside + "/cur"); err == nil {
		t.Error("a directory without cur and new is taken for a Maildir")
	}
}

func TestFolderNamesAreReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		level := rapid.StringMatching(`[a-z .\\&+,é会\x{1F600}-]{1,8}`)
		name := strings.Join(rapid.SliceOfN(level, 1, 4).Draw(t, "levels"), "/")
		got, ok := decodeFolder(encodeFolder(name))
		if !ok || got != name {
			t.Fatalf("%q is written %q and read back %q, %v", name, encodeFolder(name), got, ok)
		}
	})
}

func FuzzFolderName(f *testing.F) {
	f.Add(`.&XeVPXA-.2024\2eQ1`)
	f.Fuzz(func(t *testing.T, dir string) {
		name, ok := decodeFolder(dir)
		if ok && (name == "" || strings.Contains("/"+name+"/", "//")) {
			t.Errorf("%q is read as %q", dir, name)
		}
	})
}
