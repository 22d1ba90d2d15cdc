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

// socket is one live client: the handler of a Socket.IO socket, and the face of its
// session.
//
// Its locks are taken in the order sending, mu, both under those of the client's
// session; see package client.
type socket struct {
	server *Server
	client *client.Session
	io     *sio.Socket
	ref    domain.SessionRef // what the client resumes with
	after  string            // as the client showed it; "" when it did not
	untold []client.Left     // rooms that the client was taken out of since it last heard of us

	// sending is held from the moment at which an event's offset is known until
	// the event is queued: an offset must not speak of what comes behind it.
	sending  sync.Mutex
	saved    Session       // as the store has it; one change at a time replaces it
	rooms    []*membership // that offsets speak of
	watching bool          // the metrics feed
	ended    bool          // nothing more is for this client, while its connection may go on

	measuring atomic.Bool // a frame of the metrics feed is on its way

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

// connectionStatus is the first that a client gets, as from the old system.
type connectionStatus struct {
	Connected bool   `json:"connected"`
	SocketID  string `json:"socketId"`
	Node      string `json:"node"`
}

// Connected implements [sio.Handler].
func (s *socket) Connected() {
	s.client.List()
	if s.client.IsEnded() {
		return // gone before it was here
	}
	if s.client.EnforceBan() { // since the handshake
		return
	}
	s.emit("connection-status", connectionStatus{true, s.io.ID(), s.server.config.Node})
	s.client.Start()
	for _, one := range s.untold {
		s.emit("left", one)
	}
	s.client.Begin(func(system domain.SystemID, room client.Room) {
		if slices.ContainsFunc(s.untold, func(one client.Left) bool { return one.SystemID == system }) {
			m := room.(*membership)
			m.Restarted(m.subscription.Progress()) // it joined again, and may not know that either
		}
	})
	s.untold = nil
	if s.copied().Admin {
		s.client.RestoreAdmin()
	}
}

// Disconnected implements [sio.Handler].
func (s *socket) Disconnected(reason string) {
	s.client.End() // first: a socket that is over is not listed any more
	s.mu.Lock()
	unsent := s.unsent
	s.over, s.unsent = true, nil
	s.mu.Unlock()
	for receipt := range unsent {
		receipt.state.Release()
	}
	if reason == sio.ReasonClient || reason == sio.ReasonServer {
		s.flush() // the connection goes on, with the client's next socket
	}
	if reason == sio.ReasonClient && s.hasJoined() { // the client says that it goes: few come back
		ctx, cancel := s.server.timeout()
		defer cancel()
		s.endSession(ctx)
	}
	s.client.Close()
}

// flush waits until an event that is on its way into the queue is there, and lets no
// more in.
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

// Apply implements [client.Face]. What is queued before has the offsets of the revision
// before, and an offset of the new one says that the client was told.
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

// forget takes a room out of the offsets. The caller holds sending.
func (s *socket) forget(system domain.SystemID) {
	s.rooms = slices.DeleteFunc(s.rooms, func(m *membership) bool { return m.system == system })
}

// ForceDisconnect implements [client.Face]. A client that may come back does so by itself. One
// that may not is disconnected by the server, after which unmodified clients stay away.
func (s *socket) ForceDisconnect(why client.ForcedDisconnect) {
	s.emit("forced-disconnect", why)
	s.client.End()
	if !why.Reconnect {
		s.io.Disconnect()
	}
	s.io.Session().Close(engineio.ReasonForced) // the session's order is held, so this must not wait in flush for a delivery
}

// End implements [client.Face]. The client comes back by itself, and with a fresh token
// if its auth is a function.
func (s *socket) Expire(code domain.Code) {
	s.emit("error", client.Problem(domain.Fail(domain.KindUnauthenticated, code, "the token has expired")))
	s.client.End()
	s.Abort()
}

// Cut implements [client.Face]: the client comes back after a pause.
func (s *socket) Abort() { s.io.Session().Close(engineio.ReasonForced) }

// Tick implements [client.Face]. Package engineio keeps the times of connections.
func (s *socket) Tick(time.Time) (next time.Time) { return time.Time{} }

// Watch implements [client.Face].
func (s *socket) Watch(on bool) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.watching = on
}

// Metrics implements [client.Face]. It leaves frames out while one is on its way.
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
	if s.watching && s.measuring.CompareAndSwap(false, true) {
		s.io.Session().Send(append(packet, ']'), measured{s})
	}
}

// measured is the receipt of a frame of the metrics feed.
type measured struct{ socket *socket }

// Sent implements [engineio.Receipt].
func (m measured) Sent() { m.socket.measuring.Store(false) }

// emit sends an event of this face's own.
func (s *socket) emit(name string, args ...any) {
	if err := s.io.Emit(name, args...); err != nil {
		s.server.parts.Logger.Error("socketio: encode", "event", name, "error", err)
	}
}

// rest is what the offsets of a room's events have behind their positions now, see
// [offset]. The caller holds sending.
func (s *socket) rest(of *membership) []byte {
	if s.saved.Revision <= 1 {
		return nil
	}
	const each = 48 // bytes that a room takes, nearly always
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
