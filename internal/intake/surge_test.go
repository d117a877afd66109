package intake

import (
	"context"
	"net/netip"
	"slices"
	"testing"

	"waxwing/internal/address"
	"waxwing/internal/guard"
	"waxwing/internal/guard/surge"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
)

// bombed is a Surge that says what it was told to, and notes what it is asked.
type bombed struct {
	aside, deferred map[store.AccountID]bool
	asked           []surge.Arrival
	sent            int
}

func (b *bombed) Deferred(_ context.Context, id store.AccountID, _ address.Address) bool {
	return b.deferred[id]
}

func (b *bombed) Aside(_ context.Context, a surge.Arrival) bool {
	b.asked = append(b.asked, a)
	return b.aside[a.Account]
}

func (b *bombed) Sent(_ store.AccountID, n int) { b.sent += n }

func TestSurplusOfABombGoesIntoItsFolder(t *testing.T) {
	t.Parallel()
	b := &bombed{}
	h := newHouse(t, func(o *Options) { o.Surge = b })
	b.aside = map[store.AccountID]bool{h.ids["bo"]: true}
	got, err := h.send(t, stranger(), from(t, "x@remote.test"), plain, "team@example.test")
	must(t, err)
	roles := map[store.AccountID]store.Role{}
	for _, e := range got.Local {
		roles[e.Account] = e.Role
		if name := map[bool]string{true: "Surge"}[e.Role == store.RoleSurge]; e.Name != name {
			t.Errorf("folder %q of %+v", e.Name, e)
		}
	}
	if roles[h.ids["bo"]] != store.RoleSurge || roles[h.ids["anna"]] != store.RoleInbox {
		t.Errorf("roles %v", roles)
	}
	bo, err := h.dir.AccountByID(t.Context(), h.ids["bo"])
	must(t, err)
	bo.Language = "zh"
	must(t, h.dir.SetAccount(t.Context(), bo))
	got, err = h.send(t, stranger(), from(t, "x@remote.test"), plain, "bo@example.test")
	must(t, err)
	if e := got.Local[0]; e.Name != "突发邮件" {
		t.Errorf("folder %q", e.Name)
	}
}

func TestKindsOfMailAreToldByWhatTheyBear(t *testing.T) {
	t.Parallel()
	b := &bombed{}
	h := newHouse(t, func(o *Options) { o.Surge = b })
	for fields, want := range map[string]surge.Kind{
		"": surge.Letters, "List-Unsubscribe: <https://shop.test/u>\r\n": surge.Lists, "list-id: <a.test>\r\n": surge.Lists,
		"Auto-Submitted: auto-generated\r\n": surge.Lists, "Auto-Submitted: No\r\n": surge.Letters, "Precedence: bulk\r\n": surge.Lists,
		"Precedence: first-class\r\n": surge.Letters,
	} {
		b.asked = nil
		_, err := h.send(t, stranger(), from(t, "x@remote.test"), fields+plain, "bo@example.test")
		must(t, err)
		if len(b.asked) != 1 || b.asked[0].Kind != want || b.asked[0].Account != h.ids["bo"] {
			t.Errorf("%q: asked %+v, want %v", fields, b.asked, want)
		}
	}
}

func TestOnlyMailFromElsewhereCanBeABomb(t *testing.T) {
	t.Parallel()
	b := &bombed{}
	h := newHouse(t, func(o *Options) { o.Surge = b })
	b.aside = map[store.AccountID]bool{h.ids["bo"]: true}
	b.deferred = b.aside
	home, trusted, exempt := stranger(), stranger(), stranger()
	home.Remote = netip.MustParseAddrPort("127.0.0.1:1")
	trusted.Visitor, exempt.Visitor = &guard.Visitor{Trusted: true}, &guard.Visitor{Exempt: true}
	for _, p := range []Peer{h.user("anna"), home, trusted, exempt} {
		m, text := from(t, "x@remote.test"), plain
		if p.Identity != nil {
			m, text = from(t, "anna@example.test"), "From: anna@example.test\r\n\r\nhello\r\n"
		}
		got, err := h.send(t, p, m, text, "bo@example.test")
		must(t, err)
		if got.Local[0].Role != store.RoleInbox {
			t.Errorf("mail of %+v was set aside", p)
		}
	}
	if _, err := h.Submit(t.Context(), address.Address{}, []address.Address{addr(t, "bo@example.test")}, []byte(plain)); err != nil {
		t.Errorf("a notice of this server: %v", err)
	}
	if len(b.asked) != 0 {
		t.Errorf("asked %+v", b.asked)
	}
	_, err := h.send(t, h.user("anna"), from(t, "anna@example.test"), "From: anna@example.test\r\n\r\nhello\r\n", "a@remote.test", "b@remote.test")
	must(t, err)
	if b.sent != 2 {
		t.Errorf("%d recipients were noted as sent to", b.sent)
	}
}

func TestStrangersWaitWhileABombIsDeferred(t *testing.T) {
	t.Parallel()
	b := &bombed{}
	h := newHouse(t, func(o *Options) { o.Surge = b })
	b.deferred = map[store.AccountID]bool{h.ids["anna"]: true}
	for to, want := range map[string]string{
		"anna@example.test": "451 4.2.1", "info@example.test": "451 4.2.1", "team@example.test": "250", "bo@example.test": "250", "postmaster@example.test": "250",
	} {
		_, err := h.envelope(t, stranger(), smtp.Mail{From: addr(t, "x@remote.test")}, to)
		if got := code(t, err); got != want {
			t.Errorf("%s: %s, want %s", to, got, want)
		}
	}
	if !slices.Contains(surge.Actions, surge.Action(h.dir.Settings().Stranger.SurgeAction)) {
		t.Errorf("the default %q is no action", h.dir.Settings().Stranger.SurgeAction)
	}
}
