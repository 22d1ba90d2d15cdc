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

// receiveApart handles a frame in a goroutine of its own and waits for it. A
// join needs a stack of 8 KiB, and a stack that has grown so far stays so while
// the reading goroutine sits in a read: this saves 4 KiB for each socket.
func (s *socket) receiveApart(message []byte) {
	handoff.FrameRead(s.conn.WebsocketConnection())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.server.caught(s.conn)
		s.receive(message)
	}()
	<-done
}

// receive takes a frame from the client, one after the other.
func (s *socket) receive(message []byte) {
	now := time.Now()
	// Who sends is alive, even if it does not answer pings yet.
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
	idErr := r.checkID() // first, because any answer repeats it
	if err := s.session.Frame(now); err != nil {
		return err
	}
	if idErr != nil {
		return idErr
	}
	handler := handlers[r.Event]
	if handler == nil {
		return domain.Invalid(CodeUnknownEvent, fmt.Sprintf("there is no event %.80q for clients to send", r.Event))
	}
	return handler(s, r)
}

// control counts a ping or a pong of WebSocket, and reports whether it is to be
// answered. It runs in the reading goroutine.
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

// fail answers a request with an error. Who goes on causing refusals by sending
// too much is closed.
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

// reply answers a request with an event. It is called when the request took effect.
func reply[T any](s *socket, r *request, event string) func(T) {
	return func(data T) { s.answer(encodeFrame(event, r.ID, data)) }
}

// joinSystem lets the socket into a room. Joining again replaces what was asked for the
// first time.
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

// ping is for clients that cannot see the pings of the protocol below, such as
// browsers.
func (s *socket) ping(r *request) error {
	s.answer(encodeFrame(eventPong, r.ID, nil))
	return nil
}
