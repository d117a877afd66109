package server

import (
	"sync/atomic"

	"waxwing/internal/directory"
	"waxwing/internal/milter"
)

// readMilters is what the setting milter.chain said when it was read.
type readMilters struct {
	text string
	list []directory.Milter
}

// newMilters makes the chain of other programs that are asked about messages, as the settings are at each time.
func (s *Server) newMilters(m *metrics) *milter.Chain {
	log := s.log.With("part", "milter")
	var read atomic.Pointer[readMilters]
	return milter.New(milter.Options{
		Hostname: s.cfg.Hostname, Logger: log,
		Failed: func(string) { m.milterFailures.Inc() },
		Milters: func() []directory.Milter {
			text := s.state.Directory.Settings().Milters
			if last := read.Load(); last != nil && last.text == text {
				return last.list
			}
			list, err := directory.ParseMilters(text)
			if err != nil { // the settings have let none through that can't be read
				log.Error("milters can't be read, none is asked", "error", err)
			}
			read.Store(&readMilters{text, list})
			return list
		},
	})
}
