package pop3server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"waxwing/internal/auth"
	"waxwing/internal/dialogtest"
	"waxwing/internal/listen"
	"waxwing/internal/store"
)

func TestLargeMessagesAreStreamedExactly(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var texts []string
	for _, size := range []int{inMemory - 100, inMemory + 1, 3_000_000} {
		var b strings.Builder
		b.WriteString("Subject: large\r\n\r\n")
		for b.Len() < size {
			fmt.Fprintf(&b, "%s%s\r\n", strings.Repeat(".", rnd.IntN(3)), strings.Repeat("x", rnd.IntN(100)))
		}
		texts = append(texts, b.String())
	}
	texts = append(texts, texts[1]+"no end", strings.ReplaceAll(texts[2], "\r\n", "\n"))
	for _, listFirst := range []bool{false, true} {
		count := &counting{}
		r := newRig(t, func(o *Options) { count.Store, o.Store = o.Store, count })
		r.fill(texts...)
		p := r.dial("login")
		sizes := map[int]string{}
		if listFirst {
			for i := range texts {
				sizes[i] = strings.Fields(p.ok(fmt.Sprintf("LIST %d", i+1)))[1]
			}
		}
		for i, text := range texts {
			first, body := p.lines(fmt.Sprintf("RETR %d", i+1))
			want := text
			switch i {
			case 3:
				want += "\r\n"
			case 4:
				want = texts[2]
			}
			if sha256.Sum256([]byte(body)) != sha256.Sum256([]byte(want)) {
				t.Errorf("message %d: %d octets, want %d", i+1, len(body), len(want))
			}
			if first != fmt.Sprintf("%d octets", len(want)) || (listFirst && sizes[i] != fmt.Sprint(len(want))) {
				t.Errorf("message %d: announced %q, listed %q, sent %d", i+1, first, sizes[i], len(want))
			}
		}
		if _, top := p.lines("TOP 3 2"); !strings.HasPrefix(texts[2], top) || strings.Count(top, "\r\n") != 4 {
			t.Errorf("TOP of a large message: %q", top)
		}
		p.ok("QUIT")
		p.Gone() // nothing runs any more
		if n := count.open.Load(); n != 0 {
			t.Errorf("%d messages are still open", n)
		}
	}
}

// TestAnImportedUIDLThatTheServerWouldGiveItself covers a move from one Waxwing to another: ids look alike there.
func TestAnImportedUIDLThatTheServerWouldGiveItself(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	own := r.fill(letter(1))[0]
	inbox, err := r.store.Mailbox(t.Context(), testAccount, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.store.Append(t.Context(), testAccount, inbox.ID, []store.NewMessage{
		{Content: strings.NewReader(letter(2)), UIDL: r.store.GUID(testAccount, own.Message)},
		{Content: strings.NewReader(letter(3)), UIDL: "from-afar"},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, body := r.dial("login").lines("UIDL")
	lines := strings.Split(strings.TrimSpace(body), "\r\n")
	if len(lines) != 3 || lines[0] != "1 "+r.store.GUID(testAccount, own.Message) || lines[1][2:] == lines[0][2:] || lines[2] != "3 from-afar" {
		t.Errorf("ids %q", lines)
	}
}

func TestUIDLsAreUniqueAndStable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	placed := r.fill(letter(1), letter(2), letter(3))
	ctx := context.Background()
	inbox, err := r.store.Mailbox(ctx, testAccount, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	// The second message stands in the maildrop twice.
	if _, _, _, err := r.store.Copy(ctx, testAccount, inbox.ID, []store.UID{placed[1].UID}, inbox.ID); err != nil {
		t.Fatal(err)
	}
	list := func() []string {
		p := r.dial("login")
		_, body := p.lines("UIDL")
		p.ok("QUIT")
		var ids []string
		for _, line := range strings.Split(strings.TrimSpace(body), "\r\n") {
			id := strings.Fields(line)[1]
			if !validID(id) || slices.Contains(ids, id) {
				t.Errorf("id %q of %q", id, body)
			}
			ids = append(ids, id)
		}
		return ids
	}
	before := list()
	if len(before) != 4 || !slices.Equal(before, list()) {
		t.Fatalf("ids %q", before)
	}
	p := r.dial("login")
	p.ok("DELE 1")
	p.ok("QUIT")
	if after := list(); !slices.Equal(before[1:], after) {
		t.Errorf("after a deletion %q, before %q", after, before)
	}
}

func TestMessagesDeletedElsewhereKeepTheirNumbers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	placed := r.fill(letter(1), letter(2), letter(3))
	p := r.dial("login")
	ctx := context.Background()
	if _, err := r.store.Expunge(ctx, testAccount, placed[0].Mailbox, []store.UID{placed[1].UID}, false); err != nil {
		t.Fatal(err)
	}
	r.fill(letter(4))
	if got := p.ok("STAT"); !strings.HasPrefix(got, "3 ") {
		t.Errorf("STAT: %s", got)
	}
	p.Send("RETR 2\r\n")
	if line := p.Line(); !strings.HasPrefix(line, "-ERR [SYS/PERM]") {
		t.Errorf("RETR of a message that is gone: %s", line)
	}
	if _, body := p.lines("RETR 3"); body != letter(3) {
		t.Errorf("RETR 3: %q", body)
	}
	p.ok("DELE 2")
	p.ok("DELE 3")
	if got := p.ok("QUIT"); got != "Bye, 1 messages deleted" {
		t.Errorf("QUIT: %s", got)
	}
	p = r.dial("login")
	if got := p.ok("STAT"); !strings.HasPrefix(got, "2 ") {
		t.Errorf("STAT afterwards: %s", got)
	}
}

// TestConnectionLostDeletesNothing: also when QUIT was cut off before its CRLF.
func TestConnectionLostDeletesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(letter(1))
	p := r.dial("login")
	p.ok("DELE 1")
	p.Send("QUIT")
	if err := p.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	for { // the lock goes with the session
		p = r.dial("tls")
		p.Line()
		p.ok("USER " + testLogin)
		p.Send("PASS " + testPassword + "\r\n")
		if line := p.Line(); line == "+OK Logged in, 1 messages" {
			return
		} else if !strings.HasPrefix(line, "-ERR [IN-USE]") {
			t.Fatal(line)
		}
		p.Send("QUIT\r\n")
		p.Gone()
	}
}

func TestQuitDeletesThoughThePeerHasGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	placed := r.fill(letter(1), letter(2))
	done := make(chan struct{})
	stop := r.store.Watch(testAccount, func() {
		select {
		case done <- struct{}{}:
		default:
		}
	})
	defer stop()
	p := r.dial("login")
	p.Send("DELE 1\r\nQUIT\r\n")
	if err := p.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := r.store.MailboxByID(context.Background(), testAccount, placed[0].Mailbox)
		if err != nil {
			t.Fatal(err)
		}
		if m.Messages == 1 {
			return
		}
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("the message stays")
		}
	}
}

func TestFloodBeforeLoginIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, flood := range []string{
		strings.Repeat("CAPA\r\n", 20_000),
		"USER " + strings.Repeat("a", 1<<20) + "\r\n",
		"NO\x00OP\rX\n\r\n",
	} {
		p := r.dial("plain")
		go func() { _, _ = io.WriteString(p.Conn, flood) }()
		out := p.Gone()
		last := out[strings.LastIndex(strings.TrimRight(out, "\r\n"), "\n")+1:]
		if !strings.HasPrefix(last, "-ERR") {
			t.Errorf("last word to %.10q...: %q", flood, last)
		}
	}
}

// TestSlowLoginIsCut: the time before login is bounded, also for a peer that sends something now and then.
func TestSlowLoginIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Limits.TimeBefore = 300 * time.Millisecond })
	p := r.dial("plain")
	for { // to the end of the session, or that of the peer's patience
		if _, err := io.WriteString(p.Conn, "CAPA\r\n"); err != nil {
			break
		}
		if _, err := p.R.ReadString('\n'); err != nil {
			break
		}
	}
	p.Gone()
}

func TestIdleSessionIsClosedWithoutDeleting(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *Options) { o.Limits.Idle = 200 * time.Millisecond })
	r.fill(letter(1))
	p := r.dial("tls")
	p.Send("USER " + testLogin + "\r\nPASS " + testPassword + "\r\nDELE 1\r\n") // at once: the peer may be slower than Idle
	if said := p.Gone(); strings.Count(said, "+OK") != 4 || !strings.HasSuffix(said, "+OK Message 1 marked\r\n") {
		t.Errorf("up to the autologout: %q", said)
	}
	if m, err := r.store.Mailbox(t.Context(), testAccount, "INBOX"); err != nil || m.Messages != 1 {
		t.Errorf("%d messages, %v", m.Messages, err)
	}
}

func TestShutdownEndsIdleSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill(letter(1))
	waiting, active := r.dial("plain"), r.dial("login")
	waiting.Line()
	active.ok("DELE 1")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	waiting.Gone()
	active.Gone()
	if m, err := r.store.Mailbox(ctx, testAccount, "INBOX"); err != nil || m.Messages != 1 {
		t.Errorf("%d messages after a shutdown without QUIT, %v", m.Messages, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.server.Serve(l, false); !errors.Is(err, listen.ErrClosed) {
		t.Errorf("Serve afterwards: %v", err)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	var refused sync.Map
	r := newRig(t, func(o *Options) {
		o.Limits.Sessions = 2
		o.Metrics.Refused = func(reason string) { refused.Store(reason, true) }
	})
	first, second := r.dial("plain"), r.dial("plain")
	first.Line()
	second.Line()
	third := r.dial("plain")
	if said := third.Gone(); !strings.HasPrefix(said, "-ERR [SYS/TEMP]") {
		t.Errorf("one too many: %q", said)
	}
	if _, ok := refused.Load("sessions"); !ok {
		t.Error("not counted")
	}
}

// troubled is a store in trouble.
type troubled struct {
	Store
	mu   sync.Mutex
	read error // of reading messages
	cut  bool  // large messages break off
	move error // of Expunge
}

func (s *troubled) ReadBlob(ctx context.Context, a store.AccountID, id store.MessageID, buf []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read != nil {
		return nil, s.read
	}
	return s.Store.ReadBlob(ctx, a, id, buf)
}

func (s *troubled) OpenBlob(ctx context.Context, a store.AccountID, id store.MessageID) (store.Blob, error) {
	b, err := s.Store.OpenBlob(ctx, a, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || !s.cut {
		return b, err
	}
	return cutBlob{b}, nil
}

func (s *troubled) Expunge(ctx context.Context, a store.AccountID, m store.MailboxID, u []store.UID, only bool) ([]store.UID, error) {
	if s.move != nil {
		return nil, s.move
	}
	return s.Store.Expunge(ctx, a, m, u, only)
}

// cutBlob is damaged in its middle.
type cutBlob struct{ store.Blob }

func (b cutBlob) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.Size()/2 {
		return 0, store.ErrCorrupt
	}
	return b.Blob.ReadAt(p, off)
}

func TestDamageHarmsOneMessage(t *testing.T) {
	t.Parallel()
	bad := &troubled{}
	r := newRig(t, func(o *Options) { bad.Store, o.Store = o.Store, bad })
	large := "Subject: large\r\n\r\n" + strings.Repeat("0123456789\r\n", 50_000)
	r.fill(letter(1), large, letter(3))
	p := r.dial("login")
	p.ok("STAT") // all is looked through while it is whole
	bad.mu.Lock()
	bad.read, bad.cut = fmt.Errorf("read: %w", store.ErrCorrupt), true
	bad.mu.Unlock()
	for _, command := range []string{"RETR 1", "TOP 1 1"} {
		p.Send(command + "\r\n")
		if line := p.Line(); line != "-ERR [SYS/PERM] The stored message is damaged" {
			t.Errorf("%s: %s", command, line)
		}
	}
	bad.mu.Lock()
	bad.read = nil
	bad.mu.Unlock()
	if _, body := p.lines("RETR 3"); body != letter(3) {
		t.Error("the next message is harmed")
	}
	// A message that breaks off while it is sent must not look whole.
	p.Send("RETR 2\r\nNOOP\r\n")
	if said := p.Gone(); strings.Contains(said, "\r\n.\r\n") || !strings.HasPrefix(said, "+OK 600018 octets") {
		t.Errorf("cut message: %.30q ... %q", said, said[max(0, len(said)-30):])
	}
}

func TestStoreFailuresAreTemporary(t *testing.T) {
	t.Parallel()
	bad := &troubled{move: store.ErrReadOnly}
	r := newRig(t, func(o *Options) { bad.Store, o.Store = o.Store, bad })
	r.fill(letter(1))
	p := r.dial("login")
	bad.mu.Lock()
	bad.read = errors.New("input/output error")
	bad.mu.Unlock()
	for _, command := range []string{"STAT", "RETR 1"} {
		p.Send(command + "\r\n")
		if line := p.Line(); !strings.HasPrefix(line, "-ERR [SYS/TEMP]") {
			t.Errorf("%s: %s", command, line)
		}
	}
	bad.mu.Lock()
	bad.read = nil
	bad.mu.Unlock()
	p.ok("STAT")
	p.ok("DELE 1")
	p.Send("QUIT\r\n")
	if said := p.Gone(); said != "-ERR [SYS/TEMP] Deleted messages not removed\r\n" {
		t.Errorf("QUIT: %q", said)
	}
}

func TestDirectoryDownIsTemporary(t *testing.T) {
	t.Parallel()
	au, err := auth.New(dialogtest.Accounts{Down: true}, auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options) { o.Auth = au })
	p := r.dial("tls")
	p.Line()
	for range 5 { // more than the tries: a directory that is down is nobody's guess
		p.ok("USER " + testLogin)
		p.Send("PASS " + testPassword + "\r\n")
		if line := p.Line(); !strings.HasPrefix(line, "-ERR [SYS/TEMP]") {
			t.Fatal(line)
		}
	}
}

// panicking makes a session run into a defect.
type panicking struct{ Store }

func (panicking) GUID(store.AccountID, store.MessageID) string { panic("defect") }

func TestDefectEndsOneSessionOnly(t *testing.T) {
	t.Parallel()
	seen := make(chan struct{}, 1)
	r := newRig(t, func(o *Options) {
		o.Store = panicking{o.Store}
		o.Metrics.Panic = func() { seen <- struct{}{} }
	})
	r.fill(letter(1))
	p := r.dial("login")
	p.Send("UIDL\r\n")
	p.Gone()
	<-seen
	again := r.dial("login") // the lock of the maildrop went with the session
	again.ok("STAT")
}

func TestExactSizesAreRemembered(t *testing.T) {
	t.Parallel()
	count := &counting{}
	r := newRig(t, func(o *Options) {
		count.Store, o.Store = o.Store, count
		o.Limits.Verify = 400
	})
	r.fill("no end", letter(2), letter(3), letter(4), letter(5), letter(6))
	sizes := func() (string, int) {
		count.reads = 0
		p := r.dial("login")
		_, body := p.lines("LIST")
		p.ok("QUIT")
		return body, count.reads
	}
	body, reads := sizes()
	if !strings.HasPrefix(body, "1 10\r\n") || reads != 5 {
		t.Errorf("first session: %d read, %q", reads, body)
	}
	if _, reads = sizes(); reads != 1 {
		t.Errorf("second session: %d read", reads)
	}
	body, reads = sizes()
	if !strings.HasPrefix(body, "1 10\r\n") || reads != 0 {
		t.Errorf("third session: %d read, %q", reads, body)
	}
}

// counting counts reads, and messages that are open.
type counting struct {
	Store
	reads int
	open  atomic.Int64
}

func (c *counting) OpenBlob(ctx context.Context, a store.AccountID, id store.MessageID) (store.Blob, error) {
	b, err := c.Store.OpenBlob(ctx, a, id)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countedBlob{b, &c.open}, nil
}

type countedBlob struct {
	store.Blob
	open *atomic.Int64
}

func (b countedBlob) Close() error {
	b.open.Add(-1)
	return b.Blob.Close()
}

func (c *counting) ReadBlob(ctx context.Context, a store.AccountID, id store.MessageID, buf []byte) ([]byte, error) {
	c.reads++
	return c.Store.ReadBlob(ctx, a, id, buf)
}
