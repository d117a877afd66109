package doctor

import (
	"context"
	"time"

	"waxwing/internal/control"
)

// runEncryption says whether messages are encrypted, and whether somebody could read them without this disk.
func runEncryption(ctx context.Context, s Subject) []result {
	if s.Carrier == nil {
		return []result{{Fail, "not examined: the store can't be reached", ""}}
	}
	keys, err := control.KeyList.Call(ctx, s.Carrier, control.Done{})
	if err != nil {
		return []result{{Fail, "the keys can't be listed: " + err.Error(), "look into the log of the server"}}
	}
	if !keys.On {
		return []result{{Warn, "messages are not encrypted", "set [encryption] in waxwing.toml and run `waxwing store key create`, unless the disk itself is encrypted"}}
	}
	seen := "on, master key " + keys.Master + " from " + keys.Source
	if keys.Backup.IsZero() {
		return []result{{Warn, seen + "; no backup of it is confirmed", "copy the master key to a safe place away from this server, and run `waxwing store key confirm FILE`"}}
	}
	return []result{{OK, seen + ", backup confirmed " + keys.Backup.UTC().Format(time.DateOnly), ""}}
}
