package intake

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"waxwing/internal/message"
	"waxwing/internal/routing"
	"waxwing/internal/store"
	"waxwing/internal/trace"
)

// id is the message's trace id.
func (t *Transaction) id() string {
	if t.peer.Trail == nil {
		return t.in.opts.IDs()
	}
	return t.peer.Trail.ID()
}

// tell adds to the trail what the message is and where it goes, as the delivery will commit it.
func (t *Transaction) tell(part *message.Part, d *store.Delivery) {
	trail := t.peer.Trail
	if trail == nil {
		return
	}
	facts := []trace.Pair{{Name: trace.Size, Value: strconv.FormatInt(d.Content.Size(), 10)}}
	if d.Summary.MessageID != "" {
		facts = append(facts, trace.Pair{Name: trace.MessageID, Value: d.Summary.MessageID})
	}
	if s := t.tracedSubject(part); s != "" {
		facts = append(facts, trace.Pair{Name: trace.Subject, Value: s})
	}
	trail.Add(trace.Step{Kind: trace.Content, Data: facts})
	for _, l := range t.locals {
		trail.Add(mailboxStep(l))
	}
	for i := range t.remotes {
		r := &t.remotes[i]
		step := trace.Step{Kind: trace.Queue, Outcome: trace.Waiting, Address: r.To, Host: r.Domain}
		if t.milterHold != "" {
			step.Outcome, step.Reason = trace.Held, t.milterHold
		} else if r.State == store.QueueHeld {
			step.Outcome, step.Reason = trace.Held, r.HeldFor
		}
		trail.Add(step)
	}
	trail.Add(trace.Step{Kind: trace.Accept, Reply: "250 2.0.0 ok " + t.peer.Trail.ID()})
}

// mailboxStep tells of a copy in a mailbox here.
func mailboxStep(l local) trace.Step {
	step := trace.Step{Kind: trace.Mailbox, Outcome: trace.Delivered, Address: l.address, Data: []trace.Pair{{Name: trace.Folder, Value: string(l.role)}}}
	switch l.role {
	case store.RoleJunk:
		step.Outcome = trace.Junked
	case store.RoleSurge:
		step.Reason = "surplus of a mail bomb"
	}
	if l.filed != "" { // by scripts
		step.Data[0].Value = l.filed
	}
	return step
}

// tellRoute adds to the trail where a recipient leads, if that isn't itself.
func (t *Transaction) tellRoute(to, target string, sender routing.Sender) {
	if t.peer.Trail != nil && !strings.EqualFold(to, target) {
		reason := ""
		if sender.Replaced {
			reason = "goes on under the sender <" + sender.Address.String() + ">"
		}
		t.peer.Trail.Add(trace.Step{Kind: trace.Route, Address: to, Reason: reason, Data: []trace.Pair{{Name: trace.Target, Value: target}}})
	}
}

// tracedSubject is the subject as the settings let traces have it.
func (t *Transaction) tracedSubject(part *message.Part) string {
	switch t.set.TraceSubjects {
	case "full":
		return description(part)
	case "hash":
		sum := sha256.Sum256([]byte(strings.TrimSpace(part.Header.Text("Subject"))))
		return "sha256:" + hex.EncodeToString(sum[:8])
	}
	return ""
}
