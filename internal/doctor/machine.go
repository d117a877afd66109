package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/dns"
	"waxwing/internal/durable"
)

// Thresholds of the disk.
const (
	probeWrites   = 64
	probeSize     = 16 << 10
	slowSync      = 20 * time.Millisecond
	verySlowSync  = 100 * time.Millisecond
	comfortFactor = 4 // free space below this many reserves is worth a warning
)

func runSpace(_ context.Context, s Subject) []result {
	free, err := durable.OS.Free(s.Config.DataDir)
	if err != nil {
		return []result{{Fail, "free space can't be read: " + err.Error(), "see that the data directory is there and may be read by this user"}}
	}
	reserve := s.Config.Spool.DiskReserve
	seen := fmt.Sprintf("%s free at %s, %s are kept in reserve", config.Size(free).Human(), s.Config.DataDir, reserve.Human())
	switch {
	case free < int64(reserve):
		return []result{{Fail, seen, "free space or enlarge the disk; mail is taken again by itself then"}}
	case free < comfortFactor*int64(reserve):
		return []result{{Warn, seen, "plan for a larger disk"}}
	}
	return []result{{OK, seen, ""}}
}

// runSpeed measures appends with a sync each, as a single delivery at a time would make them.
func runSpeed(ctx context.Context, s Subject) []result {
	times, err := probeDisk(ctx, s.Config.DataDir)
	if err != nil {
		return []result{{Fail, "writing a file of " + fmt.Sprint(probeWrites*probeSize) + " octets failed: " + err.Error(), "see that the data directory is writable by this user and the disk is healthy"}}
	}
	slices.Sort(times)
	median, worst := times[len(times)/2], times[len(times)-1]
	seen := fmt.Sprintf("a write of 16 KiB is safe after %s, the slowest of %d after %s", median.Round(10*time.Microsecond), len(times), worst.Round(10*time.Microsecond))
	switch {
	case median > verySlowSync:
		return []result{{Fail, seen, "use a local disk, best an SSD; network file systems and disks with much other work are too slow for durable mail"}}
	case median > slowSync:
		return []result{{Warn, seen, "a local SSD would take much more mail in the same time"}}
	}
	return []result{{OK, seen, ""}}
}

func probeDisk(ctx context.Context, dir string) (times []time.Duration, err error) {
	var salt [6]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return nil, err
	}
	name := filepath.Join(dir, fmt.Sprintf("doctor-%x%s", salt, durable.TempSuffix))
	f, err := durable.OS.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), durable.OS.Remove(name)) }()
	buf := make([]byte, probeSize)
	for i := range probeWrites {
		if ctx.Err() != nil {
			break
		}
		began := time.Now()
		if _, err := f.WriteAt(buf, int64(i)*probeSize); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	if len(times) == 0 {
		return nil, ctx.Err()
	}
	return times, nil
}

// probeName is a name that doesn't exist and of which a resolver may say so by itself (RFC 6761, section 6.4).
const probeName = "invalid."

func runResolvers(ctx context.Context, s Subject) []result {
	configured, err := dns.New(dns.Options{Servers: s.Config.DNS.Resolvers})
	if err != nil {
		return []result{{Fail, err.Error(), "set dns.resolvers in waxwing.toml, best to a validating resolver on this machine such as unbound"}}
	}
	defer configured.Close()
	var out []result
	for _, addr := range configured.Servers() {
		out = append(out, askResolver(ctx, addr, s))
	}
	return out
}

func askResolver(ctx context.Context, addr string, s Subject) result {
	fix := "see that " + addr + " runs and answers this machine, or change dns.resolvers"
	r, err := dns.New(dns.Options{Servers: []string{addr}, TrustAD: true, Timeout: s.Config.DNS.Timeout.Std(), Rounds: 1, CacheCount: -1})
	if err != nil {
		return result{Fail, addr + ": " + err.Error(), fix}
	}
	defer r.Close()
	began := time.Now()
	_, err = r.TXT(ctx, probeName)
	took := time.Since(began).Round(time.Millisecond)
	if err != nil && !errors.Is(err, dns.ErrNotFound) && !errors.Is(err, dns.ErrNoData) {
		return result{Fail, fmt.Sprintf("%s does not answer: %v", addr, err), fix}
	}
	host, _, splitErr := net.SplitHostPort(addr)
	seen := fmt.Sprintf("%s answers in %s", addr, took)
	if splitErr == nil && !net.ParseIP(host).IsLoopback() && !s.Config.DNS.Trusted {
		return result{OK, seen + "; it is not on this machine, so its DNSSEC verdicts are not believed", ""}
	}
	return result{OK, seen, ""}
}
