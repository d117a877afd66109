package trace

import (
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"waxwing/internal/store"
)

// The words by which traces are found: a letter for what it is, and the text. What is found by a hash is compared with what
// was asked for, so that two texts with one hash do no harm.
const (
	wordAddress   = "a:"
	wordDomain    = "d:"
	wordMessageID = "m:"
	wordHost      = "h:"
	wordRemote    = "i:"
	wordOutcome   = "s:"
)

func hashOf(kind, text string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(kind)) // never fails
	_, _ = h.Write([]byte(strings.ToLower(text)))
	return int64(h.Sum64())
}

// bucketOf is the hour of a time, since 1970.
func bucketOf(t time.Time) int64 { return t.Unix() / 3600 }

// bucketOfRow is the bucket of a trace: by its id, so that all its rows share it.
func bucketOfRow(row store.TraceRow) int64 {
	if t, ok := TimeOf(row.ID); ok {
		return bucketOf(t)
	}
	return bucketOf(time.UnixMicro(timeOfPart(row.Part)))
}

// appendWords adds the words of a row. One that can't be read has those of the steps before.
func appendWords(dst []store.TraceWord, row store.TraceRow) []store.TraceWord {
	bucket := bucketOfRow(row)
	steps, _ := decode(row.Steps)
	add := func(kind, text string) {
		if text != "" {
			dst = append(dst, store.TraceWord{Bucket: bucket, Word: hashOf(kind, text), ID: row.ID})
		}
	}
	for i := range steps {
		s := &steps[i]
		for _, a := range [...]string{s.Address, s.Get(Target)} {
			if at := strings.LastIndexByte(a, '@'); at >= 0 {
				add(wordAddress, a)
				add(wordDomain, a[at+1:])
			}
		}
		add(wordMessageID, s.Get(MessageID))
		add(wordHost, s.Host)
		add(wordRemote, ipOf(s.Remote))
		if s.Outcome > Delivered { // what is delivered is most of all: it is looked through
			add(wordOutcome, s.Outcome.String())
		}
	}
	return dst
}

// ipOf is the address of "address" or "address:port", "" when it is none.
func ipOf(remote string) string {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		return ap.Addr().Unmap().WithZone("").String()
	}
	if a, err := netip.ParseAddr(remote); err == nil {
		return a.Unmap().WithZone("").String()
	}
	return ""
}
