package system

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"waxwing/internal/durable/ordeal"
	"waxwing/test/rig"
)

// TestPromise5DiskTurnsReadOnlyUnderLoad has the kernel find an error in the file system of the data directory and turn it
// read-only, as it does with a dying disk, under a mixed load: mail is refused with 4xx, what is there can be read, and a
// restart on the mended file system has all that was answered.
func TestPromise5DiskTurnsReadOnlyUnderLoad(t *testing.T) {
	o, j, v := ordeal.Begin(t), newJournal(), newVolume(t)
	sink := j.sink(t, o)
	n := node(t, rig.WaxwingOptions{Relay: sink.Address, Dir: v.dir, Edit: quickRetries})
	_, stop := j.load(t, n, rotateWork)
	defer stop()
	j.awaitWork(t)
	v.fail(t)
	o.Fault(1)
	waitFor(t, "mail is refused", func() bool {
		code, text := trySend(t, n.SMTP, "sender@far.test", bob.Address, letter("sender@far.test", bob.Address, "read-only"))
		if code/100 == 5 {
			t.Errorf("on a read-only disk the server says %d %s", code, text)
		}
		return code != 250
	})
	c, data := mailbox(t, n, ada, "INBOX")
	if got := fetchAll(t, c); len(got) == 0 || len(got) < int(data.NumMessages) {
		t.Errorf("%d of %d messages can be read from a read-only disk", len(got), data.NumMessages)
	}
	c.Close()
	if !strings.Contains(n.Log(), "read-only") {
		t.Error("the log does not say why")
	}
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	v.mend(t)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.awaitChanges(t)
	stop()
	j.check(t, o, n, 1)
	if out, err := n.Command(t.Context(), nil, "store", "verify", "--dir", n.Dir); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// volume is a file system of its own in a file.
type volume struct {
	image, dir string
}

// newVolume makes and mounts one that turns read-only at its first error.
func newVolume(t *testing.T) *volume {
	t.Helper()
	v := &volume{image: filepath.Join(t.TempDir(), "image"), dir: t.TempDir()}
	f, err := os.Create(v.image)
	if err == nil {
		err = errors.Join(f.Truncate(512<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-F", v.image)
	v.mount(t)
	t.Cleanup(func() {
		if err := unix.Unmount(v.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return v
}

func (v *volume) mount(t *testing.T) {
	t.Helper()
	run(t, "mount", "-o", "loop,errors=remount-ro", v.image, v.dir)
}

// fail has the kernel find an error.
func (v *volume) fail(t *testing.T) {
	t.Helper()
	device := strings.TrimSpace(run(t, "findmnt", "--noheadings", "--output", "SOURCE", v.dir))
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1\n"), 0o200); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(v.dir, "probe"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Fatalf("the file system is not read-only: %v", err)
	}
}

// mend does what an administrator does after that: check the file system and mount it again. Nothing may use it.
func (v *volume) mend(t *testing.T) {
	t.Helper()
	run(t, "umount", v.dir)
	var ended *exec.ExitError
	if out, err := exec.CommandContext(t.Context(), "e2fsck", "-fy", v.image).CombinedOutput(); err != nil && (!errors.As(err, &ended) || ended.ExitCode() > 1) { // 1: mended
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
	v.mount(t)
}

// run runs a program and returns what it printed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
