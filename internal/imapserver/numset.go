package imapserver

import (
	"slices"
	"strconv"
)

// maxRanges bounds a set of numbers in a command.
const maxRanges = 10_000

// star stands for "*", the largest number in use.
const star = 0

// numRange is one range of a set, both ends included; an end may be star until resolve.
type numRange struct{ lo, hi uint32 }

// numSet is a sequence-set of RFC 3501, section 9: sequence numbers or UIDs.
type numSet []numRange

// numSet reads a sequence-set.
func (p *parser) numSet() numSet {
	var set numSet
	for p.ok() {
		if len(set) == maxRanges {
			p.fail("too many ranges")
			return nil
		}
		r := numRange{lo: p.seqNumber()}
		r.hi = r.lo
		if p.take(':') {
			r.hi = p.seqNumber()
		}
		set = append(set, r)
		if !p.take(',') {
			return set
		}
	}
	return nil
}

// seqNumber reads a number above 0, or "*".
func (p *parser) seqNumber() uint32 {
	if p.take('*') {
		return star
	}
	n := p.number32()
	if n == 0 {
		p.fail("expected a number above 0 or \"*\"")
	}
	return n
}

// largest is the largest number that is named in the set.
func (s numSet) largest() uint32 {
	var n uint32
	for _, r := range s {
		n = max(n, r.lo, r.hi)
	}
	return n
}

// resolve puts last in the place of "*", orders the ends of each range, and sorts and merges the ranges. With last 0
// (an empty mailbox) ranges with "*" vanish.
func (s numSet) resolve(last uint32) numSet {
	out := make(numSet, 0, len(s))
	for _, r := range s {
		if r.lo == star {
			r.lo = last
		}
		if r.hi == star {
			r.hi = last
		}
		if r.lo > r.hi {
			r.lo, r.hi = r.hi, r.lo
		}
		if r.lo == 0 {
			continue
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b numRange) int {
		switch {
		case a.lo < b.lo:
			return -1
		case a.lo > b.lo:
			return 1
		}
		return 0
	})
	return out.merge()
}

// merge joins ranges that touch; the set must be sorted.
func (s numSet) merge() numSet {
	n := 0
	for _, r := range s {
		if n > 0 && (r.lo <= s[n-1].hi || r.lo == s[n-1].hi+1) {
			s[n-1].hi = max(s[n-1].hi, r.hi)
			continue
		}
		s[n] = r
		n++
	}
	return s[:n]
}

// contains tells whether a resolved set holds n.
func (s numSet) contains(n uint32) bool {
	i, _ := slices.BinarySearchFunc(s, n, func(r numRange, n uint32) int {
		if r.hi < n {
			return -1
		}
		if r.lo > n {
			return 1
		}
		return 0
	})
	return i < len(s) && s[i].lo <= n && n <= s[i].hi
}

// size counts the numbers of a resolved set.
func (s numSet) size() (n int) {
	for _, r := range s {
		n += int(r.hi-r.lo) + 1
	}
	return n
}

// add appends n, which is larger than all numbers before it.
func (s numSet) add(n uint32) numSet {
	if k := len(s); k > 0 && s[k-1].hi+1 == n {
		s[k-1].hi = n
		return s
	}
	return append(s, numRange{n, n})
}

// appendSet writes a resolved set as "1:3,7".
func appendSet(b []byte, s numSet) []byte {
	for i, r := range s {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(r.lo), 10)
		if r.hi != r.lo {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(r.hi), 10)
		}
	}
	return b
}

// appendUIDs writes ordered UIDs as a set, runs joined; the order is kept, as COPYUID needs it (RFC 4315, section 3).
func appendUIDs[T ~uint32](b []byte, uids []T) []byte {
	for i := 0; i < len(uids); {
		j := i + 1
		for j < len(uids) && uids[j] == uids[j-1]+1 {
			j++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(uids[i]), 10)
		if j-i > 1 {
			b = append(b, ':')
			b = strconv.AppendUint(b, uint64(uids[j-1]), 10)
		}
		i = j
	}
	return b
}
