package ws

import (
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/rooms"
)

var handlers = map[string]func(*socket, *request) error{
	eventJoinSystem:   (*socket).joinSystem,
	eventLeaveSystem:  (*socket).leaveSystem,
	eventJoinAdmin:    (*socket).joinAdmin,
	eventLeaveAdmin:   (*socket).leaveAdmin,
	eventAuthenticate: (*socket).authenticate,
	eventPing:         (*socket).ping,
}

// receiveInGoroutine handles a frame in a new goroutine and waits for it. A join needs a
// stack of 8 KiB, and a goroutine's stack does not shrink while it sits in a read; this
// saves 4 KiB per socket.
func (s *socket) receiveInGoroutine(message []byte) {
	handoff.FrameRead(s.conn.WebsocketConnection())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.server.recoverPanic(s.conn)
		s.receive(message)
	}()
	<-done
}

// receive handles one frame of the client at a time.
func (s *socket) receive(message []byte) {
	now := time.Now()
	// A client that sends is alive, even if it has not answered a ping.
	_ = s.conn.WebsocketConnection().SetReadDeadline(now.Add(s.server.config.PongWait))
	if s.isEnding() {
		return
	}
	r, err := parseRequest(message)
	if err != nil {
		s.end(closeBadFrame, errorFrame(nil, domain.AsError(err)))
		return
	}
	if err := s.handle(&r, now); err != nil {
		s.fail(r, err)
	}
}

func (s *socket) handle(r *request, now time.Time) error {
	idErr := r.checkID() // first, because every answer repeats the id
	if err := s.session.Frame(now); err != nil {
		return err
	}
	if idErr != nil {
		return idErr
	}
	handler := handlers[r.Event]
	if handler == nil {
		return domain.Invalid(CodeUnknownEvent, fmt.Sprintf("clients cannot send an event %.80q", r.Event))
	}
	return handler(s, r)
}

// control counts a ping or a pong of WebSocket, and reports whether to answer it. It runs in
// the reading goroutine.
func (s *socket) control() (answer bool) {
	now := time.Now()
	_ = s.conn.WebsocketConnection().SetReadDeadline(now.Add(s.server.config.PongWait))
	if s.isEnding() {
		return false
	}
	answer, err := s.session.Control(now)
	if err != nil {
		s.end(closeFlood, errorFrame(nil, s.server.clients.Public(err, "count frames")))
	}
	return answer
}

// fail answers a request with an error. A client that keeps exceeding its limits is
// disconnected.
func (s *socket) fail(r request, err error) {
	e := s.server.clients.Public(err, r.Event)
	if e.Kind == domain.KindLimited {
		if !s.session.Refused(time.Now()) {
			s.end(closeFlood, errorFrame(r.ID, e))
			return
		}
	}
	s.answer(errorFrame(r.ID, e))
}

func (s *socket) answer(frame []byte) { s.enqueue(outgoing{bytes: frame}) }

func (s *socket) receiveBinary() {
	s.end(closeBadFrame, errorFrame(nil, domain.Invalid(CodeBadFrame, "frames are text, not binary")))
}

func (s *socket) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// reply returns a function that answers a request with an event. The session calls it when
// the request takes effect.
func reply[T any](s *socket, r *request, event string) func(T) {
	return func(data T) { s.answer(encodeFrame(event, r.ID, data)) }
}

// joinSystem lets the socket into a room. A second join of the same system replaces the
// first.
func (s *socket) joinSystem(r *request) error {
	var j rooms.JoinRequest
	if err := r.decode(joinMembers(&j)...); err != nil {
		return err
	}
	return s.session.Join(&j, reply[client.Joined](s, r, eventJoined))
}

func (s *socket) leaveSystem(r *request) error {
	var system string
	if err := r.decode(member{"systemId", &system}); err != nil {
		return err
	}
	return s.session.Leave(system, reply[client.Left](s, r, eventLeft))
}

// joinAdmin lets the socket into the room of the admin dashboard.
func (s *socket) joinAdmin(r *request) error {
	return s.session.JoinAdmin(func() { s.answer(encodeFrame(eventJoined, r.ID, inRoom{client.AdminRoom})) })
}

func (s *socket) leaveAdmin(r *request) error {
	return s.session.LeaveAdmin(func() { s.answer(encodeFrame(eventLeft, r.ID, client.Left{Room: client.AdminRoom})) })
}

// authenticate replaces the socket's token.
func (s *socket) authenticate(r *request) error {
	var token string
	if err := r.decode(member{"token", &token}); err != nil {
		return err
	}
	return s.session.Authenticate(token, reply[client.Authenticated](s, r, eventAuthenticated))
}

// ping lets clients measure the connection that cannot see WebSocket pings, such as
// browsers.
func (s *socket) ping(r *request) error {
	s.answer(encodeFrame(eventPong, r.ID, nil))
	return nil
}
