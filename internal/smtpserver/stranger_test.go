package smtpserver

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"waxwing/internal/dns"
	"waxwing/internal/dns/dnstest"
	"waxwing/internal/guard"
	"waxwing/internal/guard/contacts"
	"waxwing/internal/guard/dnslist"
	"waxwing/internal/guard/greylist"
	"waxwing/internal/guard/stranger"
	"waxwing/internal/store"
)

// noRows is a store for what the front door remembers that holds nothing.
type noRows struct{}

func (noRows) GreyRows(context.Context, ...string) ([]store.GreyRow, error)        { return nil, nil }
func (noRows) SaveGreyRows(context.Context, []store.GreyRow, time.Time) error      { return nil }
func (noRows) ExpireGreyRows(context.Context, time.Time, time.Time) (int64, error) { return 0, nil }
func (noRows) SaveContacts(context.Context, []store.Contact) error                 { return nil }
func (noRows) ExpireContacts(context.Context, time.Time, int) error                { return nil }

func (noRows) Wrote(context.Context, store.AccountID, string) (time.Time, error) {
	return time.Time{}, nil
}

// TestStrangersAreJudgedAtRcpt plays sessions of strangers, whom a proxy names by XCLIENT, through the whole front door.
func TestStrangersAreJudgedAtRcpt(t *testing.T) {
	t.Parallel()
	zone := dnstest.New(t, `
		1.2.0.192.in-addr.arpa. 300 IN PTR mx.good.test.
		mx.good.test.           300 IN A   192.0.2.1
		good.test.              300 IN MX  10 mx.good.test.
		nullmx.test.            300 IN MX  0 .
		bl.test.                300 IN SOA ns.bl.test. root.bl.test. 1 2 3 4 60
		2.0.0.127.bl.test.      300 IN A   127.0.0.2
		2.2.0.192.bl.test.      300 IN A   127.0.0.2
		2.2.0.192.bl.test.      300 IN TXT "a\010b"
	`)
	r, err := dns.New(dns.Options{Servers: []string{zone.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	lists := dnslist.New(dnslist.Options{Resolver: r})
	t.Cleanup(lists.Close)
	bl, err := dnslist.Parse("bl.test")
	if err != nil {
		t.Fatal(err)
	}
	lists.Configure([]dnslist.List{bl})
	lists.ProveDue(t.Context())
	door := stranger.New(stranger.Options{
		Resolver: r, Lists: lists, Grey: greylist.New(greylist.Options{Store: noRows{}}), Contacts: contacts.New(contacts.Options{Store: noRows{}}),
		Hostname: "mx.example.test", Local: func(d string) bool { return d == "example.test" },
		Settings: func() stranger.Settings {
			return stranger.Settings{
				RefuseScore: 10, GreylistScore: 3, Hello: stranger.Refuse, Reverse: true, Sender: stranger.On, Greylist: stranger.Suspicious,
				Policy: greylist.Policy{Delay: time.Hour, Known: 24 * time.Hour},
			}
		},
	})
	opts := options(newRecorder())
	opts.Guard = guard.New(guard.Options{}, append(door.Checks(), stranger.NewProbing(nil, func() int { return 2 }).Check())...)
	opts.XClient = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	_, addr := serve(t, opts, MX)
	enter := func(client, helo string) *client {
		c := dial(t, addr)
		c.expect("220 ")
		c.do("XCLIENT ADDR="+client, "220 ")
		c.do("EHLO "+helo, "250")
		return c
	}
	good := enter("192.0.2.1", "mx.good.test")
	good.do("MAIL FROM:<a@nullmx.test>", "250 ")
	good.do("RCPT TO:<li@example.test>", "550 5.7.27 ")
	good.do("RSET", "250 ")
	good.do("MAIL FROM:<a@good.test>", "250 ")
	good.do("RCPT TO:<li@example.test>", "250 ")
	good.do("DATA", "354 ")
	good.do("hello\r\n.", "250 ")
	good.do("EHLO mx.example.test", "250")
	good.do("MAIL FROM:<a@good.test>", "250 ")
	good.do("RCPT TO:<li@example.test>", "550 5.7.1 HELO is mx.example.test")

	listed := enter("192.0.2.2", "mx.good.test")
	listed.do("MAIL FROM:<a@good.test>", "250 ")
	listed.do("RCPT TO:<li@example.test>", "554 5.7.1 192.0.2.2 is refused: listed by bl.test (a b); the client's address has no name in the DNS")
	listed.do("RCPT TO:<postmaster@example.test>", "250 ")

	nameless := enter("198.51.100.3", "mx.good.test")
	nameless.do("MAIL FROM:<a@good.test>", "250 ")
	nameless.do("RCPT TO:<li@example.test>", "451 4.7.1 greylisted, try again in 60 minutes")

	probing := enter("192.0.2.1", "mx.good.test")
	probing.do("MAIL FROM:<>", "250 ")
	for range 2 {
		probing.do("RCPT TO:<unknown@example.test>", "550 5.1.1 ")
	}
	for range 2 {
		probing.do("RCPT TO:<li@example.test>", "450 4.7.1 too many unknown recipients")
	}
	probing.do("RCPT TO:<abuse@example.test>", "250 ")
	probing.do("RCPT TO:<unknown@example.test>", "421 4.7.1 ")
	probing.expectEnd()
}
