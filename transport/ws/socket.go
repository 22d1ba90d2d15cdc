package ws

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// socket is one live client.
type socket struct {
	server  *Server
	session *melody.Session // set once connected
	id      string
	remote  string
	since   time.Time
	refused *domain.Error // the credential was, and the socket is only opened to say so
	banned  bool          // its owner may not come back yet, and the socket is only opened to say so

	due atomic.Int64 // when tick should look at the socket, Unix nanoseconds

	budget limit.Budget

	publishing sync.Mutex // taken before mu
	unlisted   bool       // guarded by publishing

	mu       sync.Mutex
	actor    domain.Actor
	rooms    []*membership
	unwatch  func() // ends the metrics; nil when not in the admin room
	joined   bool   // ever
	outbound outbound
	ending   bool
	endBy    time.Time // when a socket that is ending is cut off

	lastBeat    time.Time
	lastTraffic time.Time // of events; zero when a heartbeat followed
}

// membership is a socket in the room of a system: the sink of a cursor.
type membership struct {
	socket *socket
	system domain.SystemID
	cursor *rooms.Cursor // set before frames come
	left   bool          // guarded by the socket's lock
}

func newSocket(s *Server, remote string, actor domain.Actor) *socket {
	now := time.Now()
	return &socket{server: s, id: newSocketID(), remote: remote, since: now, actor: actor, lastBeat: now}
}

// connected runs before Melody writes and reads.
func (s *socket) connected(session *melody.Session) {
	session.Request = nil // Melody needs it no more, and its headers are most of what a socket would keep
	s.session = session
	handoff.OnPing(session.WebsocketConnection(), s.control)
	if s.refused == nil {
		_, s.banned = s.server.ban(s.actor, "")
	}
	status := connectionStatus{
		Connected: s.refused == nil && !s.banned, SocketID: s.id,
		Node: s.server.config.Node, Deployment: s.server.config.Deployment,
	}
	s.enqueue(outgoing{bytes: encodeFrame(eventConnectionStatus, nil, status)})
	closing := s.server.add(s) // from here on others may end it
	switch {
	case s.refused != nil:
		s.end(closeFor(s.refused), errorFrame(nil, s.refused))
	case s.keptOut(): // also by a ban that was raised since the handshake
		s.banned = true
	case closing:
		s.end(closeRestart)
	default:
		s.publish()
		s.schedule()
	}
}

// disconnected runs when the connection is gone, in the reading goroutine.
func (s *socket) disconnected() {
	s.mu.Lock()
	s.ending = true
	abandoned := s.outbound.abandon()
	s.mu.Unlock()
	for _, g := range abandoned {
		g.finish()
	}
	s.leaveAll()
	s.server.remove(s)
	if registry := s.server.parts.Registry; registry != nil && s.refused == nil && !s.banned {
		s.unlist()
	}
}

// publish puts the socket on the list of all sockets, or changes what is there.
// One call at a time, so that the list ends with the last state.
func (s *socket) publish() {
	registry := s.server.parts.Registry
	if registry == nil {
		return
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if !s.unlisted {
		registry.Put(s.describe())
	}
}

// unlist takes the socket off the list, for good.
func (s *socket) unlist() {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.unlisted = true
	s.server.parts.Registry.Remove(s.id)
}

func (s *socket) describe() rooms.Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	systems := make([]domain.SystemID, len(s.rooms))
	for i, m := range s.rooms {
		systems[i] = m.system
	}
	slices.Sort(systems)
	return rooms.Socket{
		SocketID: s.id, Face: "ws", Subject: s.actor.Subject, Role: s.actor.Role, Systems: systems, Remote: s.remote,
		ConnectedAt: s.since.UTC(),
	}
}

// identity returns who the socket is.
func (s *socket) identity() domain.Actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor
}

// end sends the last frames and closes the socket. It reports false for one that
// is ending already.
func (s *socket) end(rule CloseRule, frames ...[]byte) bool {
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return false
	}
	s.ending = true
	s.endBy = time.Now().Add(s.server.config.CloseWait)
	s.due.Store(s.endBy.UnixNano())
	s.outbound.keepAnswers()
	for _, frame := range frames {
		s.outbound.push(outgoing{bytes: frame})
	}
	s.outbound.push(outgoing{close: melody.FormatCloseMessage(rule.Code, rule.Reason)})
	next, ok := s.outbound.next()
	s.mu.Unlock()
	if ok {
		s.write(next)
	}
	s.leaveAll()
	return true
}

// cut closes the connection under the socket.
func (s *socket) cut() { _ = s.session.WebsocketConnection().Close() }

// leaveAll takes the socket out of all rooms.
func (s *socket) leaveAll() {
	s.mu.Lock()
	gone, unwatch := s.rooms, s.unwatch
	s.rooms, s.unwatch = nil, nil
	for _, m := range gone {
		m.left = true
	}
	s.mu.Unlock()
	for _, m := range gone {
		m.cursor.Leave()
	}
	if unwatch != nil {
		unwatch()
	}
}

// tick looks at the times that the socket has to keep.
func (s *socket) tick(now time.Time) {
	s.mu.Lock()
	expires, joined, ending, endBy := s.actor.ExpiresAt, s.joined, s.ending, s.endBy
	c := &s.server.config
	beat := now.Sub(s.lastBeat) >= c.HeartbeatEvery || !s.lastTraffic.IsZero() && now.Sub(s.lastTraffic) >= c.IdleAfter
	s.mu.Unlock()
	switch {
	case ending:
		if !endBy.IsZero() && !now.Before(endBy) {
			s.cut()
		}
		return
	case !expires.IsZero() && !now.Before(expires):
		s.end(closeToken, errorFrame(nil, domain.Fail(domain.KindUnauthenticated, CodeTokenExpired,
			"the token has expired; authenticate with a fresh one before that")))
		return
	case !joined && now.Sub(s.since) >= c.JoinWithin:
		s.end(closeNoJoin, errorFrame(nil, domain.Invalid(CodeNoJoin, "join a room within "+c.JoinWithin.String())))
		return
	case beat:
		s.beat(now)
	}
	s.schedule()
}

// schedule works out when to look at the socket next.
func (s *socket) schedule() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return
	}
	c := &s.server.config
	next := s.lastBeat.Add(c.HeartbeatEvery)
	sooner := func(at time.Time) {
		if at.Before(next) {
			next = at
		}
	}
	if !s.lastTraffic.IsZero() {
		sooner(s.lastTraffic.Add(c.IdleAfter))
	}
	if !s.actor.ExpiresAt.IsZero() {
		sooner(s.actor.ExpiresAt)
	}
	if !s.joined {
		sooner(s.since.Add(c.JoinWithin))
	}
	s.due.Store(next.UnixNano())
}

// beat sends a heartbeat: for each room a place up to which the client has been
// sent everything. Cursors count a frame as passed only when it is out, so a
// heartbeat never runs ahead of the events that it speaks of.
func (s *socket) beat(now time.Time) {
	s.mu.Lock()
	s.lastBeat, s.lastTraffic = now, time.Time{}
	members := slices.Clone(s.rooms)
	s.mu.Unlock()
	h := heartbeat{Time: domain.FormatTime(now), Rooms: make(map[domain.SystemID]domain.Cursor, len(members))}
	for _, m := range members {
		h.Rooms[m.system] = m.cursor.Passed()
	}
	s.enqueue(outgoing{bytes: encodeFrame(eventHeartbeat, nil, h), kind: onlyNewest})
}
