package intake

import (
	"bytes"
	"strings"
	"testing"

	"waxwing/internal/message"
	"waxwing/internal/smtp"
)

// FuzzCommit holds for any octets that what is stored has clean line ends, that what is kept beside it is of the same
// octets, and that nothing of the sender's Return-Path or of our own name in Authentication-Results survives.
func FuzzCommit(f *testing.F) {
	f.Add([]byte(plain), false, false)
	f.Add([]byte("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\na\nb\r\n--b--\r\n"), true, false)
	f.Add([]byte("Return-Path: <x>\r\nauthentication-results: (c) mx.example.test; x\r\nno colon\r\n: empty\r\n folded\r\n\r\n"), false, false)
	f.Add([]byte("From: anna@example.test\r\nBcc: x\r\n\r\n"), false, true)
	f.Add([]byte("From x\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\n\x00"), true, true)
	h := newHouse(f)
	f.Fuzz(func(t *testing.T, raw []byte, binary, user bool) {
		p, m := stranger(), from(t, "anna@example.test")
		if user {
			p = h.user("anna")
		}
		if binary {
			m.Body = smtp.BodyBinary
		}
		h.ledger.got = nil
		got, err := h.send(t, p, m, string(raw), "bo@example.test")
		if err != nil {
			_ = code(t, err) // anything but a reply fails
			return
		}
		stored := message.ParseBytes([]byte(got.text))
		if got.Summary.HeaderSize != stored.BodyOffset {
			t.Errorf("header of %d octets, stored %d", got.Summary.HeaderSize, stored.BodyOffset)
		}
		if s := message.AppendBodyStructure(nil, stored, true); !bytes.Equal(s, got.Summary.BodyStructure) {
			t.Errorf("structure %s, stored %s", got.Summary.BodyStructure, s)
		}
		if strings.ContainsAny(strings.ReplaceAll(got.text, "\r\n", ""), "\r\n") {
			t.Error("a bare line end is stored")
		}
		for _, v := range stored.Header.Values("Authentication-Results") {
			if ownResults(v, "mx.example.test") {
				t.Errorf("results in our name: %q", v)
			}
		}
		if paths := stored.Header.Values("Return-Path"); len(paths) != 1 || string(paths[0]) != "<anna@example.test>" {
			t.Errorf("return paths: %q", paths)
		}
		if user && stored.Header.Has("Bcc") {
			t.Error("Bcc is stored")
		}
	})
}

func FuzzOwnResults(f *testing.F) {
	f.Add([]byte("(a (b) c) \"mx.ex\\ample.test\" ; x"))
	f.Add([]byte("(((((\\"))
	f.Fuzz(func(t *testing.T, value []byte) {
		ownResults(value, "mx.example.test")
		receivedBy(value, "mx.example.test")
		if !ownResults(append([]byte("mx.example.test; "), value...), "mx.example.test") {
			t.Error("a forged result isn't seen")
		}
	})
}

func FuzzClaimedAddresses(f *testing.F) {
	f.Add([]byte(`"a\"" (c (d) @e) <f@g.test>, h @ i.test; =?x@y.test?=`))
	f.Add([]byte(`(((((\`))
	f.Add([]byte(`"\`))
	f.Fuzz(func(t *testing.T, value []byte) {
		got := claimedAddresses(append([]byte("boss@remote.test,"), value...))
		if len(got) == 0 || got[0].String() != "boss@remote.test" {
			t.Errorf("%q hides an address: %v", value, got)
		}
		if len(got) > maxAuthors+1 {
			t.Errorf("%d addresses", len(got))
		}
	})
}
