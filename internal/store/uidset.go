package store

import (
	"fmt"
	"slices"
)

// uidSet is a set of UIDs as ascending ranges that don't touch.
type uidSet []uidRange

// uidSetOf makes a set of UIDs; ascending ones, which is what callers give, need no sorting.
func uidSetOf(uids []UID) uidSet {
	if !slices.IsSorted(uids) {
		uids = slices.Clone(uids)
		slices.Sort(uids)
	}
	var set uidSet
	for _, u := range uids {
		if u == 0 {
			continue // no UID (RFC 3501, section 9: nz-number)
		}
		if n := len(set); n > 0 && u-1 <= set[n-1].hi {
			set[n-1].hi = max(set[n-1].hi, u)
			continue
		}
		set = append(set, uidRange{u, u})
	}
	return set
}

// maxRanges is how many ranges get a statement each. More are given to one statement as a list of numbers.
const maxRanges = 8

// uidPart is a condition on the column uid, with its arguments.
type uidPart struct {
	uidRange
	cond string
	args []any
}

// parts gives conditions that together hold for the set, each UID once and in ascending order. Their parameters are
// numbered from first.
func (set uidSet) parts(d Dialect, first int) []uidPart {
	if len(set) == 0 {
		return nil
	}
	between := fmt.Sprintf("uid BETWEEN $%d AND $%d", first, first+1)
	if len(set) <= maxRanges {
		parts := make([]uidPart, len(set))
		for i, r := range set {
			parts[i] = uidPart{r, between, []any{int64(r.lo), int64(r.hi)}}
		}
		return parts
	}
	var numbers []int64
	for _, r := range set {
		for u := int64(r.lo); u <= int64(r.hi); u++ {
			numbers = append(numbers, u)
		}
	}
	all := uidRange{set[0].lo, set[len(set)-1].hi}
	cond := between + " AND " + d.In("uid", fmt.Sprintf("$%d", first+2))
	return []uidPart{{all, cond, []any{int64(all.lo), int64(all.hi), d.Numbers(numbers)}}}
}
