package pop3server

import (
	"fmt"
	"testing"

	"waxwing/internal/dialogtest"
)

// TestDialogs plays the conversations in testdata/dialogs, as dialogtest.Play explains them. A session connects by plain,
// tls or login (the greeting, USER and PASS are done then). There are two lines more:
//
//	@fill N         letters 1 to N are put into the INBOX
//	@raw "..."      a message in Go's notation is put into the INBOX
func TestDialogs(t *testing.T) {
	t.Parallel()
	dialogtest.Play(t, "testdata/dialogs", func(t *testing.T) dialogtest.Stage {
		r := newRig(t)
		return dialogtest.Stage{
			Dial:   func(how string) *dialogtest.Peer { return r.dial(how).Peer },
			Client: dialogtest.KeysFor(t, hostname).Client,
			Do:     r.do,
		}
	})
}

// do carries out a line of a dialog that is POP3's own.
func (r *rig) do(word, rest string) error {
	switch word {
	case "fill":
		var n int
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return err
		}
		for k := range n {
			r.fill(letter(k + 1))
		}
	case "raw":
		var raw string
		if _, err := fmt.Sscanf(rest, "%q", &raw); err != nil {
			return err
		}
		r.fill(raw)
	default:
		return fmt.Errorf("no such word: %s", word)
	}
	return nil
}
