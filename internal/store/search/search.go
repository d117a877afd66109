// Package search turns text into the terms of an index, and what is looked for into the terms that an index is asked for.
// It is pure: no files, no goroutines. Package fts keeps the terms; another back-end may keep them elsewhere.
//
// There are two kinds of terms, because there are two kinds of questions:
//
//   - Grams answer "does this string occur": overlapping pieces of two or three characters of folded text. Every text that
//     holds a needle holds all grams of the needle, so a message that lacks one need not be read. This is how IMAP SEARCH,
//     which asks for substrings (RFC 3501, section 6.4.4), stays exact: the grams exclude, the text decides.
//   - Words answer "is it about this": whole words, numbers, addresses and their parts; overlapping pairs in scripts that
//     are written without spaces.
//
// Index and query go through the same functions: [AppendFold] and [Grams] for the former, [Analyzer] for the latter. When
// what they yield changes, [Version] changes, and an index that was made otherwise is made anew.
//
//	var d search.Document
//	d.Text(search.Subject, []byte("Your invoice"))
//	terms := d.AppendTerms(nil)
package search

import (
	"slices"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// revision counts the changes to what this package yields, and to how package digest picks the text out of messages.
const revision = "1"

// Version names everything that the terms depend on.
const Version = revision + "/" + norm.Version + "/" + unicode.Version

// Field says where in a message a text stands.
type Field uint8

// The fields. Header holds all fields of the header, each as "name:value", the four below it too; Body is the text of all
// parts and the headers of messages inside.
const (
	Body Field = iota
	Header
	Subject
	From
	To
	Cc
	Attachment // names of attachments; words only
	fieldCount
)

// letters begin the terms of grams, digits those of words. The terms of all fields live in one name space.
const (
	letters = "bhsftcn"
	digits  = "0123456"
)

// Hits are the messages of an account that an index can't exclude. A nil *Hits excludes nothing.
type Hits struct {
	// Upto is the last message that the index knew when it was asked: later ones are never excluded.
	Upto int64
	// IDs are the messages up to Upto that may match, ascending.
	IDs []int64
}

// Excludes tells that a message can't match.
func (h *Hits) Excludes(id int64) bool {
	if h == nil || id > h.Upto {
		return false
	}
	_, found := slices.BinarySearch(h.IDs, id)
	return !found
}
