package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// future is how far ahead of the clock a file may be.
const future = 2 * time.Minute

// runClock looks for a clock that stands before the program was built or before files that were written already, and
// asks the kernel whether something keeps it right.
func runClock(_ context.Context, s Subject) []result {
	now := s.Clock()
	stamp := now.UTC().Format(time.RFC3339)
	fix := "set the clock and let chrony or systemd-timesyncd keep it"
	if !s.BuiltAt.IsZero() && now.Before(s.BuiltAt) {
		return []result{{Fail, fmt.Sprintf("it is %s, before this program was built (%s)", stamp, s.BuiltAt.UTC().Format(time.RFC3339)), fix}}
	}
	if newest, name := newestFile(s.Config.DataDir); newest.Sub(now) > future {
		return []result{{Fail, fmt.Sprintf("it is %s, but %s was written at %s", stamp, name, newest.UTC().Format(time.RFC3339)), fix}}
	}
	synced, known := kernelClock()
	switch {
	case !known:
		return []result{{OK, "it is " + stamp + "; the kernel doesn't say whether something keeps it right", ""}}
	case !synced:
		return []result{{Warn, "it is " + stamp + "; nothing keeps it right, says the kernel", fix}}
	}
	return []result{{OK, "it is " + stamp + ", kept right", ""}}
}

// newestFile is the time of the newest file of a directory.
func newestFile(dir string) (newest time.Time, name string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return newest, "" // another check tells
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.ModTime().After(newest) {
			newest, name = fi.ModTime(), filepath.Join(dir, e.Name())
		}
	}
	return newest, name
}
