// Package transfer moves an account's mail between the server and files: export to and import from mbox files and
// Maildirs, with folders, flags, keywords and dates of delivery. It also brings back what a server lacks of a backup: a
// domain, an account, a folder or a message.
//
// Export and import may be broken off and begun again: a state file beside the mail tells how far they came. It is written after the
// mail that it speaks of is on stable storage, so that nothing is left out. An import that was killed between the two finds
// what it had put in by comparing, so that nothing is in twice. A message or a folder that can't be taken is reported and
// passed over.
//
// It works through operations of package control, and so with the server running or stopped.
package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"waxwing/internal/control"
	"waxwing/internal/durable"
	"waxwing/internal/mailfile"
)

// Format is how mail is kept in files.
type Format string

// The formats.
const (
	Mbox    Format = "mbox"
	Maildir Format = "maildir"
)

// Event tells how far a transfer is.
type Event struct {
	Folder  string
	Done    int64  // messages of this folder so far, those of an earlier run among them where they are known
	Total   int64  // messages of this folder, 0 when that isn't known
	Octets  int64  // of this run
	Problem string // a message that was passed over, and why; "" for progress
}

// Result is what a transfer did.
type Result struct {
	Folders  int      `json:"folders"`
	Messages int64    `json:"messages"`
	Octets   int64    `json:"octets"`
	Resumed  bool     `json:"resumed"`            // it went on where an earlier one had stopped
	Problems []string `json:"problems,omitempty"` // messages passed over, the first 1,000 of them
	Skipped  int64    `json:"skipped"`
}

// maxProblems bounds the list of problems; all are counted and reported as events.
const maxProblems = 1000

// run is what both directions share.
type run struct {
	carrier  control.Carrier
	account  string
	progress func(Event)
	result   Result
}

func (r *run) problem(folder, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.result.Skipped++
	if len(r.result.Problems) < maxProblems {
		r.result.Problems = append(r.result.Problems, folder+": "+text)
	}
	r.progress(Event{Folder: folder, Problem: text})
}

// maxState bounds a state file.
const maxState = 64 << 20

// loadState reads a state file; found is false when there is none.
func loadState(file string, v any) (found bool, err error) {
	raw, err := durable.ReadFile(durable.OS, file, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read state: %w", err)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("read state %s: %w; remove it to begin again", file, err)
	}
	return true, nil
}

func saveState(file string, v any) error {
	raw, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := durable.WriteFile(durable.OS, file, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// flagsOf gives the flags of a stored message as files have them.
func flagsOf(m control.Message) mailfile.Flags {
	return mailfile.Flags{Seen: m.Seen, Answered: m.Answered, Flagged: m.Flagged, Deleted: m.Deleted, Draft: m.Draft, Keywords: m.Keywords}
}

// mboxPath is the path of a mailbox's file below the export's directory: "INBOX.mbox", "Archive/2024.mbox". What a
// file system could take amiss is written as %XX.
func mboxPath(name string) string {
	levels := strings.Split(name, "/")
	for i, l := range levels {
		levels[i] = escapeLevel(l)
	}
	return strings.Join(levels, string(os.PathSeparator)) + mboxSuffix
}

const mboxSuffix = ".mbox"

func escapeLevel(l string) string {
	var b strings.Builder
	for i := range len(l) {
		c := l[i]
		last := i == len(l)-len(mboxSuffix) && strings.HasSuffix(strings.ToLower(l), mboxSuffix)
		if c < 0x20 || c == 0x7f || strings.IndexByte(`%\:*?"<>|`, c) >= 0 || (c == '.' && (i == 0 || last)) {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// mailboxName is the mailbox of a file below the directory that is imported: escapes undone, the suffix dropped.
func mailboxName(path string) string {
	levels := strings.Split(path, string(os.PathSeparator))
	last := len(levels) - 1
	if n := len(levels[last]) - len(mboxSuffix); n > 0 && strings.EqualFold(levels[last][n:], mboxSuffix) {
		levels[last] = levels[last][:n]
	}
	for i, l := range levels {
		levels[i] = unescapeLevel(l)
	}
	return strings.Join(levels, "/")
}

func unescapeLevel(l string) string {
	var b strings.Builder
	for i := 0; i < len(l); i++ {
		var c byte
		if l[i] == '%' && i+2 < len(l) {
			if _, err := fmt.Sscanf(l[i+1:i+3], "%02X", &c); err == nil && c != '/' {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(l[i])
	}
	return b.String()
}
