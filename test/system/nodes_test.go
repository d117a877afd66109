package system

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"

	"waxwing/internal/durable/ordeal"
	"waxwing/internal/store/objects/s3test"
	"waxwing/internal/store/postgres/pgtest"
	"waxwing/test/rig"
)

// TestThreeNodesLoseNothing has three nodes in network namespaces of their own work with one database and one bucket under a mixed
// load. One is cut off, one killed, the database breaks all connections and is started anew: what was answered is there on all
// nodes, once.
func TestThreeNodesLoseNothing(t *testing.T) {
	o, j := ordeal.Begin(t), newJournal()
	c := newNodes(t, j.sink(t, o).Address)
	c.sameEverywhere(t, j)
	c.measureIdle(t)
	calm := c.submitCalmly(t, j)

	_, stop := j.loadEach(t, c.nodes, deliverWork, submitWork, mailboxWork)
	defer stop()
	_, stopRotating := j.loadEach(t, c.nodes[:1], rotateWork)
	defer stopRotating()
	j.awaitWork(t)
	c.cutOff(t, o, j)
	j.awaitWork(t)
	c.breakDatabase(t, o, j)
	j.awaitChanges(t)
	stopRotating()
	stop()

	j.check(t, o, c.nodes[0], 4)
	for _, token := range calm {
		if times := j.arrived[token]; times != 1 {
			t.Errorf("%s was sent %d times, and nothing had happened to any node", token, times)
		}
	}
	c.sameEverywhere(t, j)
}

// nodesOf are three nodes with what they share.
type nodesOf struct {
	network  *rig.Network
	database *pgtest.Cluster
	nodes    []*rig.Node
}

// newNodes starts the nodes. Each has a machine of its own; the hub has the database and the ways to the bucket and to the next
// server.
func newNodes(t *testing.T, relay string) *nodesOf {
	t.Helper()
	c := &nodesOf{}
	var err error
	if c.network, err = rig.NewNetwork(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.network.Close(); err != nil {
			t.Error(err)
		}
	})
	hub := c.network.Hub
	dir := t.TempDir()
	cert, key, err := rig.Certificate(dir, hub.Address)
	if err != nil {
		t.Fatal(err)
	}
	edit := c.share(t, dir, cert, key)
	relay, err = c.network.Serve(hub, 25, relay, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range c.network.Hosts {
		options := rig.WaxwingOptions{Empty: true, Host: h, Env: []string{"SSL_CERT_FILE=" + cert}, Relay: relay, Edit: edit}
		if i > 0 { // the same accounts, and the same master key
			options.Accounts = []rig.Account{}
			master := filepath.Join(c.nodes[0].Dir, "keys", "master.key")
			options.Edit = func(toml string) string {
				return strings.Replace(edit(toml), `file = "keys/master.key"`, fmt.Sprintf("file = %q", master), 1)
			}
		}
		n := node(t, options)
		for _, address := range []string{n.SMTP, n.Submission, n.IMAPS, n.Metrics} {
			if err := c.network.Reach(h, address); err != nil {
				t.Fatal(err)
			}
		}
		c.nodes = append(c.nodes, n)
	}
	return c
}

// share starts a database and a bucket, and gives the edit of waxwing.toml that uses them from the machines of the network.
func (c *nodesOf) share(t *testing.T, dir, cert, key string) (edit func(string) string) {
	t.Helper()
	hub := c.network.Hub
	var service *s3test.Service
	c.database, service = databaseAndService(t)
	err := c.database.Listen(pgtest.Network{Enter: hub.Enter, Address: hub.Address, Range: c.network.Range, CertFile: cert, KeyFile: key})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	bucket := service.Bucket(t, "mail", "")
	endpoint, err := c.network.Serve(hub, 443, service.Address, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	dsn, secret := filepath.Join(dir, "dsn"), filepath.Join(dir, "s3")
	for name, text := range map[string]string{
		dsn:    fmt.Sprintf("host=%s user=waxwing dbname=postgres sslmode=verify-full sslrootcert=%s", hub.Address, cert),
		secret: bucket.AccessKey + "\n" + bucket.SecretKey,
	} {
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(toml string) string {
		return quickRetries(toml) + fmt.Sprintf("\n[store]\ndriver = \"postgres\"\ndsn_file = %q\n\n[store.s3]\nendpoint = %q\nregion = %q\nbucket = \"mail\"\ncredentials_file = %q\n",
			dsn, endpoint, bucket.Region, secret)
	}
}

// boxesOf is what mail programs see on a node.
func boxesOf(t *testing.T, n *rig.Node) map[string]box {
	t.Helper()
	out := map[string]box{}
	for _, name := range []string{"INBOX", "Archive", "Trash"} {
		c, data := mailbox(t, n, ada, name)
		out[name] = box{data.UIDValidity, data.UIDNext, withoutRecent(fetchAll(t, c))}
		if err := c.Logout().Wait(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// sameEverywhere delivers through each node in turn, and holds that all of them show the same.
func (c *nodesOf) sameEverywhere(t *testing.T, j *journal) {
	t.Helper()
	for i, n := range c.nodes {
		token := j.token("turn")
		sendPlain(t, n.SMTP, "sender@far.test", []string{ada.Address}, sealed("sender@far.test", ada.Address, token))
		j.note(func() { j.delivered[token] = true })
		got := boxesOf(t, c.nodes[(i+1)%len(c.nodes)])
		inbox := got["INBOX"].messages
		if last, whole := openSealed(inbox[len(inbox)-1].body); last != token || !whole {
			t.Errorf("what came through one node is not the last on the next: %q", last)
		}
		sameBoxes(t, got, boxesOf(t, c.nodes[(i+2)%len(c.nodes)]))
	}
}

// measureIdle holds that an idle session sees what comes through another node, and logs how long that took.
func (c *nodesOf) measureIdle(t *testing.T) {
	t.Helper()
	const times = 20
	count := make(chan uint32, 100)
	client, err := imapclient.DialTLS(c.nodes[1].IMAPS, &imapclient.Options{
		TLSConfig: trust(t, c.nodes[1].CAFile),
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				count <- *data.NumMessages
			}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Login(bob.Address, bob.Password).Wait(); err != nil {
		t.Fatal(err)
	}
	data, err := client.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	idle, err := client.Idle()
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	for i := range uint32(times) {
		sendPlain(t, c.nodes[2*(i%2)].SMTP, "sender@far.test", []string{bob.Address}, letter("sender@far.test", bob.Address, fmt.Sprint("idle ", i)))
		answered := time.Now()
		for deadline, known := time.After(patience), data.NumMessages+i; known < data.NumMessages+i+1; {
			select {
			case known = <-count:
			case <-deadline:
				t.Fatalf("an idle session was not told of message %d that came through another node", i+1)
			}
		}
		took = append(took, time.Since(answered))
	}
	if err := idle.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(took)
	t.Logf("IDLE on another node, %d messages: median %s, longest %s after the answer", times, took[times/2], took[times-1])
}

// submitCalmly sends mail through all nodes and waits until it is gone and nothing is left to do.
func (c *nodesOf) submitCalmly(t *testing.T, j *journal) (tokens []string) {
	t.Helper()
	for i := range 12 {
		token := j.token("calm")
		if err := submit(t, c.nodes[i%len(c.nodes)], ada, []string{"someone@far.test"}, sealed(ada.Address, "someone@far.test", token)); err != nil {
			t.Fatal(err)
		}
		j.note(func() { j.queued[token] = true })
		tokens = append(tokens, token)
	}
	waitFor(t, "the queue empties", func() bool {
		for _, n := range c.nodes {
			if gauge(t, n, "waxwing_queue_messages") > 0 {
				return false
			}
		}
		return true
	})
	return tokens
}

// cutOff takes the network of one node away, and meanwhile kills another and starts it again.
func (c *nodesOf) cutOff(t *testing.T, o *ordeal.Ordeal, j *journal) {
	t.Helper()
	lone, lost := c.network.Hosts[2], c.nodes[2]
	if err := c.network.Cut(t.Context(), lone); err != nil {
		t.Fatal(err)
	}
	o.Fault(1)
	cut := time.Now()
	refused := make(chan int, 1)
	go func() {
		code, _ := trySend(t, lost.SMTP, "sender@far.test", bob.Address, letter("sender@far.test", bob.Address, "cut off"))
		refused <- code
	}()
	j.awaitWork(t)
	t.Logf("%s after a node was cut off the others have done work of each kind", time.Since(cut))
	if err := c.nodes[1].Kill(); err != nil {
		t.Fatal(err)
	}
	o.Kill()
	j.awaitWork(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.nodes[1].Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s after the cut a killed node is there again", time.Since(cut))
	if code := <-refused; code/100 != 4 {
		t.Errorf("a node that is cut off answers a delivery with %d", code)
	}
	waitFor(t, "the node that is cut off to hold itself for dead", func() bool { return gauge(t, lost, "waxwing_node_seen") == 0 })
	t.Logf("%s after the cut the node holds itself for dead", time.Since(cut))
	if err := c.network.Heal(t.Context(), lone); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the node to be there again", func() bool { return gauge(t, lost, "waxwing_node_seen") == 1 })
	c.takesMail(t)
	t.Logf("%s after the cut all nodes take mail", time.Since(cut))
}

// breakDatabase has the database break off all connections, and then start anew.
func (c *nodesOf) breakDatabase(t *testing.T, o *ordeal.Ordeal, j *journal) {
	t.Helper()
	err := c.database.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)
	if err != nil {
		t.Fatal(err)
	}
	o.Fault(1)
	c.takesMail(t)
	j.awaitWork(t)
	if err := c.database.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.database.Run(); err != nil {
		t.Fatal(err)
	}
	o.Fault(1)
	c.takesMail(t)
	waitFor(t, "one node to lead", func() bool {
		leaders := 0.0
		for _, n := range c.nodes {
			leaders += gauge(t, n, "waxwing_node_leader")
		}
		return leaders == 1
	})
}

// takesMail waits until every node takes mail.
func (c *nodesOf) takesMail(t *testing.T) {
	t.Helper()
	for i, n := range c.nodes {
		waitFor(t, fmt.Sprintf("node %d to take mail", i), func() bool {
			code, text := trySend(t, n.SMTP, "sender@far.test", bob.Address, letter("sender@far.test", bob.Address, "again"))
			if code/100 == 5 {
				t.Errorf("node %d says %d %s", i, code, text)
			}
			return code == 250
		})
	}
}

// gauge is a figure of a node's metrics, summed over labels.
func gauge(t *testing.T, n *rig.Node, name string) (sum float64) {
	t.Helper()
	resp, err := http.Get("http://" + n.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(strings.TrimSpace(rest), ' ')+1:]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, found = sum+v, true
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return sum
}
