package imapserver

import (
	"fmt"
	"testing"

	"waxwing/internal/dialogtest"
)

// TestDialogs plays the conversations in testdata/dialogs, as dialogtest.Play explains them. A session connects by plain,
// tls or login (the greeting and LOGIN are done then). There is one line more:
//
//	@fill BOX N     messages 1 to N of testMessage are put into a mailbox
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

// do carries out a line of a dialog that is IMAP's own.
func (r *rig) do(word, rest string) error {
	if word != "fill" {
		return fmt.Errorf("no such word: %s", word)
	}
	var box string
	var n int
	if _, err := fmt.Sscanf(rest, "%s %d", &box, &n); err != nil {
		return err
	}
	for k := range n {
		r.fill(box, testMessage(k+1))
	}
	return nil
}
