package server

import (
	"sync"

	"waxwing/internal/tlspolicy"
)

// tlsPolicies gives the administrator's table of how connections must be protected. It is read anew when the setting has
// changed.
func (s *Server) tlsPolicies() func() (*tlspolicy.Table, error) {
	var mu sync.Mutex
	var text string
	table, err := tlspolicy.Parse(text)
	return func() (*tlspolicy.Table, error) {
		now := s.state.Directory.Settings().TLSPolicies
		mu.Lock()
		defer mu.Unlock()
		if now != text {
			text = now
			table, err = tlspolicy.Parse(text)
		}
		return table, err
	}
}
