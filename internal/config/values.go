package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as text: "90s", "5m", "4h", "5d".
type Duration time.Duration

// UnmarshalText reads the units of time.ParseDuration, and d for days of 24 hours.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is not a number of days", s)
		}
		return time.Duration(n * 24 * float64(time.Hour)), nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as \"30s\", \"5m\", \"4h\" or \"5d\"", s)
	}
	return v, nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes whole days as days, and drops units that are zero: "4h" rather than "4h0m0s".
func (d Duration) String() string {
	v := time.Duration(d)
	if v != 0 && v%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(v/(24*time.Hour)), 10) + "d"
	}
	s := v.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Size is a number of octets, written as a number or with a binary unit: 1048576, "1MiB".
type Size int64

var sizeUnits = []struct {
	name  string
	shift uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}}

// ParseSize reads a number of octets with an optional unit: B, KiB, MiB, GiB, TiB. K, M, G and T are the same units.
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	number := strings.TrimRight(text, "BbiKkMmGgTt ")
	unit := strings.ToLower(strings.TrimSpace(text[len(number):]))
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is not a size such as 1048576, \"64KiB\", \"50MiB\" or \"2GiB\"", s)
	}
	for _, u := range sizeUnits {
		name := strings.ToLower(u.name)
		if unit != name && unit != name[:1] && (unit != "" || u.shift != 0) {
			continue
		}
		v := n * float64(int64(1)<<u.shift)
		if v >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return Size(v), nil
	}
	return 0, fmt.Errorf("%q has an unknown unit: use KiB, MiB, GiB or TiB", s)
}

// UnmarshalText reads what ParseSize reads.
func (z *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*z = v
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (z Size) MarshalText() ([]byte, error) { return []byte(z.String()), nil }

// String writes the size in the largest unit that divides it.
func (z Size) String() string {
	for _, u := range sizeUnits {
		if u.shift > 0 && z != 0 && int64(z)%(1<<u.shift) == 0 {
			return strconv.FormatInt(int64(z)>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10) + "B"
}

// Human writes the size rounded to one decimal, for people.
func (z Size) Human() string {
	for _, u := range sizeUnits {
		if u.shift > 0 && z >= 1<<u.shift {
			return strconv.FormatFloat(float64(z)/float64(int64(1)<<u.shift), 'f', 1, 64) + " " + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10) + " B"
}

var errAddress = errors.New("is not host:port")

// splitPort cuts "host:port"; the host may be empty, the port must be a number from 0 to 65535.
func splitPort(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errAddress
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", p)
	}
	return host, int(n), nil
}

func joinPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

func isLoopbackIP(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
