package message

import (
	"math/bits"
	"strings"
)

// Defects is a set of what is wrong with a part. None of them stops the parser.
type Defects uint64

// The defects that the parser and the readers of fields report.
const (
	DefectMissingBlankLine Defects = 1 << iota // the header ran into the body or into a boundary
	DefectJunkInHeader                         // a line that is neither field nor continuation
	DefectMboxFrom                             // an mbox "From " line stands before the header
	DefectBareLF                               // the header has lines that end in LF alone
	DefectNULInHeader                          // a NUL in the header
	Defect8BitHeader                           // octets above 127 in the header that are not UTF-8
	DefectHeaderLimit                          // the header, or a part of it, was not kept
	DefectDepthLimit                           // nested deeper than the limit; the rest is opaque
	DefectPartLimit                            // more parts than the limit; the rest is opaque
	DefectNoBoundary                           // a multipart without a usable boundary parameter
	DefectBoundaryUnseen                       // the boundary never occurs in the body
	DefectUnclosed                             // the closing boundary is missing
	DefectBoundaryJunk                         // text after the boundary on its line
	DefectContentType                          // Content-Type could not be read as type/subtype
	DefectDuplicateField                       // Content-Type, -Disposition or -Transfer-Encoding stands twice; the first counts
	DefectDuplicateParam                       // a parameter stands twice; the first counts
	DefectParamSyntax                          // a parameter is unquoted, unterminated or otherwise broken
	DefectParamLimit                           // more parameters than are kept
	DefectEncoding                             // unknown Content-Transfer-Encoding
	DefectEncodedComposite                     // a multipart or message with base64 or quoted-printable (RFC 2045, section 6.4)
)

var defectNames = [...]string{
	"missing-blank-line", "junk-in-header", "mbox-from", "bare-lf", "nul-in-header", "8bit-header", "header-limit",
	"depth-limit", "part-limit", "no-boundary", "boundary-unseen", "unclosed", "boundary-junk", "content-type",
	"duplicate-field", "duplicate-param", "param-syntax", "param-limit", "encoding", "encoded-composite",
}

// Has tells whether all of e are in d.
func (d Defects) Has(e Defects) bool { return d&e == e }

// Count is the number of kinds of defects in the set.
func (d Defects) Count() int { return bits.OnesCount64(uint64(d)) }

// Names lists the defects in a fixed order.
func (d Defects) Names() []string {
	var out []string
	for i, n := range defectNames {
		if d&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// String joins the names with commas.
func (d Defects) String() string { return strings.Join(d.Names(), ",") }
