package directory

// SendingLimit is how much one account, or all accounts of a domain together, may send. A nil field leaves what holds
// without this limit: for an account the settings, for a domain nothing. 0 is no limit.
type SendingLimit struct {
	For               string `json:"for"` // a domain, or the address of an account
	MessagesPerHour   *int64 `json:"messages_per_hour,omitempty"`
	MessagesPerDay    *int64 `json:"messages_per_day,omitempty"`
	RecipientsPerHour *int64 `json:"recipients_per_hour,omitempty"`
	RecipientsPerDay  *int64 `json:"recipients_per_day,omitempty"`
}

const (
	maxSendingLimits = 100_000
	maxRate          = 1_000_000_000
)

func (l SendingLimit) key() string { return l.For }

// values are the fields with their names.
func (l SendingLimit) values() []field {
	out := make([]field, 0, 4)
	for _, f := range []struct {
		name string
		v    *int64
	}{
		{"messages_per_hour", l.MessagesPerHour},
		{"messages_per_day", l.MessagesPerDay},
		{"recipients_per_hour", l.RecipientsPerHour},
		{"recipients_per_day", l.RecipientsPerDay},
	} {
		if f.v != nil {
			out = append(out, field{name: f.name, to: *f.v})
		}
	}
	return out
}

// normal checks a limit and gives it in the form in which limits are compared.
func (l SendingLimit) normal() (SendingLimit, error) {
	scope, err := normalScope("for", l.For)
	if err != nil {
		return l, err
	}
	if l.For = scope; scope == "" {
		return l, &FieldError{Field: "for", Want: "a domain or the address of an account"}
	}
	values := l.values()
	if len(values) == 0 {
		return l, &FieldError{Field: "messages_per_hour", Want: "at least one number"}
	}
	for _, f := range values {
		if n, ok := f.to.(int64); !ok || n < 0 || n > maxRate {
			return l, &FieldError{Field: f.name, Want: "0 (no limit) to 1000000000"}
		}
	}
	return l, nil
}
