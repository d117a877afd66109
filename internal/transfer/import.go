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
	// Where in the mailbox that begins which this state doesn't tell of.
	Mailbox     int64  `json:"mailbox"`
	UIDValidity uint32 `json:"uid_validity"`
	UIDNext     uint32 `json:"uid_next"`
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
	doubt  bool // the next batch may be in already: an earlier run ended between its commit and the state
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
			if err := im.harmsItself(f.Name, im.maildir(ctx, f, below(f.Name))); err != nil {
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
		if err := im.harmsItself(rel, im.mbox(ctx, f, below(mailboxName(rel)))); err != nil {
			return err
		}
	}
	return nil
}

// harmsItself reports what is wrong with one folder of many and lets the others go on; other errors end the import.
func (im *importer) harmsItself(folder string, err error) error {
	if errors.Is(err, mailfile.ErrNotMbox) || errors.Is(err, fs.ErrPermission) || control.KindOf(err) == control.Invalid {
		im.batch, im.size = im.batch[:0], 0
		im.problem(folder, "left out: %v", err)
		return nil
	}
	return err
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
	im.doubt = at != nil && at.Mailbox == im.target.ID && at.UIDValidity == im.target.UIDValidity && at.UIDNext < im.target.UIDNext
	if at == nil {
		at = &importFile{}
		im.state.Files[path] = at
	}
	if !im.doubt {
		at.Mailbox, at.UIDValidity, at.UIDNext = im.target.ID, im.target.UIDValidity, im.target.UIDNext
	}
	im.result.Folders++
	return at, saveState(im.file, &im.state)
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
		w := im.sink()
		m, err := r.Next(w)
		if errors.Is(err, io.EOF) {
			return im.flush(ctx, func() { at.Offset = r.Offset() }, at)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if w.over {
			im.problem(mailbox, "a message that ends before octet %d of %s left out: %v", r.Offset(), path, errTooLarge)
			im.size = start
		} else {
			im.add(m, im.size-start)
		}
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
		w := im.sink()
		m, err := f.Copy(w)
		if err == nil && w.over {
			err = errTooLarge
		}
		if err != nil {
			if w.err != nil {
				return w.err
			}
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
func (im *importer) sink() *spoolWriter { return &spoolWriter{im: im, start: im.size} }

// spoolWriter takes one message. What is larger than a message may be is not kept.
type spoolWriter struct {
	im    *importer
	start int64
	over  bool
	err   error // of the spool: it is no fault of the message
}

var errTooLarge = fmt.Errorf("it is larger than %d octets", control.MaxMessage)

func (w *spoolWriter) Write(p []byte) (int, error) {
	if w.over = w.over || w.im.size-w.start+int64(len(p)) > control.MaxMessage; w.over {
		return len(p), nil
	}
	n, err := w.im.spool.WriteAt(p, w.im.size)
	w.im.size += int64(n)
	w.err = err
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
	if len(im.batch) > 0 {
		present, err := im.present(ctx, at)
		if err != nil {
			return fmt.Errorf("mailbox %s: %w", im.target.Name, err)
		}
		if err := im.send(ctx, present, at); err != nil {
			return fmt.Errorf("mailbox %s: %w", im.target.Name, err)
		}
	}
	advance()
	im.batch, im.size = im.batch[:0], 0
	im.progress(Event{Folder: im.target.Name, Done: at.Messages, Octets: im.result.Octets})
	return saveState(im.file, &im.state)
}

// send puts those messages of the batch that aren't there into the mailbox.
func (im *importer) send(ctx context.Context, present map[int]bool, at *importFile) error {
	req := control.Append{Account: im.account, Mailbox: im.target.ID}
	var pieces []io.Reader
	var octets, offset int64
	for i, m := range im.batch {
		if !present[i] {
			req.Messages = append(req.Messages, m)
			pieces = append(pieces, io.NewSectionReader(im.spool, offset, m.Size))
			octets += m.Size
		}
		offset += m.Size
	}
	at.Messages += int64(len(im.batch))
	n := len(req.Messages)
	if n == 0 {
		return nil
	}
	placed, err := control.MessageAppend.Call(ctx, im.carrier, req, io.MultiReader(pieces...))
	var e *control.Error
	if errors.As(err, &e) && e.Field == "keywords" {
		im.progress(Event{Folder: im.target.Name, Problem: fmt.Sprintf("the keywords of %d messages are left out: %v", n, err)})
		for i := range req.Messages {
			req.Messages[i].Keywords = nil
		}
		for _, p := range pieces {
			if s, ok := p.(*io.SectionReader); ok {
				_, _ = s.Seek(0, io.SeekStart) // to the start of a section it can't fail
			}
		}
		placed, err = control.MessageAppend.Call(ctx, im.carrier, req, io.MultiReader(pieces...))
	}
	if err != nil {
		at.Messages -= int64(len(im.batch))
		return err
	}
	at.UIDNext = placed.UIDs[n-1] + 1
	im.result.Messages += int64(n)
	im.result.Octets += octets
	return nil
}
