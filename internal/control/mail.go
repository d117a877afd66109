package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"waxwing/internal/digest"
	"waxwing/internal/directory"
	"waxwing/internal/message"
	"waxwing/internal/store"
)

// Operations on mail, for import, export and the check of samples.
var (
	MailboxEnsure = operation("mailbox.ensure", (*Service).mailboxEnsure)
	MailboxList   = operation("mailbox.list", (*Service).mailboxList)
	MessageList   = operation("message.list", (*Service).messageList)
	MessageRead   = download("message.read", (*Service).messageRead)
	MessageAppend = upload("message.append", (*Service).messageAppend)
	StoreSample   = operation("store.sample", (*Service).storeSample)
)

// Mailbox is a mailbox with its counts.
type Mailbox struct {
	ID          int64  `json:"id"`
	Name        string `json:"name"`
	Role        string `json:"role,omitempty"`
	UIDValidity uint32 `json:"uid_validity"`
	UIDNext     uint32 `json:"uid_next"`
	Messages    uint32 `json:"messages"`
	Unseen      uint32 `json:"unseen"`
	Size        int64  `json:"size"`
}

// Mailboxes is the mailboxes of an account in order of name.
type Mailboxes struct {
	Mailboxes []Mailbox `json:"mailboxes"`
}

func shownMailbox(m store.Mailbox) Mailbox {
	return Mailbox{
		ID: int64(m.ID), Name: m.Name, Role: string(m.Role), UIDValidity: m.UIDValidity, UIDNext: uint32(m.UIDNext),
		Messages: m.Messages, Unseen: m.Unseen, Size: m.Size,
	}
}

func (s *Service) mailboxes(ctx context.Context, id store.AccountID) ([]Mailbox, error) {
	list, err := s.store.Mailboxes(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]Mailbox, len(list))
	for i, m := range list {
		out[i] = shownMailbox(m)
	}
	return out, nil
}

func (s *Service) mailboxList(ctx context.Context, req AccountRef) (Mailboxes, error) {
	a, err := s.account(ctx, req.Address)
	if err != nil {
		return Mailboxes{}, err
	}
	list, err := s.mailboxes(ctx, a.ID)
	return Mailboxes{list}, err
}

// MailboxRef names a mailbox of an account.
type MailboxRef struct {
	Account string `json:"account"`
	Name    string `json:"name"`
}

// ensureWithin bounds how long mailboxEnsure waits for an append.
const ensureWithin = time.Minute

// mailboxEnsure makes the mailbox when it isn't there. What is being appended to it is in when it returns, or will never
// be.
func (s *Service) mailboxEnsure(ctx context.Context, req MailboxRef) (Mailbox, error) {
	a, err := s.account(ctx, req.Account)
	if err != nil {
		return Mailbox{}, err
	}
	m, err := s.store.Mailbox(ctx, a.ID, req.Name)
	if err == nil {
		limited, cancel := context.WithTimeout(ctx, ensureWithin)
		defer cancel()
		if err := s.appends.wait(limited, appendTarget{a.ID, m.ID}); err != nil {
			return Mailbox{}, Errorf(Unavailable, "another command is putting messages into %s: %w", req.Name, err)
		}
		m, err = s.store.Mailbox(ctx, a.ID, req.Name)
	}
	if errors.Is(err, store.ErrNotFound) {
		if m, err = s.store.CreateMailbox(ctx, a.ID, req.Name, ""); err == nil {
			err = s.store.Subscribe(ctx, a.ID, m.Name, true)
		}
	}
	if err != nil {
		return Mailbox{}, err
	}
	return shownMailbox(m), nil
}

// MessagePage asks for messages of a mailbox in order of UID.
type MessagePage struct {
	Account string `json:"account"`
	Mailbox int64  `json:"mailbox"`
	After   uint32 `json:"after,omitempty"` // UIDs above this one
	Limit   int    `json:"limit,omitempty"`
}

// Messages is a page of messages; it is the last one when it is empty.
type Messages struct {
	Messages []Message `json:"messages"`
}

// Message is one message in one mailbox.
type Message struct {
	UID          uint32    `json:"uid"`
	ID           int64     `json:"id"` // for MessageRead
	Size         int64     `json:"size"`
	Seen         bool      `json:"seen,omitempty"`
	Answered     bool      `json:"answered,omitempty"`
	Flagged      bool      `json:"flagged,omitempty"`
	Deleted      bool      `json:"deleted,omitempty"`
	Draft        bool      `json:"draft,omitempty"`
	Keywords     []string  `json:"keywords,omitempty"`
	InternalDate time.Time `json:"internal_date"`
}

func (s *Service) messageList(ctx context.Context, req MessagePage) (Messages, error) {
	a, err := s.account(ctx, req.Account)
	if err != nil {
		return Messages{}, err
	}
	view, err := s.store.View(ctx, a.ID, store.MailboxID(req.Mailbox), func() {}, store.Peek())
	if err != nil {
		return Messages{}, err
	}
	defer view.Close()
	limit := req.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	out := Messages{Messages: []Message{}}
	if req.After == ^uint32(0) {
		return out, nil
	}
	first, last := view.SeqRange(store.UID(req.After)+1, ^store.UID(0))
	if first == 0 || first > last {
		return out, nil
	}
	err = view.Entries(first, min(last, first+limit-1), func(_ int, e *store.Entry) bool {
		out.Messages = append(out.Messages, Message{
			UID: uint32(e.UID), ID: int64(e.Message), Size: e.Size, Keywords: slices.Clone(e.Keywords), InternalDate: e.InternalDate.UTC(),
			Seen: e.Flags&store.Seen != 0, Answered: e.Flags&store.Answered != 0, Flagged: e.Flags&store.Flagged != 0,
			Deleted: e.Flags&store.Deleted != 0, Draft: e.Flags&store.Draft != 0,
		})
		return true
	})
	return out, err
}

// MessageRef names the octets of a message.
type MessageRef struct {
	Account string `json:"account"`
	ID      int64  `json:"id"`
}

// blobReader reads an open message from its beginning.
type blobReader struct {
	*io.SectionReader
	blob store.Blob
}

func (b blobReader) Close() error { return b.blob.Close() }

func (s *Service) messageRead(ctx context.Context, req MessageRef) (sized, error) {
	a, err := s.account(ctx, req.Account)
	if err != nil {
		return nil, err
	}
	blob, err := s.store.OpenBlob(ctx, a.ID, store.MessageID(req.ID))
	if err != nil {
		return nil, err
	}
	return blobReader{io.NewSectionReader(blob, 0, blob.Size()), blob}, nil
}

// Append puts messages into a mailbox, all or none. Their octets follow each other in the body.
type Append struct {
	Account  string       `json:"account"`
	Mailbox  int64        `json:"mailbox"`
	Messages []NewMessage `json:"messages"`
}

// NewMessage is one message of an Append.
type NewMessage struct {
	Size         int64     `json:"size"`
	Seen         bool      `json:"seen,omitempty"`
	Answered     bool      `json:"answered,omitempty"`
	Flagged      bool      `json:"flagged,omitempty"`
	Deleted      bool      `json:"deleted,omitempty"`
	Draft        bool      `json:"draft,omitempty"`
	Keywords     []string  `json:"keywords,omitempty"`
	InternalDate time.Time `json:"internal_date,omitzero"` // now when zero
	UIDL         string    `json:"uidl,omitempty"`         // POP3 unique id taken over from another server
}

// Bounds on one Append.
const (
	MaxAppend        = 500       // messages
	MaxMessage       = 1 << 30   // octets of one
	maxAppendInRAM   = 256 << 10 // octets of one message held in memory
	maxAppendTotal   = 2 << 30
	sampleReadBuffer = 64 << 10
)

func (n NewMessage) flags() store.Flags {
	var f store.Flags
	for _, x := range []struct {
		set bool
		f   store.Flags
	}{{n.Seen, store.Seen}, {n.Answered, store.Answered}, {n.Flagged, store.Flagged}, {n.Deleted, store.Deleted}, {n.Draft, store.Draft}} {
		if x.set {
			f |= x.f
		}
	}
	return f
}

// Appended tells the UIDs of the messages, in their order.
type Appended struct {
	UIDs []uint32 `json:"uids"`
}

func (s *Service) messageAppend(ctx context.Context, req Append, body io.Reader) (out Appended, err error) {
	a, err := s.account(ctx, req.Account)
	if err != nil {
		return Appended{}, err
	}
	defer s.appends.begin(appendTarget{a.ID, store.MailboxID(req.Mailbox)})()
	batch, end, err := s.takeBatch(req.Messages, body)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return Appended{}, err
	}
	placed, err := s.store.Append(ctx, a.ID, store.MailboxID(req.Mailbox), batch)
	if errors.Is(err, store.ErrLimit) && slices.ContainsFunc(req.Messages, func(m NewMessage) bool { return len(m.Keywords) > 0 }) {
		return Appended{}, &Error{Kind: Conflict, Field: "keywords", Text: err.Error(), cause: err}
	}
	if err != nil {
		return Appended{}, err
	}
	for _, p := range placed {
		out.UIDs = append(out.UIDs, uint32(p.UID))
	}
	return out, nil
}

// takeBatch reads messages whose octets follow each other, and makes their digests; end gives up what holds them.
func (s *Service) takeBatch(list []NewMessage, body io.Reader) (batch []store.NewMessage, end func() error, err error) {
	var spooled []io.Closer
	end = func() (err error) {
		for _, c := range spooled {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	if len(list) == 0 || len(list) > MaxAppend {
		return nil, end, &Error{Kind: Invalid, Field: "messages", Text: fmt.Sprintf("messages: 1 to %d at once", MaxAppend)}
	}
	var total int64
	for _, m := range list {
		if m.Size < 0 || m.Size > MaxMessage || total+m.Size > maxAppendTotal {
			return nil, end, &Error{Kind: Invalid, Field: "size", Text: fmt.Sprintf("size: at most %d octets a message and %d in all", MaxMessage, maxAppendTotal)}
		}
		total += m.Size
	}
	for i, m := range list {
		content, closer, err := s.take(body, m.Size)
		if closer != nil {
			spooled = append(spooled, closer)
		}
		if err != nil {
			return nil, end, err
		}
		part, err := message.Parse(content, m.Size, message.DefaultLimits)
		if err != nil {
			return nil, end, fmt.Errorf("parse message %d of the batch: %w", i+1, err)
		}
		batch = append(batch, store.NewMessage{
			Content: content, Summary: digest.Make(part, content, m.Size), Flags: m.flags(), Keywords: m.Keywords,
			InternalDate: m.InternalDate, UIDL: m.UIDL,
		})
	}
	return batch, end, nil
}

// take reads the octets of one message: into memory, or when it is large into a file without a name.
func (s *Service) take(body io.Reader, size int64) (store.Content, io.Closer, error) {
	if size <= maxAppendInRAM {
		buf := make([]byte, size)
		if _, err := io.ReadFull(body, buf); err != nil {
			return nil, nil, Errorf(Invalid, "read message: %w", err)
		}
		return bytes.NewReader(buf), nil, nil
	}
	f, err := os.CreateTemp(s.spool, "append-*")
	if err != nil {
		return nil, nil, fmt.Errorf("spool message: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, f, fmt.Errorf("spool message: %w", err)
	}
	if n, err := io.CopyN(f, body, size); err != nil {
		if n < size && errors.Is(err, io.EOF) {
			return nil, f, Errorf(Invalid, "read message: %w", io.ErrUnexpectedEOF)
		}
		return nil, f, fmt.Errorf("spool message: %w", err)
	}
	return io.NewSectionReader(f, 0, size), f, nil
}

// SampleRequest asks for a number of messages, chosen at random, to be read whole.
type SampleRequest struct {
	Messages int `json:"messages"`
}

// Sample tells what came of it.
type Sample struct {
	Checked int      `json:"checked"`
	Octets  int64    `json:"octets"`
	Damaged []string `json:"damaged,omitempty"` // "address, mailbox, UID: why"
}

// maxSample bounds a sample.
const maxSample = 1000

// storeSample reads messages of accounts, mailboxes and places chosen at random: their checksums are verified, and
// their sizes must be those of their entries.
func (s *Service) storeSample(ctx context.Context, req SampleRequest) (Sample, error) {
	accounts, err := s.dir.Accounts(ctx, directory.Filter{Limit: 100 * maxSample})
	if err != nil || len(accounts) == 0 {
		return Sample{}, err
	}
	var out Sample
	want := min(max(req.Messages, 1), maxSample)
	for range 4 * want { // mailboxes that are empty count as tries
		if out.Checked == want || ctx.Err() != nil {
			break
		}
		a := accounts[rand.IntN(len(accounts))]
		boxes, err := s.store.Mailboxes(ctx, a.ID)
		if err != nil {
			return out, err
		}
		boxes = slices.DeleteFunc(boxes, func(m store.Mailbox) bool { return m.Messages == 0 })
		if len(boxes) == 0 {
			continue
		}
		box := boxes[rand.IntN(len(boxes))]
		view, err := s.store.View(ctx, a.ID, box.ID, func() {}, store.Peek())
		if err != nil {
			return out, err
		}
		n := view.Len()
		var e store.Entry
		ok := false
		if n > 0 {
			e, ok = view.Entry(1 + rand.IntN(n))
		}
		view.Close()
		if !ok {
			continue
		}
		out.Checked++
		out.Octets += e.Size
		if err := s.readWhole(ctx, a.ID, e); err != nil {
			out.Damaged = append(out.Damaged, fmt.Sprintf("%s, %s, UID %d: %v", a.Address, box.Name, e.UID, err))
		}
	}
	return out, ctx.Err()
}

func (s *Service) readWhole(ctx context.Context, acct store.AccountID, e store.Entry) error {
	blob, err := s.store.OpenBlob(ctx, acct, e.Message)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.NewSectionReader(blob, 0, blob.Size())}, make([]byte, sampleReadBuffer))
	if err == nil && n != e.Size {
		err = fmt.Errorf("%d octets stored, %d listed", n, e.Size)
	}
	return errors.Join(err, blob.Close())
}
