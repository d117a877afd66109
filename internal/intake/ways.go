package intake

import (
	"slices"

	"waxwing/internal/address"
	"waxwing/internal/routing"
	"waxwing/internal/store"
)

// way is how mail for a remote recipient is sent, where that differs from what the sender said.
type way struct {
	sender routing.Sender
	by     address.Address // the address of ours that leads there; zero: the sender named the recipient
}

// split parts the row for the remote recipients by the ways they are sent: another sender, or another address of ours that
// leads there. Whoever forwards back to us is found out by the field that names that address; only its own targets see it.
func (t *Transaction) split(m *store.QueueMessage) (first *store.QueueMessage, more []*store.QueueMessage) {
	if m == nil || len(t.forwards) == 0 && !slices.ContainsFunc(t.ways, func(w way) bool { return w.sender.Replaced }) {
		return m, nil
	}
	of := make(map[way]*store.QueueMessage, 2)
	for i, w := range t.ways {
		own := of[w]
		if own == nil {
			own = w.row(m)
			of[w] = own
			if first == nil {
				first = own
			} else {
				more = append(more, own)
			}
		}
		own.Recipients = append(own.Recipients, m.Recipients[i])
	}
	return first, more
}

// row is a row without recipients for what goes this way.
func (w way) row(m *store.QueueMessage) *store.QueueMessage {
	own := *m
	own.Recipients = nil
	if w.sender.Replaced {
		own.From = w.sender.Address.String()
	}
	if w.sender.Owner {
		own.Ret, own.EnvID = "", ""
	}
	if !w.by.IsNull() {
		own.Prefix = append(slices.Clip(m.Prefix), "Delivered-To: "+w.by.String()+"\r\n"...)
	}
	return &own
}
