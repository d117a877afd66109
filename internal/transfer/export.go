package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"waxwing/internal/control"
	"waxwing/internal/mailfile"
)

// ExportState is the name of the state file in the directory of an export.
const ExportState = "waxwing-export.json"

// ExportOptions says what goes where.
type ExportOptions struct {
	Carrier  control.Carrier
	Account  string
	Format   Format
	Dir      string      // made when it isn't there; an earlier export of the same account in it is gone on with
	Progress func(Event) // called often, from one goroutine
}

// exportState is how far an export is, by mailbox id: a mailbox may be renamed meanwhile.
type exportState struct {
	Account   string                   `json:"account"`
	Format    Format                   `json:"format"`
	Mailboxes map[int64]*exportMailbox `json:"mailboxes"`
}

type exportMailbox struct {
	Name        string `json:"name"` // under which it is written, also after a rename
	UIDValidity uint32 `json:"uid_validity"`
	LastUID     uint32 `json:"last_uid"`
	Messages    int64  `json:"messages"`
	Offset      int64  `json:"offset,omitempty"` // octets of the mbox file that are complete
}

// exporter is one run.
type exporter struct {
	run
	dir   string
	file  string
	state exportState
}

// exportBatch is after how many messages what was written is synced and the state saved.
const exportBatch = 200

// Export writes all mail of an account into files. Run again on the same directory it goes on where it was stopped, or
// adds what came since.
func Export(ctx context.Context, o ExportOptions) (Result, error) {
	if o.Format != Mbox && o.Format != Maildir {
		return Result{}, control.Errorf(control.Invalid, "export: format %q is not one of mbox, maildir", o.Format)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Result{}, control.Errorf(control.Unavailable, "export: %w", err)
	}
	e := &exporter{
		run:  run{carrier: o.Carrier, account: o.Account, progress: o.Progress},
		dir:  o.Dir,
		file: filepath.Join(o.Dir, ExportState),
	}
	found, err := loadState(e.file, &e.state)
	if err != nil {
		return Result{}, fmt.Errorf("export: %w", err)
	}
	if found && (e.state.Account != o.Account || e.state.Format != o.Format) {
		return Result{}, control.Errorf(control.Conflict, "export: %s holds an export of %s as %s", o.Dir, e.state.Account, e.state.Format)
	}
	if !found {
		if err := mustBeEmpty(o.Dir); err != nil {
			return Result{}, err
		}
		e.state = exportState{Account: o.Account, Format: o.Format, Mailboxes: map[int64]*exportMailbox{}}
	}
	e.result.Resumed = found
	boxes, err := control.MailboxList.Call(ctx, e.carrier, control.AccountRef{Address: o.Account})
	if err != nil {
		return e.result, fmt.Errorf("export: %w", err)
	}
	for _, box := range boxes.Mailboxes {
		if err := e.mailbox(ctx, box); err != nil {
			return e.result, fmt.Errorf("export %s: %w", box.Name, err)
		}
		e.result.Folders++
	}
	return e.result, nil
}

// mustBeEmpty refuses a directory with foreign files: an export must not mix with them.
func mustBeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	if len(entries) > 0 {
		return control.Errorf(control.Conflict, "export: %s is not empty and holds no export to go on with", dir)
	}
	return nil
}

// folder is where the messages of one mailbox go.
type folder interface {
	put(m control.Message, content io.Reader) (lostKeywords int, err error)
	sync(*exportMailbox) error
	close() error
}

func (e *exporter) mailbox(ctx context.Context, box control.Mailbox) (err error) {
	at := e.state.Mailboxes[box.ID]
	if at == nil || at.UIDValidity != box.UIDValidity {
		at = &exportMailbox{Name: box.Name, UIDValidity: box.UIDValidity}
		e.state.Mailboxes[box.ID] = at
	}
	var f folder
	if e.state.Format == Mbox {
		f, err = openMbox(filepath.Join(e.dir, mboxPath(at.Name)), at.Offset)
	} else {
		f, err = openMaildir(e.dir, at)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	for {
		page, err := control.MessageList.Call(ctx, e.carrier, control.MessagePage{Account: e.account, Mailbox: box.ID, After: at.LastUID, Limit: exportBatch})
		if err != nil {
			return err
		}
		for _, m := range page.Messages {
			if err := e.message(ctx, f, at, m); err != nil {
				return err
			}
			at.LastUID = m.UID
			e.progress(Event{Folder: at.Name, Done: at.Messages, Total: int64(box.Messages), Octets: e.result.Octets})
		}
		if err := f.sync(at); err != nil {
			return err
		}
		if err := saveState(e.file, &e.state); err != nil {
			return err
		}
		if len(page.Messages) == 0 {
			return nil
		}
	}
}

// message writes one message. One that the store can't give is reported and passed over; a failure to write ends all.
func (e *exporter) message(ctx context.Context, f folder, at *exportMailbox, m control.Message) error {
	r, err := control.MessageRead.Call(ctx, e.carrier, control.MessageRef{Account: e.account, ID: m.ID})
	if err != nil {
		if ctx.Err() != nil || control.KindOf(err) == control.Unavailable {
			return err
		}
		e.problem(at.Name, "message with UID %d left out: %v", m.UID, err)
		return nil
	}
	source := &watched{r: r}
	lost, err := f.put(m, source)
	if cerr := r.Close(); err == nil && cerr != nil {
		source.err, err = cerr, cerr
	}
	switch {
	case source.err != nil && ctx.Err() == nil:
		e.problem(at.Name, "message with UID %d left out, it can't be read whole: %v", m.UID, source.err)
		return nil
	case err != nil:
		return err
	case lost > 0:
		e.progress(Event{Folder: at.Name, Problem: fmt.Sprintf("message with UID %d: %d keywords have no letter in a Maildir and are left out", m.UID, lost)})
	}
	at.Messages++
	e.result.Messages++
	e.result.Octets += m.Size
	return nil
}

// watched tells an error of reading from one of writing.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// mboxFolder appends to an mbox file.
type mboxFolder struct {
	f    *os.File
	size int64
}

// openMbox opens the file and cuts off what was written after the state was last saved.
func openMbox(file string, offset int64) (*mboxFolder, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	switch {
	case err == nil && end < offset:
		err = fmt.Errorf("%s is shorter than it was: %d octets, %d written before", file, end, offset)
	case err == nil:
		if err = f.Truncate(offset); err == nil {
			_, err = f.Seek(offset, io.SeekStart)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &mboxFolder{f, offset}, nil
}

// put cuts off a message that could not be read whole, so that no half of it stays.
func (m *mboxFolder) put(msg control.Message, content io.Reader) (int, error) {
	n, err := mailfile.WriteMbox(m.f, mailfile.Message{Date: msg.InternalDate, Flags: flagsOf(msg)}, content)
	if err != nil {
		if terr := m.f.Truncate(m.size); terr != nil {
			return 0, errors.Join(err, terr)
		}
		_, serr := m.f.Seek(m.size, io.SeekStart)
		return 0, errors.Join(err, serr)
	}
	m.size += n
	return 0, nil
}

func (m *mboxFolder) sync(at *exportMailbox) error {
	at.Offset = m.size
	return m.f.Sync()
}

func (m *mboxFolder) close() error { return m.f.Close() }

// maildirFolder writes into a folder of a Maildir.
type maildirFolder struct {
	w        *mailfile.MaildirWriter
	validity uint32
}

func openMaildir(root string, at *exportMailbox) (*maildirFolder, error) {
	w, err := mailfile.NewMaildirFolder(root, at.Name)
	if err != nil {
		return nil, err
	}
	return &maildirFolder{w, at.UIDValidity}, nil
}

func (m *maildirFolder) put(msg control.Message, content io.Reader) (int, error) {
	// Padded, so that messages of one second keep their order when names are sorted.
	unique := mailfile.UniqueName(msg.InternalDate, fmt.Sprintf("V%dU%010d", m.validity, msg.UID))
	return m.w.Write(unique, mailfile.Message{Date: msg.InternalDate, Flags: flagsOf(msg)}, content)
}

func (m *maildirFolder) sync(*exportMailbox) error { return m.w.Sync() }
func (m *maildirFolder) close() error              { return nil }
