package store

import (
	"fmt"
	"slices"
	"sort"
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

// add adds a UID above all that are in the set.
func (set uidSet) add(uid UID) uidSet { return set.addRange(uidRange{uid, uid}) }

// addRange adds a range above all that is in the set.
func (set uidSet) addRange(r uidRange) uidSet {
	if n := len(set); n > 0 && set[n-1].hi+1 == r.lo {
		set[n-1].hi = r.hi
		return set
	}
	return append(set, r)
}

// count returns how many UIDs are in the set.
func (set uidSet) count() int {
	n := 0
	for _, r := range set {
		n += r.count()
	}
	return n
}

func (r uidRange) count() int { return int(r.hi-r.lo) + 1 }

// at returns the UID at a position from 0.
func (set uidSet) at(pos int) UID {
	for _, r := range set {
		if pos < r.count() {
			return r.lo + UID(pos)
		}
		pos -= r.count()
	}
	return 0
}

// below returns how many UIDs of the set are below uid.
func (set uidSet) below(uid UID) int {
	n := 0
	for _, r := range set {
		if uid <= r.lo {
			break
		}
		n += uidRange{r.lo, min(r.hi, uid-1)}.count()
	}
	return n
}

// meets tells whether a UID of a range is in the set.
func (set uidSet) meets(r uidRange) bool {
	i := sort.Search(len(set), func(i int) bool { return set[i].hi >= r.lo })
	return i < len(set) && set[i].lo <= r.hi
}

// list returns the UIDs one by one.
func (set uidSet) list() []UID {
	uids := make([]UID, 0, set.count())
	for _, r := range set {
		for n := range r.count() {
			uids = append(uids, r.lo+UID(n))
		}
	}
	return uids
}

// without returns the set without some UIDs, which ascend, and adds those that were there to removed.
func (set uidSet) without(uids, removed []UID) (left uidSet, _ []UID) {
	for _, r := range set {
		for len(uids) > 0 && uids[0] < r.lo {
			uids = uids[1:]
		}
		for len(uids) > 0 && uids[0] <= r.hi {
			uid := uids[0]
			uids = uids[1:]
			if uid < r.lo {
				continue // given twice
			}
			removed = append(removed, uid)
			if uid > r.lo {
				left = append(left, uidRange{r.lo, uid - 1})
			}
			if uid == r.hi {
				r.lo, r.hi = 1, 0
				break
			}
			r.lo = uid + 1
		}
		if r.lo <= r.hi {
			left = append(left, r)
		}
	}
	return left, removed
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
