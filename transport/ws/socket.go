package ws

import (
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// socket is one live client: the face of its session.
type socket struct {
	server  *Server
	session *client.Session
	conn    *melody.Session // set once connected
	refused *domain.Error   // why the credential was refused; such a socket is only opened to tell the client

	mu       sync.Mutex
	outbound outbound
	watching bool // whether the metrics feed is on
	ending   bool
	endBy    time.Time // when the connection of an ending socket is aborted

	lastBeat    time.Time
	lastTraffic time.Time // of events; zero after a heartbeat
}

var _ client.Face = (*socket)(nil)

func newSocket(s *Server, remote string, actor domain.Actor) *socket {
	so := &socket{server: s, lastBeat: time.Now()}
	so.session = s.clients.NewSession(so, uuid.NewString(), remote, actor)
	return so
}

// connected runs before Melody reads or writes.
func (s *socket) connected(conn *melody.Session) {
	conn.Request = nil // Melody no longer needs it, and its headers would be most of a socket's memory
	s.conn = conn
	handoff.OnPing(conn.WebsocketConnection(), s.control)
	banned := false
	if s.refused == nil {
		_, banned = s.server.clients.Ban(s.session.Actor(), "")
	}
	status := connectionStatus{
		Connected: s.refused == nil && !banned, SocketID: s.session.ID(),
		Node: s.server.config.Node, Deployment: s.server.config.Deployment,
	}
	s.enqueue(outgoing{bytes: encodeFrame(eventConnectionStatus, nil, status)})
	closing := s.session.List() // from here on, other goroutines may end the socket
	switch {
	case s.refused != nil:
		s.end(closeFor(s.refused), errorFrame(nil, s.refused))
	case s.session.EnforceBan(): // including bans raised since the handshake
	case closing:
		s.end(closeRestart)
	default:
		s.session.Start()
	}
}

// disconnected runs in the reading goroutine after the connection is gone.
func (s *socket) disconnected() {
	s.mu.Lock()
	s.ending = true
	abandoned := s.outbound.abandon()
	s.mu.Unlock()
	for _, g := range abandoned {
		g.finish()
	}
	s.session.Close()
}

// end sends the last frames and closes the socket, unless it is already ending.
func (s *socket) end(rule CloseRule, frames ...[]byte) {
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return
	}
	s.ending = true
	s.endBy = time.Now().Add(s.server.config.CloseWait)
	s.session.WakeBy(s.endBy)
	s.outbound.keepAnswers()
	for _, frame := range frames {
		s.outbound.push(outgoing{bytes: frame})
	}
	s.outbound.push(outgoing{close: melody.FormatCloseMessage(rule.Code, rule.Reason)})
	next, ok := s.outbound.next()
	s.mu.Unlock()
	if ok {
		s.write(next)
	}
	s.session.End()
}

// Abort implements [client.Face].
func (s *socket) Abort() { _ = s.conn.WebsocketConnection().Close() }

// ForceDisconnect implements [client.Face].
func (s *socket) ForceDisconnect(why client.ForcedDisconnect) {
	s.end(closeForced, encodeFrame(eventForcedDisconnect, nil, why))
}

// End implements [client.Face].
func (s *socket) Expire(code domain.Code) {
	if code == client.CodeNoJoin {
		s.end(closeNoJoin, errorFrame(nil, domain.Invalid(code, "join a room within "+s.server.config.JoinWithin.String())))
		return
	}
	s.end(closeToken, errorFrame(nil, domain.Fail(domain.KindUnauthenticated, code,
		"the token has expired; authenticate with a fresh one before that")))
}

// Apply implements [client.Face].
func (s *socket) Apply(c *client.Change) {
	for _, gone := range c.Left {
		if gone.Reason != "" {
			s.answer(encodeFrame(eventLeft, nil, gone))
		}
	}
}

// Watch implements [client.Face].
func (s *socket) Watch(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watching = on; !on {
		s.outbound.filter(func(g *outgoing) bool { return g.kind != metrics })
	}
}

// Metrics implements [client.Face].
func (s *socket) Metrics(frame []byte) { s.enqueue(outgoing{bytes: frame, kind: metrics}) }

// Tick implements [client.Face]: it sends heartbeats, and aborts a connection that takes too
// long for its last frames.
func (s *socket) Tick(now time.Time) (next time.Time) {
	c := &s.server.config
	s.mu.Lock()
	if s.ending {
		endBy := s.endBy
		s.mu.Unlock()
		if !endBy.IsZero() && !now.Before(endBy) {
			s.Abort()
			return time.Time{}
		}
		return endBy
	}
	beat := now.Sub(s.lastBeat) >= c.HeartbeatEvery || !s.lastTraffic.IsZero() && now.Sub(s.lastTraffic) >= c.IdleAfter
	if beat {
		s.lastBeat, s.lastTraffic = now, time.Time{}
	}
	next = s.lastBeat.Add(c.HeartbeatEvery)
	if soon := s.lastTraffic.Add(c.IdleAfter); !s.lastTraffic.IsZero() && soon.Before(next) {
		next = soon
	}
	s.mu.Unlock()
	if beat {
		s.beat(now)
	}
	return next
}

// beat sends a heartbeat: for each room, a place up to which everything was sent to the
// client. A subscription counts a frame only after it was written, so a heartbeat never runs
// ahead of the events.
func (s *socket) beat(now time.Time) {
	s.session.Beat(func(passed map[domain.SystemID]domain.Cursor) {
		h := heartbeat{Time: domain.FormatTime(now), Rooms: passed}
		s.enqueue(outgoing{bytes: encodeFrame(eventHeartbeat, nil, h), kind: latestOnly})
	})
}

// membership is the membership of a socket in the room of a system.
type membership struct {
	socket       *socket
	system       domain.SystemID
	subscription *rooms.Subscription // set before the first frame
	left         bool                // guarded by the socket's lock
}

var _ client.Room = (*membership)(nil)

// NewRoom implements [client.Face].
func (s *socket) NewRoom(system domain.SystemID) client.Room {
	return &membership{socket: s, system: system}
}

// Enter implements [client.Room].
func (m *membership) Enter(subscription *rooms.Subscription, _ rooms.Joined) {
	m.subscription = subscription
}

// Begin implements [client.Room].
func (m *membership) Begin(state *snapshot.Snapshot) bool {
	m.socket.enqueue(outgoing{bytes: state.Frame(), done: state.Release, of: m})
	return true
}

// Silence implements [client.Room].
func (m *membership) Silence() {
	m.socket.mu.Lock()
	defer m.socket.mu.Unlock()
	m.left = true
	m.socket.outbound.drop()
}

// Panicked implements [rooms.PanicHandler].
func (m *membership) Panicked() { m.socket.Abort() }

// Deliver implements [rooms.Sink].
func (m *membership) Deliver(f rooms.Frame) { m.socket.enqueue(outgoing{bytes: f.Bytes, from: m}) }

// Restarted implements [rooms.Sink]. The client gets the same answer as for a join with a
// position that the log does not have.
func (m *membership) Restarted(from domain.Cursor) {
	m.socket.enqueue(outgoing{bytes: encodeFrame(eventJoined, nil, client.JoinedAt(m.system, from, false)), of: m})
}
