package doctor

import (
	"context"
	"fmt"
	"time"

	"waxwing/internal/control"
)

// longScrub is the age of the last whole round of the scrub that is worth a word.
const longScrub = 60 * 24 * time.Hour

func runScrub(ctx context.Context, s Subject) []result {
	if s.Carrier == nil {
		return []result{{Fail, "not examined: the store can't be reached", ""}}
	}
	st, err := control.StoreScrub.Call(ctx, s.Carrier, control.Done{})
	if err != nil {
		return []result{{Fail, "the scrub can't be asked: " + err.Error(), "look into the log of the server, and at the disk"}}
	}
	if st.Damaged > 0 {
		return []result{{Fail, fmt.Sprintf("%d messages are known to be damaged", st.Damaged), "`waxwing store verify` says whose; bring them back from a backup, and look at the disk's own report (smartctl)"}}
	}
	switch age := s.Clock().Sub(st.Finished); {
	case st.Finished.IsZero():
		return []result{{OK, fmt.Sprintf("no damage is known; %d messages read in the first round", st.Contents), ""}}
	case age > longScrub:
		return []result{{Warn, fmt.Sprintf("no damage is known, but the last whole round began %s ago", days(age)), "raise the setting scrub.rate"}}
	default:
		return []result{{OK, "all stored mail was read and found sound, in the round of " + st.Finished.Format(time.DateOnly), ""}}
	}
}
