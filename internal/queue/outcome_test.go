package queue

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"waxwing/internal/store"
	"waxwing/internal/transport"
)

func TestReturnPathStaysHere(t *testing.T) {
	t.Parallel()
	for stored, want := range map[string]string{
		"Return-Path: <a@here.test>\r\nReceived: x\r\n\r\nbody\r\n": "X-Prefix: p\r\nReceived: x\r\n\r\nbody\r\n",
		"Return-Path: <>\r\n":                            "X-Prefix: p\r\n",
		"Received: x\r\nReturn-Path: <b@c.test>\r\n\r\n": "X-Prefix: p\r\nReceived: x\r\nReturn-Path: <b@c.test>\r\n\r\n",
		"Return-Path: without an end":                    "X-Prefix: p\r\nReturn-Path: without an end",
		"":                                               "X-Prefix: p\r\n",
		"Ret":                                            "X-Prefix: p\r\nRet",
	} {
		whole, err := outgoing(&store.QueueMessage{Prefix: []byte("X-Prefix: p\r\n")}, strings.NewReader(stored))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(whole, 0, whole.Size()))
		if string(got) != want || err != nil {
			t.Errorf("%q goes out as %q, %v", stored, got, err)
		}
	}
	if _, err := outgoing(&store.QueueMessage{}, short{strings.NewReader("Return")}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("content that ends before its size: %v", err)
	}
}

// short is content with fewer octets than it says.
type short struct{ *strings.Reader }

func (s short) Size() int64 { return s.Reader.Size() + 10 }

// TestReportReturnsWhatWasSent holds that neither the header nor the whole of a returned message begins with the
// Return-Path of its copies here.
func TestReportReturnsWhatWasSent(t *testing.T) {
	t.Parallel()
	for _, ret := range []string{"", "HDRS", "FULL"} {
		r := newRig(t, nil)
		r.answers(always(refused))
		_, err := r.store.Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader("Return-Path: <a@here.test>\r\nFrom: a@here.test\r\nSubject: hello\r\n\r\nbody\r\n"),
			Queue:   &store.QueueMessage{TraceID: "T", From: "a@here.test", Ret: ret, Created: r.now(), Recipients: recipients("x@b.test")},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.run()
		r.until("the end", r.empty)
		got := r.in.notifications()[0]
		if !strings.Contains(got, "\r\n\r\nFrom: a@here.test\r\nSubject: hello\r\n") || strings.Contains(got, "Return-Path") {
			t.Errorf("RET=%s:\n%s", ret, got)
		}
	}
}

// TestDeliveriesAreCommittedTogether blocks the store while deliveries go on: the workers wait for no commit, up to the
// bound, and one transaction takes what came in meanwhile.
func TestDeliveriesAreCommittedTogether(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	const messages = 60
	for range messages {
		r.add("x@b.test", func(m *store.QueueMessage) { m.Priority = -1 }) // all of one lane
	}
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	var once sync.Once
	r.answers(func(string, string) transport.Result {
		once.Do(func() {
			entered := make(chan struct{})
			go r.store.Write(context.Background(), func(*store.Tx) error { close(entered); <-gate; return nil })
			<-entered
		})
		return ok
	})
	r.q.p.Concurrency = 1
	r.run()
	t.Cleanup(open)
	r.until("the first batch is sent without a commit", func() bool { return len(r.sends()) >= 50 })
	open()
	r.until("the end", r.empty)
	if n := len(r.sends()); n != messages {
		t.Errorf("%d deliveries of %d messages", n, messages)
	}
}

// TestOneBadRowKeepsNoOtherFromItsEnd makes the rows of one recipient undeletable: the others go, and so does that one
// when it can, without being sent again.
func TestOneBadRowKeepsNoOtherFromItsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	exec := func(query string) {
		t.Helper()
		err := r.store.Write(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec(query)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TRIGGER bad BEFORE DELETE ON queue_recipient WHEN old.rcpt = 'bad@b.test' BEGIN SELECT RAISE(ABORT, 'damaged'); END`)
	for range 5 {
		r.add("x@b.test", nil)
	}
	r.add("bad@b.test", nil)
	for range 5 {
		r.add("x@b.test", nil)
	}
	r.run()
	r.until("all but the bad one are gone", func() bool { return len(r.sends()) == 11 && r.counts().Messages == 1 })
	exec(`DROP TRIGGER bad`)
	r.until("the end", r.empty)
	if n := len(r.sends()); n != 11 {
		t.Errorf("%d deliveries of 11 messages", n)
	}
}
