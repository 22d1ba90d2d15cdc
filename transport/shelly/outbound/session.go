package outbound

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/shelly"
)

// session is one socket of one device. Melody's reading goroutine passes frames on;
// everything else happens in run.
type session struct {
	server     *Server
	id         string
	credential Credential
	remote     string
	ws         *melody.Session // set once connected
	began      time.Time

	inbox     chan []byte           // frames: decoding them here would grow the stack of the reading goroutine too
	switches  chan *order           // commands for the device
	corrected chan []*domain.Device // rows of it, after its energy was corrected

	ctx    context.Context // for what run does; ends a while after the socket is gone
	cancel context.CancelFunc
	gone   chan struct{} // closed when the socket is gone, and nothing more comes from it
	ended  chan struct{} // closed when run has returned

	claimed  atomic.Value // domain.DeviceID: what the device calls itself, let in or not
	messages window       // of the reading goroutine
	heard    time.Time    // of the same: when the heartbeats were told last

	mu      sync.Mutex
	base    domain.DeviceID    // the name that the device gives itself; "" before its first frame
	watched []shelly.DeviceRef // channels that heartbeats know of
	within  time.Duration      // how long those count as alive after they were heard
	closing bool               // by us: what still comes does not count
	broken  bool
	fate    fate
	faulty  bool // it was closed for what the device did

	actor // of run alone
}

func newSession(s *Server, c Credential, remote string) *session {
	one := &session{
		server: s, id: newSessionID(), credential: c, remote: remote, began: time.Now(),
		inbox: make(chan []byte, s.config.ReadAhead), switches: make(chan *order, s.config.MaxPending), corrected: make(chan []*domain.Device, 4),
		gone: make(chan struct{}), ended: make(chan struct{}),
	}
	one.ctx, one.cancel = context.WithCancel(s.ctx)
	return one
}

// ref names the device. The server's lock may be held.
func (s *session) ref() shelly.DeviceRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	return shelly.DeviceRef{System: s.credential.System, Device: s.base}
}

// connected runs before Melody reads and writes.
func (s *session) connected(ws *melody.Session) {
	ws.Request = nil // Melody needs it no more, and the key is in it
	s.ws = ws
	handoff.OnPing(ws.WebsocketConnection(), s.ping)
	s.server.sockets.Add(1)
	rule, f := s.server.add(s)
	s.server.open.Go(func() {
		if !isolate.Do(s.server.parts.Logger, where, s.run) {
			s.cut() // run has closed ended, so nothing waits for it
		}
	})
	if rule != nil {
		s.end(*rule, f)
	}
}

// receive runs in the reading goroutine. It waits while run is behind: then the
// socket is read no further.
func (s *session) receive(message []byte) {
	s.server.frames.Add(1)
	handoff.Whole(s.ws.WebsocketConnection())
	if s.messages.add(time.Now(), 1) > s.server.config.MaxMessages {
		s.endFor("flood", closeFlood, fmt.Sprintf("it sent over %d messages in a minute", s.server.config.MaxMessages))
		return
	}
	s.noteHeard(time.Now())
	select {
	case s.inbox <- message:
		return
	default:
	}
	s.waitToPass(message)
	// Pongs that came meanwhile were not read: the device has its whole time again.
	_ = s.ws.WebsocketConnection().SetReadDeadline(time.Now().Add(s.server.pongWait()))
}

// waitToPass waits until run takes a frame. The device is not read meanwhile, so
// nobody can say that it is silent.
func (s *session) waitToPass(message []byte) {
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

// pong counts as a message: we ask for few.
func (s *session) pong() { s.ping() }

// ping counts as a message too, and reports whether the device gets an answer.
func (s *session) ping() (answer bool) {
	now := time.Now()
	if s.messages.add(now, 1) > s.server.config.MaxMessages {
		s.endFor("flood", closeFlood, fmt.Sprintf("it sent over %d pings and messages in a minute", s.server.config.MaxMessages))
		return false
	}
	s.noteHeard(now)
	return true
}

// heardEvery bounds how often the heartbeats are told.
const heardEvery = time.Second

// noteHeard says that the device was heard. It runs in the reading goroutine,
// because run may be waiting for the log.
func (s *session) noteHeard(now time.Time) {
	if now.Sub(s.heard) >= heardEvery {
		s.heard = now
		s.alive()
	}
}

// broke runs when reading or writing failed. A read that timed out means that two
// pings were not answered.
func (s *session) broke(err error) {
	if errors.Is(err, melody.ErrMessageBufferFull) {
		s.cut() // Melody's own Close would come back here, for ever
		return
	}
	if errors.Is(err, websocket.ErrReadLimit) {
		s.refused("too-large", fmt.Sprintf("a frame has over %d bytes", s.server.config.MaxFrame))
	}
	var timeout net.Error
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.As(err, &timeout) && timeout.Timeout() && !s.closing && !s.broken {
		s.fate = fateDead
	}
	s.broken = true
}

// lastWord is how long a session may take to append what its device said before
// it went. A newer session of the device, on another process, must not be
// overtaken by it.
const lastWord = 5 * time.Second

// disconnected runs when the socket is gone.
func (s *session) disconnected() {
	s.server.sockets.Add(-1)
	time.AfterFunc(lastWord, s.cancel)
	close(s.gone)
}

// end closes the socket, and reports whether it was not being closed already.
func (s *session) end(rule closeRule, f fate) bool {
	if !s.beginEnd(rule, f) {
		return false
	}
	s.sendClose(rule)
	return true
}

// beginEnd is the first half of end: from now on nothing is read, and nobody else
// closes the socket. It reports whether it was not being closed already.
func (s *session) beginEnd(rule closeRule, f fate) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.broken {
		return false
	}
	s.closing, s.fate, s.faulty = true, f, rule.code == closeFlood.code
	if f == fateForget {
		for _, ref := range s.watched {
			s.server.parts.Heartbeats.Forget(ref, s.id)
		}
	}
	return true
}

// sendClose is the second half of end: it tells the device.
func (s *session) sendClose(rule closeRule) {
	_ = s.ws.CloseWithMsg(melody.FormatCloseMessage(rule.code, rule.reason)) // fails when it is closed
}

func (s *session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *session) cut() { _ = s.ws.WebsocketConnection().Close() }

// watch tells the heartbeats of channels that are new.
func (s *session) watch(channels []domain.DeviceID, offline map[domain.DeviceID]bool, within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.within = within
	for _, id := range channels {
		ref := shelly.DeviceRef{System: s.credential.System, Device: id}
		if slices.Contains(s.watched, ref) {
			continue
		}
		s.watched = append(s.watched, ref)
		s.server.parts.Heartbeats.Open(ref, s.id, within)
		if offline[id] {
			// The board may have forgotten what the log says.
			s.server.parts.Heartbeats.Report(ref, true)
		}
	}
}

// alive says that the channels live.
func (s *session) alive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return // a word more would undo what was said of the end
	}
	for _, ref := range s.watched {
		s.server.parts.Heartbeats.Alive(ref, s.id, s.within)
	}
}

// bury says what becomes of the device and returns the session's fate.
func (s *session) bury(period time.Duration) fate {
	s.mu.Lock()
	s.closing = true
	f, watched := s.fate, s.watched
	s.mu.Unlock()
	c := &s.server.config
	for _, ref := range watched {
		switch f {
		case fateForget, fateReplaced:
		case fateRestart:
			s.server.parts.Heartbeats.Close(ref, s.id, max(c.SilentAfter, 2*period), domain.ReasonSocketClosed)
		case fateDead:
			s.server.parts.Heartbeats.Close(ref, s.id, 2*period, domain.ReasonHeartbeatMissed)
		default:
			reason := domain.ReasonSocketClosed
			if period > 0 {
				reason = domain.ReasonHeartbeatMissed // it closes whenever it goes to sleep
			}
			s.server.parts.Heartbeats.Close(ref, s.id, max(c.CloseGrace, 2*period), reason)
		}
	}
	return f
}
