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

// Session is the protocol-independent part of one client's socket. Its methods are safe
// for concurrent use, except those that handle a request: a client's requests come one
// after the other. The package comment describes its locks and the order that a client sees.
type Session struct {
	server *Server
	face   Face
	saver  Saver // nil if the face saves nothing
	id     string
	remote string
	since  time.Time

	budget limit.Budget
	due    atomic.Int64 // when the clock calls tick next, in Unix nanoseconds

	changing chan struct{} // a lock with a timeout: holds one value while a Saver's session changes
	order    sync.Mutex

	publishing sync.Mutex
	listed     bool // guarded by publishing, like unlisted
	unlisted   bool

	mu      sync.Mutex
	actor   domain.Actor
	members []member
	unwatch func() // cancels the metrics feed; nil if not in the admin room
	joined  bool   // the client has joined a room at least once
	ended   bool
}

// member is the membership of a session in the room of a system.
type member struct {
	system       domain.SystemID
	room         Room
	subscription *rooms.Subscription
	snapshot     *snapshot.Snapshot // the room's first frame, not sent yet
	entering     bool               // the client has no answer to its join yet
	// evicted is the notice for a client that has to leave the room. The room is silent by
	// the time it is set.
	evicted *Left
}

// release releases the resources of a member that was removed from the session.
func (m *member) release() {
	m.snapshot.Release()
	m.subscription.Leave()
}

// NewSession makes the session of a client. The id must be unique in the deployment. The
// face must call [Session.Close] at the end.
func (s *Server) NewSession(face Face, id, remote string, actor domain.Actor) *Session {
	session := &Session{server: s, face: face, id: id, remote: remote, since: time.Now(), actor: actor}
	session.due.Store(math.MaxInt64)
	if saver, ok := face.(Saver); ok {
		session.saver, session.changing = saver, make(chan struct{}, 1)
	}
	return session
}

// List lists the session, so that [Server.Disconnect] and the face's shutdown find it, and
// reports whether the face is shutting down. A session that has ended is not listed.
func (s *Session) List() (closing bool) {
	closing = s.server.open.Add(s)
	if s.IsEnded() {
		s.server.open.Remove(s)
	}
	return closing
}

// Start starts the session's deadlines, and publishes the socket to the registry.
func (s *Session) Start() {
	s.publish()
	s.schedule(s.face.Tick(time.Now()))
}

// End takes the session out of all rooms and off the metrics feed, for good. The face calls
// it when it stops sending events to the client. Calling it twice is fine.
func (s *Session) End() {
	s.mu.Lock()
	gone, unwatch := s.members, s.unwatch
	s.ended, s.members, s.unwatch = true, nil, nil
	s.mu.Unlock()
	for i := range gone {
		gone[i].release()
	}
	if unwatch != nil {
		unwatch()
	}
}

// Close ends the session of a closed connection, and removes it from all lists.
func (s *Session) Close() {
	s.End()
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

// ID returns the socket's id, as clients and operators see it.
func (s *Session) ID() string { return s.id }

// Actor returns the client's actor.
func (s *Session) Actor() domain.Actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor
}

// IsEnded reports whether [Session.End] was called.
func (s *Session) IsEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// In reports whether the client is in the room of a system.
func (s *Session) In(system domain.SystemID) bool {
	_, in := s.member(system)
	return in
}

// Progress returns, for each room of the client, the place up to which everything was
// sent. It omits rooms whose join is not answered yet, and rooms that the client is about
// to leave.
func (s *Session) Progress() map[domain.SystemID]domain.Cursor {
	s.mu.Lock()
	members := slices.Clone(s.members)
	s.mu.Unlock()
	passed := make(map[domain.SystemID]domain.Cursor, len(members))
	for _, m := range members {
		if !m.entering && m.evicted == nil {
			passed[m.system] = m.subscription.Progress()
		}
	}
	return passed
}

// Beat calls f with the result of Progress, under the session's order. So a frame that f
// queues is consistent with the notices of joins and departures around it. The face may
// call Beat from Tick.
func (s *Session) Beat(f func(map[domain.SystemID]domain.Cursor)) {
	s.inOrder(func() { f(s.Progress()) })
}

// Describe returns the socket as the registry lists it.
func (s *Session) Describe() domain.Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	systems := make([]domain.SystemID, 0, len(s.members))
	for i := range s.members {
		if s.members[i].evicted == nil {
			systems = append(systems, s.members[i].system)
		}
	}
	slices.Sort(systems)
	return domain.Socket{
		SocketID: s.id, Face: s.server.config.Face, Subject: s.actor.Subject, Role: s.actor.Role, Systems: systems, Remote: s.remote,
		ConnectedAt: s.since.UTC(),
	}
}

// publish writes the socket to the registry. The lock keeps concurrent calls in order, so
// that the registry ends with the last state.
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

// Frame counts a frame or event from the client towards its limits.
func (s *Session) Frame(now time.Time) error {
	return s.budget.Frame(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home)
}

// Control counts a frame that carries no request: see [limit.Budget.Control].
func (s *Session) Control(now time.Time) (answer bool, err error) {
	return s.budget.Control(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home)
}

// Refused counts a request that was refused by a rate limit, and reports whether the
// client may stay.
func (s *Session) Refused(now time.Time) (stays bool) {
	return s.budget.Refused(now, &s.server.config.Rates)
}

// home returns the system that a client's frames are counted for, if there is one.
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

// WakeBy makes the clock call tick at the given time or earlier.
func (s *Session) WakeBy(at time.Time) {
	for next := at.UnixNano(); ; {
		if due := s.due.Load(); due <= next || s.due.CompareAndSwap(due, next) {
			return
		}
	}
}

// tick handles the session's deadlines.
func (s *Session) tick(now time.Time) {
	s.due.Store(math.MaxInt64) // first, so that concurrent changes can set an earlier time again
	s.expire(now)
	s.schedule(s.face.Tick(now))
}

// expire ends a session whose token has expired, or whose client did not join in time.
func (s *Session) expire(now time.Time) {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	ended, expires, first := s.ended, s.actor.ExpiresAt, s.joinBy()
	s.mu.Unlock()
	switch {
	case ended:
	case !expires.IsZero() && !now.Before(expires):
		s.face.Expire(CodeTokenExpired)
	case !first.IsZero() && !now.Before(first):
		s.face.Expire(CodeNoJoin)
	}
}

// joinBy returns the deadline of the first join, or zero. The caller holds mu.
func (s *Session) joinBy() time.Time {
	if within := s.server.config.JoinWithin; within > 0 && !s.joined {
		return s.since.Add(within)
	}
	return time.Time{}
}

// schedule wakes the session at the face's next time and at its own deadlines.
func (s *Session) schedule(next time.Time) {
	s.mu.Lock()
	times := [...]time.Time{next, s.actor.ExpiresAt, s.joinBy()}
	if s.ended {
		times = [...]time.Time{next, {}, {}}
	}
	s.mu.Unlock()
	for _, at := range times {
		if !at.IsZero() {
			s.WakeBy(at)
		}
	}
}
