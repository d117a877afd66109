package store

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// QueueFilter selects recipients of queued messages; fields that are set must all fit. The zero value fits all.
type QueueFilter struct {
	IDs        []QueueID
	Recipients []RecipientID
	Domain     string     // destination
	From       string     // reverse-path, "<>" for null
	To         string     // forward-path
	State      QueueState // e.g. QueueDamaged
	Account    AccountID

	SenderDomain  string    // of the reverse-path
	Text          string    // stands in the last answer, whatever the case
	Category      string    // of the last failure
	Provider      string    // of the last server
	Pool          string    // of the last attempt
	HeldFor       string    // why it is held
	Before, After time.Time // when the message came
	Larger        int64     // octets of the message, at least
	Smaller       int64     // and at most
}

// Empty tells that f fits everything.
func (f QueueFilter) Empty() bool {
	cond, _ := f.where(nil)
	return cond == everything
}

// where writes the condition of f over r (queue_recipient) and m (queue_message), with its arguments behind args.
func (f QueueFilter) where(args []any) (string, []any) {
	var b strings.Builder
	b.WriteString(everything)
	compare := func(cond string, v any) {
		args = append(args, v)
		fmt.Fprintf(&b, " AND %s $%d", cond, len(args))
	}
	add := func(column string, v any) { compare(column+" =", v) }
	in := func(cond string, n int, v func(int) any) {
		fmt.Fprintf(&b, " AND %s IN (", cond)
		for i := range padded(n) {
			args = append(args, v(min(i, n-1)))
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "$%d", len(args))
		}
		b.WriteByte(')')
	}
	if len(f.IDs) > 0 {
		in("r.message_id", len(f.IDs), func(i int) any { return f.IDs[i] })
	}
	if len(f.Recipients) > 0 {
		in("r.id", len(f.Recipients), func(i int) any { return f.Recipients[i] })
	}
	if f.Domain != "" {
		add("r.domain", strings.ToLower(f.Domain))
	}
	if f.From != "" {
		add("m.sender", strings.TrimSuffix(strings.TrimPrefix(f.From, "<"), ">"))
	}
	if f.To != "" {
		add("r.rcpt", f.To)
	}
	if f.State != "" {
		add("r.state", string(f.State))
	}
	if f.Account != 0 {
		add("m.account_id", f.Account)
	}
	for _, t := range []struct{ column, want string }{
		{"r.category", f.Category}, {"r.provider", f.Provider}, {"r.pool", f.Pool}, {"r.held_for", f.HeldFor},
	} {
		if t.want != "" {
			add(t.column, t.want)
		}
	}
	f.compared(compare)
	return b.String(), args
}

// everything is the condition that fits all.
const everything = "1 = 1"

// compared writes the conditions that are no equations.
func (f QueueFilter) compared(compare func(string, any)) {
	if f.SenderDomain != "" {
		compare("lower(m.sender) LIKE", "%@"+like(f.SenderDomain))
	}
	if f.Text != "" {
		compare("lower(r.last_error) LIKE", "%"+like(f.Text)+"%")
	}
	if !f.Before.IsZero() {
		compare("m.created <", f.Before.UnixMilli())
	}
	if !f.After.IsZero() {
		compare("m.created >=", f.After.UnixMilli())
	}
	if f.Larger > 0 {
		compare("m.size >=", f.Larger)
	}
	if f.Smaller > 0 {
		compare("m.size <=", f.Smaller)
	}
}

// like writes a text for LIKE, in which it stands for itself but for "_" and "%": those fit any.
func like(s string) string { return strings.ReplaceAll(strings.ToLower(s), "%", "_") }

// padded rounds the length of a list up to one of a few, so that there are few texts of statements to prepare.
func padded(n int) int {
	for _, size := range []int{1, 20} {
		if n <= size {
			return size
		}
	}
	return queueStep
}

// steps calls fn with parts of f whose lists are short enough for one statement.
func (f QueueFilter) steps(fn func(QueueFilter) error) error {
	if len(f.IDs) > queueStep {
		head, tail := f, f
		head.IDs, tail.IDs = f.IDs[:queueStep], f.IDs[queueStep:]
		return errors.Join(head.steps(fn), tail.steps(fn))
	}
	if len(f.Recipients) > queueStep {
		head, tail := f, f
		head.Recipients, tail.Recipients = f.Recipients[:queueStep], f.Recipients[queueStep:]
		return errors.Join(head.steps(fn), tail.steps(fn))
	}
	return fn(f)
}
