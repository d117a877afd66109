package trace

import (
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

// hashOf is FNV-1a over the lower case of a word: what is written today must be found by later versions.
func hashOf(kind, text string) uint32 {
	const prime = 16777619
	h := uint32(2166136261)
	for i := range len(kind) {
		h = (h ^ uint32(kind[i])) * prime
	}
	for i := range len(text) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		h = (h ^ uint32(c)) * prime
	}
	return h
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

// eachWord calls add with the hashes of the words of a row. One that can't be read has those of the steps before.
func eachWord(row store.TraceRow, add func(word uint32)) {
	steps, _ := decode(row.Steps)
	put := func(kind, text string) {
		if text != "" {
			add(hashOf(kind, text))
		}
	}
	for i := range steps {
		s := &steps[i]
		for _, a := range [...]string{s.Address, s.Get(Target)} {
			if at := strings.LastIndexByte(a, '@'); at >= 0 {
				put(wordAddress, a)
				put(wordDomain, a[at+1:])
			}
		}
		put(wordMessageID, s.Get(MessageID))
		put(wordHost, s.Host)
		put(wordRemote, ipOf(s.Remote))
		if s.Outcome > Delivered { // what is delivered is most of all: it is looked through
			put(wordOutcome, s.Outcome.String())
		}
	}
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
