package guard

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"waxwing/internal/smtp"
)

// Usage is how much of what this node has is in use. A limit of 0 isn't known.
type Usage struct {
	Memory, MemoryLimit           int64 // octets
	Descriptors, DescriptorsLimit int64
	Waiting                       int // transactions that wait for the database
}

// Load is the check of the node itself: it puts mail off before memory, file descriptors or the database's writer run out. The
// disk's reserve is held by package intake.
type Load struct {
	settings Settings
	look     func() Usage
	clock    func() time.Time

	mu   sync.Mutex
	at   time.Time
	last Usage
}

// loadFresh is how old a look at the node may be.
const loadFresh = time.Second

// NewLoad gives the check; look tells what is in use, and is called once a second at most.
func NewLoad(settings Settings, look func() Usage, clock func() time.Time) *Load {
	return &Load{settings: settings, look: look, clock: clock}
}

// Check is the link of the chain.
func (c *Load) Check() Check {
	return Check{Name: "load", Always: true, Stages: map[Stage]Func{
		Connect: c.stage(421, "4.3.2"), Mail: c.stage(451, "4.3.2"), Data: c.stage(451, "4.3.2"),
	}}
}

func (c *Load) usage() Usage {
	now := c.clock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if since := now.Sub(c.at); since >= loadFresh || since < 0 {
		c.last, c.at = c.look(), now
	}
	return c.last
}

func (c *Load) stage(code int, enhanced string) Func {
	return func(_ context.Context, v *Visitor) Verdict {
		if reason := c.short(code == 421); reason != "" {
			return Refuse(smtp.Errorf(code, enhanced, "the server is overloaded, try again later"), reason)
		}
		return Verdict{}
	}
}

// short tells what runs out, "" when nothing does. Descriptors matter only to who isn't in yet.
func (c *Load) short(connecting bool) string {
	u, set := c.usage(), c.settings.Settings().Guard
	switch {
	case over(u.Memory, u.MemoryLimit, set.LoadMemory):
		return fmt.Sprintf("%d of %d octets of memory are in use", u.Memory, u.MemoryLimit)
	case connecting && over(u.Descriptors, u.DescriptorsLimit, set.LoadDescriptors):
		return fmt.Sprintf("%d of %d file descriptors are in use", u.Descriptors, u.DescriptorsLimit)
	case u.Waiting >= set.LoadWriter:
		return fmt.Sprintf("%d transactions wait for the database", u.Waiting)
	}
	return ""
}

func over(used, limit int64, percent int) bool {
	return limit > 0 && percent < 100 && float64(used)*100 >= float64(limit)*float64(percent)
}

// Node looks at this process: its memory against GOMEMLIMIT or the control group's limit, and its file descriptors. waiting tells
// how many transactions wait for the database.
func Node(waiting func() int) func() Usage {
	limit := memoryLimit()
	return func() Usage {
		u := Usage{Memory: memoryInUse(), MemoryLimit: limit, Waiting: waiting()}
		u.Descriptors, u.DescriptorsLimit = descriptors()
		return u
	}
}

// memoryLimit is the lower of GOMEMLIMIT and the control group's limit, 0 when there is none.
func memoryLimit() int64 {
	limit := debug.SetMemoryLimit(-1) // only asks
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	if limit >= math.MaxInt64/2 {
		return 0
	}
	return limit
}

// memoryInUse is what the program has from the system and hasn't given back.
func memoryInUse() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(sample)
	for _, s := range sample {
		if s.Value.Kind() != metrics.KindUint64 {
			return 0
		}
	}
	return int64(sample[0].Value.Uint64() - sample[1].Value.Uint64() - sample[2].Value.Uint64())
}

// descriptors counts the open files; 0 where the system doesn't tell.
func descriptors() (used, limit int64) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur > math.MaxInt32 {
		return 0, 0
	}
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, 0
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		used += int64(len(names))
		if err != nil || len(names) == 0 {
			return used, int64(r.Cur)
		}
	}
}
