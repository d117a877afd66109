package system

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"waxwing/internal/dns/dnstest"
	"waxwing/test/rig"
)

// TestStrangersAndBombs lets strangers bring mail to the built server: one whom a DNS list knows, one who has to come a second
// time, and a bomb of newsletters.
func TestStrangersAndBombs(t *testing.T) {
	t.Parallel()
	var zone strings.Builder
	zone.WriteString(`
		bl.test.                  300 IN SOA ns.bl.test. root.bl.test. 1 2 3 4 60
		2.0.0.127.bl.test.        300 IN A   127.0.0.2
		7.100.51.198.bl.test.     300 IN A   127.0.0.2
		7.100.51.198.bl.test.     300 IN TXT "listed for a test"
		far.test.                 300 IN MX  10 mx.far.test.
		mx.far.test.              300 IN A   192.0.2.1
		1.2.0.192.in-addr.arpa.   300 IN PTR mx.far.test.
		nullmx.test.              300 IN MX  0 .
	`)
	for i := range 80 {
		fmt.Fprintf(&zone, "shop%d.test. 300 IN A 192.0.2.1\n", i)
	}
	dns := dnstest.New(t, zone.String())
	n := node(t, rig.WaxwingOptions{Edit: func(toml string) string {
		return toml + fmt.Sprintf("\n[smtp]\nxclient = [\"127.0.0.1/32\"]\n\n[dns]\nresolvers = [%q]\n", dns.Addr())
	}})
	run := func(args ...string) string {
		t.Helper()
		out, err := n.Command(t.Context(), nil, append(args, "--dir", n.Dir)...)
		if err != nil {
			t.Fatalf("%v: %s, %v", args, out, err)
		}
		return out
	}
	settings := filepath.Join(t.TempDir(), "settings.toml")
	if err := os.WriteFile(settings, []byte("[greylist]\ndelay = 1\n\n[limit]\nconnections_per_address = 0\nconnections_per_network = 0\n\n[surge]\nleast = 30\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("config", "apply", settings, "--yes")
	run("dnslist", "add", "bl.test")
	if out := run("dnslist", "test", "198.51.100.7"); !strings.Contains(out, "listed, 127.0.0.2, weight 10") || !strings.Contains(out, "listed for a test") {
		t.Errorf("dnslist test says %s", out)
	}

	hello := func(client, helo, from string) *talk {
		t.Helper()
		c := talkAs(t, n.SMTP, "")
		c.expect("", "220 ")
		c.expect("XCLIENT ADDR="+client, "220 ")
		c.expect("EHLO "+helo, "250 ")
		c.expect("MAIL FROM:<"+from+">", "250 ")
		return c
	}
	listed := hello("198.51.100.7", "mx.far.test", "a@far.test")
	listed.expect("RCPT TO:<"+ada.Address+">", "554 5.7.1 198.51.100.7 is refused: listed by bl.test (listed for a test)")
	listed.expect("RCPT TO:<postmaster@"+domain+">", "250 ")
	hello("192.0.2.1", "mx.far.test", "a@nullmx.test").expect("RCPT TO:<"+ada.Address+">", "550 5.7.27 ")
	hello("192.0.2.1", "mx."+domain, "a@far.test").expect("RCPT TO:<"+ada.Address+">", "550 5.7.1 HELO is mx."+domain)

	// A client without a name has to come again, and then gets through; its network is known from then on.
	hello("203.0.113.5", "mx.far.test", "a@far.test").expect("RCPT TO:<"+ada.Address+">", "451 4.7.1 greylisted, try again in ")
	waitFor(t, "the retry of a greylisted client", func() bool {
		c := hello("203.0.113.5", "mx.far.test", "a@far.test")
		c.write("RCPT TO:<" + ada.Address + ">\r\n")
		return strings.HasPrefix(c.reply(), "250 ")
	})
	hello("203.0.113.77", "mx.far.test", "b@far.test").expect("RCPT TO:<"+bob.Address+">", "250 ")

	bomb(t, n, hello)
}

// bomb sends newsletters of many senders, and holds where they and the mail of others go.
func bomb(t *testing.T, n *rig.Node, hello func(client, helo, from string) *talk) {
	t.Helper()
	// Somebody whom ada has written to.
	if err := submit(t, n, ada, []string{"friend@far.test"}, letter(ada.Address, "friend@far.test", "hello")); err != nil {
		t.Fatal(err)
	}
	send := func(from, fields, token string) {
		t.Helper()
		c := hello("192.0.2.1", "mx.far.test", from)
		c.expect("RCPT TO:<"+ada.Address+">", "250 ")
		c.expect("DATA", "354 ")
		c.write(fields + strings.TrimSuffix(string(letter(from, ada.Address, token)), "\r\n"))
		c.expect("\r\n.", "250 ")
		c.expect("QUIT", "221 ")
	}
	send("first@shop0.test", "List-Unsubscribe: <https://shop.test/>\r\n", "first")
	sent := 0
	waitFor(t, "the server to notice the bomb", func() bool { // what is usual for ada is read a moment after her first message
		for range 35 {
			send(fmt.Sprintf("news@shop%d.test", sent%80), "List-Unsubscribe: <https://shop.test/>\r\n", fmt.Sprint("bomb", sent))
			sent++
		}
		return strings.Contains(n.Log(), "mail bomb")
	})
	send("more@shop1.test", "List-Unsubscribe: <https://shop.test/>\r\n", "surplus")
	send("friend@far.test", "List-Unsubscribe: <https://shop.test/>\r\n", "from a friend")
	send("person@far.test", "", "a letter")
	if got := waitForMail(t, n, ada, "Surge", 1); !strings.Contains(string(got[len(got)-1].body), "surplus") {
		t.Errorf("the last message of the folder for surplus is\n%s", got[len(got)-1].body)
	}
	waitFor(t, "the inbox to have what belongs there", func() bool {
		c, _ := mailbox(t, n, ada, "INBOX")
		var all strings.Builder
		for _, m := range fetchAll(t, c) {
			all.Write(m.body)
		}
		text := all.String()
		return strings.Contains(text, "from a friend") && strings.Contains(text, "a letter") && !strings.Contains(text, "surplus") &&
			strings.Count(text, "Your mailbox is being flooded with mail") == 1
	})
	resp, err := http.Get("http://" + n.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`waxwing_mail_bombs_total{kind="lists"} 1`, `waxwing_dns_list_off{list="bl.test"} 0`, `waxwing_dns_list_queries_total{list="bl.test",outcome="listed"}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
