// Package message reads and writes Internet messages as they are, not as they should be: a lenient MIME parser with
// byte offsets and limits, addresses, dates, encoded words, RFC 2231 parameters, charsets, the ENVELOPE and
// BODYSTRUCTURE of IMAP, text extraction, and a builder. It never fails on mail: what is wrong is reported as defects
// beside the result (RFC 5322, 2045 to 2047, 2231, 6532; RFC 3501, section 7.4.2).
package message
