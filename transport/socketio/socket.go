package socketio

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/sio"
)

// socket is one live client: the handler of a Socket.IO socket.
//
// Its locks are taken in the order sending, mu.
type socket struct {
	server *Server
	io     *sio.Socket
	ref    domain.SessionRef // what the client resumes with
	since  time.Time
	after  string // as the client showed it; "" when it did not

	budget limit.Budget

	// sending is held from the moment at which an event's offset is known until
	// the event is queued: an offset must not speak of what comes behind it.
	sending sync.Mutex
	// publishing is taken before mu.
	publishing sync.Mutex
	// changing holds one value while the session changes, see change. It is taken
	// before all locks, because the saving of the change is waited for.
	changing chan struct{}

	mu      sync.Mutex
	actor   domain.Actor
	session Session // as saved; what changes it has changing
	members []*membership
	unwatch func()      // ends the metrics; nil when not in the admin room
	expiry  *time.Timer // of the token
	unsent  map[*sentSnapshot]struct{}
	over    bool
	untold  []left // rooms that the client was taken out of since it last heard of us
}

// membership is a socket in the room of a system: the sink of a cursor, and the
// receipt of what it gets.
type membership struct {
	socket *socket
	system domain.SystemID
	cursor *rooms.Cursor

	// Guarded by the socket's mu.
	snapshot *snapshot.Snapshot // to be sent first
	sent     domain.Position    // of the last event that was queued, or where it joined; zero before its snapshot is
	left     bool
	// dismissed is what the client will be told when it is to leave the room: nothing
	// more is sent of it, and offsets go on to name the room until the session has lost it.
	dismissed *left
	held      bool         // nothing is sent until release
	next      *rooms.Frame // which came while it was held
}

func newSocket(s *Server, io *sio.Socket, actor domain.Actor, ref domain.SessionRef) *socket {
	return &socket{server: s, io: io, ref: ref, since: time.Now(), actor: actor, changing: make(chan struct{}, 1)}
}

// connectionStatus is the first that a client gets, as from the old system.
type connectionStatus struct {
	Connected bool   `json:"connected"`
	SocketID  string `json:"socketId"`
	Node      string `json:"node"`
}

// Connected implements [sio.Handler].
func (s *socket) Connected() {
	if !s.server.add(s) {
		return // gone before it was here
	}
	if f, banned := s.server.ban(s.identity(), ""); banned { // raised since the handshake
		s.throwOut(ForcedDisconnect{Reason: f.Reason, CommandID: f.CommandID})
		return
	}
	s.emit("connection-status", connectionStatus{true, s.io.ID(), s.server.config.Node})
	s.expire()
	s.publish()
	s.mu.Lock()
	members, admin, untold := slices.Clone(s.members), s.session.Admin, s.untold
	s.untold = nil
	s.mu.Unlock()
	for _, one := range untold {
		s.emit("left", one)
	}
	for _, m := range members {
		if slices.ContainsFunc(untold, func(one left) bool { return one.SystemID == m.system }) {
			m.Restarted(m.cursor.Passed()) // it joined again, and may not know that either
		}
		if f, banned := s.server.ban(s.identity(), m.system); banned { // since it was asked before
			s.dismiss(m.system, f.Refusal().Detail)
			continue
		}
		m.begin()
	}
	if admin && s.identity().AuthorizeAnywhere(domain.ActionMonitor) == nil {
		s.watch()
	}
}

// Disconnected implements [sio.Handler].
func (s *socket) Disconnected(reason string) {
	s.leaveAll() // first: who is over is not listed any more
	if reason == sio.ReasonClient || reason == sio.ReasonServer {
		s.flush() // the connection goes on, with the client's next socket
	}
	if reason == sio.ReasonClient && s.hasJoined() { // the client says that it goes: few come back
		ctx, cancel := context.WithTimeout(s.server.ctx, s.server.config.JoinTimeout)
		defer cancel()
		s.endSession(ctx)
	}
	s.server.remove(s)
	if registry := s.server.parts.Registry; registry != nil {
		registry.Remove(s.io.ID())
	}
}

// flush waits until an event that is on its way into the queue is there.
func (s *socket) flush() {
	s.sending.Lock()
	defer s.sending.Unlock()
}

// leaveAll takes the socket out of all rooms, for good.
func (s *socket) leaveAll() {
	s.mu.Lock()
	s.over = true
	gone, unwatch, expiry, unsent := s.members, s.unwatch, s.expiry, s.unsent
	s.members, s.unwatch, s.expiry, s.unsent = nil, nil, nil, nil
	for _, m := range gone {
		m.left = true
	}
	s.mu.Unlock()
	for _, m := range gone {
		m.cursor.Leave()
		m.takeSnapshot().Release()
	}
	for receipt := range unsent {
		receipt.state.Release()
	}
	if unwatch != nil {
		unwatch()
	}
	if expiry != nil {
		expiry.Stop()
	}
}

// publish puts the socket on the list of all sockets, or changes what is there.
func (s *socket) publish() {
	registry := s.server.parts.Registry
	if registry == nil {
		return
	}
	s.publishing.Lock() // so that the list ends with the last state
	defer s.publishing.Unlock()
	registry.Put(s.describe())
	if s.isOver() { // it may have been removed before it was put
		registry.Remove(s.io.ID())
	}
}

func (s *socket) describe() rooms.Socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	systems := make([]domain.SystemID, 0, len(s.members))
	for _, m := range s.members {
		if m.dismissed == nil {
			systems = append(systems, m.system)
		}
	}
	slices.Sort(systems)
	return rooms.Socket{
		SocketID: s.io.ID(), Face: "socketio", Subject: s.actor.Subject, Role: s.actor.Role, Systems: systems,
		Remote: s.io.Remote(), ConnectedAt: s.since.UTC(),
	}
}

// identity returns who the socket is.
func (s *socket) identity() domain.Actor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.actor
}

func (s *socket) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *socket) hasJoined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.session.isWorthKeeping()
}

// throwOut tells the client why, and ends the socket. It reports false for one
// that ended before.
func (s *socket) throwOut(why ForcedDisconnect) bool {
	if s.isOver() {
		return false
	}
	s.sending.Lock()
	s.mu.Lock()
	var gone []left // by a command before this one, which is being saved
	for _, m := range s.members {
		if m.dismissed != nil {
			gone = append(gone, *m.dismissed)
		}
	}
	s.mu.Unlock()
	members := s.takeOutAndTell(gone)
	s.sending.Unlock()
	end(members)
	s.emit("forced-disconnect", why)
	s.leaveAll()
	if !why.Reconnect {
		s.io.Disconnect()
	}
	s.io.Close(sio.ReasonServer)
	return true
}

// expire ends the socket when its token does. The client comes back by itself, and
// with a fresh token if its auth is a function.
func (s *socket) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	if s.actor.ExpiresAt.IsZero() || s.over {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(s.actor.ExpiresAt), func() {
		s.mu.Lock()
		meant := s.expiry == timer // else a new token came at the last moment
		s.mu.Unlock()
		if !meant {
			return
		}
		isolate.Do(s.server.parts.Logger, where, func() {
			s.emit("error", problem(domain.Fail(domain.KindUnauthenticated, CodeTokenExpired, "the token has expired")))
		})
		s.io.Close(engineio.ReasonForced)
	})
	s.expiry = timer
}

// emit sends an event of this face's own.
func (s *socket) emit(name string, args ...any) {
	if err := s.io.Emit(name, args...); err != nil {
		s.server.parts.Logger.Error("socketio: encode", "event", name, "error", err)
	}
}

// enter notes where the membership begins, before it is the socket's. A snapshot
// is still to come then: offsets of other rooms' events must not say that the
// client has it.
func (m *membership) enter(cursor *rooms.Cursor, at rooms.Joined) {
	m.cursor, m.snapshot = cursor, at.Snapshot
	if m.snapshot == nil {
		m.sent = at.Cursor.Position
	}
}

// begin sends the snapshot, if there is one, and lets events flow.
func (m *membership) begin() {
	if state := m.takeSnapshot(); state != nil {
		if err := m.sendSnapshot(state); err != nil {
			m.socket.emit("error", problem(m.socket.server.public(err, "send a snapshot")))
			m.socket.io.Close(engineio.ReasonForced) // it comes back after a pause, and asks again
			return
		}
	}
	m.cursor.Start()
}

// takeSnapshot takes the snapshot that is to be sent, if there is one.
func (m *membership) takeSnapshot() *snapshot.Snapshot {
	m.socket.mu.Lock()
	defer m.socket.mu.Unlock()
	state := m.snapshot
	m.snapshot = nil
	return state
}

// sentSnapshot is the receipt of a snapshot.
type sentSnapshot struct {
	socket *socket
	state  *snapshot.Snapshot
}

// Sent implements [engineio.Receipt].
func (r *sentSnapshot) Sent() {
	s := r.socket
	s.mu.Lock()
	_, unsent := s.unsent[r]
	delete(s.unsent, r)
	s.mu.Unlock()
	if unsent { // else the socket was over before, and let go of it
		r.state.Release()
	}
}

// sendSnapshot queues a snapshot, and releases it when it was sent or the socket
// is over.
func (m *membership) sendSnapshot(state *snapshot.Snapshot) error {
	s := m.socket
	at := state.Cursor.Position
	wrap := func(rest []byte) ([]byte, error) {
		return state.Wrap(`42["snapshot",`, `,"`+at.String()+string(rest)+`"]`)
	}
	s.mu.Lock()
	rest := m.rest()
	s.mu.Unlock()
	_, _ = wrap(rest) // takes a while the first time, and deliveries wait for sending
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	if m.left || m.dismissed != nil {
		s.mu.Unlock()
		state.Release()
		return nil
	}
	m.sent = at
	rest = m.rest()
	s.mu.Unlock()
	packet, err := wrap(rest)
	if err != nil {
		state.Release()
		return err
	}
	receipt := &sentSnapshot{socket: s, state: state}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		state.Release()
		return nil
	}
	if s.unsent == nil {
		s.unsent = map[*sentSnapshot]struct{}{}
	}
	s.unsent[receipt] = struct{}{}
	s.mu.Unlock()
	s.io.Send(packet, receipt)
	return nil
}

// emitPlace sends an event of this face's own that is a place in the system.
func (m *membership) emitPlace(name string, data any, at domain.Position) {
	s := m.socket
	encoded, err := domain.EncodeJSON(data) // outside the lock: deliveries wait for sending
	if err != nil {
		s.server.parts.Logger.Error("socketio: encode", "event", name, "error", err)
		return
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	if m.left || m.dismissed != nil {
		s.mu.Unlock()
		return
	}
	m.sent = at
	rest := m.rest()
	s.mu.Unlock()
	s.emit(name, json.RawMessage(encoded), at.String()+string(rest))
}

// Broken implements [rooms.Breaker].
func (m *membership) Broken() { m.socket.io.Close(engineio.ReasonForced) }

// Deliver implements [rooms.Sink].
func (m *membership) Deliver(f rooms.Frame) {
	s := m.socket
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	if m.held {
		later := f // or f would be allocated for each delivery
		m.next = &later
	}
	if m.left || m.dismissed != nil || m.held {
		s.mu.Unlock()
		return
	}
	m.sent = lastPosition(f.Bytes)
	rest := m.rest()
	s.mu.Unlock()
	packets := f.Bytes
	if len(rest) > 0 {
		packets = withRest(packets, rest)
	}
	s.io.Send(packets, m)
}

// hold keeps events back until release, and returns the place up to which all were
// sent.
func (m *membership) hold() domain.Position {
	s := m.socket
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	m.held = true
	return m.sent
}

// release lets events flow again, if the membership still is one. There is at most
// one frame to go on with: the next comes when that is sent.
func (m *membership) release() {
	s := m.socket
	s.mu.Lock()
	f := m.next
	m.held, m.next = false, nil
	s.mu.Unlock()
	if f != nil {
		m.Deliver(*f)
	}
}

// Sent implements [engineio.Receipt].
func (m *membership) Sent() { m.cursor.Sent() }

// Restarted implements [rooms.Sink]: the client is told where it goes on.
func (m *membership) Restarted(from domain.Cursor) {
	m.emitPlace("joined", joined{SystemID: m.system, Position: from.Position, Seq: from.Seq}, from.Position)
}

// rest is what the offsets of the room's events have behind their positions now,
// see [offset]. The caller holds the socket's lock.
func (m *membership) rest() []byte {
	s := m.socket
	if s.session.Turn <= 1 {
		return nil
	}
	const each = 48 // bytes that a room takes, nearly always
	b := append(make([]byte, 0, each*len(s.members)), ';')
	b = strconv.AppendUint(b, s.session.Turn, 10)
	for _, other := range s.members {
		if other != m {
			b = append(append(b, ';'), other.system...)
			b = append(append(b, '='), other.sent.String()...)
		}
	}
	return b
}
