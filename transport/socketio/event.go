package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/sio"
)

// handlers are the events that clients send.
var handlers = map[string]func(*socket, *sio.Event) error{
	"join-system":           (*socket).joinSystem,
	"leave-system":          (*socket).leaveSystem,
	"join-admin-dashboard":  (*socket).joinAdmin,
	"leave-admin-dashboard": (*socket).leaveAdmin,
	"authenticate":          (*socket).authenticate,
	"ping":                  (*socket).ping,
}

// ok acknowledges what has no other answer, and failed what was refused.
type ok struct {
	OK bool `json:"ok"`
}

type failed struct {
	OK    bool           `json:"ok"`
	Error map[string]any `json:"error"`
}

// Event implements [sio.Handler].
func (s *socket) Event(e sio.Event) {
	if s.isOver() {
		return
	}
	err := s.handle(&e, time.Now())
	switch {
	case errors.Is(err, errTaken):
		s.io.Close(engineio.ReasonForced)
	case err != nil:
		s.fail(&e, err)
	}
}

func (s *socket) handle(e *sio.Event, now time.Time) error {
	if err := s.budget.Frame(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home); err != nil {
		return err
	}
	handler := handlers[e.Name]
	if handler == nil {
		return domain.Invalid(CodeUnknownEvent, fmt.Sprintf("there is no event %.80q for clients to send", e.Name))
	}
	if e.Name == "ping" {
		return handler(s, e) // changes nothing
	}
	return s.change(func() error { return handler(s, e) })
}

// Control implements [sio.Handler].
func (s *socket) Control() (answer, stays bool) {
	if s.isOver() {
		return false, true
	}
	answer, err := s.budget.Control(s.server.ctx, time.Now(), &s.server.config.Rates, s.server.parts.Limiter, s.home)
	if err != nil {
		s.emit("error", problem(s.server.public(err, "count packets")))
	}
	return answer, err == nil
}

// Refused implements [sio.Handler].
func (s *socket) Refused(err error) {
	s.emit("error", problem(domain.Invalid(CodeBinary, "no event takes binary data: send JSON").Because(err)))
}

// fail answers an event with an error: in its acknowledgement, or else as an event.
// Who goes on causing refusals by sending too much is closed.
func (s *socket) fail(e *sio.Event, err error) {
	shown := s.server.public(err, e.Name)
	if e.WantsAck() {
		s.acknowledge(e, failed{Error: problem(shown)})
	} else {
		s.emit("error", problem(shown))
	}
	if shown.Kind != domain.KindLimited {
		return
	}
	if !s.budget.Refused(time.Now(), &s.server.config.Rates) {
		s.io.Close(engineio.ReasonForced)
	}
}

func (s *socket) acknowledge(e *sio.Event, answer any) {
	if err := s.io.Ack(*e, answer); err != nil {
		s.server.parts.Logger.Error("socketio: encode", "answer to", e.Name, "error", err)
	}
}

// home is the system that a socket's events are counted for, if there is one.
func (s *socket) home() (domain.SystemID, bool) {
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

// ping is for clients that want to know how far away the server is.
func (s *socket) ping(e *sio.Event) error {
	if e.WantsAck() {
		s.acknowledge(e, ok{true})
	} else {
		s.emit("pong")
	}
	return nil
}

// authenticate replaces the socket's token. It takes the socket out of the rooms
// that the new token is not for, and puts the expiry off. What fails changes
// nothing.
func (s *socket) authenticate(e *sio.Event) error {
	var shown struct {
		Token string `json:"token"`
	}
	if err := readArgument(e, &shown.Token, &shown); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
	defer cancel()
	actor, err := s.server.parts.Authenticator.Verify(ctx, shown.Token)
	if err != nil {
		return err
	}
	if actor.Subject != s.identity().Subject {
		return domain.Fail(domain.KindForbidden, domain.CodeForbidden, "the token is somebody else's; connect anew with it")
	}
	if f, banned := s.server.ban(actor, ""); banned {
		s.throwOut(ForcedDisconnect{Reason: f.Reason, CommandID: f.CommandID})
		return nil
	}
	next, lost, err := s.become(actor)
	if err != nil {
		return err
	}
	s.expire()
	s.acknowledge(e, struct {
		OK        bool        `json:"ok"`
		Subject   string      `json:"subject"`
		Role      domain.Role `json:"role"`
		ExpiresAt time.Time   `json:"expiresAt"`
	}{true, actor.Subject, actor.Role, actor.ExpiresAt.UTC()})
	s.settle(next, lost...)
	for _, one := range lost {
		if one.Room == adminRoom {
			s.unwatchNow()
		}
	}
	s.publish()
	return nil
}

const notForIt = "the new token is not for it"

// become makes the socket the actor's, and saves and returns the session without the
// rooms that are not for it. Nothing more is sent of those.
func (s *socket) become(actor domain.Actor) (next Session, lost []left, err error) {
	s.mu.Lock()
	members, watches := slices.Clone(s.members), s.unwatch != nil
	s.mu.Unlock()
	next = s.copied()
	for _, m := range members {
		if why := s.server.barred(actor, m.system); why != "" {
			delete(next.Rooms, m.system)
			lost = append(lost, left{SystemID: m.system, Reason: why})
		}
	}
	if watches && actor.AuthorizeAnywhere(domain.ActionMonitor) != nil {
		next.Admin = false
		lost = append(lost, left{Room: adminRoom, Reason: notForIt})
	}
	if len(lost) > 0 {
		next.Turn++
		next.noteLeft(lost...)
		if err := s.store(&next); err != nil {
			return Session{}, nil, err
		}
	}
	s.mu.Lock()
	s.actor = actor
	for _, m := range s.members {
		if at := slices.IndexFunc(lost, func(one left) bool { return one.SystemID == m.system }); at >= 0 && m.dismissed == nil {
			m.dismissed = &lost[at]
		}
	}
	s.mu.Unlock()
	s.flush()
	return next, lost, nil
}

// adminRoom is the name of the room of the admin dashboard.
const adminRoom = "admin-dashboard"

// joinAdmin lets the socket into the room of the admin dashboard.
func (s *socket) joinAdmin(e *sio.Event) error {
	if err := s.identity().AuthorizeAnywhere(domain.ActionMonitor); err != nil {
		return err
	}
	if s.server.parts.Metrics == nil {
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this server has no admin dashboard")
	}
	if err := s.keepAdmin(true); err != nil {
		return err
	}
	s.watch()
	s.acknowledge(e, ok{true})
	return nil
}

// keepAdmin saves whether the socket is in the room of the admin dashboard.
func (s *socket) keepAdmin(in bool) error {
	next := s.copied()
	next.Admin = in
	if err := s.store(&next); err != nil {
		return err
	}
	s.settle(next)
	return nil
}

// watch begins to send the metrics feed, if there is one and that is not so
// already.
func (s *socket) watch() {
	feed := s.server.parts.Metrics
	if feed == nil || s.watches() {
		return
	}
	w := &watcher{socket: s}
	unwatch := feed.Subscribe(w.take)
	s.mu.Lock()
	over := s.over
	if !over {
		s.unwatch = unwatch
	}
	s.mu.Unlock()
	if over {
		unwatch()
	}
}

func (s *socket) watches() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unwatch != nil
}

// watcher passes the metrics feed on, and leaves frames out while one is on its
// way.
type watcher struct {
	socket *socket
	busy   atomic.Bool
}

func (w *watcher) take(frame []byte) {
	var envelope struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(frame, &envelope); err != nil || !w.busy.CompareAndSwap(false, true) {
		return
	}
	name, _ := domain.EncodeJSON(envelope.Event) // a string
	packet := append([]byte("42["), name...)
	packet = append(packet, ',')
	packet = append(packet, envelope.Data...)
	w.socket.io.Send(append(packet, ']'), w)
}

// Sent implements [engineio.Receipt].
func (w *watcher) Sent() { w.busy.Store(false) }

// leaveAdmin takes the socket out again.
func (s *socket) leaveAdmin(e *sio.Event) error {
	if !s.watches() {
		return domain.Fail(domain.KindNotFound, CodeNotJoined, "the admin dashboard is not joined")
	}
	if err := s.keepAdmin(false); err != nil {
		return err
	}
	s.unwatchNow()
	s.acknowledge(e, ok{true})
	return nil
}

func (s *socket) unwatchNow() {
	s.mu.Lock()
	unwatch := s.unwatch
	s.unwatch = nil
	s.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
}
