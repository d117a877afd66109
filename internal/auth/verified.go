package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"waxwing/internal/store"
)

// verified remembers that a password was right, so that a client with many connections costs one hash. It keeps a MAC
// of account, version of the password and password, under a key that lives and dies with this process: a dump of the
// memory holds no password and nothing that could be tried offline without the key beside it. A changed password has a
// new version, so what was remembered of the old one is never found again. It is bounded by dropping the older of two
// generations.
type verified struct {
	key   [32]byte
	max   int
	keep  time.Duration
	clock func() time.Time

	mu       sync.Mutex
	new, old map[[sha256.Size]byte]time.Time // when it is forgotten
}

func newVerified(opts Options) (*verified, error) {
	v := &verified{max: opts.Remembered / 2, keep: opts.RememberFor, clock: opts.Clock}
	if opts.Remembered <= 0 {
		v.max = 5000
	}
	if v.keep <= 0 {
		v.keep = 5 * time.Minute
	}
	v.max = max(v.max, 1)
	_, err := io.ReadFull(opts.Rand, v.key[:])
	return v, err
}

func (v *verified) mac(id store.AccountID, version int64, password []byte) (sum [sha256.Size]byte) {
	var head [16]byte
	binary.BigEndian.PutUint64(head[:8], uint64(id))
	binary.BigEndian.PutUint64(head[8:], uint64(version))
	h := hmac.New(sha256.New, v.key[:])
	h.Write(head[:])
	h.Write(password)
	h.Sum(sum[:0])
	return sum
}

func (v *verified) has(mac [sha256.Size]byte) bool {
	now := v.clock()
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, gen := range []map[[sha256.Size]byte]time.Time{v.new, v.old} {
		if until, ok := gen[mac]; ok {
			return now.Before(until)
		}
	}
	return false
}

func (v *verified) add(mac [sha256.Size]byte) {
	until := v.clock().Add(v.keep)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.new) >= v.max {
		v.old, v.new = v.new, nil
	}
	if v.new == nil {
		v.new = make(map[[sha256.Size]byte]time.Time)
	}
	v.new[mac] = until
}

func (v *verified) len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.new) + len(v.old)
}
