package control

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
)

// Exchange answers one request of a caller who has been judged already.
func Exchange(s *Service, name string, body []byte) (status int, text []byte) {
	h, ok := handlers[name]
	if !ok || strings.HasPrefix(name, "server.") {
		return 404, []byte("{}")
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	s.answer(context.Background(), w, r, name, h)
	return w.Code, w.Body.Bytes()
}

// Appending tells whether an append is under way.
func Appending(s *Service) bool {
	s.appends.mu.Lock()
	defer s.appends.mu.Unlock()
	return len(s.appends.now) > 0
}
