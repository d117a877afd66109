package doctor

import (
	"context"
	"fmt"
	"time"

	"waxwing/internal/control"
)

func runBackup(ctx context.Context, s Subject) []result {
	if s.Carrier == nil {
		return []result{{Fail, "not examined: the store can't be reached", ""}}
	}
	b, err := control.BackupStatus.Call(ctx, s.Carrier, control.Done{})
	if err != nil {
		return []result{{Fail, "what is known of backups can't be read: " + err.Error(), "look at the directory backup in the data directory"}}
	}
	const show = "`waxwing backup list` shows more"
	if b.Schedule == "" {
		if b.LastGood != nil {
			return []result{{Warn, "backups are made by hand alone, the last of " + b.LastGood.Began.UTC().Format(time.RFC3339), "set a time: `waxwing backup schedule --at 03:30`"}}
		}
		return []result{{Warn, "there are no backups", "`waxwing backup key` and `waxwing backup schedule` set them up"}}
	}
	var out []result
	switch {
	case b.LastGood == nil && b.Last == nil:
		out = append(out, result{OK, "the first backup is still to be made", ""})
	case b.LastGood == nil:
		out = append(out, result{Fail, "no backup was ever made: " + b.Last.Error, show})
	case b.Late:
		out = append(out, result{Fail, fmt.Sprintf("the last good backup is %s old, more than two intervals", age(s.Clock().Sub(b.LastGood.Began))), show})
	case b.Last.Error != "":
		out = append(out, result{Warn, "the last backup failed: " + b.Last.Error, show})
	case b.LastGood.Counts.Damaged > 0:
		out = append(out, result{Warn, fmt.Sprintf("the last backup lacks %d messages, which are damaged in the store", b.LastGood.Counts.Damaged), "`waxwing store verify` says whose they are; an older backup may have them"})
	default:
		out = append(out, result{OK, fmt.Sprintf("the last backup is %s old", age(s.Clock().Sub(b.LastGood.Began))), ""})
	}
	if b.Test != nil && !b.Test.Good() {
		text := b.Test.Error
		if text == "" {
			text = b.Test.Problems[0]
		}
		out = append(out, result{Fail, "the last test of a backup failed: " + text, "the next backup sends again what was found damaged; " + show})
	}
	return out
}

// age is a time in words.
func age(d time.Duration) string {
	if d < 48*time.Hour {
		return d.Round(time.Minute).String()
	}
	return days(d)
}
