package storetest

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"waxwing/internal/store"
)

var sieveChecks = []check{
	{"filter scripts", sieveScripts},
	{"what filter scripts remember", sieveMemory},
}

// sieveScripts holds how an account's filter scripts are kept, and what tells deliveries of a change.
func sieveScripts(h *harness) {
	ctx, limits := h.Context(), store.SieveLimits{Scripts: 2, Octets: 100}
	version := func() int64 {
		h.Helper()
		v, err := h.s.SieveVersion(ctx, 1)
		h.ok(err)
		return v
	}
	h.ok(h.s.PutSieve(ctx, 1, "a", []byte("keep;"), limits))
	if version() != 0 {
		h.Error("a script that isn't active is run")
	}
	h.ok(h.s.ActivateSieve(ctx, 1, "a"))
	first := version()
	if first == 0 {
		h.Error("the active script isn't run")
	}
	h.ok(h.s.PutSieve(ctx, 1, "b", []byte("discard;"), limits))
	second := version()
	h.ok(h.s.ActivateSieve(ctx, 1, "b"))
	if third := version(); second == first || third == second {
		h.Errorf("versions %d, %d, %d", first, second, third)
	}
	for name, err := range map[string]error{
		"a third":   h.s.PutSieve(ctx, 1, "c", nil, limits),
		"too large": h.s.PutSieve(ctx, 1, "a", []byte(strings.Repeat("#", 101)), limits),
		"active":    h.s.DeleteSieve(ctx, 1, "b"),
		"missing":   h.s.ActivateSieve(ctx, 1, "c"),
		"taken":     h.s.RenameSieve(ctx, 1, "a", "b"),
		"none":      h.s.RenameSieve(ctx, 1, "c", "d"),
	} {
		want := map[string]error{
			"a third": store.ErrLimit, "too large": store.ErrOverQuota, "active": store.ErrActive, "missing": store.ErrNotFound,
			"taken": store.ErrExists, "none": store.ErrNotFound,
		}[name]
		if !errors.Is(err, want) {
			h.Errorf("%s: %v", name, err)
		}
	}
	h.ok(h.s.RenameSieve(ctx, 1, "b", "新"))
	name, text, err := h.s.SieveActive(ctx, 1)
	if err != nil || name != "新" || string(text) != "discard;" {
		h.Errorf("active %s %q: %v", name, text, err)
	}
	list, err := h.s.SieveScripts(ctx, 1)
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[0].Active || list[0].Size != 5 || !list[1].Active {
		h.Errorf("%+v: %v", list, err)
	}
	h.ok(h.s.ActivateSieve(ctx, 1, ""))
	h.ok(h.s.DeleteSieve(ctx, 1, "新"))
	if version() != 0 {
		h.Error("what isn't active is run")
	}
}

// sieveMemory holds that what scripts remember is committed with the delivery, also of a message that goes nowhere, and is
// forgotten in time.
func sieveMemory(h *harness) {
	seen := func(key string) bool {
		h.Helper()
		ok, err := h.s.SieveSeen(h.Context(), 1, key)
		h.ok(err)
		return ok
	}
	content := bytes.NewReader([]byte("x\r\n"))
	soon, later := h.clock().Add(time.Minute), h.clock().Add(time.Hour)
	for _, d := range []store.Delivery{
		{Content: content, Local: []store.NewEntry{{Account: 1}}, Sieve: []store.SieveMemory{{Account: 1, Key: "a", Expires: later}}},
		{Content: content, Sieve: []store.SieveMemory{{Account: 1, Key: "b", Expires: soon}}},
		{Content: content, Sieve: []store.SieveMemory{{Account: 1, Key: "c", Expires: soon}}, Also: []store.Delivery{
			{Content: content, Local: []store.NewEntry{{Account: 1}}},
		}},
	} {
		_, err := h.s.Deliver(h.Context(), d)
		h.ok(err)
	}
	if !seen("a") || !seen("b") || !seen("c") || seen("d") {
		h.Error("what is remembered is not what was said")
	}
	h.advance(2 * time.Minute)
	if !seen("a") || seen("b") || seen("c") {
		h.Error("memory doesn't end in time")
	}
	h.housekeep()
	if !seen("a") {
		h.Error("housekeeping forgets too much")
	}
}
