package listen

import (
	"net/netip"
	"slices"
	"time"
)

// place is what the pool knows of a session.
type place struct {
	peer    netip.Addr // that it is counted under
	owner   int64      // who is signed in, 0 for nobody
	evicted bool
}

// evictGrace is how long a session that must end may take to finish its command.
const evictGrace = 3 * time.Second

// Own notes who has signed in on a session, so that Evict finds it.
func (p *Pool) Own(s Session, owner int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.sessions[s]; ok {
		at.owner = owner
	}
}

// Owners lists who is signed in, each once.
func (p *Pool) Owners() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []int64
	for _, at := range p.sessions {
		if at.owner != 0 {
			out = append(out, at.owner)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Evict ends the sessions of an owner: each as soon as its command is done, and all after three seconds. It tells how many
// there were and does not wait for them.
func (p *Pool) Evict(owner int64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Session
	for s, at := range p.sessions {
		if at.owner == owner && owner != 0 && !at.evicted {
			at.evicted = true
			out = append(out, s)
			s.Conn().Wake()
		}
	}
	if len(out) > 0 {
		p.evicted.Store(true)
		time.AfterFunc(evictGrace, func() { p.cut(out) })
	}
	return len(out)
}

// cut breaks the connections of sessions that are still there.
func (p *Pool) cut(list []Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range list {
		if _, ok := p.sessions[s]; ok {
			_ = s.Conn().Abort() // the session notices by itself
		}
	}
}

// Evicted tells whether a session must end although the server goes on.
func (p *Pool) Evicted(s Session) bool {
	if !p.evicted.Load() { // nearly always
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.sessions[s]
	return ok && at.evicted
}
