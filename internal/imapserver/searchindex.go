package imapserver

import "waxwing/internal/store/search"

// narrowFrom is how many messages a search must concern for the index to be asked: fewer are read as fast.
const narrowFrom = 32

// maxHits bounds the candidates that one SEARCH holds for all of its keys, eight octets each.
const maxHits = 1 << 20

// indexFields are the fields of the header that the index knows by name. What stands in another is looked for in all.
var indexFields = map[string]search.Field{
	"subject": search.Subject, "from": search.From, "to": search.To, "cc": search.Cc,
}

// narrow asks the store's index which messages the keys that look into messages can't match. What the index leaves over,
// and what it does not know yet, is read: the answer is the same with it and without.
func (q *searcher) narrow(key *searchKey) {
	left := maxHits
	q.narrowKey(key, &left)
}

func (q *searcher) narrowKey(k *searchKey, left *int) {
	if q.ctx.Err() != nil || *left <= 0 {
		return
	}
	var fields []search.Field
	switch k.op {
	case keyHeader:
		field, known := indexFields[k.text]
		if !known {
			field = search.Header
		}
		fields = []search.Field{field}
	case keyBody:
		fields = []search.Field{search.Body}
	case keyText:
		fields = []search.Field{search.Header, search.Body}
	}
	if len(fields) > 0 && len(k.needle.folded) > 0 {
		k.hits = q.s.srv.opt.Store.Candidates(q.ctx, q.s.acct, k.needle.folded, fields...)
		if k.hits != nil {
			*left -= len(k.hits.IDs)
		}
	}
	for i := range k.kids {
		q.narrowKey(&k.kids[i], left)
	}
}

// count is how many numbers the ranges hold.
func (s numSet) count() (n uint64) {
	for _, r := range s {
		n += uint64(r.hi) - uint64(r.lo) + 1
	}
	return n
}
