package engineio

import (
	"container/list"
	"time"

	"github.com/plugcast/plugcast/transport/edge"
)

// admission limits how many sessions there are, per address and in all. A session
// may stand for no connection: its client polls now and then, or never comes back.
//
// Sessions whose clients have not shown who they are have limits of their own: a
// handshake costs a client one small request. At such a limit a silent session ends:
// one whose client has sent nothing since the handshake, the oldest first. A session
// whose client goes on logging in is left alone for loginTime, and newcomers are
// refused.
//
// It is guarded by the server's lock.
type admission struct {
	all     group
	sources map[string]*group // by address
}

// group is the sessions that one limit is for.
type group struct {
	sessions         int       // all of them
	silent, speaking list.List // those that are not settled, the oldest first
}

func (g *group) unsettled() int { return g.silent.Len() + g.speaking.Len() }

// place is where a session is among the unsettled.
type place struct {
	source     string
	began      time.Time
	speaking   bool
	all, among *list.Element // in the server's group and the address's; nil when it is settled
}

// loginTime is how long a client may take from its handshake to its token before
// others may have its place.
const loginTime = 3 * time.Second

// hasRoom reports whether a session of that address may begin.
func (s *Server) hasRoom(remote string, now time.Time) bool {
	c := &s.config
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.admission.sources[edge.Source(remote)]
	return (g == nil || g.hasRoom(c.MaxSessionsPerAddress, c.MaxUnsettledPerAddress, now)) &&
		s.admission.all.hasRoom(c.MaxSessions, c.MaxUnsettled, now)
}

func (g *group) hasRoom(sessions, unsettled int, now time.Time) bool {
	return g.sessions < sessions && g.unsettled() < unsettled || g.giveWay(now) != nil
}

// giveWay is the session that ends when another needs its place, or nil.
func (g *group) giveWay(now time.Time) *Session {
	if oldest := g.silent.Front(); oldest != nil {
		return oldest.Value.(*Session)
	}
	if oldest := g.speaking.Front(); oldest != nil {
		if session := oldest.Value.(*Session); now.Sub(session.place.began) >= loginTime {
			return session
		}
	}
	return nil
}

// enter lists a session, and returns one that has to go for it. The caller holds
// the lock.
func (s *Server) enter(session *Session, now time.Time) (victim *Session) {
	c, a := &s.config, &s.admission
	source := edge.Source(session.remote)
	g := a.sources[source]
	if g == nil {
		g = &group{}
		a.sources[source] = g
	}
	switch {
	case g.sessions >= c.MaxSessionsPerAddress || g.unsettled() >= c.MaxUnsettledPerAddress:
		victim = g.giveWay(now)
	case a.all.sessions >= c.MaxSessions || a.all.unsettled() >= c.MaxUnsettled:
		victim = a.all.giveWay(now)
	}
	g.sessions++
	a.all.sessions++
	session.place = place{source: source, began: now, all: a.all.silent.PushBack(session), among: g.silent.PushBack(session)}
	return victim
}

// spoke notes that the client of a session has sent something since its handshake.
// The caller holds the lock.
func (s *Server) spoke(session *Session) {
	p := &session.place
	if p.speaking || p.all == nil {
		return
	}
	g := s.admission.sources[p.source]
	s.admission.all.silent.Remove(p.all)
	g.silent.Remove(p.among)
	p.speaking, p.all, p.among = true, s.admission.all.speaking.PushBack(session), g.speaking.PushBack(session)
}

// settle counts a session no longer as one that is not settled.
func (s *Server) settle(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled(session)
}

// settled is settle for a caller that holds the lock.
func (s *Server) settled(session *Session) {
	p := &session.place
	if p.all == nil {
		return
	}
	all, g := &s.admission.all, s.admission.sources[p.source]
	if p.speaking {
		all.speaking.Remove(p.all)
		g.speaking.Remove(p.among)
	} else {
		all.silent.Remove(p.all)
		g.silent.Remove(p.among)
	}
	p.all, p.among = nil, nil
}

// remove takes a session that has ended from all lists.
func (s *Server) remove(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[session.id] != session {
		return
	}
	delete(s.sessions, session.id)
	s.settled(session)
	s.admission.all.sessions--
	g := s.admission.sources[session.place.source]
	if g.sessions--; g.sessions == 0 {
		delete(s.admission.sources, session.place.source)
	}
}
