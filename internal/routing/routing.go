// Package routing turns the recipient of an envelope into the places where its mail goes: mailboxes of local accounts
// and addresses at other servers. It stands over the directory and beneath intake; what an address means (aliases,
// groups, catch-all, sub-addresses, role addresses) is the directory's to say.
//
// It doesn't deliver, and it doesn't judge whether a sender may use a recipient: relaying and quota are intake's.
package routing

import (
	"context"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// Resolver is what routing asks of the directory.
type Resolver interface {
	Resolve(ctx context.Context, to address.Address) (directory.Resolution, error)
}

// Target is one place for a message: a mailbox of an account, or an address elsewhere.
type Target struct {
	Account *directory.Account // nil when remote; shared: do not change
	Role    store.Role         // mailbox of the account
	Detail  string             // sub-address that was used, for filters
	Remote  address.Address    // zero when local
}

// Route is what became of one recipient.
type Route struct {
	Status   directory.Status
	Targets  []Target
	Expanded bool // through an alias or a catch-all
}

// Router finds routes. It is safe for concurrent use.
type Router struct{ dir Resolver }

// New gives a Router over a directory.
func New(dir Resolver) *Router { return &Router{dir: dir} }

// Route finds the targets of a recipient. A recipient that isn't ours has status NotLocal and itself as the only
// target: whether it may be used depends on the sender. An error is a failure of the directory: answer 451.
func (r *Router) Route(ctx context.Context, to address.Address) (Route, error) {
	res, err := r.dir.Resolve(ctx, to)
	if err != nil {
		return Route{}, err
	}
	route := Route{Status: res.Status, Expanded: res.Expanded}
	switch res.Status {
	case directory.NotLocal:
		route.Targets = []Target{{Remote: to}}
	case directory.OK:
		route.Targets = make([]Target, len(res.Recipients))
		for i, rc := range res.Recipients {
			route.Targets[i] = Target{Account: rc.Account, Detail: rc.Detail, Remote: rc.Remote}
			if rc.Account != nil {
				route.Targets[i].Role = store.RoleInbox
			}
		}
	}
	return route, nil
}
