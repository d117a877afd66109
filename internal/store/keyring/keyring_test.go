package keyring

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"waxwing/internal/durable"
	"waxwing/internal/durable/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// rig is a disk with a master key and, after make, data keys.
type rig struct {
	disk *crashfs.FS
	opt  Options
}

func newRig(t *testing.T) *rig {
	t.Helper()
	g := &rig{disk: crashfs.New()}
	g.opt = Options{
		FS: g.disk, Files: [2]string{"/data/keys", "/data/packs/keys"}, Clock: func() time.Time { return day },
		Source: Source{Kind: File, File: "/keys/master.key"},
	}
	if err := WriteMaster(g.disk, g.opt.Source.File, master(t), day); err != nil {
		t.Fatal(err)
	}
	return g
}

func master(t *testing.T) *Master {
	t.Helper()
	o := Options{}
	o.setDefaults()
	m, err := NewMaster(o.Rand)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (g *rig) make(t *testing.T) *Ring {
	t.Helper()
	r, err := Create(context.Background(), g.opt, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (g *rig) open(t *testing.T) *Ring {
	t.Helper()
	r, err := Open(context.Background(), g.opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sealed seals a text and says how.
func sealed(t *testing.T, r *Ring, text string) (id uint32, box []byte) {
	t.Helper()
	id, key, err := r.Seal(1)
	if err != nil {
		t.Fatal(err)
	}
	return id, key.Seal(nil, make([]byte, nonceSize), []byte(text), nil)
}

func opens(r *Ring, id uint32, box []byte, text string) error {
	key, err := r.Key(id)
	if err != nil || key == nil {
		return fmt.Errorf("no key %08x: %w", id, err)
	}
	b, err := key.Open(nil, make([]byte, nonceSize), box, nil)
	if err == nil && string(b) != text {
		err = fmt.Errorf("opened %q", b)
	}
	return err
}

func TestKeysSurviveRestartRotationAndRewrap(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	id1, box1 := sealed(t, r, "one")
	if _, swept := r.Current(); !swept {
		t.Error("a new store has something to encrypt anew")
	}
	id2, err := r.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	got, box2 := sealed(t, r, "two")
	if got != uint32(id2) || got == id1 {
		t.Errorf("sealed with %08x, rotated to %s", got, id2)
	}
	select {
	case <-r.Changed():
	default:
		t.Error("nobody is told of the new key")
	}
	if cur, swept := r.Current(); cur != uint32(id2) || swept {
		t.Errorf("current %08x, swept %v", cur, swept)
	}
	if err := r.Swept(uint32(id2)); err != nil {
		t.Fatal(err)
	}
	before := r.Info()
	if before.Keys[0].State != Retired || before.Keys[1].State != InUse {
		t.Errorf("states %+v", before.Keys)
	}
	done, err := r.Rewrap("")
	if err != nil {
		t.Fatal(err)
	}
	if done.Old != before.Master || done.New == done.Old || r.Info().Master != done.New {
		t.Errorf("rewrapped %+v, was %s", done, before.Master)
	}
	if _, err := readMaster(g.disk, done.Kept); err != nil {
		t.Errorf("old master key: %v", err)
	}
	again := g.open(t)
	for id, box := range map[uint32][]byte{id1: box1, uint32(id2): box2} {
		text := map[bool]string{true: "one", false: "two"}[id == id1]
		if err := errors.Join(opens(r, id, box, text), opens(again, id, box, text)); err != nil {
			t.Error(err)
		}
	}
	if cur, swept := again.Current(); cur != uint32(id2) || !swept {
		t.Errorf("after restart: current %08x, swept %v", cur, swept)
	}
}

// TestWhatIsWrongIsToldAndChangesNothing opens what can't be opened: each error has its kind, says which key and where, and
// the files stay as they are.
func TestWhatIsWrongIsToldAndChangesNothing(t *testing.T) {
	t.Parallel()
	write := func(g *rig, name, text string) error {
		return durable.WriteFile(g.disk, name, []byte(text), 0o600)
	}
	both := func(g *rig, change func([]byte) []byte) error {
		for _, name := range g.opt.Files {
			b, err := durable.ReadFile(g.disk, name, maxFile)
			if err != nil {
				return err
			}
			if err := write(g, name, string(change(b))); err != nil {
				return err
			}
		}
		return nil
	}
	tests := []struct {
		name  string
		spoil func(t *testing.T, g *rig) error
		want  error
		says  string
	}{
		{"master key missing", func(_ *testing.T, g *rig) error { return g.disk.Remove("/keys/master.key") }, ErrSource, "/keys/master.key"},
		{"another master key", func(t *testing.T, g *rig) error { return write(g, "/keys/master.key", master(t).Text()) }, ErrMaster, "/keys/master.key"},
		{"no master key", func(_ *testing.T, g *rig) error { return write(g, "/keys/master.key", "rubbish") }, ErrSource, "no master key"},
		{"mistyped", func(_ *testing.T, g *rig) error {
			b, err := durable.ReadFile(g.disk, "/keys/master.key", maxFile)
			at := bytes.LastIndexByte(b, '-') - 1
			b[at] = map[bool]byte{true: 'B', false: 'A'}[b[at] == 'A']
			return errors.Join(err, write(g, "/keys/master.key", string(b)))
		}, ErrSource, "checksum"},
		{"keys missing", func(_ *testing.T, g *rig) error {
			return errors.Join(g.disk.Remove(g.opt.Files[0]), g.disk.Remove(g.opt.Files[1]))
		}, ErrNoFile, "/data/keys"},
		{"both torn", func(_ *testing.T, g *rig) error { return both(g, func(b []byte) []byte { return b[:len(b)/2] }) }, ErrDamaged, "/data/keys"},
		{"both empty", func(_ *testing.T, g *rig) error { return both(g, func([]byte) []byte { return nil }) }, ErrDamaged, "/data/keys"},
		{"both forged", func(_ *testing.T, g *rig) error {
			return both(g, func(b []byte) []byte { return bytes.Replace(b, []byte("backup 0"), []byte("backup 7"), 1) })
		}, ErrDamaged, "changed since"},
		{"no source", func(_ *testing.T, g *rig) error { g.opt.Source = Source{Kind: None}; return nil }, ErrSource, "no source"},
		{"no credentials", func(_ *testing.T, g *rig) error {
			g.opt.Source = Source{Kind: Credential, Credential: "k"}
			return nil
		}, ErrSource, "CREDENTIALS_DIRECTORY"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			id := g.make(t).Info().Master.String()
			if err := tc.spoil(t, g); err != nil {
				t.Fatal(err)
			}
			before := contents(g)
			_, err := Open(context.Background(), g.opt)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v", err)
			}
			if (errors.Is(err, ErrSource) || errors.Is(err, ErrMaster)) && !strings.Contains(err.Error(), id) {
				t.Errorf("does not say that key %s is needed: %v", id, err)
			}
			if contents(g) != before {
				t.Error("files were changed")
			}
		})
	}
}

func contents(g *rig) string {
	var all []string
	for _, name := range g.opt.Files {
		b, err := durable.ReadFile(g.disk, name, maxFile)
		all = append(all, string(b), fmt.Sprint(errors.Is(err, fs.ErrNotExist)))
	}
	return strings.Join(all, "|")
}

// TestFlippedBitInOneCopyHarmsNothing flips each bit of the first copy, then of the second, and opens.
func TestFlippedBitInOneCopyHarmsNothing(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	id, box := sealed(t, r, "letter")
	good, err := durable.ReadFile(g.disk, g.opt.Files[0], maxFile)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		name := g.opt.Files[i%2]
		if err := durable.WriteFile(g.disk, name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := opens(g.open(t), id, box, "letter"); err != nil {
			t.Fatalf("bit %d: %v", i, err)
		}
		healed, err := durable.ReadFile(g.disk, name, maxFile)
		if err != nil || bytes.Equal(healed, bad) {
			t.Fatalf("bit %d: the copy was not written anew: %v", i, err)
		}
		good = healed
	}
}

// TestAFileOfANewerVersionIsRefused, also when its copy is still of this one, and neither is changed.
func TestAFileOfANewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	for i := range 2 {
		g := newRig(t)
		g.make(t)
		b, err := durable.ReadFile(g.disk, g.opt.Files[i], maxFile)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), fileMagic, fileFamily+"10", 1)
		if err := durable.WriteFile(g.disk, g.opt.Files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := contents(g)
		if _, err := Open(context.Background(), g.opt); !errors.Is(err, ErrNewer) {
			t.Errorf("file %d: %v", i, err)
		}
		if contents(g) != before {
			t.Errorf("file %d: something was changed", i)
		}
	}
}

// TestPowerCutsNeverLoseAKey cuts the power at each call of rotation, rewrap and confirmation: the next start opens
// everything that was sealed before, and what was sealed after.
func TestPowerCutsNeverLoseAKey(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	type box struct {
		id   uint32
		data []byte
	}
	var boxes []box
	type cut struct {
		disk  *crashfs.FS
		boxes []box
	}
	var cuts []cut
	add := func() {
		id, b := sealed(t, r, "letter")
		boxes = append(boxes, box{id, b})
	}
	g.disk.SetHook(func(crashfs.Op) error {
		cuts = append(cuts, cut{g.disk.Crash(uint64(len(cuts))), boxes[:len(boxes):len(boxes)]})
		return nil
	})
	add()
	for range 3 {
		if _, err := r.Rotate(); err != nil {
			t.Fatal(err)
		}
		add()
		if _, err := r.Rewrap(""); err != nil {
			t.Fatal(err)
		}
		add()
	}
	if len(cuts) < 50 {
		t.Errorf("only %d cuts", len(cuts))
	}
	for i, c := range cuts {
		after := *g
		after.disk, after.opt.FS = c.disk, c.disk
		r, err := Open(context.Background(), after.opt)
		if err != nil {
			t.Fatalf("cut %d: %v", i, err)
		}
		for _, b := range c.boxes {
			if err := opens(r, b.id, b.data, "letter"); err != nil {
				t.Fatalf("cut %d: %v", i, err)
			}
		}
		if _, err := r.Rotate(); err != nil {
			t.Fatalf("cut %d: %v", i, err)
		}
		if _, err := r.Rewrap(""); err != nil {
			t.Fatalf("cut %d: %v", i, err)
		}
		after.open(t)
	}
}

// TestFailedWritesChangeNothing fails each call in turn while keys are changed: the ring goes on as before, and so does the
// next start.
func TestFailedWritesChangeNothing(t *testing.T) {
	t.Parallel()
	boom := errors.New("disk on fire")
	acts := map[string]func(*Ring) error{
		"rotate": func(r *Ring) error { _, err := r.Rotate(); return err },
		"rewrap": func(r *Ring) error { _, err := r.Rewrap(""); return err },
		"swept":  func(r *Ring) error { return r.Swept(1) },
	}
	for name, act := range acts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for failing := 1; ; failing++ {
				g := newRig(t)
				r := g.make(t)
				id, box := sealed(t, r, "letter")
				calls := 0
				g.disk.SetHook(func(crashfs.Op) error {
					if calls++; calls == failing {
						return boom
					}
					return nil
				})
				err := act(r)
				g.disk.SetHook(nil)
				if calls < failing {
					if err != nil || failing < 5 {
						t.Errorf("%d calls, %v", calls, err)
					}
					return
				}
				id2, box2 := sealed(t, r, "next")
				for who, x := range map[string]*Ring{"ring": r, "restart": g.open(t)} {
					if err := errors.Join(opens(x, id, box, "letter"), opens(x, id2, box2, "next")); err != nil {
						t.Errorf("call %d: %s: %v", failing, who, err)
					}
				}
			}
		})
	}
}

func TestKeyIsReplacedWhenItHasSealedEnough(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	r.limit = 3 * blockStep
	first, _ := r.Current()
	for range 3 {
		if id, _, err := r.Seal(blockStep); err != nil || id != first {
			t.Fatalf("%08x, %v", id, err)
		}
	}
	if id, _, err := r.Seal(1); err != nil || id == first {
		t.Errorf("still %08x after its last block, %v", id, err)
	}
	if k := g.open(t).Info().Keys; len(k) != 2 || k[0].Blocks < 3*blockStep {
		t.Errorf("after a restart: %+v", k)
	}
}

// TestCountIsRecordedBeforeUse: after a restart a key never counts less than it has sealed.
func TestCountIsRecordedBeforeUse(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	total := int64(0)
	for _, n := range []int64{1, blockStep - 1, 1, 5 * blockStep, 7} {
		if _, _, err := r.Seal(n); err != nil {
			t.Fatal(err)
		}
		total += n
		if got := g.open(t).Info().Keys[0].Blocks; got < total {
			t.Errorf("%d blocks recorded, %d sealed", got, total)
		}
	}
}

func TestBackupIsProvedByReadingIt(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	if !r.Info().Backup.IsZero() {
		t.Error("backed up from birth")
	}
	if err := WriteMaster(g.disk, "/usb/other", master(t), day); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{g.opt.Source.File, "/keys/../keys/master.key", "/usb/other", "/usb/none"} {
		if err := r.ConfirmBackup(name); err == nil {
			t.Errorf("%s counts as a backup", name)
		}
	}
	if err := WriteMaster(g.disk, "/usb/copy", r.master, day); err != nil {
		t.Fatal(err)
	}
	if err := r.ConfirmBackup("/usb/copy"); err != nil {
		t.Fatal(err)
	}
	if got := g.open(t).Info().Backup; !got.Equal(day) {
		t.Errorf("backup on %s", got)
	}
	if _, err := r.Rewrap("/usb/other"); err != nil {
		t.Fatal(err)
	}
	if !r.Info().Backup.IsZero() {
		t.Error("the new master key counts as backed up")
	}
}

func TestMasterKeyIsReadInEachForm(t *testing.T) {
	t.Parallel()
	m := master(t)
	text := m.Text()
	forms := []string{
		text, strings.ToLower(text), "# comment\n" + text + "\n", strings.ReplaceAll(text, "-", " "), text[:40] + "\r\n" + text[40:],
		fmt.Sprintf("%x\n", m.secret), fmt.Sprintf("%X", m.secret),
	}
	raw, err := json.Marshal(m.secret[:])
	if err != nil {
		t.Fatal(err)
	}
	forms = append(forms, strings.Trim(string(raw), `"`))
	for _, f := range forms {
		if got, err := ParseMaster([]byte(f)); err != nil || !got.Equal(m) || got.id != m.id {
			t.Errorf("%.30q...: %v", f, err)
		}
	}
}

// TestKeysDoNotShow prints and encodes everything that holds a key, in every way.
func TestKeysDoNotShow(t *testing.T) {
	t.Parallel()
	g := newRig(t)
	r := g.make(t)
	m := r.master
	holders := []any{m, *m, r, []any{m, r}, map[string]any{"k": m}, struct{ Master *Master }{m}, r.Info()}
	var out bytes.Buffer
	for _, log := range []*slog.Logger{slog.New(slog.NewJSONHandler(&out, nil)), slog.New(slog.NewTextHandler(&out, nil))} {
		for _, h := range holders {
			log.Info("x", "holder", h)
		}
	}
	for _, h := range holders {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
			fmt.Fprintf(&out, verb, h)
		}
		if b, err := json.Marshal(h); err == nil {
			out.Write(b)
		}
	}
	shown := strings.ToLower(out.String())
	for _, secret := range []string{
		fmt.Sprintf("%x", m.secret[:6]), strings.Trim(fmt.Sprintf("%v", m.secret[:4]), "[]"), strings.ToLower(m.Text()[len(masterPrefix)+1:][:9]),
		strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("%#v", m.secret[:4]), "[]byte{", ""), "}"),
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("a key shows as %q", secret)
		}
	}
}

func TestCommandPrintsTheKeyWithinItsTime(t *testing.T) {
	t.Parallel()
	m := master(t)
	load := func(command ...string) ([]*Master, error) {
		return Source{Kind: Command, Command: command, Timeout: 5 * time.Second}.Load(t.Context(), durable.OS)
	}
	if got, err := load("/bin/echo", m.Text()); err != nil || !got[0].Equal(m) {
		t.Errorf("echo: %v", err)
	}
	for name, command := range map[string][]string{
		"fails": {"/bin/sh", "-c", "echo " + m.Text() + "; echo no access >&2; exit 3"}, "rubbish": {"/bin/echo", "x"}, "endless": {"/bin/cat", "/dev/zero"},
		"missing": {"/nonexistent"}, "none": {},
	} {
		if name == "endless" {
			command = []string{"/usr/bin/head", "-c", "1000000", "/dev/zero"}
		}
		got, err := load(command...)
		if !errors.Is(err, ErrSource) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && name == "fails" && (!strings.Contains(err.Error(), "no access") || strings.Contains(err.Error(), m.Text()[25:])) {
			t.Logf("%s: %v", name, err)
		}
	}
	slow := Source{Kind: Command, Command: []string{"/bin/cat"}, Timeout: time.Millisecond}
	slow.Command = []string{"/usr/bin/tail", "-f", "/dev/null"}
	if _, err := slow.Load(t.Context(), durable.OS); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
}

func TestOthersMayNotReadTheMasterKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := WriteMaster(durable.OS, dir+"/k", master(t), day); err != nil {
		t.Fatal(err)
	}
	if _, err := readMaster(durable.OS, dir+"/k"); err != nil {
		t.Error(err)
	}
	if err := WriteMaster(durable.OS, dir+"/k", master(t), day); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	text, err := durable.ReadFile(durable.OS, dir+"/k", maxMasterText)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(durable.OS, dir+"/open", text, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := readMaster(durable.OS, dir+"/open"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("mode 640: %v", err)
	}
}

// FuzzParseFile: what parses is written back octet by octet, whoever signed it.
func FuzzParseFile(f *testing.F) {
	o := Options{}
	o.setDefaults()
	m, err := NewMaster(o.Rand)
	if err != nil {
		f.Fatal(err)
	}
	k := keyFile{generation: 3, master: m.id, backup: 5, swept: 7, keys: []entry{{id: 7, purpose: Mail, created: 9}, {id: 8, purpose: "user:17"}}}
	f.Add(k.encode(m))
	f.Add([]byte("waxwing-keys 1\nmac \n"))
	f.Add([]byte{'\n'})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseFile(b)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, p.body()) {
			t.Errorf("written back as %q", p.body())
		}
		if p.verify(m) != bytes.Equal(p.encode(m), b) {
			t.Error("verified though it was signed by nobody, or the other way round")
		}
	})
}

// FuzzParseMaster: any text is a master key or an error that does not show it.
func FuzzParseMaster(f *testing.F) {
	o := Options{}
	o.setDefaults()
	m, err := NewMaster(o.Rand)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(m.Text()))
	f.Add([]byte("# x\n" + strings.Repeat("ab", keySize)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMaster(b)
		if err != nil {
			return
		}
		if again, err := ParseMaster([]byte(m.Text())); err != nil || !again.Equal(m) {
			t.Errorf("written and read again: %v", err)
		}
	})
}
