// Package cache remembers what was read, up to a bound of octets, and forgets what was not asked for lately.
//
// It holds two generations: when the young one is full it becomes the old one, and what is asked for again moves over. So
// it costs one map and no list, and holds what was used since about half its size ago. It is for values that never
// change: it neither expires nor invalidates, but for Drop.
package cache

import "sync"

// Cache is a bounded memory. Its methods may be called at the same time.
type Cache[K comparable, V any] struct {
	half int64

	mu         sync.Mutex
	young, old map[K]entry[V]
	octets     int64 // of young
}

type entry[V any] struct {
	value  V
	octets int64
}

// New makes a cache that holds values of at most max octets together.
func New[K comparable, V any](max int64) *Cache[K, V] {
	return &Cache[K, V]{half: max / 2, young: make(map[K]entry[V])}
}

// Get returns the value of a key.
func (c *Cache[K, V]) Get(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.young[key]
	if !ok {
		if e, ok = c.old[key]; ok {
			c.set(key, e)
		}
	}
	return e.value, ok
}

// Put remembers a value that takes as many octets; one that takes more than half of the cache is not kept.
func (c *Cache[K, V]) Put(key K, value V, octets int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(key, entry[V]{value, octets})
}

// set is Put with the lock held.
func (c *Cache[K, V]) set(key K, e entry[V]) {
	c.octets -= c.young[key].octets
	delete(c.young, key)
	if e.octets > c.half {
		delete(c.old, key)
		return
	}
	if c.octets+e.octets > c.half {
		c.old, c.young, c.octets = c.young, make(map[K]entry[V]), 0
	}
	c.young[key] = e
	c.octets += e.octets
}

// Drop forgets a key.
func (c *Cache[K, V]) Drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.octets -= c.young[key].octets
	delete(c.young, key)
	delete(c.old, key)
}
