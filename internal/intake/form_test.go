package intake

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
)

func (h *house) setting(t *testing.T, name, value string) {
	t.Helper()
	raw, err := json.Marshal(value)
	must(t, err)
	_, err = h.dir.ChangeSettings(context.Background(), -1, "test", map[string]json.RawMessage{name: raw})
	must(t, err)
}

func TestUsersMailIsMadeASCII(t *testing.T) {
	t.Parallel()
	const (
		head   = "From: anna@example.test\r\nMIME-Version: 1.0\r\n"
		letter = head + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nh\u00e9llo\r\n"
		signed = head + "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\nh\u00e9llo\r\n--b\r\n\r\nsig\r\n--b--\r\n"
	)
	for _, tc := range []struct {
		name, form, raw, to string
		encoded             bool
	}{
		{"as it is", "as-is", letter, "x@remote.test", false},
		{"made ASCII", "ascii", letter, "x@remote.test", true},
		{"for a mailbox here", "ascii", letter, "bo@example.test", false},
		{"signed", "ascii", signed, "x@remote.test", false},
		{"with a header that is not", "ascii", "Subject: h\u00e9\r\n" + letter, "x@remote.test", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.setting(t, "submission.encoding", tc.form)
			got, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), tc.raw, tc.to)
			must(t, err)
			if encoded := strings.Contains(got.text, "h=C3=A9llo"); encoded != tc.encoded || strings.Contains(got.text, "h\u00e9llo") == encoded {
				t.Errorf("%s", got.text)
			}
			if got.Queue != nil && (got.Queue.Body == "") != tc.encoded {
				t.Errorf("body %q", got.Queue.Body)
			}
		})
	}
}
