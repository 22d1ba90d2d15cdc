package engineio

import (
	"container/list"
	"time"

	"github.com/plugcast/plugcast/transport/edge"
)

// admission limits the number of sessions, per address and in total. A session may have no
// connection: its client may poll rarely, or never return.
//
// Sessions of unauthenticated clients have limits of their own, because a handshake costs a
// client one small request. At such a limit, a session ends whose client was refused or sent
// something that no client sends during a login. If there is none, a silent session ends,
// whose client has sent nothing since the handshake. The oldest ends first. A session whose
// client continues its login is kept for loginTime, and new sessions are refused. Continuing
// requires a connection, and the network edge limits the connections of an address.
//
// It is guarded by the server's lock.
type admission struct {
	all     group
	sources map[string]*group // by address
}

// group is the set of sessions that one limit applies to.
type group struct {
	sessions  int               // all of them
	unsettled [stages]list.List // those that are not settled, the oldest first
}

func (g *group) unsettledLen() (n int) {
	for i := range g.unsettled {
		n += g.unsettled[i].Len()
	}
	return n
}

// stage is the progress of an unsettled session's client. Sessions are ended in the order of
// the stages.
type stage int

const (
	stageRefused  stage = iota // has sent an invalid credential, or something useless
	stageSilent                // has sent nothing since the handshake
	stageSpeaking              // is logging in
	stages
)

// place is a session's place in the lists of unsettled sessions.
type place struct {
	source     string
	began      time.Time
	stage      stage
	all, among *list.Element // in the server's group and the address's; nil when it is settled
}

// loginTime is how long a client may take from its handshake to its token before other
// clients may take its place.
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
	return g.sessions < sessions && g.unsettledLen() < unsettled || g.evictable(now) != nil
}

// evictable returns the session that ends if another needs its place, or nil.
func (g *group) evictable(now time.Time) *Session {
	for i := range g.unsettled {
		if oldest := g.unsettled[i].Front(); oldest != nil {
			session := oldest.Value.(*Session)
			if stage(i) == stageSpeaking && now.Sub(session.place.began) < loginTime {
				return nil
			}
			return session
		}
	}
	return nil
}

// enter lists a session, and returns a session that has to end for it. The caller holds the
// lock.
func (s *Server) enter(session *Session, now time.Time) (victim *Session) {
	c, a := &s.config, &s.admission
	source := edge.Source(session.remote)
	g := a.sources[source]
	if g == nil {
		g = &group{}
		a.sources[source] = g
	}
	switch {
	case g.sessions >= c.MaxSessionsPerAddress || g.unsettledLen() >= c.MaxUnsettledPerAddress:
		victim = g.evictable(now)
	case a.all.sessions >= c.MaxSessions || a.all.unsettledLen() >= c.MaxUnsettled:
		victim = a.all.evictable(now)
	}
	g.sessions++
	a.all.sessions++
	session.place = place{
		source: source, began: now, stage: stageSilent,
		all: a.all.unsettled[stageSilent].PushBack(session), among: g.unsettled[stageSilent].PushBack(session),
	}
	return victim
}

// spoke records that the client of a session has sent something since its handshake. The
// caller holds the lock.
func (s *Server) spoke(session *Session) {
	if session.place.stage == stageSilent {
		s.move(session, stageSpeaking)
	}
}

// refuse records that the client of a session had the opportunity to authenticate and did
// not. Its session ends before others, until it is settled.
func (s *Server) refuse(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(session, stageRefused)
}

// move changes the stage of an unsettled session. The caller holds the lock.
func (s *Server) move(session *Session, to stage) {
	p := &session.place
	if p.all == nil || p.stage == to {
		return
	}
	all, g := &s.admission.all, s.admission.sources[p.source]
	all.unsettled[p.stage].Remove(p.all)
	g.unsettled[p.stage].Remove(p.among)
	p.stage, p.all, p.among = to, all.unsettled[to].PushBack(session), g.unsettled[to].PushBack(session)
}

// settle removes a session from the unsettled ones.
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
	s.admission.all.unsettled[p.stage].Remove(p.all)
	s.admission.sources[p.source].unsettled[p.stage].Remove(p.among)
	p.all, p.among = nil, nil
}

// remove removes an ended session from all lists.
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
