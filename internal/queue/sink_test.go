package queue_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"waxwing/internal/address"
	"waxwing/internal/dns"
	"waxwing/internal/dns/dnstest"
	"waxwing/internal/porttest"
	"waxwing/internal/queue"
	"waxwing/internal/store"
	"waxwing/internal/store/storetest"
	"waxwing/internal/transport"
)

// patience is how long the tests wait for what must come: a busy machine takes its time.
const patience = 3 * time.Minute

// sink starts Postfix's smtp-sink, which appends all it gets to one file.
func sink(t *testing.T, args ...string) (port int, file string) {
	t.Helper()
	path := "/usr/sbin/smtp-sink" // not in the path of ordinary users
	if _, err := os.Stat(path); err != nil {
		t.Fatal("smtp-sink (of Postfix) is not installed: make deps installs it")
	}
	ports, err := porttest.Reserve(1)
	if err != nil {
		t.Fatal(err)
	}
	port = ports[0]
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil { // smtp-sink gives up root
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		args = append(args, "-u", "nobody")
	}
	args = append(args, "-D", "dump", "127.0.0.1:"+strconv.Itoa(port), "100")
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) { // polls until it listens
		c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = c.Close()
			return port, filepath.Join(dir, "dump")
		}
		if time.Now().After(deadline) {
			t.Fatalf("smtp-sink does not listen: %v %s", err, out.String())
		}
	}
}

type noNotifications struct{ t *testing.T }

func (n noNotifications) Inject(_ context.Context, to address.Address, raw []byte) error {
	n.t.Errorf("notification to %s:\n%s", to, raw)
	return nil
}

// The whole way out: store, queue, DNS over UDP, transport, and Postfix's sink at the end.
func TestAThousandMessagesReachARealServer(t *testing.T) {
	t.Parallel()
	port, dump := sink(t)
	zone := ""
	for i := range 10 {
		zone += fmt.Sprintf("d%d.test. 60 IN MX 10 mx.d%d.test.\nmx.d%d.test. 60 IN A 127.0.0.1\n", i, i, i)
	}
	server := dnstest.New(t, zone)
	server.Fail("d3.test", dnstest.Fault{Type: "MX", Rcode: "SERVFAIL", Times: 4})
	resolver, err := dns.New(dns.Options{Servers: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	tr, err := transport.New(transport.Options{Hostname: "mx.here.test", Resolver: resolver, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	st := storetest.New(t)
	q, err := queue.New(queue.Options{
		Store: st, Transport: queue.Over(tr), Injector: noNotifications{t}, Hostname: "mx.here.test",
		Policy: queue.Policy{RetryMin: 50 * time.Millisecond, RetryMax: time.Second, RestMin: 50 * time.Millisecond, RestMax: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	const n = 1000
	for i := range n {
		_, err := st.Deliver(t.Context(), store.Delivery{
			Content: strings.NewReader(fmt.Sprintf("Subject: mark-%d.\r\n\r\n.dots\r\n", i)),
			Queue: &store.QueueMessage{TraceID: "T", From: "a@here.test", Recipients: []store.QueueRecipient{
				{To: fmt.Sprintf("u@d%d.test", i%10), Domain: fmt.Sprintf("d%d.test", i%10)},
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // polls until the queue is empty
		s, err := q.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Messages == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %+v", s)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if c := strings.Count(string(got), fmt.Sprintf("mark-%d.", i)); c != 1 {
			t.Errorf("message %d arrived %d times", i, c)
		}
	}
}
