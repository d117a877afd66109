package crashvfs

import (
	"sync"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"waxwing/internal/sqlitefile/memory"
)

// shared is what all handles of a file have in common.
type shared struct {
	handles int // under Disk.mu

	mu sync.Mutex
	// The lock of the file (sqlite.org/lockingv3.html).
	readers  int
	reserved *handle
	pending  *handle // or exclusive, when it is the only reader
	// The memory.
	users   int
	regions []uintptr
	shares  [lib.SQLITE_SHM_NLOCK]int
	owner   [lib.SQLITE_SHM_NLOCK]*handle
}

func lockFile(_ *libc.TLS, p uintptr, level int32) int32 {
	h := handleOf(p)
	if h.same.lock(h, level) {
		return lib.SQLITE_OK
	}
	return lib.SQLITE_BUSY
}

// lock raises the lock of h, and tells whether that is possible.
func (s *shared) lock(h *handle, level int32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.level >= level {
		return true
	}
	if h.level == lib.SQLITE_LOCK_NONE {
		if s.pending != nil {
			return false
		}
		s.readers++
		h.level = lib.SQLITE_LOCK_SHARED
	}
	if level == lib.SQLITE_LOCK_SHARED {
		return true
	}
	if s.reserved != nil && s.reserved != h || s.pending != nil && s.pending != h {
		return false
	}
	s.reserved = h
	if level == lib.SQLITE_LOCK_RESERVED {
		h.level = level
		return true
	}
	s.pending = h
	h.level = lib.SQLITE_LOCK_PENDING
	if s.readers > 1 {
		return false
	}
	h.level = lib.SQLITE_LOCK_EXCLUSIVE
	return true
}

func unlockFile(_ *libc.TLS, p uintptr, level int32) int32 {
	h := handleOf(p)
	h.same.unlock(h, level)
	return lib.SQLITE_OK
}

// unlock lowers the lock of h, to one that is shared or none.
func (s *shared) unlock(h *handle, level int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.level <= level {
		return
	}
	if s.reserved == h {
		s.reserved = nil
	}
	if s.pending == h {
		s.pending = nil
	}
	if level == lib.SQLITE_LOCK_NONE {
		s.readers--
	}
	h.level = level
}

func checkReservedLock(_ *libc.TLS, p, out uintptr) int32 {
	s := handleOf(p).same
	s.mu.Lock()
	defer s.mu.Unlock()
	held := int32(0)
	if s.reserved != nil {
		held = 1
	}
	*memory.At[int32](out) = held
	return lib.SQLITE_OK
}

func shmMap(tls *libc.TLS, p uintptr, region, size, extend int32, out uintptr) int32 {
	h := handleOf(p)
	s := h.same
	s.mu.Lock()
	defer s.mu.Unlock()
	if !h.mapped {
		h.mapped = true
		s.users++
	}
	*memory.At[uintptr](out) = 0
	for int(region) >= len(s.regions) {
		if extend == 0 {
			return lib.SQLITE_OK
		}
		m := libc.Xcalloc(tls, 1, libc.Tsize_t(size))
		if m == 0 {
			return lib.SQLITE_NOMEM
		}
		s.regions = append(s.regions, m)
	}
	*memory.At[uintptr](out) = s.regions[region]
	return lib.SQLITE_OK
}

func shmLock(_ *libc.TLS, p uintptr, off, n, flags int32) int32 {
	h := handleOf(p)
	h.same.mu.Lock()
	defer h.same.mu.Unlock()
	if flags&lib.SQLITE_SHM_UNLOCK != 0 {
		h.same.release(h, off, n)
		return lib.SQLITE_OK
	}
	if !h.same.take(h, off, n, flags&lib.SQLITE_SHM_EXCLUSIVE != 0) {
		return lib.SQLITE_BUSY
	}
	return lib.SQLITE_OK
}

// take takes n locks from off on, all or none.
func (s *shared) take(h *handle, off, n int32, exclusive bool) bool {
	for i := off; i < off+n; i++ {
		others := s.shares[i]
		if h.shares&(1<<i) != 0 {
			others--
		}
		if s.owner[i] != nil && s.owner[i] != h || exclusive && others > 0 {
			return false
		}
	}
	for i := off; i < off+n; i++ {
		switch bit := uint32(1) << i; {
		case exclusive:
			s.owner[i] = h
			h.owns |= bit
		case h.shares&bit == 0:
			s.shares[i]++
			h.shares |= bit
		}
	}
	return true
}

func (s *shared) release(h *handle, off, n int32) {
	for i := off; i < off+n; i++ {
		bit := uint32(1) << i
		if h.owns&bit != 0 {
			s.owner[i] = nil
			h.owns &^= bit
		}
		if h.shares&bit != 0 {
			s.shares[i]--
			h.shares &^= bit
		}
	}
}

func shmBarrier(_ *libc.TLS, p uintptr) {
	s := handleOf(p).same
	s.mu.Lock()
	defer s.mu.Unlock()
}

func shmUnmap(tls *libc.TLS, p uintptr, _ int32) int32 {
	if h := handleOf(p); h.mapped {
		h.same.unmap(tls, h)
	}
	return lib.SQLITE_OK
}

// unmap gives the memory up. When the last one has, the next finds none, as after a crash: the log says what was in it.
func (s *shared) unmap(tls *libc.TLS, h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(h, 0, lib.SQLITE_SHM_NLOCK)
	h.mapped = false
	if s.users--; s.users > 0 {
		return
	}
	for _, m := range s.regions {
		libc.Xfree(tls, m)
	}
	s.regions = nil
}
