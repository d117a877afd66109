package mailrule

import (
	"waxwing/internal/address"
)

// Which mail a journal is about.
const (
	FlowBoth     = "both"
	FlowSent     = "sent"
	FlowReceived = "received"
)

// The forms of what a journal gets.
const (
	FormCopy   = "copy"   // the message itself
	FormReport = "report" // a report with the envelope, and the message attached
)

// Journal sends a copy of what an account or a domain sends or receives to an address.
type Journal struct {
	Name string `json:"name"`
	Of   string `json:"of"`   // pattern
	Flow string `json:"flow"` // sent, received or both
	To   string `json:"to"`   // address
	Form string `json:"form"` // copy or report

	to address.Address
}

// Clean checks a rule and gives it in its normal form.
func (j Journal) Clean() (Journal, error) {
	if err := checkName(j.Name); err != nil {
		return j, err
	}
	of, err := cleanPattern("of", j.Of)
	if err != nil {
		return j, err
	}
	j.Of = of
	if j.Flow == "" {
		j.Flow = FlowBoth
	}
	if j.Form == "" {
		j.Form = FormCopy
	}
	switch {
	case j.Flow != FlowBoth && j.Flow != FlowSent && j.Flow != FlowReceived:
		return j, &FieldError{"flow", j.Flow, "sent, received or both"}
	case j.Form != FormCopy && j.Form != FormReport:
		return j, &FieldError{"form", j.Form, "copy or report"}
	}
	to, err := address.Parse(j.To)
	if err != nil || to.IsLiteral() {
		return j, &FieldError{"to", j.To, "an address such as journal@example.test"}
	}
	if to.Key() == j.Of {
		return j, &FieldError{"to", j.To, "another address than the one that is journalled"}
	}
	j.To, j.to = to.String(), to
	return j, nil
}

// Address is where the journal goes.
func (j *Journal) Address() address.Address { return j.to }

// Journals are the rules that mail from a sender to a recipient falls under. What a journal itself gets is journalled by none.
func (s *Set) Journals(from, to address.Address) []*Journal {
	var list []*Journal
	for _, j := range s.journals {
		sent, received := false, false
		if j.Flow != FlowReceived {
			_, sent = fits(j.Of, from)
		}
		if j.Flow != FlowSent {
			_, received = fits(j.Of, to)
		}
		if sent || received {
			list = append(list, j)
		}
	}
	return list
}

// HasJournals tells whether there is any journal at all.
func (s *Set) HasJournals() bool { return len(s.journals) > 0 }
