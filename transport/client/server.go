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

// Metrics feeds the admin dashboard.
type Metrics interface {
	// Subscribe calls fn with a whole frame now and again, until cancel is called. fn
	// does not block and keeps the frame. It may run once more while cancel is called,
	// and cancel does not wait for it.
	Subscribe(fn func(frame []byte)) (cancel func())
}

// Registry is told of the sockets of a face. Its methods must not block. Calls
// for one socket come in order, the last is Remove.
type Registry interface {
	Put(domain.Socket) // a new socket, or a change of one
	Remove(socketID string)
}

// Bans tells which clients are banned. It answers at once and is safe for concurrent
// use.
//
// A face checks it after it has registered a socket, or the room or the name that a
// socket takes, where its Disconnect finds it: bans are raised before sockets are
// dropped, so a concurrent socket and ban always see each other. An additional check
// before that saves the work.
type Bans interface {
	// Check reports whether the actor is kept out of the system or of the whole
	// platform; of the platform alone when system is empty.
	Check(actor domain.Actor, system domain.SystemID) (domain.Ban, bool)
}

// Parts are what sessions work with. Limiter, Registry, Metrics and Bans may be nil:
// then there is no limit across sockets, no list of sockets, no admin dashboard, and
// nobody is banned.
type Parts struct {
	Rooms         *rooms.Hub
	Authenticator auth.Authenticator
	Limiter       limit.Limiter
	Registry      Registry
	Metrics       Metrics
	Bans          Bans
	Logger        *slog.Logger
}

// Config holds the names and bounds of a face. Its fields have no defaults: a face has
// its own.
type Config struct {
	Face          string // its name in lists of sockets and among panics: ws, sse, …
	MaxRooms      int    // systems that a socket may have joined
	MaxRoomsStaff int    // the same for staff
	OneRoom       bool   // a socket is its room: a command that takes it out of that throws it out
	OneSubject    bool   // a renewed token has to be the same subject's

	JoinWithin  time.Duration // for the first join; zero: for ever
	JoinTimeout time.Duration // for a join or another change of a session, saving included
	Tick        time.Duration // how exact times are kept
	Rates       limit.Rates   // of one socket

	// Position reads the place that a join begins behind; nil reads a position.
	Position func(text string, system domain.SystemID) (domain.Position, error)
	Encoding rooms.Encoding // of events; nil is JSON
}

// Server holds the sessions of a face. It is safe for concurrent use.
type Server struct {
	config Config
	parts  Parts
	open   handoff.Set[*Session]

	ctx     context.Context // ends when the face shuts down
	cancel  context.CancelFunc
	ticking *handoff.Ticking

	dismissing handoff.Open  // sessions that a command takes out of a room
	saving     chan struct{} // one for each of those that saves it
}

// savedAtOnce is how many sessions save at a time that a command took them out of a
// room.
const savedAtOnce = 32

// NewServer makes a Server, whose clock runs until [Server.Shutdown].
func NewServer(config Config, parts Parts) (*Server, error) {
	if parts.Rooms == nil || parts.Logger == nil {
		return nil, errors.New(config.Face + ": rooms and a logger are needed")
	}
	if config.Position == nil {
		config.Position = func(text string, _ domain.SystemID) (domain.Position, error) { return domain.ParsePosition(text) }
	}
	s := &Server{config: config, parts: parts, saving: make(chan struct{}, savedAtOnce)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ticking = handoff.Tick(handoff.Clock[*Session]{
		Every: config.Tick, Due: s.due, Look: (*Session).tick, Broken: func(one *Session) { one.face.Cut() },
		Where: config.Face, Logger: parts.Logger,
	})
	return s, nil
}

// Open counts what the face has open: from before a handshake until the connection is
// gone.
func (s *Server) Open() *handoff.Open { return &s.open.Open }

// Context ends when the face shuts down.
func (s *Server) Context() context.Context { return s.ctx }

// Each calls f for each session that is listed.
func (s *Server) Each(f func(Face)) {
	for _, one := range s.open.All() {
		f(one.face)
	}
}

// Len is how many sessions are listed.
func (s *Server) Len() int { return s.open.Len() }

// Sockets describes the sockets that are open.
func (s *Server) Sockets() []domain.Socket {
	var list []domain.Socket
	for _, one := range s.open.All() {
		if !one.IsOver() {
			list = append(list, one.Describe())
		}
	}
	return list
}

// Disconnect throws the sockets out that match: their clients are told why. Those that
// live on without the one room leave it alone, and are told that. It returns how many
// there were, without waiting for them.
func (s *Server) Disconnect(match func(domain.Socket) bool, why ForcedDisconnect) int {
	n := 0
	for _, one := range s.open.All() {
		about := one.Describe()
		if !match(about) {
			continue
		}
		s.guard(one, func() {
			drop := func() bool { return one.throwOut(why) }
			if about.LivesWithout(why.Room) && !s.config.OneRoom {
				drop = func() bool { return one.dismiss(why.Room, dismissal(why.Reason)) }
			}
			if drop() {
				n++
			}
		})
	}
	return n
}

// guard runs f, which does something to a session that its client did not ask for. A
// panic cuts the client off, because the session may be left half changed.
func (s *Server) guard(one *Session, f func()) {
	if !isolate.Do(s.parts.Logger, s.config.Face, f) {
		isolate.Do(s.parts.Logger, s.config.Face, one.face.Cut)
	}
}

// Ban reports whether an actor is banned from a system's room, or from everything when
// system is empty.
func (s *Server) Ban(actor domain.Actor, system domain.SystemID) (domain.Ban, bool) {
	if s.parts.Bans == nil {
		return domain.Ban{}, false
	}
	return s.parts.Bans.Check(actor, system)
}

// dismissal is the reason that a socket is told that leaves a room by command.
func dismissal(reason string) string {
	return cmp.Or(reason, "taken out of the room by command")
}

// notForIt is the reason for which a client leaves a room that its new token is not for.
const notForIt = "the new token is not for it"

// Barred says why an actor may not be in a system's room, or returns "".
func (s *Server) Barred(actor domain.Actor, system domain.SystemID) string {
	if actor.Authorize(domain.ActionRead, system) != nil {
		return notForIt
	}
	if b, banned := s.Ban(actor, system); banned {
		return b.Refusal(time.Now()).Detail
	}
	return ""
}

// Stop ends what sessions wait for, and lets nobody in any more. The face ends the
// sessions next.
func (s *Server) Stop() {
	s.open.Close()
	s.cancel()
}

// Shutdown does Stop, ends each session by end, waits until all that is counted is
// gone, and ends the clock. When ctx ends before that it cuts the rest off, and returns
// ctx's error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context, end func(Face)) error {
	s.Stop()
	err := s.open.Shutdown(ctx, func(one *Session) { end(one.face) }, func(one *Session) { one.face.Cut() })
	s.dismissing.Close()
	_ = s.dismissing.Drain(ctx, func() {}) // what it waits for ends with s.ctx
	s.ticking.Stop()
	return err
}

// due returns the sessions that want to be looked at.
func (s *Server) due(now time.Time) []*Session {
	at := now.UnixNano()
	return s.open.Select(func(one *Session) bool { return one.due.Load() <= at })
}

// behind runs f for a session in a goroutine of its own, a bounded number at a time. It
// does not run when the face shuts down, which ends the sessions.
func (s *Server) behind(one *Session, f func()) {
	if !s.dismissing.Enter() {
		return
	}
	go func() {
		defer s.dismissing.Leave()
		s.saving <- struct{}{}
		defer func() { <-s.saving }()
		s.guard(one, f)
	}()
}
