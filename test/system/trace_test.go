package system

import (
	"strings"
	"testing"

	"waxwing/test/rig"
)

// story is what `waxwing trace show --json` prints, as far as these tests look.
type story struct {
	ID    string `json:"id"`
	From  string `json:"from"`
	Fates []struct {
		Address, Status, Reply, Reason string
	} `json:"fates"`
	Steps []struct {
		Kind, Status, Address, Host, Reply, Reason string
		Data                                       map[string]string `json:"data"`
	} `json:"steps"`
}

// kinds lists the steps of a story.
func (s *story) kinds() string {
	var b strings.Builder
	for _, step := range s.Steps {
		b.WriteString(step.Kind + " ")
	}
	return b.String()
}

// fate is what became of an address.
func (s *story) fate(address string) (status, words string) {
	for _, f := range s.Fates {
		if strings.EqualFold(f.Address, address) {
			return f.Status, f.Reply + f.Reason
		}
	}
	return "", ""
}

// traced waits for the only trace that the arguments of find name, whose recipient has a status.
func traced(t *testing.T, n *rig.Node, address, status string, find ...string) (s story) {
	t.Helper()
	waitFor(t, address+" is "+status, func() bool {
		var page struct{ Traces []story }
		command(t, n, &page, append([]string{"trace", "find"}, find...)...)
		for i := range page.Traces {
			if got, _ := page.Traces[i].fate(address); got == status {
				command(t, n, &s, "trace", "show", page.Traces[i].ID)
				return true
			}
		}
		return false
	})
	return s
}

// TestAMessageIsTracedFromItsConnectionToTheOtherServersAnswer follows a message through two servers, and what is refused and
// returned; the first server is killed in between.
func TestAMessageIsTracedFromItsConnectionToTheOtherServersAnswer(t *testing.T) {
	far := node(t, rig.WaxwingOptions{Domain: "far.example", Accounts: []rig.Account{{Address: "zoe@far.example", Password: "a long password for zoe"}}})
	near := node(t, rig.WaxwingOptions{Relay: far.SMTP})
	if err := submit(t, near, ada, []string{"zoe@far.example"}, letter(ada.Address, "zoe@far.example", "traced")); err != nil {
		t.Fatal(err)
	}
	sent := traced(t, near, "zoe@far.example", "delivered", "--to", "zoe@far.example")
	if got := sent.kinds(); !strings.HasPrefix(got, "connect hello tls hello sign-in sender recipient content ") || !strings.HasSuffix(got, "queue accept queue attempt ") {
		t.Errorf("steps: %s", got)
	}
	_, words := sent.fate("zoe@far.example")
	code, id, ok := strings.Cut(words, " ok ")
	if !ok || code != "250 2.0.0" {
		t.Fatalf("the far server's words: %q", words)
	}
	var there story
	command(t, far, &there, "trace", "show", id)
	if status, _ := there.fate("zoe@far.example"); status != "delivered" || there.From != ada.Address {
		t.Errorf("at the far server: %+v", there)
	}

	if err := submit(t, near, ada, []string{"nobody@far.example"}, letter(ada.Address, "nobody@far.example", "refused")); err != nil {
		t.Fatal(err)
	}
	bounced := traced(t, near, "nobody@far.example", "bounced", "--status", "bounced")
	if _, words := bounced.fate("nobody@far.example"); !strings.HasPrefix(words, "550 5.1.1") {
		t.Errorf("why: %q", words)
	}
	var report string
	waitFor(t, "the notification stands in the trace", func() bool {
		command(t, near, &bounced, "trace", "show", bounced.ID)
		for _, step := range bounced.Steps {
			if step.Kind == "report" {
				report = step.Data["trace"]
			}
		}
		return report != ""
	})
	var returned story
	command(t, near, &returned, "trace", "show", report)
	if status, _ := returned.fate(ada.Address); status != "delivered" || returned.Steps[0].Data["trace"] != bounced.ID {
		t.Errorf("the notification: %+v", returned)
	}
	refused := traced(t, far, "nobody@far.example", "rejected", "nobody@far.example")
	if refused.From != ada.Address {
		t.Errorf("the refusal at the far server: %+v", refused)
	}

	if err := near.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := near.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := traced(t, near, "zoe@far.example", "delivered", "zoe@far.example", "--since", "1h")
	if again.ID != sent.ID || again.kinds() != sent.kinds() {
		t.Errorf("after the kill: %s, before %s", again.kinds(), sent.kinds())
	}
}
