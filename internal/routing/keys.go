package routing

import (
	"context"
	"sync"
	"time"

	"waxwing/internal/srs"
	"waxwing/internal/store"
)

// Keys is where the keys of SRS come from; *store.Store is one.
type Keys interface {
	SRSKeys(ctx context.Context) ([]store.SRSKey, error)
}

// keyFresh is how old the known keys may be: a new key is used by all nodes within this time. The others are believed
// before, since a key is never given up at once.
const keyFresh = 30 * time.Second

// keyring remembers the keys.
type keyring struct {
	from Keys

	mu    sync.Mutex // guards what follows; held while the store is asked, so that it is asked once
	at    time.Time
	days  int
	known *srs.Codec
}

// codec gives what writes and reads senders now. Keys that can't be read now are used as they were.
func (k *keyring) codec(ctx context.Context, now time.Time, days int) (*srs.Codec, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := now.Sub(k.at)
	if k.known != nil && k.days == days && age >= 0 && age < keyFresh {
		return k.known, nil
	}
	list, err := k.from.SRSKeys(ctx)
	if err != nil {
		if k.known != nil {
			return k.known, nil
		}
		return nil, err
	}
	keys := make([][]byte, len(list))
	for i := range list {
		keys[i] = list[i].Secret
	}
	codec, err := srs.New(keys, days)
	if err != nil {
		return nil, err
	}
	k.at, k.days, k.known = now, days, codec
	return codec, nil
}
