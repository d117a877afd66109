package backup

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Retention says which backups stay: the newest of each of as many days, weeks and months as there are backups for. The
// newest of all stays always. The zero value keeps all.
type Retention struct {
	Daily, Weekly, Monthly int
}

func (k Retention) all() bool { return k.Daily <= 0 && k.Weekly <= 0 && k.Monthly <= 0 }

// choose tells which of some backups stay; the list is in order of time.
func (k Retention) choose(list []Backup) map[string]bool {
	stays := make(map[string]bool)
	if len(list) == 0 {
		return stays
	}
	stays[list[len(list)-1].ID] = true
	for _, rule := range []struct {
		n      int
		period func(time.Time) string
	}{
		{k.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{k.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, "-", w) }},
		{k.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
	} {
		seen := make(map[string]bool)
		for i := len(list) - 1; i >= 0 && len(seen) < rule.n; i-- {
			p := rule.period(list[i].Manifest.Created.UTC())
			if !seen[p] {
				seen[p] = true
				stays[list[i].ID] = true
			}
		}
	}
	return stays
}

// Pruned is what a removal of old backups did.
type Pruned struct {
	Backups  int   `json:"backups"`
	Objects  int   `json:"objects"`
	Octets   int64 `json:"octets"`
	Repacked int   `json:"repacked"` // bundles, mostly needed by nobody, of which the next backup sends anew what it needs
}

// pruneGrace is the age below which an object that no backup needs is left: a run that was broken off may go on with it.
const pruneGrace = 24 * time.Hour

// prune removes the backups that are not to be kept, and then what no backup needs. With a manifest that can't be read
// nothing is removed: nobody knows what it needs.
func (r *Repository) prune(ctx context.Context, k Retention, l *lease, now time.Time) (p Pruned, err error) {
	list, problems, err := r.List(ctx)
	if err != nil {
		return p, err
	}
	if len(problems) > 0 {
		return p, fmt.Errorf("backup: nothing is removed from %s: %w", r.target, problems[0])
	}
	stays, needed := k.choose(list), make(map[string]bool)
	remove := func(name string) error {
		if err := l.check(ctx); err != nil {
			return err
		}
		return r.target.Remove(ctx, name)
	}
	for _, b := range list {
		if stays[b.ID] {
			needed[b.Manifest.Catalog.Name] = true
			for _, part := range b.Manifest.Bundles {
				needed[part.Name] = true
			}
			continue
		}
		if err := remove(manifestDir + b.ID + manifestExt); err != nil {
			return p, fmt.Errorf("backup: remove backup %s: %w", b.ID, err)
		}
		p.Backups++
	}
	for _, dir := range []string{catalogDir, bundleDir} {
		objects, err := r.target.List(ctx, dir)
		if err != nil {
			return p, fmt.Errorf("backup: list %s: %w", r.target, err)
		}
		for _, o := range objects {
			if needed[o.Name] || now.Sub(o.Modified) < pruneGrace || !strings.HasPrefix(o.Name, dir) {
				continue
			}
			if err := remove(o.Name); err != nil {
				return p, fmt.Errorf("backup: remove %s: %w", o.Name, err)
			}
			p.Objects++
			p.Octets += o.Size
		}
	}
	return p, nil
}
