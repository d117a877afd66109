package control

import (
	"context"
	"time"

	"waxwing/internal/telemetry"
)

// Operations on the server itself.
var (
	ServerStatus = operation("server.status", (*Service).serverStatus)
	ServerReload = operation("server.reload", (*Service).serverReload)
)

// Status is what a running server says of itself.
type Status struct {
	Version    string                `json:"version"`
	PID        int                   `json:"pid"`
	Hostname   string                `json:"hostname"`
	Started    time.Time             `json:"started"`
	Listeners  []Listener            `json:"listeners"`
	Well       bool                  `json:"well"`
	Conditions []telemetry.Condition `json:"conditions"`
}

// Listener is a socket that takes connections.
type Listener struct {
	Protocol string `json:"protocol"`
	TLS      string `json:"tls"`
	Address  string `json:"address"`
}

func (s *Service) serverStatus(context.Context, Done) (Status, error) {
	if s.server == nil {
		return Status{}, Errorf(Unavailable, "the server is not running")
	}
	return s.server.Status(), nil
}

func (s *Service) serverReload(ctx context.Context, _ Done) (Done, error) {
	if s.server == nil {
		return Done{}, Errorf(Unavailable, "the server is not running")
	}
	return Done{}, s.server.Reload(ctx)
}
