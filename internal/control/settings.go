package control

import (
	"context"
	"encoding/json"
	"time"

	"waxwing/internal/directory"
)

// Operations on settings.
var (
	SettingsShow    = operation("settings.show", (*Service).settingsShow)
	SettingsHistory = operation("settings.history", (*Service).settingsHistory)
)

// Settings is all settings at one version.
type Settings struct {
	Version  int64     `json:"version"`
	Settings []Setting `json:"settings"`
}

// Setting is one setting.
type Setting struct {
	Name    string          `json:"name"`
	Doc     string          `json:"doc"`
	Value   json.RawMessage `json:"value"`
	Default json.RawMessage `json:"default"`
	Changed bool            `json:"changed"`
}

// SettingsAt asks for the settings now, or as they were.
type SettingsAt struct {
	Version *int64 `json:"version,omitempty"`
}

func shownSettings(s directory.Settings) Settings {
	out := Settings{Version: s.Version}
	for _, x := range s.List() {
		out.Settings = append(out.Settings, Setting{Name: x.Name, Doc: x.Doc, Value: x.Value, Default: x.Default, Changed: x.Changed})
	}
	return out
}

func (s *Service) settingsShow(ctx context.Context, req SettingsAt) (Settings, error) {
	if req.Version == nil {
		return shownSettings(s.dir.Settings()), nil
	}
	old, err := s.dir.SettingsAt(ctx, *req.Version)
	if err != nil {
		return Settings{}, err
	}
	return shownSettings(old), nil
}

// HistoryPage asks for changes, newest first.
type HistoryPage struct {
	Before int64 `json:"before,omitempty"` // only versions before this one; 0: from the newest
	Limit  int   `json:"limit,omitempty"`
}

// History is changes of settings, domains, accounts and aliases, newest first.
type History struct {
	Changes []HistoryLine `json:"changes"`
}

// HistoryLine is one change.
type HistoryLine struct {
	Version int64           `json:"version"`
	Time    time.Time       `json:"time"`
	Actor   string          `json:"actor"`
	Name    string          `json:"name"`  // "message.size", "account/li@example.test"
	Value   json.RawMessage `json:"value"` // null: back to the default, or removed
}

func (s *Service) settingsHistory(ctx context.Context, req HistoryPage) (History, error) {
	limit := req.Limit
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	list, err := s.dir.SettingsHistory(ctx, req.Before, limit)
	if err != nil {
		return History{}, err
	}
	out := History{Changes: make([]HistoryLine, len(list))}
	for i, c := range list {
		out.Changes[i] = HistoryLine{Version: c.Version, Time: c.Changed.UTC(), Actor: c.Actor, Name: c.Name, Value: json.RawMessage("null")}
		if c.Value != nil {
			out.Changes[i].Value = json.RawMessage(*c.Value)
		}
	}
	return out, nil
}
