package socketio

import (
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/sio"
)

// socket is one live client: the handler of a Socket.IO socket, and the face of its session.
//
// Its locks are taken in the order sending, mu, both under those of the client's
// session; see package client.
type socket struct {
	server     *Server
	client     *client.Session
	io         *sio.Socket
	ref        domain.SessionRef // the session that the client resumes
	after      string            // the place that the client sent at the handshake, or ""
	unnotified []client.Left     // rooms that the client had to leave while it was not connected

	// sending is held from the computation of an event's offset until the event is queued,
	// because an offset must not cover events that follow it.
	sending  sync.Mutex
	saved    Session       // the saved state; one change at a time replaces it
	rooms    []*membership // the rooms that offsets name
	watching bool          // the metrics feed
	ended    bool          // nothing more is sent to this client, although its connection may stay open

	metricsInFlight atomic.Bool // a frame of the metrics feed has not been sent yet

	mu     sync.Mutex
	over   bool
	unsent map[*sentSnapshot]struct{}
}

var (
	_ client.Face  = (*socket)(nil)
	_ client.Saver = (*socket)(nil)
)

func newSocket(s *Server, io *sio.Socket, actor domain.Actor, ref domain.SessionRef) *socket {
	so := &socket{server: s, io: io, ref: ref}
	so.client = s.clients.NewSession(so, io.ID(), io.Session().Remote(), actor)
	return so
}

// connectionStatus is the first event that a client gets, as from the old system.
type connectionStatus struct {
	Connected bool   `json:"connected"`
	SocketID  string `json:"socketId"`
	Node      string `json:"node"`
}

// Connected implements [sio.Handler].
func (s *socket) Connected() {
	s.client.List()
	if s.client.IsEnded() {
		return // the connection closed during the handshake
	}
	if s.client.EnforceBan() { // a ban raised since the handshake
		return
	}
	s.emit("connection-status", connectionStatus{true, s.io.ID(), s.server.config.Node})
	s.client.Start()
	for _, one := range s.unnotified {
		s.emit("left", one)
	}
	s.client.Begin(func(system domain.SystemID, room client.Room) {
		if slices.ContainsFunc(s.unnotified, func(one client.Left) bool { return one.SystemID == system }) {
			m := room.(*membership)
			m.Restarted(m.subscription.Progress()) // it has joined again since, and may not know that either
		}
	})
	s.unnotified = nil
	if s.cloneSession().Admin {
		s.client.RestoreAdmin()
	}
}

// Disconnected implements [sio.Handler].
func (s *socket) Disconnected(reason string) {
	s.client.End() // first, because an ended socket is not listed again
	s.mu.Lock()
	unsent := s.unsent
	s.over, s.unsent = true, nil
	s.mu.Unlock()
	for receipt := range unsent {
		receipt.state.Release()
	}
	if reason == sio.ReasonClient || reason == sio.ReasonServer {
		s.flush() // the connection stays open for the client's next socket
	}
	if reason == sio.ReasonClient && s.hasJoined() { // the client disconnected on purpose, and rarely resumes
		ctx, cancel := s.server.timeout()
		defer cancel()
		s.endSession(ctx)
	}
	s.client.Close()
}

// flush waits until an event that is being queued is in the queue, and allows no further
// ones.
func (s *socket) flush() {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.ended = true
}

func (s *socket) hasJoined() bool {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.saved.isWorthKeeping()
}

// NewRoom implements [client.Face].
func (s *socket) NewRoom(system domain.SystemID) client.Room {
	return &membership{socket: s, system: system}
}

// Apply implements [client.Face]. Frames that were queued before have offsets with the
// previous revision, so an offset with the new revision proves that the client was told of
// the change.
func (s *socket) Apply(c *client.Change) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if next, changed := c.Saved.(*Session); changed {
		s.saved = *next
	}
	if c.Entered != nil {
		s.forget(c.Entered.System)
		s.rooms = append(s.rooms, c.Entered.Room.(*membership))
	}
	for _, gone := range c.Left {
		s.forget(gone.SystemID)
		if gone.Reason != "" {
			s.emit("left", gone)
		}
	}
}

// forget removes a room from the offsets. The caller holds sending.
func (s *socket) forget(system domain.SystemID) {
	s.rooms = slices.DeleteFunc(s.rooms, func(m *membership) bool { return m.system == system })
}

// ForceDisconnect implements [client.Face]. A client that may reconnect does so by itself.
// Otherwise the server disconnects the client's socket, after which unmodified clients do
// not reconnect.
func (s *socket) ForceDisconnect(why client.ForcedDisconnect) {
	s.emit("forced-disconnect", why)
	s.client.End()
	if !why.Reconnect {
		s.io.Disconnect()
	}
	s.io.Session().Close(engineio.ReasonForced) // the session's order is held, so this must not wait for a delivery as flush does
}

// Expire implements [client.Face]. The client reconnects by itself, with a fresh token if
// its auth option is a function.
func (s *socket) Expire(code domain.Code) {
	s.emit("error", client.Problem(domain.Fail(domain.KindUnauthenticated, code, "the token has expired")))
	s.client.End()
	s.Abort()
}

// Abort implements [client.Face]. The client reconnects after a pause.
func (s *socket) Abort() { s.io.Session().Close(engineio.ReasonForced) }

// Tick implements [client.Face]. It does nothing, because package engineio enforces the
// deadlines of connections.
func (s *socket) Tick(time.Time) (next time.Time) { return time.Time{} }

// Watch implements [client.Face].
func (s *socket) Watch(on bool) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.watching = on
}

// Metrics implements [client.Face]. It drops a frame while the previous one has not been
// sent.
func (s *socket) Metrics(frame []byte) {
	var envelope struct {
		Event string          `json:"event"`
		Data  json.RawMessage `json:"data"`
	}
	if json.Unmarshal(frame, &envelope) != nil {
		return
	}
	name, _ := domain.EncodeJSON(envelope.Event) // a string
	packet := append([]byte("42["), name...)
	packet = append(packet, ',')
	packet = append(packet, envelope.Data...)
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.watching && s.metricsInFlight.CompareAndSwap(false, true) {
		s.io.Session().Send(append(packet, ']'), measured{s})
	}
}

// measured is the receipt of a frame of the metrics feed.
type measured struct{ socket *socket }

// Sent implements [engineio.Receipt].
func (m measured) Sent() { m.socket.metricsInFlight.Store(false) }

// emit sends an event of this face.
func (s *socket) emit(name string, args ...any) {
	if err := s.io.Emit(name, args...); err != nil {
		s.server.parts.Logger.Error("socketio: encode", "event", name, "error", err)
	}
}

// offsetSuffix returns the part of the current offset that follows an event's position, see
// [offset]. The caller holds sending.
func (s *socket) offsetSuffix(of *membership) []byte {
	if s.saved.Revision <= 1 {
		return nil
	}
	const each = 48 // bytes per room in nearly all cases
	b := append(make([]byte, 0, each*len(s.rooms)), ';')
	b = strconv.AppendUint(b, s.saved.Revision, 10)
	for _, other := range s.rooms {
		if other != of {
			b = append(append(b, ';'), other.system...)
			b = append(append(b, '='), other.sent.String()...)
		}
	}
	return b
}
