package trace

import (
	"encoding/binary"
	"errors"
	"time"
)

// A row is a version, the time of its first step in microseconds since 1970, and the steps one behind the other: kind,
// outcome, microseconds since the step before, a set of the texts that are there, and these, each behind its length. All
// numbers are varints.
const rowVersion = 1

// errRow is a row that can't be read.
var errRow = errors.New("trace: row can't be read")

// The texts of a step, in the order in which they are written.
const (
	hasAddress = 1 << iota
	hasHost
	hasRemote
	hasReason
	hasReply
	hasData
)

// appendHead begins a row.
func appendHead(b []byte, first int64) []byte {
	return binary.AppendVarint(append(b, rowVersion), first)
}

// appendStep writes a step that came at a time, after one at the time last.
func appendStep(b []byte, s *Step, at, last int64) []byte {
	texts := [...]struct {
		s     string
		limit int
	}{{s.Address, maxAddress}, {s.Host, maxHost}, {s.Remote, maxHost}, {s.Reason, maxReason}, {s.Reply, maxReply}}
	var has byte
	for i := range texts {
		if texts[i].s != "" {
			has |= 1 << i
		}
	}
	if len(s.Data) > 0 {
		has |= hasData
	}
	b = append(b, byte(s.Kind), byte(s.Outcome))
	b = binary.AppendVarint(b, at-last)
	b = append(b, has)
	for i := range texts {
		if texts[i].s != "" {
			b = appendText(b, texts[i].s, texts[i].limit)
		}
	}
	if len(s.Data) > 0 {
		n := min(len(s.Data), maxPairs)
		b = append(b, byte(n))
		for _, p := range s.Data[:n] {
			b = appendText(b, p.Name, maxName)
			b = appendText(b, p.Value, maxValue)
		}
	}
	return b
}

func appendText(b []byte, s string, limit int) []byte {
	s = clean(s, limit)
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decode reads the steps of a row. What can't be read ends it: the steps before are good.
func decode(row []byte) ([]Step, error) {
	if len(row) == 0 || row[0] != rowVersion {
		return nil, errRow
	}
	r := reader{b: row[1:]}
	at := r.varint()
	var steps []Step
	for len(r.b) > 0 && !r.bad {
		s := Step{Kind: Kind(r.octet()), Outcome: Outcome(r.octet())}
		at += r.varint()
		s.At = time.UnixMicro(at).UTC()
		has := r.octet()
		for i, p := range [...]*string{&s.Address, &s.Host, &s.Remote, &s.Reason, &s.Reply} {
			if has&(1<<i) != 0 {
				*p = r.text()
			}
		}
		if has&hasData != 0 {
			for range r.octet() {
				if r.bad {
					break
				}
				s.Data = append(s.Data, Pair{r.text(), r.text()})
			}
		}
		if !r.bad {
			steps = append(steps, s)
		}
	}
	if r.bad {
		return steps, errRow
	}
	return steps, nil
}

// reader takes a row apart.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) octet() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > uint64(len(r.b)-n) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[n : n+int(v)])
	r.b = r.b[n+int(v):]
	return clean(s, maxReply) // a row may have been damaged
}
