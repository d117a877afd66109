package sqlitefile

import (
	"log/slog"
	"sync"
	"sync/atomic"
)

// Damage counts what was found wrong in the pages and logs of all files since the process began. A page that is read again
// counts again, until Scrub has written it back.
type Damage struct {
	Mended int64 // one octet was wrong, and put right
	Broken int64 // more was wrong: whoever wanted to read it got an error
}

var (
	nMended, nBroken atomic.Int64

	watched  sync.Map // path to *slog.Logger; others are told to slog.Default()
	reported = struct {
		sync.Mutex
		at map[place]struct{}
	}{at: map[place]struct{}{}}
)

// maxReported bounds how many places are told of, each once.
const maxReported = 1000

type place struct {
	file string
	at   int64
	s    state
}

// Found returns what was found so far.
func Found() Damage { return Damage{Mended: nMended.Load(), Broken: nBroken.Load()} }

// watch tells what is found wrong in a database or its log to log.
func watch(path string, log *slog.Logger) {
	watched.Store(path, log)
	watched.Store(path+"-wal", log)
}

// report counts what was found at an offset of a file, and logs it once.
func report(file string, at int64, s state) {
	if s == mended {
		nMended.Add(1)
	} else {
		nBroken.Add(1)
	}
	p := place{file, at, s}
	reported.Lock()
	_, known := reported.at[p]
	full := len(reported.at) >= maxReported
	if !known && !full {
		reported.at[p] = struct{}{}
	}
	reported.Unlock()
	if known || full {
		return
	}
	log := slog.Default()
	if l, ok := watched.Load(file); ok {
		log = l.(*slog.Logger)
	}
	if s == mended {
		log.Warn("sqlitefile: put one wrong octet right", "file", file, "offset", at)
	} else {
		log.Error("sqlitefile: damaged page", "file", file, "offset", at)
	}
}
