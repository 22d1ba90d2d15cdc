package client

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// Session is the life of one client's socket. Its methods are safe for concurrent use,
// but those that take a request of the client: they come one after the other. See the
// package's comment for its locks and for what a client sees in which order.
type Session struct {
	server *Server
	face   Face
	keeper Keeper // nil when nothing is saved
	id     string
	remote string
	since  time.Time

	budget limit.Budget
	due    atomic.Int64 // when the clock is to look at the session, Unix nanoseconds

	changing chan struct{} // holds one value while a Keeper's session changes
	order    sync.Mutex

	publishing sync.Mutex
	listed     bool // guarded by publishing, like the next
	unlisted   bool

	mu      sync.Mutex
	actor   domain.Actor
	members []member
	unwatch func() // ends the metrics; nil when not in the admin room
	joined  bool   // ever
	over    bool
}

// member is a session's place in the room of a system.
type member struct {
	system   domain.SystemID
	room     Room
	cursor   *rooms.Cursor
	snapshot *snapshot.Snapshot // to be sent first
	entering bool               // the client has no answer to its join yet
	// dismissed is what the client will be told when it is to leave the room, which is
	// silent by then.
	dismissed *Left
}

// release lets go of what a member holds that is out of the session.
func (m *member) release() {
	m.snapshot.Release()
	m.cursor.Leave()
}

// NewSession makes the session of a client, by an id that no other socket of the
// deployment has. The face calls [Session.Close] at the end.
func (s *Server) NewSession(face Face, id, remote string, actor domain.Actor) *Session {
	session := &Session{server: s, face: face, id: id, remote: remote, since: time.Now(), actor: actor}
	session.due.Store(math.MaxInt64)
	if keeper, ok := face.(Keeper); ok {
		session.keeper, session.changing = keeper, make(chan struct{}, 1)
	}
	return session
}

// List puts the session where [Server.Disconnect] and the face's shutdown find it, and
// reports whether the face is shutting down. A session that is over is not listed.
func (s *Session) List() (closing bool) {
	closing = s.server.open.Add(s)
	if s.IsOver() {
		s.server.open.Remove(s)
	}
	return closing
}

// Start lets the clock look at the session, and puts it on the list of all sockets.
func (s *Session) Start() {
	s.publish()
	s.schedule(s.face.Tick(time.Now()))
}

// Over takes the session out of all rooms, for good. The face calls it when it sends
// nothing more of them. Calling it twice is fine.
func (s *Session) Over() {
	s.mu.Lock()
	gone, unwatch := s.members, s.unwatch
	s.over, s.members, s.unwatch = true, nil, nil
	s.mu.Unlock()
	for i := range gone {
		gone[i].release()
	}
	if unwatch != nil {
		unwatch()
	}
}

// Close is Over for a connection that is gone, and takes the session off all lists.
func (s *Session) Close() {
	s.Over()
	s.server.open.Remove(s)
	registry := s.server.parts.Registry
	if registry == nil {
		return
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if s.unlisted = true; s.listed {
		registry.Remove(s.id)
	}
}

// ID is the socket's, as clients and operators know it.
func (s *Session) ID() string { return s.id }

// Actor returns who the client is.
func (s *Session) Actor() domain.Actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor
}

// IsOver reports whether [Session.Over] was called.
func (s *Session) IsOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// In reports whether the client is in the room of a system.
func (s *Session) In(system domain.SystemID) bool {
	_, in := s.member(system)
	return in
}

// Passed returns, for each room of the client, the place up to which it was sent
// everything. It leaves out rooms of which the client does not know yet, and those that
// it is about to leave.
func (s *Session) Passed() map[domain.SystemID]domain.Cursor {
	s.mu.Lock()
	members := slices.Clone(s.members)
	s.mu.Unlock()
	passed := make(map[domain.SystemID]domain.Cursor, len(members))
	for _, m := range members {
		if !m.entering && m.dismissed == nil {
			passed[m.system] = m.cursor.Passed()
		}
	}
	return passed
}

// Beat calls f with what Passed returns, under the session's order: what f queues is
// right where the client reads it, between the notices of joins and departures. The face
// may call it from Tick.
func (s *Session) Beat(f func(map[domain.SystemID]domain.Cursor)) {
	s.inOrder(func() { f(s.Passed()) })
}

// Describe returns the socket as it is listed.
func (s *Session) Describe() domain.Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	systems := make([]domain.SystemID, 0, len(s.members))
	for i := range s.members {
		if s.members[i].dismissed == nil {
			systems = append(systems, s.members[i].system)
		}
	}
	slices.Sort(systems)
	return domain.Socket{
		SocketID: s.id, Face: s.server.config.Face, Subject: s.actor.Subject, Role: s.actor.Role, Systems: systems, Remote: s.remote,
		ConnectedAt: s.since.UTC(),
	}
}

// publish puts the socket on the list of all sockets, or changes what is there. One call
// at a time, so that the list ends with the last state.
func (s *Session) publish() {
	registry := s.server.parts.Registry
	if registry == nil {
		return
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if !s.unlisted {
		s.listed = true
		registry.Put(s.Describe())
	}
}

// Frame counts a frame or an event that the client sent.
func (s *Session) Frame(now time.Time) error {
	return s.budget.Frame(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home)
}

// Control counts what the client sent that carries no request: see [limit.Budget.Control].
func (s *Session) Control(now time.Time) (answer bool, err error) {
	return s.budget.Control(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home)
}

// Refused counts a refusal for sending too much, and reports whether the client may
// stay.
func (s *Session) Refused(now time.Time) (stays bool) {
	return s.budget.Refused(now, &s.server.config.Rates)
}

// home is the system that a client's frames are counted for, if there is one.
func (s *Session) home() (domain.SystemID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.members) > 0:
		return s.members[0].system, true
	case len(s.actor.Systems) > 0:
		return s.actor.Systems[0], true
	}
	return "", false
}

// Due has the clock look at the session at a time, if it would not do so before that.
func (s *Session) Due(at time.Time) {
	for next := at.UnixNano(); ; {
		if due := s.due.Load(); due <= next || s.due.CompareAndSwap(due, next) {
			return
		}
	}
}

// tick looks at the times that the session has to keep.
func (s *Session) tick(now time.Time) {
	s.due.Store(math.MaxInt64) // before anything is looked at: what changes behind it brings it forward again
	s.expire(now)
	s.schedule(s.face.Tick(now))
}

// expire ends a session whose token has expired, or which has joined nothing in time.
func (s *Session) expire(now time.Time) {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	over, expires, first := s.over, s.actor.ExpiresAt, s.joinBy()
	s.mu.Unlock()
	switch {
	case over:
	case !expires.IsZero() && !now.Before(expires):
		s.face.End(CodeTokenExpired)
	case !first.IsZero() && !now.Before(first):
		s.face.End(CodeNoJoin)
	}
}

// joinBy is when the client has to have joined; zero for never. The caller holds mu.
func (s *Session) joinBy() time.Time {
	if within := s.server.config.JoinWithin; within > 0 && !s.joined {
		return s.since.Add(within)
	}
	return time.Time{}
}

// schedule has the clock look when the face wants it to, and when the session does.
func (s *Session) schedule(next time.Time) {
	s.mu.Lock()
	times := [...]time.Time{next, s.actor.ExpiresAt, s.joinBy()}
	if s.over {
		times = [...]time.Time{next, {}, {}}
	}
	s.mu.Unlock()
	for _, at := range times {
		if !at.IsZero() {
			s.Due(at)
		}
	}
}
