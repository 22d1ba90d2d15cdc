package outbound

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
)

// connected registers the session and starts run. Melody calls it before it reads and writes.
func (s *session) connected(ws *melody.Session) {
	ws.Request = nil // Melody no longer needs it, and the key is in it
	s.ws = ws
	handoff.OnPing(ws.WebsocketConnection(), s.ping)
	s.server.sockets.Add(1)
	frame, why := s.server.add(s)
	s.server.open.Go(func() {
		if !isolate.Do(s.server.parts.Logger, where, s.run) {
			s.cut() // run has closed ended, so nobody waits for it
		}
	})
	if frame != nil {
		s.end(*frame, why)
	}
}

// receive handles a message in the reading goroutine. It waits while run is behind, so that
// Melody reads no further.
func (s *session) receive(message []byte) {
	s.server.frames.Add(1)
	handoff.FrameRead(s.ws.WebsocketConnection())
	if s.messages.add(time.Now(), 1) > s.server.config.MaxMessages {
		s.refuseFor("flood", closeFlood, fmt.Sprintf("it sent over %d messages in a minute", s.server.config.MaxMessages))
		return
	}
	s.noteHeard(time.Now())
	select {
	case s.inbox <- message:
		return
	default:
	}
	s.passOn(message)
	// Nobody read pongs during the wait, so the device gets its full time again.
	_ = s.ws.WebsocketConnection().SetReadDeadline(time.Now().Add(s.server.pongWait()))
}

// passOn waits until run takes a frame. Nobody reads the socket during the wait, so the device
// must not count as silent.
func (s *session) passOn(message []byte) {
	ticker := time.NewTicker(heardEvery)
	defer ticker.Stop()
	for {
		select {
		case s.inbox <- message:
			return
		case <-s.ended:
			return
		case now := <-ticker.C:
			s.noteHeard(now)
		}
	}
}

// pong counts as a message, because we send few pings.
func (s *session) pong() { s.ping() }

// ping counts as a message, and reports whether to answer it.
func (s *session) ping() (answer bool) {
	now := time.Now()
	if s.messages.add(now, 1) > s.server.config.MaxMessages {
		s.refuseFor("flood", closeFlood, fmt.Sprintf("it sent over %d pings and messages in a minute", s.server.config.MaxMessages))
		return false
	}
	s.noteHeard(now)
	return true
}

// heardEvery is the shortest time between calls of the heartbeats.
const heardEvery = time.Second

// noteHeard tells the heartbeats that the device lives. It runs in the reading goroutine,
// because run may be waiting for the log.
func (s *session) noteHeard(now time.Time) {
	if now.Sub(s.heard) >= heardEvery {
		s.heard = now
		s.alive()
	}
}

// onError handles an error of reading or writing. A read timeout means that the device has
// answered none of two pings.
func (s *session) onError(err error) {
	if errors.Is(err, melody.ErrMessageBufferFull) {
		s.cut() // Melody's own Close would call this again without end
		return
	}
	if errors.Is(err, websocket.ErrReadLimit) {
		s.refused("too-large", fmt.Sprintf("a frame has over %d bytes", s.server.config.MaxFrame))
	}
	var timeout net.Error
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.As(err, &timeout) && timeout.Timeout() && !s.closing && !s.broken {
		s.reason = endTimedOut
	}
	s.broken = true
}

// disconnected handles the end of the socket.
func (s *session) disconnected() {
	s.server.sockets.Add(-1)
	time.AfterFunc(lastWord, s.cancel)
	close(s.gone)
}

// lastWord is how long a session may append its device's last updates after the socket is
// gone. They must not overtake a newer session of the device in another process.
const lastWord = 5 * time.Second

func (s *session) cut() { _ = s.ws.WebsocketConnection().Close() }
