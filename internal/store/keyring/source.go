package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"waxwing/internal/durable"
)

// Kind is where the master key comes from.
type Kind string

// The kinds of sources.
const (
	None       Kind = "none"       // no encryption
	File       Kind = "file"       // a file that the server's user alone can read
	Credential Kind = "credential" // a credential that systemd hands over (systemd.exec(5), LoadCredentialEncrypted=)
	Command    Kind = "command"    // what a command prints, a client of a key management service say
)

// ErrSource means that the master key can't be had from where it should come.
var ErrSource = errors.New("master key can't be read")

// newSuffix ends the name of the file in which a new master key waits while data keys are wrapped anew.
const newSuffix = ".new"

// Source says where the master key comes from.
type Source struct {
	Kind       Kind
	File       string        // of File: its path
	Credential string        // of Credential: its name
	Dir        string        // of Credential: $CREDENTIALS_DIRECTORY
	Command    []string      // of Command: program and arguments; no shell
	Timeout    time.Duration // of Command
}

func (s Source) String() string {
	switch s.Kind {
	case File:
		return "file " + s.File
	case Credential:
		return "systemd credential " + s.Credential
	case Command:
		return "command " + strings.Join(s.Command, " ")
	}
	return "none"
}

// waiting says where a new master key may stand beside the old one.
func (s Source) waiting() string {
	if s.Kind == File {
		return " as " + s.File + newSuffix
	}
	return ""
}

// Load gets the master key; after a change of master keys that was broken off, the new one too.
func (s Source) Load(ctx context.Context, fsys durable.FS) ([]*Master, error) {
	var found []*Master
	var err error
	switch s.Kind {
	case File:
		found, err = s.loadFiles(fsys)
	case Credential:
		if s.Dir == "" {
			err = errors.New("CREDENTIALS_DIRECTORY is not set: systemd starts the server with LoadCredentialEncrypted= or LoadCredential= in its unit")
			break
		}
		found, err = one(readMaster(fsys, filepath.Join(s.Dir, s.Credential)))
	case Command:
		found, err = one(s.run(ctx))
	default:
		err = fmt.Errorf("no source is configured ([encryption] source = %q)", string(s.Kind))
	}
	if err != nil {
		return nil, fmt.Errorf("keyring: %w from %s: %w", ErrSource, s, err)
	}
	return found, nil
}

func one(m *Master, err error) ([]*Master, error) {
	if err != nil {
		return nil, err
	}
	return []*Master{m}, nil
}

// loadFiles reads the file and, when there is one, the file of a new key that waits.
func (s Source) loadFiles(fsys durable.FS) ([]*Master, error) {
	var found []*Master
	first, err := readMaster(fsys, s.File)
	if err == nil {
		found = append(found, first)
	}
	waiting, newErr := readMaster(fsys, s.File+newSuffix)
	switch {
	case newErr == nil:
		return append(found, waiting), nil
	case err == nil && !errors.Is(newErr, fs.ErrNotExist):
		return found, nil // a torn file of a change that never came to be
	}
	return found, err
}

// readMaster reads a master key from a file that nobody but its owner may read.
func readMaster(fsys durable.FS, name string) (*Master, error) {
	info, err := fsys.Stat(name)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %#o: others can read it; `chmod 600 %[1]s`", name, mode)
	}
	text, err := durable.ReadFile(fsys, name, maxMasterText)
	if err != nil {
		return nil, err
	}
	m, err := ParseMaster(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// limitedBuffer keeps the first octets that are written to it.
type limitedBuffer struct {
	bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := b.limit - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// run has the command print the key. What it says on standard error stands in the error, never what it printed.
func (s Source) run(ctx context.Context) (*Master, error) {
	if len(s.Command) == 0 {
		return nil, errors.New("no command is given")
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Command[0], s.Command[1:]...) //nolint:gosec // the administrator's own command
	cmd.WaitDelay = time.Second
	out, talk := &limitedBuffer{limit: maxMasterText + 1}, &limitedBuffer{limit: 200}
	cmd.Stdout, cmd.Stderr = out, talk
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("it did not end within %s: %w", s.Timeout, ctx.Err())
	}
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(talk.String()), "\n")
		return nil, fmt.Errorf("%w: %s", err, first)
	}
	return ParseMaster(out.Bytes())
}

// WriteMaster writes a master key into a new file that nobody but its owner may read, with a line that says what it is.
func WriteMaster(fsys durable.FS, name string, m *Master, created time.Time) error {
	if _, err := fsys.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keyring: write master key: %w", errors.Join(&fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}, err))
	}
	if err := writeMaster(fsys, name, m, created); err != nil {
		return fmt.Errorf("keyring: write master key: %w", err)
	}
	return nil
}

func writeMaster(fsys durable.FS, name string, m *Master, created time.Time) error {
	if err := fsys.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf("# Master key %s of a Waxwing server, made %s. Without it the mail of that server can't be read by anybody.\n%s\n",
		m.id, created.UTC().Format(time.RFC3339), m.Text())
	return durable.WriteFile(fsys, name, []byte(text), 0o600)
}

// publish gives the waiting file of a new master key its name. The old key is kept beside it: older backups need it.
func (s Source) publish(fsys durable.FS, m *Master) error {
	waiting, err := readMaster(fsys, s.File+newSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !waiting.Equal(m) {
		return err
	}
	if old, err := readMaster(fsys, s.File); err == nil && !old.Equal(m) {
		if err := fsys.Rename(s.File, s.File+".old-"+old.id.String()); err != nil {
			return err
		}
	}
	if err := fsys.Rename(s.File+newSuffix, s.File); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(s.File))
}

// sameFile tells whether two names lead to one file.
func sameFile(fsys durable.FS, a, b string) bool {
	x, err := fsys.Stat(a)
	if err != nil {
		return false
	}
	y, err := fsys.Stat(b)
	return err == nil && (filepath.Clean(a) == filepath.Clean(b) || os.SameFile(x, y))
}
