package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"waxwing/internal/control"
	"waxwing/internal/mailfile"
)

// ImportOptions says what goes where.
type ImportOptions struct {
	Carrier  control.Carrier
	Account  string
	Source   string      // an mbox file, a directory of *.mbox files, or a Maildir
	Mailbox  string      // of a single mbox file; its name when empty. For directories: a mailbox to put all below
	State    string      // state file; Source with ".waxwing-import.json" when empty
	Progress func(Event) // called often, from one goroutine
}

// importState is how far an import is, by path of the file or folder.
type importState struct {
	Account string                 `json:"account"`
	Source  string                 `json:"source"`
	Files   map[string]*importFile `json:"files"`
}

type importFile struct {
	Offset   int64  `json:"offset,omitempty"` // of an mbox: octets that are in
	Last     string `json:"last,omitempty"`   // of a Maildir folder: the last message that is in, in order of names
	Messages int64  `json:"messages"`
}

// Bounds on one batch.
const (
	importBatch  = 200
	importOctets = 16 << 20
)

// importer is one run.
type importer struct {
	run
	file   string
	state  importState
	spool  *os.File // octets of the batch, so that no message is held in memory
	size   int64
	batch  []control.NewMessage
	target control.Mailbox
}

// Import puts the mail of files into an account. Folders are made as needed.
func Import(ctx context.Context, o ImportOptions) (result Result, err error) {
	source, err := filepath.Abs(o.Source)
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	fi, err := os.Stat(source)
	if err != nil {
		return Result{}, control.Errorf(control.NotFound, "import: %w", err)
	}
	im := &importer{run: run{carrier: o.Carrier, account: o.Account, progress: o.Progress}, file: o.State}
	if im.file == "" {
		im.file = source + ".waxwing-import.json"
	}
	found, err := loadState(im.file, &im.state)
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	if found && (im.state.Account != o.Account || im.state.Source != source) {
		return Result{}, control.Errorf(control.Conflict, "import: %s belongs to an import of %s for %s; remove it or name another with --state", im.file, im.state.Source, im.state.Account)
	}
	if !found {
		im.state = importState{Account: o.Account, Source: source, Files: map[string]*importFile{}}
	}
	im.result.Resumed = found
	im.spool, err = os.CreateTemp("", "waxwing-import-*")
	if err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	defer func() { err = errors.Join(err, im.spool.Close()) }()
	if err := os.Remove(im.spool.Name()); err != nil {
		return Result{}, fmt.Errorf("import: %w", err)
	}
	if err := im.source(ctx, source, fi, o.Mailbox); err != nil {
		return im.result, fmt.Errorf("import: %w", err)
	}
	return im.result, nil
}

// source finds out what is there and takes it.
func (im *importer) source(ctx context.Context, source string, fi fs.FileInfo, mailbox string) error {
	if !fi.IsDir() {
		if mailbox == "" {
			mailbox = mailboxName(filepath.Base(source))
		}
		return im.mbox(ctx, source, mailbox)
	}
	below := func(name string) string {
		if mailbox == "" {
			return name
		}
		if name == "INBOX" {
			return mailbox
		}
		return mailbox + "/" + name
	}
	folders, err := mailfile.MaildirFolders(source)
	if err == nil {
		for _, f := range folders {
			if err := im.maildir(ctx, f, below(f.Name)); err != nil {
				return err
			}
		}
		return nil
	}
	files, err := mboxFiles(source)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return control.Errorf(control.Invalid, "%s is no Maildir and holds no *.mbox files", source)
	}
	for _, f := range files {
		rel, err := filepath.Rel(source, f)
		if err != nil {
			return err
		}
		if err := im.mbox(ctx, f, below(mailboxName(rel))); err != nil {
			return err
		}
	}
	return nil
}

// mboxFiles lists the *.mbox files below dir in order of name. Links are not followed.
func mboxFiles(dir string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.EqualFold(filepath.Ext(path), mboxSuffix) {
			out = append(out, path)
		}
		return err
	})
	slices.Sort(out)
	return out, err
}

// begin turns to a mailbox.
func (im *importer) begin(ctx context.Context, path, mailbox string) (*importFile, error) {
	var err error
	im.target, err = control.MailboxEnsure.Call(ctx, im.carrier, control.MailboxRef{Account: im.account, Name: mailbox})
	if err != nil {
		return nil, fmt.Errorf("mailbox %s: %w", mailbox, err)
	}
	at := im.state.Files[path]
	if at == nil {
		at = &importFile{}
		im.state.Files[path] = at
	}
	im.result.Folders++
	return at, nil
}

func (im *importer) mbox(ctx context.Context, path, mailbox string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	at, err := im.begin(ctx, path, mailbox)
	if err != nil {
		return err
	}
	if _, err := f.Seek(at.Offset, io.SeekStart); err != nil {
		return err
	}
	r := mailfile.NewMboxReader(f, at.Offset)
	for {
		start := im.size
		m, err := r.Next(im.sink())
		if errors.Is(err, io.EOF) {
			return im.flush(ctx, func() { at.Offset = r.Offset() }, at)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		im.add(m, im.size-start)
		if im.full() {
			if err := im.flush(ctx, func() { at.Offset = r.Offset() }, at); err != nil {
				return err
			}
		}
	}
}

func (im *importer) maildir(ctx context.Context, folder mailfile.Folder, mailbox string) error {
	at, err := im.begin(ctx, folder.Dir, mailbox)
	if err != nil {
		return err
	}
	files, err := mailfile.MaildirFiles(folder.Dir)
	if err != nil {
		return err
	}
	last := at.Last
	for _, f := range files {
		if f.Unique <= at.Last {
			continue
		}
		start := im.size
		m, err := f.Copy(im.sink())
		if err != nil {
			// A message may have been moved by another program meanwhile, or be unreadable: it harms only itself.
			im.problem(mailbox, "%s left out: %v", f.Path, err)
			im.size = start
			continue
		}
		im.add(m, im.size-start)
		last = f.Unique
		if im.full() {
			if err := im.flush(ctx, func() { at.Last = last }, at); err != nil {
				return err
			}
		}
	}
	return im.flush(ctx, func() { at.Last = last }, at)
}

// sink writes behind what the batch holds already.
func (im *importer) sink() io.Writer { return spoolWriter{im} }

type spoolWriter struct{ im *importer }

func (w spoolWriter) Write(p []byte) (int, error) {
	n, err := w.im.spool.WriteAt(p, w.im.size)
	w.im.size += int64(n)
	return n, err
}

func (im *importer) add(m mailfile.Message, size int64) {
	im.batch = append(im.batch, control.NewMessage{
		Size: size, InternalDate: m.Date, Seen: m.Flags.Seen, Answered: m.Flags.Answered, Flagged: m.Flags.Flagged,
		Deleted: m.Flags.Deleted, Draft: m.Flags.Draft, Keywords: m.Flags.Keywords,
	})
}

func (im *importer) full() bool { return len(im.batch) >= importBatch || im.size >= importOctets }

// flush sends the batch, then notes how far the import is.
func (im *importer) flush(ctx context.Context, advance func(), at *importFile) error {
	if n := len(im.batch); n > 0 {
		req := control.Append{Account: im.account, Mailbox: im.target.ID, Messages: im.batch}
		if _, err := control.MessageAppend.Call(ctx, im.carrier, req, io.NewSectionReader(im.spool, 0, im.size)); err != nil {
			return fmt.Errorf("mailbox %s: %w", im.target.Name, err)
		}
		at.Messages += int64(n)
		im.result.Messages += int64(n)
		im.result.Octets += im.size
	}
	advance()
	im.batch, im.size = im.batch[:0], 0
	im.progress(Event{Folder: im.target.Name, Done: at.Messages, Octets: im.result.Octets})
	return saveState(im.file, &im.state)
}
