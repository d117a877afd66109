package backup

import (
	"errors"
	"time"
)

// Schedule is when backups are made: once a day at a time, or at intervals. The zero value is never.
type Schedule struct {
	every time.Duration
	at    time.Duration // since midnight; for those of once a day
}

// day is what a schedule of once a day counts as.
const day = 24 * time.Hour

// The bounds on an interval.
const (
	minEvery = time.Minute
	maxEvery = 31 * day
)

// ParseSchedule reads "" (never), a time of day like "03:30", or an interval like "6h".
func ParseSchedule(text string) (Schedule, error) {
	if text == "" {
		return Schedule{}, nil
	}
	if t, err := time.Parse("15:04", text); err == nil {
		return Schedule{day, time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= minEvery && d <= maxEvery {
		return Schedule{every: d, at: -1}, nil
	}
	return Schedule{}, errors.New(`a time of day like "03:30", an interval from 1m to 744h like "6h", or "" for never`)
}

// Every is the time between two backups; 0: there are none.
func (s Schedule) Every() time.Duration { return s.every }

// Next is when a backup is due, after one that began at last; the zero time is never. It is in the past when it is overdue.
func (s Schedule) Next(last time.Time) time.Time {
	switch {
	case s.every == 0:
		return time.Time{}
	case s.at < 0:
		return last.Add(s.every)
	}
	y, m, d := last.Date()
	for n := range 3 { // a day may lack the time, or have it twice
		at := time.Date(y, m, d+n, int(s.at/time.Hour), int(s.at%time.Hour/time.Minute), 0, 0, last.Location())
		if at.After(last) {
			return at
		}
	}
	return last.Add(day)
}
