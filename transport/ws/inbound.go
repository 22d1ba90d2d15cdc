package ws

import (
	"fmt"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/handoff"
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
	handoff.Whole(s.session.WebsocketConnection())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer s.server.caught(s.session)
		s.receive(message)
	}()
	<-done
}

// receive takes a frame from the client, one after the other.
func (s *socket) receive(message []byte) {
	now := time.Now()
	// Who sends is alive, even if it does not answer pings yet.
	_ = s.session.WebsocketConnection().SetReadDeadline(now.Add(s.server.config.PongWait))
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
	if err := s.budget.Frame(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home); err != nil {
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
	_ = s.session.WebsocketConnection().SetReadDeadline(now.Add(s.server.config.PongWait))
	if s.isEnding() {
		return false
	}
	answer, err := s.budget.Control(s.server.ctx, now, &s.server.config.Rates, s.server.parts.Limiter, s.home)
	if err != nil {
		s.end(closeFlood, errorFrame(nil, s.server.shown(err, "count frames")))
	}
	return answer
}

// fail answers a request with an error. Who goes on causing refusals by sending
// too much is closed.
func (s *socket) fail(r request, err error) {
	e := s.server.shown(err, r.Event)
	if e.Kind == domain.KindLimited {
		if !s.budget.Refused(time.Now(), &s.server.config.Rates) {
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

// home is the system that a socket's frames are counted for, if there is one.
func (s *socket) home() (domain.SystemID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.rooms) > 0:
		return s.rooms[0].system, true
	case len(s.actor.Systems) > 0:
		return s.actor.Systems[0], true
	}
	return "", false
}
