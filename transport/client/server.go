package client

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Metrics is the feed of the admin dashboard.
type Metrics interface {
	// Subscribe calls fn with a complete frame at intervals, until cancel is called. fn
	// does not block and may keep the frame. It may run once more while cancel runs, and
	// cancel does not wait for it.
	Subscribe(fn func(frame []byte)) (cancel func())
}

// Registry lists the sockets of a face. Its methods must not block. The calls for one
// socket come in order, and Remove is the last.
type Registry interface {
	Put(domain.Socket) // a new socket, or a change of one
	Remove(socketID string)
}

// Bans knows the banned clients. It answers without waiting and is safe for concurrent
// use.
//
// A face checks it after it has registered a socket, or a socket's new room or actor,
// where Disconnect finds it. Bans are raised before sockets are disconnected, so a
// concurrent socket and ban always see each other. An earlier, additional check saves
// work.
type Bans interface {
	// Check reports whether the actor is banned from the system or from the whole platform.
	// With an empty system, it checks the platform only.
	Check(actor domain.Actor, system domain.SystemID) (domain.Ban, bool)
}

// Parts are the dependencies of sessions. Limiter, Registry, Metrics and Bans may be nil:
// then there is no limit across sockets, no list of sockets, no admin dashboard, and no
// client is banned.
type Parts struct {
	Rooms         *rooms.Hub
	Authenticator auth.Authenticator
	Limiter       limit.Limiter
	Registry      Registry
	Metrics       Metrics
	Bans          Bans
	Logger        *slog.Logger
}

// Config holds the names and limits of a face. Its fields have no defaults, because each
// face has its own.
type Config struct {
	Face          string // the face's name in lists of sockets and in logs: ws, sse, …
	MaxRooms      int    // how many systems a socket may join
	MaxRoomsStaff int    // the same for staff
	OneRoom       bool   // a socket is always in one room, so an eviction from it disconnects the socket
	OneSubject    bool   // a renewed token must have the same subject

	JoinWithin  time.Duration // limit for the first join; zero means no limit
	JoinTimeout time.Duration // limit for a join or another change of a session, including the save
	Tick        time.Duration // the precision of deadlines
	Rates       limit.Rates   // of one socket

	// Position parses the place of a join; nil parses a position.
	Position func(text string, system domain.SystemID) (domain.Position, error)
	Encoding rooms.Encoding // of events; nil is JSON
}

// Server holds the sessions of a face. It is safe for concurrent use.
type Server struct {
	config Config
	parts  Parts
	open   handoff.Set[*Session]

	ctx    context.Context // ends when the face shuts down
	cancel context.CancelFunc

	evicting handoff.Group // evictions that run in the background
	saving   chan struct{} // limits their concurrent saves
}

// maxConcurrentSaves limits how many evictions save at the same time.
const maxConcurrentSaves = 32

// NewServer makes a Server. [Server.Run] has to run while it has sessions.
func NewServer(config Config, parts Parts) (*Server, error) {
	if parts.Rooms == nil || parts.Logger == nil {
		return nil, errors.New(config.Face + ": rooms and a logger are needed")
	}
	if config.Position == nil {
		config.Position = func(text string, _ domain.SystemID) (domain.Position, error) { return domain.ParsePosition(text) }
	}
	s := &Server{config: config, parts: parts, saving: make(chan struct{}, maxConcurrentSaves)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Run enforces the deadlines of sessions until ctx ends, and then returns nil. It has to
// run until [Server.Shutdown] has returned, because sessions that end have deadlines too.
func (s *Server) Run(ctx context.Context) error {
	clock := handoff.Clock[*Session]{
		Every: s.config.Tick, Due: s.due, Tick: (*Session).tick, Panicked: func(one *Session) { one.face.Abort() },
		Where: s.config.Face, Logger: s.parts.Logger,
	}
	return clock.Run(ctx)
}

// Open counts what the face has open, from before a handshake until the connection is
// gone.
func (s *Server) Open() *handoff.Group { return &s.open.Group }

// Context ends when the face shuts down.
func (s *Server) Context() context.Context { return s.ctx }

// Each calls f for each listed session.
func (s *Server) Each(f func(Face)) {
	for _, one := range s.open.All() {
		f(one.face)
	}
}

// Len returns the number of listed sessions.
func (s *Server) Len() int { return s.open.Len() }

// Sockets returns the open sockets.
func (s *Server) Sockets() []domain.Socket {
	var list []domain.Socket
	for _, one := range s.open.All() {
		if !one.IsEnded() {
			list = append(list, one.Describe())
		}
	}
	return list
}

// Disconnect disconnects all sockets that match, and tells their clients the reason. A
// socket that can continue without the reason's room only leaves that room. It returns
// the number of sockets without waiting for them.
func (s *Server) Disconnect(match func(domain.Socket) bool, why ForcedDisconnect) int {
	n := 0
	for _, one := range s.open.All() {
		about := one.Describe()
		if !match(about) {
			continue
		}
		s.guard(one, func() {
			drop := func() bool { return one.forceDisconnect(why) }
			if about.LivesWithout(why.Room) && !s.config.OneRoom {
				drop = func() bool { return one.evict(why.Room, evictionReason(why.Reason)) }
			}
			if drop() {
				n++
			}
		})
	}
	return n
}

// guard runs f, which changes a session without a request of its client. A panic aborts
// the connection, because the session may be in an inconsistent state.
func (s *Server) guard(one *Session, f func()) {
	if !isolate.Do(s.parts.Logger, s.config.Face, f) {
		isolate.Do(s.parts.Logger, s.config.Face, one.face.Abort)
	}
}

// Ban returns the ban of an actor from a system's room, or from the platform when system
// is empty.
func (s *Server) Ban(actor domain.Actor, system domain.SystemID) (domain.Ban, bool) {
	if s.parts.Bans == nil {
		return domain.Ban{}, false
	}
	return s.parts.Bans.Check(actor, system)
}

// evictionReason is the reason that a client gets when a command takes it out of a room.
func evictionReason(reason string) string {
	return cmp.Or(reason, "removed from the room by a command")
}

// reasonNewToken is the reason that a client gets when its new token does not allow a room.
const reasonNewToken = "the new token does not allow this room"

// DenialReason returns why an actor may not be in a system's room, or "".
func (s *Server) DenialReason(actor domain.Actor, system domain.SystemID) string {
	if actor.Authorize(domain.ActionRead, system) != nil {
		return reasonNewToken
	}
	if b, banned := s.Ban(actor, system); banned {
		return b.Refusal(time.Now()).Detail
	}
	return ""
}

// Stop refuses new sockets and cancels the waits of sessions. The face ends the sessions
// next.
func (s *Server) Stop() {
	s.open.Close()
	s.cancel()
}

// Shutdown calls Stop, ends each session with end, and waits until everything that Open
// counts is gone. If ctx ends first, it aborts the remaining connections and returns ctx's
// error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context, end func(Face)) error {
	s.Stop()
	err := s.open.Shutdown(ctx, func(one *Session) { end(one.face) }, func(one *Session) { one.face.Abort() })
	s.evicting.Close()
	_ = s.evicting.Drain(ctx, func() {}) // evictions wait only for s.ctx, which has ended
	return err
}

// due returns the sessions whose wake time has come.
func (s *Server) due(now time.Time) []*Session {
	at := now.UnixNano()
	return s.open.Select(func(one *Session) bool { return one.due.Load() <= at })
}

// goBounded runs f for a session in a new goroutine, a bounded number at a time. It does
// nothing during a shutdown, which ends the sessions.
func (s *Server) goBounded(one *Session, f func()) {
	if !s.evicting.Enter() {
		return
	}
	go func() {
		defer s.evicting.Leave()
		s.saving <- struct{}{}
		defer func() { <-s.saving }()
		s.guard(one, f)
	}()
}
