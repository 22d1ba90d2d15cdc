package socketio

import (
	"errors"
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
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

// ok acknowledges an event without another answer, and failed a refused event.
type ok struct {
	OK bool `json:"ok"`
}

type failed struct {
	OK    bool           `json:"ok"`
	Error map[string]any `json:"error"`
}

// Event implements [sio.Handler].
func (s *socket) Event(e sio.Event) {
	if s.client.IsEnded() {
		return
	}
	err := s.handle(&e, time.Now())
	switch {
	case errors.Is(err, errClaimed):
		s.Abort()
	case err != nil:
		s.fail(&e, err)
	}
}

func (s *socket) handle(e *sio.Event, now time.Time) error {
	if err := s.client.Frame(now); err != nil {
		return err
	}
	handler := handlers[e.Name]
	if handler == nil {
		return domain.Invalid(CodeUnknownEvent, fmt.Sprintf("clients cannot send an event %.80q", e.Name))
	}
	return handler(s, e)
}

// Control implements [sio.Handler].
func (s *socket) Control() (answer, stays bool) {
	if s.client.IsEnded() {
		return false, true
	}
	answer, err := s.client.Control(time.Now())
	if err != nil {
		s.emit("error", client.Problem(s.server.clients.Public(err, "count packets")))
	}
	return answer, err == nil
}

// Refused implements [sio.Handler].
func (s *socket) Refused(err error) {
	s.emit("error", client.Problem(domain.Invalid(CodeBinary, "no event accepts binary data; send JSON").WithCause(err)))
}

// fail answers an event with an error, in its acknowledgement or as an event. A client that
// keeps exceeding its limits is disconnected.
func (s *socket) fail(e *sio.Event, err error) {
	shown := s.server.clients.Public(err, e.Name)
	if e.WantsAck() {
		s.acknowledge(e, failed{Error: client.Problem(shown)})
	} else {
		s.emit("error", client.Problem(shown))
	}
	if shown.Kind == domain.KindLimited && !s.client.Refused(time.Now()) {
		s.io.Session().Close(engineio.ReasonForced)
	}
}

func (s *socket) acknowledge(e *sio.Event, answer any) {
	if err := s.io.Ack(*e, answer); err != nil {
		s.server.parts.Logger.Error("socketio: encode", "answer to", e.Name, "error", err)
	}
}

// ping lets clients measure the round trip.
func (s *socket) ping(e *sio.Event) error {
	if e.WantsAck() {
		s.acknowledge(e, ok{true})
	} else {
		s.emit("pong")
	}
	return nil
}

// joinSystem lets the socket into a room. A socket that is already in the room and requests
// nothing else keeps its place: applications join on every connect, even after the server
// has restored their rooms.
func (s *socket) joinSystem(e *sio.Event) error {
	var j rooms.JoinRequest
	if err := readArgument(e, &j.SystemID, &j); err != nil {
		return err
	}
	if s.after != "" && j.After == nil && !j.Snapshot && !s.client.In(domain.SystemID(j.SystemID)) {
		j.After = &s.after
	}
	return s.client.Join(&j, func(at client.Joined) {
		s.acknowledge(e, struct {
			OK bool `json:"ok"`
			client.Joined
		}{true, at})
	})
}

// leaveSystem takes the socket out of a room.
func (s *socket) leaveSystem(e *sio.Event) error {
	var name struct {
		SystemID string `json:"systemId"`
	}
	if err := readArgument(e, &name.SystemID, &name); err != nil {
		return err
	}
	return s.client.Leave(name.SystemID, func(client.Left) { s.acknowledge(e, ok{true}) })
}

// joinAdmin lets the socket into the room of the admin dashboard.
func (s *socket) joinAdmin(e *sio.Event) error {
	return s.client.JoinAdmin(func() { s.acknowledge(e, ok{true}) })
}

func (s *socket) leaveAdmin(e *sio.Event) error {
	return s.client.LeaveAdmin(func() { s.acknowledge(e, ok{true}) })
}

// authenticate replaces the socket's token.
func (s *socket) authenticate(e *sio.Event) error {
	var shown struct {
		Token string `json:"token"`
	}
	if err := readArgument(e, &shown.Token, &shown); err != nil {
		return err
	}
	return s.client.Authenticate(shown.Token, func(now client.Authenticated) {
		s.acknowledge(e, struct {
			OK bool `json:"ok"`
			client.Authenticated
		}{true, now})
	})
}
