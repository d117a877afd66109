package routing_test

import (
	"context"
	"errors"
	"testing"

	"waxwing/internal/address"
	"waxwing/internal/directory"
	"waxwing/internal/routing"
	"waxwing/internal/store"
)

type fixed struct {
	res directory.Resolution
	err error
}

func (f fixed) Resolve(context.Context, address.Address) (directory.Resolution, error) {
	return f.res, f.err
}

func TestRoute(t *testing.T) {
	t.Parallel()
	to := address.Address{Local: "a", Domain: "example.test"}
	out := address.Address{Local: "x", Domain: "remote.test"}
	acct := &directory.Account{ID: 7}
	for name, tt := range map[string]struct {
		res  directory.Resolution
		want []routing.Target
	}{
		"foreign":   {directory.Resolution{Status: directory.NotLocal}, []routing.Target{{Remote: to}}},
		"unknown":   {directory.Resolution{Status: directory.NoMailbox}, nil},
		"suspended": {directory.Resolution{Status: directory.Suspended}, nil},
		"group": {
			directory.Resolution{Status: directory.OK, Recipients: []directory.Recipient{{Account: acct, Detail: "d"}, {Remote: out}}, Expanded: true},
			[]routing.Target{{Account: acct, Role: store.RoleInbox, Detail: "d"}, {Remote: out}},
		},
	} {
		r, err := routing.New(fixed{res: tt.res}).Route(context.Background(), to)
		if err != nil || r.Status != tt.res.Status || r.Expanded != tt.res.Expanded || len(r.Targets) != len(tt.want) {
			t.Errorf("%s: %+v, %v", name, r, err)
			continue
		}
		for i := range r.Targets {
			if r.Targets[i] != tt.want[i] {
				t.Errorf("%s: target %+v, want %+v", name, r.Targets[i], tt.want[i])
			}
		}
	}
	failure := errors.New("directory down")
	if _, err := routing.New(fixed{err: failure}).Route(context.Background(), to); !errors.Is(err, failure) {
		t.Errorf("a failure: %v", err)
	}
}
