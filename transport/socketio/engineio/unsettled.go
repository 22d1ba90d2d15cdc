package engineio

import (
	"container/list"
	"time"

	"github.com/plugcast/plugcast/transport/edge"
)

// unsettled are the sessions whose clients have not shown who they are. A handshake
// costs a client one small request and no connection that stays, so there are
// limits, per address and in all. At a limit a silent session ends: one whose
// client has sent nothing since the handshake, the oldest first. A session whose
// client goes on logging in is left alone for loginTime, and newcomers are refused.
//
// It is guarded by the server's lock.
type unsettled struct {
	all     group
	sources map[string]*group // by address
}

// group is the sessions that one limit is for, the oldest first.
type group struct{ silent, speaking list.List }

func (g *group) len() int { return g.silent.Len() + g.speaking.Len() }

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
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.unsettled.sources[edge.Source(remote)]
	if g != nil && g.len() >= s.config.MaxUnsettledPerAddress && g.giveWay(now) == nil {
		return false
	}
	return s.unsettled.all.len() < s.config.MaxUnsettled || s.unsettled.all.giveWay(now) != nil
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
	source := edge.Source(session.remote)
	g := s.unsettled.sources[source]
	if g == nil {
		g = &group{}
		s.unsettled.sources[source] = g
	}
	switch {
	case g.len() >= s.config.MaxUnsettledPerAddress:
		victim = g.giveWay(now)
	case s.unsettled.all.len() >= s.config.MaxUnsettled:
		victim = s.unsettled.all.giveWay(now)
	}
	session.place = place{
		source: source, began: now, all: s.unsettled.all.silent.PushBack(session), among: g.silent.PushBack(session),
	}
	return victim
}

// spoke notes that the client of a session has sent something since its handshake.
// The caller holds the lock.
func (s *Server) spoke(session *Session) {
	p := &session.place
	if p.speaking || p.all == nil {
		return
	}
	g := s.unsettled.sources[p.source]
	s.unsettled.all.silent.Remove(p.all)
	g.silent.Remove(p.among)
	p.speaking, p.all, p.among = true, s.unsettled.all.speaking.PushBack(session), g.speaking.PushBack(session)
}

// settle takes a session from the list.
func (s *Server) settle(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &session.place
	if p.all == nil {
		return
	}
	g := s.unsettled.sources[p.source]
	if p.speaking {
		s.unsettled.all.speaking.Remove(p.all)
		g.speaking.Remove(p.among)
	} else {
		s.unsettled.all.silent.Remove(p.all)
		g.silent.Remove(p.among)
	}
	p.all, p.among = nil, nil
	if g.len() == 0 {
		delete(s.unsettled.sources, p.source)
	}
}
