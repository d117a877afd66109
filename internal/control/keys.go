package control

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"waxwing/internal/store/keyring"
)

// Operations on the keys of encryption at rest. No key ever passes through them: where one is needed, the request names
// the file that holds it.
var (
	KeyList    = operation("key.list", (*Service).keyList)
	KeyRotate  = operation("key.rotate", (*Service).keyRotate)
	KeyRewrap  = operation("key.rewrap", (*Service).keyRewrap)
	KeyConfirm = operation("key.confirm", (*Service).keyConfirm)
)

// Keys describes encryption at rest.
type Keys struct {
	On     bool      `json:"on"`
	Source string    `json:"source,omitempty"`
	Master string    `json:"master,omitempty"` // id of the master key
	Backup time.Time `json:"backup,omitzero"`  // when a backup of the master key was last confirmed
	Keys   []Key     `json:"keys"`
	// Left are the octets of stored messages that may be under another key than the current one, or under none; of Total. Messages
	// above 1 MiB in files of their own are not counted.
	Left  int64 `json:"left"`
	Total int64 `json:"total"`
}

// Key is one data key.
type Key struct {
	ID      string    `json:"id"`
	Purpose string    `json:"purpose"`
	Created time.Time `json:"created"`
	Blocks  int64     `json:"blocks"` // sealed at most
	// State is current (seals new messages), leaving (older messages are under it, and are encrypted anew in the background)
	// or retired (no message is under it; backups may be).
	State string `json:"state"`
}

var errNoKeys = Errorf(Conflict, "messages are not encrypted: set [encryption] in waxwing.toml and run `waxwing store key create`")

// shownKeys describes the keys as they are now. Whatever was noted, a key is not retired while something may be under it: a node
// that had not heard of a rotation yet may have sealed with it.
func (s *Service) shownKeys(ctx context.Context) (Keys, error) {
	info := s.keys.Info()
	stale, err := s.store.Stale(ctx)
	if err != nil {
		return Keys{}, err
	}
	out := Keys{
		On: true, Source: info.Source.String(), Master: info.Master.String(), Backup: utc(info.Backup), Keys: []Key{},
		Left: stale.Octets, Total: stale.Total,
	}
	for _, k := range info.Keys {
		if k.State == keyring.Retired && stale.Octets > 0 {
			k.State = keyring.Leaving
		}
		out.Keys = append(out.Keys, Key{ID: k.ID.String(), Purpose: k.Purpose, Created: k.Created.UTC(), Blocks: k.Blocks, State: string(k.State)})
	}
	return out, nil
}

func (s *Service) keyList(ctx context.Context, _ Done) (Keys, error) {
	if s.keys == nil {
		return Keys{Keys: []Key{}}, nil
	}
	return s.shownKeys(ctx)
}

// Rotate asks for a new data key.
type Rotate struct {
	// Wait has all messages encrypted anew before the answer comes, rather than in the background.
	Wait bool `json:"wait,omitempty"`
}

func (s *Service) keyRotate(ctx context.Context, req Rotate) (Keys, error) {
	if s.keys == nil {
		return Keys{}, errNoKeys
	}
	id, err := s.keys.Rotate()
	if err != nil {
		return Keys{}, err
	}
	s.log.Info("new data key", "key", id, "actor", actor(ctx))
	if req.Wait {
		if err := s.store.Housekeep(ctx); err != nil {
			return Keys{}, err
		}
	}
	return s.shownKeys(ctx)
}

// Rewrap asks for another master key.
type Rewrap struct {
	File string `json:"file,omitempty"` // holds it, as the server sees the path; empty: a new one is made
}

// Rewrapped says what became of the master keys.
type Rewrapped struct {
	Old  string `json:"old"`
	New  string `json:"new"`
	Kept string `json:"kept,omitempty"` // file of the old one
}

func (s *Service) keyRewrap(ctx context.Context, req Rewrap) (Rewrapped, error) {
	if s.keys == nil {
		return Rewrapped{}, errNoKeys
	}
	done, err := s.keys.Rewrap(req.File)
	if err != nil {
		return Rewrapped{}, fileError(err)
	}
	s.log.Info("new master key", "old", done.Old, "new", done.New, "actor", actor(ctx))
	return Rewrapped{Old: done.Old.String(), New: done.New.String(), Kept: done.Kept}, nil
}

// KeyBackup names a backup of the master key.
type KeyBackup struct {
	File string `json:"file"` // as the server sees the path
}

func (s *Service) keyConfirm(ctx context.Context, req KeyBackup) (Keys, error) {
	if s.keys == nil {
		return Keys{}, errNoKeys
	}
	if err := s.keys.ConfirmBackup(req.File); err != nil {
		return Keys{}, fileError(err)
	}
	s.log.Info("backup of the master key confirmed", "actor", actor(ctx))
	return s.shownKeys(ctx)
}

// fileError gives an error about a file that the request named its kind.
func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Errorf(NotFound, "%w", err)
	case errors.Is(err, keyring.ErrBackup), errors.Is(err, fs.ErrExist):
		return Errorf(Conflict, "%w", err)
	}
	return err
}
