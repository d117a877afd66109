package directory

import "sync"

const defaultCacheEntries = 100_000

// known is what an address stands for: an account, the targets of an alias, or (both nil) nothing. It is shared and
// never changed.
type known struct {
	account *Account
	alias   *Alias
}

// lookupCache remembers what addresses stand for, also that they stand for nothing. It is bounded: two generations of
// maps, of which the older is dropped when the newer is full, so that what is asked for stays and what isn't goes, at
// the cost of a map write. Unknown addresses have generations of their own: a probing stranger must not push out the
// addresses that are real.
//
// What was read before a change must not be put in after it: get hands out the epoch of the cache, and put drops what
// was read in an earlier epoch. clear is called after the commit and before the changing call returns.
type lookupCache struct {
	mu    sync.Mutex
	epoch uint64
	real  generations
	none  generations
}

type generations struct {
	max      int
	new, old map[string]known
}

func newLookupCache(entries int) *lookupCache {
	if entries <= 0 {
		entries = defaultCacheEntries
	}
	c := &lookupCache{}
	c.real.max = max(entries/2, 16)
	c.none.max = max(entries/20, 16)
	return c
}

// get tells what is remembered of key, and the epoch that put needs.
func (c *lookupCache) get(key string) (k known, epoch uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok = c.real.get(key); ok {
		return k, c.epoch, true
	}
	k, ok = c.none.get(key)
	return k, c.epoch, ok
}

// put remembers what was read in the given epoch.
func (c *lookupCache) put(key string, k known, epoch uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.epoch {
		return
	}
	if k.account == nil && k.alias == nil {
		c.none.put(key, k)
		return
	}
	c.real.put(key, k)
}

// clear forgets all.
func (c *lookupCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	c.real.new, c.real.old = nil, nil
	c.none.new, c.none.old = nil, nil
}

// len is the number of remembered addresses.
func (c *lookupCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.real.new) + len(c.real.old) + len(c.none.new) + len(c.none.old)
}

func (g *generations) get(key string) (known, bool) {
	if k, ok := g.new[key]; ok {
		return k, true
	}
	k, ok := g.old[key]
	if ok {
		g.put(key, k)
	}
	return k, ok
}

func (g *generations) put(key string, k known) {
	if len(g.new) >= g.max {
		g.old, g.new = g.new, nil
	}
	if g.new == nil {
		g.new = make(map[string]known)
	}
	g.new[key] = k
}
