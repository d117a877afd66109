// Package wire reads and writes the text protocols of mail: CRLF lines, IMAP literals, SMTP dot-stuffed bodies and
// BDAT chunks, under limits of length, time and rate. SMTP, IMAP, POP3 and ManageSieve sessions stand on it, and so
// does the SMTP client. It knows no command of any of them.
package wire
