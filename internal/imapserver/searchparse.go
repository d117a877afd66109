package imapserver

import (
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"waxwing/internal/message"
	"waxwing/internal/store"
	"waxwing/internal/store/search"
)

// searchOp is the kind of a search key.
type searchOp uint8

const (
	keyAll searchOp = iota
	keyFlag
	keyKeyword
	keyRecent
	keyBefore // dates: the internal one, or the Date field with sent
	keyOn
	keySince
	keyLarger
	keySmaller
	keySeq
	keyUID
	keyModSeq
	keyHeader
	keyBody
	keyText
	keyAnd
	keyOr
	keyNot
)

// searchKey is a node of the search program (RFC 3501, section 6.4.4).
type searchKey struct {
	op      searchOp
	cost    searchCost
	sent    bool        // of a date: the Date field
	flag    store.Flags // keyFlag
	text    string      // the keyword, the field's name in lower case
	needle  *needle
	hits    *search.Hits // of keyHeader, keyBody, keyText: what the store's index leaves over
	number  uint64       // size, mod-sequence, day number
	set     numSet
	kids    []searchKey
	unknown string // a needle still to be converted from the command's charset
}

// searchCost orders keys: the cheap ones are asked first.
type searchCost uint8

const (
	costIndex  searchCost = iota // known in memory
	costHeader                   // needs the header
	costBody                     // needs the whole message
)

// Bounds of one SEARCH.
const (
	maxSearchNesting = 50   // parentheses inside each other (CVE-2026-27857)
	maxSearchChain   = 500  // NOT and OR inside each other: some clients write long chains of OR
	maxSearchKeys    = 5000 // keys in all
	maxSearchNeedles = 100  // keys that look into messages
	maxNeedle        = 4 << 10
)

// searchReturn are the result options of RFC 4731.
type searchReturn uint8

const (
	returnMin searchReturn = 1 << iota
	returnMax
	returnAll
	returnCount
)

// searchRequest is SEARCH, with the options of RFC 4731 and MODSEQ of RFC 7162, section 3.1.5.
type searchRequest struct {
	uid      bool
	extended bool
	returns  searchReturn
	charset  string
	key      searchKey
	modSeq   bool // MODSEQ is among the keys: the answer tells the highest
	tag      string

	keys, needles, nesting, chain int // counted while parsing
}

func (r *searchRequest) parse(p *parser) {
	r.tag = p.named
	p.space()
	if p.takeWord("RETURN") {
		r.extended = true
		p.space()
		p.list(8, func() { r.option(p) })
		if r.returns == 0 {
			r.returns = returnAll
		}
		p.space()
	}
	if p.takeWord("CHARSET") {
		p.space()
		r.charset = p.astring(64)
		p.space()
	}
	r.key = searchKey{op: keyAnd}
	for p.ok() {
		r.key.kids = append(r.key.kids, r.searchKey(p))
		if !p.take(' ') || p.peek() == 0 {
			break
		}
	}
	p.end()
	if p.ok() {
		if err := r.convert(&r.key); err != nil {
			p.refuse(err)
		}
		r.key.arrange()
	}
}

func (r *searchRequest) option(p *parser) {
	switch p.word("a RETURN option") {
	case "MIN":
		r.returns |= returnMin
	case "MAX":
		r.returns |= returnMax
	case "ALL":
		r.returns |= returnAll
	case "COUNT":
		r.returns |= returnCount
	default:
		p.fail("unknown RETURN option before this")
	}
}

// takeWord takes a word that is followed by a space, when it is the one given in upper case.
func (p *parser) takeWord(word string) bool {
	end := p.pos + len(word)
	if !p.ok() || end >= len(p.line) || p.line[end] != ' ' || !strings.EqualFold(string(p.line[p.pos:end]), word) {
		return false
	}
	p.pos = end
	return true
}

// plainKeys are the keys without an argument.
var plainKeys = map[string]searchKey{
	"ALL":        {op: keyAll},
	"ANSWERED":   {op: keyFlag, flag: store.Answered},
	"DELETED":    {op: keyFlag, flag: store.Deleted},
	"DRAFT":      {op: keyFlag, flag: store.Draft},
	"FLAGGED":    {op: keyFlag, flag: store.Flagged},
	"SEEN":       {op: keyFlag, flag: store.Seen},
	"UNANSWERED": not(searchKey{op: keyFlag, flag: store.Answered}),
	"UNDELETED":  not(searchKey{op: keyFlag, flag: store.Deleted}),
	"UNDRAFT":    not(searchKey{op: keyFlag, flag: store.Draft}),
	"UNFLAGGED":  not(searchKey{op: keyFlag, flag: store.Flagged}),
	"UNSEEN":     not(searchKey{op: keyFlag, flag: store.Seen}),
	"RECENT":     {op: keyRecent},
	"OLD":        not(searchKey{op: keyRecent}),
	"NEW": {op: keyAnd, kids: []searchKey{
		{op: keyRecent}, not(searchKey{op: keyFlag, flag: store.Seen}),
	}},
}

func not(k searchKey) searchKey { return searchKey{op: keyNot, kids: []searchKey{k}} }

// searchKey reads one key.
func (r *searchRequest) searchKey(p *parser) searchKey {
	if r.keys++; r.keys > maxSearchKeys {
		p.fail("too many search keys")
		return searchKey{}
	}
	switch c := p.peek(); {
	case c == '(':
		return r.group(p)
	case c == '*' || c >= '0' && c <= '9':
		return searchKey{op: keySeq, set: p.numSet()}
	}
	start := p.pos
	word := p.word("a search key")
	if k, found := plainKeys[word]; found {
		k.kids = slices.Clone(k.kids) // arrange writes into them
		return k
	}
	switch word {
	case "NOT", "OR":
		return r.operator(p, word)
	case "BCC", "CC", "FROM", "SUBJECT", "TO":
		p.space()
		return searchKey{op: keyHeader, text: strings.ToLower(word), unknown: r.needle(p)}
	case "HEADER":
		p.space()
		name := strings.ToLower(p.astring(maxFieldName))
		p.space()
		return searchKey{op: keyHeader, text: name, unknown: r.needle(p)}
	case "BODY":
		p.space()
		return searchKey{op: keyBody, unknown: r.needle(p)}
	case "TEXT":
		p.space()
		return searchKey{op: keyText, unknown: r.needle(p)}
	case "KEYWORD", "UNKEYWORD":
		p.space()
		k := searchKey{op: keyKeyword, text: p.atom("a keyword")}
		if word == "UNKEYWORD" {
			return not(k)
		}
		return k
	case "LARGER", "SMALLER":
		p.space()
		k := searchKey{op: keyLarger, number: p.number(1<<63 - 1)}
		if word == "SMALLER" {
			k.op = keySmaller
		}
		return k
	case "UID":
		p.space()
		return searchKey{op: keyUID, set: p.numSet()}
	case "MODSEQ":
		return r.modSeqKey(p)
	}
	if op, sent, found := dateKey(word); found {
		p.space()
		return searchKey{op: op, sent: sent, number: uint64(p.date())}
	}
	p.pos = start
	p.fail("unknown search key")
	return searchKey{}
}

func dateKey(word string) (op searchOp, sent, found bool) {
	word, sent = strings.CutPrefix(word, "SENT")
	switch word {
	case "BEFORE":
		return keyBefore, sent, true
	case "ON":
		return keyOn, sent, true
	case "SINCE":
		return keySince, sent, true
	}
	return 0, false, false
}

// group reads a parenthesised list of keys.
func (r *searchRequest) group(p *parser) searchKey {
	if r.nesting++; r.nesting > maxSearchNesting {
		p.fail("parentheses nested too deep")
		return searchKey{}
	}
	k := searchKey{op: keyAnd}
	p.list(maxSearchKeys, func() { k.kids = append(k.kids, r.searchKey(p)) })
	if p.ok() && len(k.kids) == 0 {
		p.fail("empty parentheses before this")
	}
	r.nesting--
	return k
}

// operator reads what stands behind NOT and OR.
func (r *searchRequest) operator(p *parser, word string) searchKey {
	if r.chain++; r.chain > maxSearchChain {
		p.fail("search keys nested too deep")
		return searchKey{}
	}
	p.space()
	k := searchKey{op: keyNot, kids: []searchKey{r.searchKey(p)}}
	if word == "OR" {
		p.space()
		k.op = keyOr
		k.kids = append(k.kids, r.searchKey(p))
	}
	r.chain--
	return k
}

// modSeqKey reads the rest of MODSEQ; the entry's name and type say nothing here, since flags have one MODSEQ for all.
func (r *searchRequest) modSeqKey(p *parser) searchKey {
	r.modSeq = true
	p.space()
	if p.peek() == '"' {
		p.quoted(256)
		p.space()
		switch p.word("an entry type") {
		case "ALL", "PRIV", "SHARED":
		default:
			p.fail("unknown entry type before this")
		}
		p.space()
	}
	return searchKey{op: keyModSeq, number: p.modSeq()}
}

// needle reads a string to look for.
func (r *searchRequest) needle(p *parser) string {
	if r.needles++; r.needles > maxSearchNeedles {
		p.fail("too many search strings")
		return ""
	}
	return p.astring(maxNeedle)
}

// date reads a date such as 1-Feb-1994, quoted or not, and gives the number of its day.
func (p *parser) date() int64 {
	quoted := p.take('"')
	day := p.number(31)
	p.need('-')
	month := p.month()
	p.need('-')
	start := p.pos
	year := p.number(9999)
	if p.ok() && p.pos-start != 4 {
		p.fail("expected a year of four digits, before this")
	}
	if quoted {
		p.need('"')
	}
	t := time.Date(int(year), time.Month(month), int(day), 0, 0, 0, 0, time.UTC)
	if p.ok() && t.Day() != int(day) {
		p.fail("no such day, before this")
	}
	return dayNumber(t)
}

// month reads the three letters of a month.
func (p *parser) month() int {
	if p.ok() && p.pos+3 <= len(p.line) {
		name := string(p.line[p.pos : p.pos+3])
		for m := range 12 {
			if strings.EqualFold(months[3*m:3*m+3], name) {
				p.pos += 3
				return m + 1
			}
		}
	}
	p.fail("expected a month")
	return 1
}

// dayNumber counts days by the calendar of t's own zone, since SEARCH disregards time and zone (RFC 3501, section
// 6.4.4). It is offset so that no year of the protocol makes it negative.
func dayNumber(t time.Time) int64 {
	const yearZero = 719_528 // days from year 0 to 1970
	_, offset := t.Zone()
	seconds := t.Unix() + int64(offset)
	day := seconds / 86400
	if seconds%86400 < 0 {
		day--
	}
	return max(day+yearZero, 0)
}

// convert turns the search strings into needles.
func (r *searchRequest) convert(k *searchKey) error {
	for i := range k.kids {
		if err := r.convert(&k.kids[i]); err != nil {
			return err
		}
	}
	switch k.op {
	case keyHeader, keyBody, keyText:
	default:
		return nil
	}
	text, err := decodeSearch(r.charset, k.unknown)
	if err != nil {
		return err
	}
	k.needle, k.unknown = newNeedle(text), ""
	return nil
}

// decodeSearch converts a search string to UTF-8. Without CHARSET it should be US-ASCII, but clients send UTF-8.
func decodeSearch(charset, text string) (string, error) {
	switch strings.ToUpper(charset) {
	case "", "UTF-8", "US-ASCII", "UTF8", "ASCII":
		return strings.ToValidUTF8(text, "\uFFFD"), nil
	}
	if !message.CharsetKnown(charset) {
		return "", no("BADCHARSET (US-ASCII UTF-8)", "Charset not known")
	}
	// The decoder of header text knows every charset that mail is found in.
	word := "=?" + charset + "?B?" + base64.StdEncoding.EncodeToString([]byte(text)) + "?="
	return message.DecodeHeader([]byte(word)), nil
}

// arrange computes costs and puts cheap keys first.
func (k *searchKey) arrange() {
	switch k.op {
	case keyHeader:
		k.cost = costHeader
	case keyBody, keyText:
		k.cost = costBody
	case keyBefore, keyOn, keySince:
		if k.sent {
			k.cost = costHeader
		}
	}
	for i := range k.kids {
		k.kids[i].arrange()
		k.cost = max(k.cost, k.kids[i].cost)
	}
	slices.SortStableFunc(k.kids, func(a, b searchKey) int { return int(a.cost) - int(b.cost) })
}
