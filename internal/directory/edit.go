package directory

import (
	"context"
	"errors"

	"waxwing/internal/store"
)

// actorKey is the key of the context value that names who asks.
type actorKey struct{}

// WithActor names who asks for what is done with the context: it stands in the history.
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor is who asks, "local" when nobody said.
func Actor(ctx context.Context) string {
	if a, ok := ctx.Value(actorKey{}).(string); ok {
		return a
	}
	return "local"
}

// edit commits changes that concern no setting.
func (d *Directory) edit(ctx context.Context, e store.DirectoryEdit) ([]store.AccountID, error) {
	return d.commit(ctx, e, nil)
}

// commit carries out an edit and lets everybody see it before it returns. settings are those that the edit makes, nil
// when it changes none; with them the caller holds d.reload.
func (d *Directory) commit(ctx context.Context, e store.DirectoryEdit, settings *Settings) ([]store.AccountID, error) {
	e.Actor, e.At = Actor(ctx), d.clock()
	version, made, err := d.repo.EditDirectory(ctx, e)
	d.cache.clear() // in any case: a failure may have come after the commit
	if err != nil {
		return nil, err
	}
	d.raise(version, settings)
	if len(e.RemoveRules)+len(e.AddRules)+len(e.PutRules) > 0 {
		err = d.reloadMailRules(context.WithoutCancel(ctx))
	}
	if len(e.AddDomains)+len(e.SetDomains)+len(e.RemoveDomains) > 0 {
		// The change is committed: a caller that leaves now must not keep the others from seeing it.
		err = errors.Join(err, d.reloadDomains(context.WithoutCancel(ctx)))
	}
	return made, err
}

// tell tells who wants to know of the settings in force.
func (d *Directory) tell(s Settings) {
	if d.onSettings != nil {
		d.onSettings(s)
	}
}

// raise notes the version of a commit, and the settings that it made. Commits may return in another order than they
// were made in: the version never goes back.
func (d *Directory) raise(version int64, settings *Settings) {
	for {
		old := d.settings.Load()
		next := *old
		if settings != nil {
			next = *settings
		}
		next.Version = max(version, old.Version)
		if d.settings.CompareAndSwap(old, &next) {
			if settings != nil {
				d.tell(next)
			}
			return
		}
	}
}
