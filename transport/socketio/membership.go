package socketio

import (
	"encoding/json"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// membership is the membership of a socket in the room of a system, and the receipt of the
// room's events.
type membership struct {
	socket       *socket
	system       domain.SystemID
	subscription *rooms.Subscription

	// Guarded by the socket's sending.
	sent   domain.Position // the position of the last queued event, or of the join; zero until the snapshot is queued
	silent bool            // offsets still name the room until the session has left it
	held   bool            // nothing is sent until Resume
	next   *rooms.Frame    // the frame that came while held
}

var (
	_ client.Room   = (*membership)(nil)
	_ client.Pauser = (*membership)(nil)
)

// Enter implements [client.Room]. If a snapshot is still to be sent, sent stays zero:
// offsets of other rooms' events must not say that the client has it.
func (m *membership) Enter(subscription *rooms.Subscription, at rooms.Joined) {
	m.subscription = subscription
	if at.Snapshot == nil {
		m.sent = at.Cursor.Position
	}
}

// Silence implements [client.Room].
func (m *membership) Silence() {
	m.socket.sending.Lock()
	defer m.socket.sending.Unlock()
	m.silent = true
}

// isSilent reports whether the room must send nothing. The caller holds sending.
func (m *membership) isSilent() bool { return m.silent || m.socket.ended }

// Begin implements [client.Room].
func (m *membership) Begin(state *snapshot.Snapshot) bool {
	if err := m.sendSnapshot(state); err != nil {
		m.socket.emit("error", client.Problem(m.socket.server.clients.Public(err, "send a snapshot")))
		m.socket.Abort() // the client reconnects after a pause, and joins again
		return false
	}
	return true
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
	if unsent { // otherwise the ended socket has released it
		r.state.Release()
	}
}

// sendSnapshot queues a snapshot. It is released when it has been sent or the socket has
// ended.
func (m *membership) sendSnapshot(state *snapshot.Snapshot) error {
	s := m.socket
	kept := false // whether its receipt holds it
	defer func() {
		if !kept { // also after a panic
			state.Release()
		}
	}()
	at := state.Cursor.Position
	wrap := func(rest []byte) ([]byte, error) {
		return state.Wrap(`42["snapshot",`, `,"`+at.String()+string(rest)+`"]`)
	}
	_, _ = wrap(m.offsetSuffix()) // slow on the first call, so it runs before sending is locked, which deliveries wait for
	s.sending.Lock()
	defer s.sending.Unlock()
	if m.isSilent() {
		return nil
	}
	m.sent = at
	packet, err := wrap(s.offsetSuffix(m))
	if err != nil {
		return err
	}
	receipt := &sentSnapshot{socket: s, state: state}
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return nil
	}
	if s.unsent == nil {
		s.unsent = map[*sentSnapshot]struct{}{}
	}
	s.unsent[receipt] = struct{}{}
	kept = true
	s.mu.Unlock()
	s.io.Session().Send(packet, receipt)
	return nil
}

// offsetSuffix is [socket.offsetSuffix] for a caller that does not hold sending.
func (m *membership) offsetSuffix() []byte {
	m.socket.sending.Lock()
	defer m.socket.sending.Unlock()
	return m.socket.offsetSuffix(m)
}

// emitPlace sends an event of this face that is also a place in the system.
func (m *membership) emitPlace(name string, data any, at domain.Position) {
	s := m.socket
	encoded, err := domain.EncodeJSON(data) // before the lock, which deliveries wait for
	if err != nil {
		s.server.parts.Logger.Error("socketio: encode", "event", name, "error", err)
		return
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	if m.isSilent() {
		return
	}
	m.sent = at
	s.emit(name, json.RawMessage(encoded), at.String()+string(s.offsetSuffix(m)))
}

// Panicked implements [rooms.PanicHandler].
func (m *membership) Panicked() { m.socket.Abort() }

// Deliver implements [rooms.Sink].
func (m *membership) Deliver(f rooms.Frame) {
	s := m.socket
	s.sending.Lock()
	defer s.sending.Unlock()
	if m.held {
		later := f // without this copy, f would be allocated on each delivery
		m.next = &later
		return
	}
	if m.isSilent() {
		return
	}
	m.sent = lastPosition(f.Bytes)
	packets := f.Bytes
	if rest := s.offsetSuffix(m); len(rest) > 0 {
		packets = withSuffix(packets, rest)
	}
	s.io.Session().Send(packets, m)
}

// Pause implements [client.Pauser].
func (m *membership) Pause() domain.Position {
	m.socket.sending.Lock()
	defer m.socket.sending.Unlock()
	m.held = true
	return m.sent
}

// Resume implements [client.Pauser]. At most one frame is waiting, because the next comes
// after it was sent.
func (m *membership) Resume() {
	m.socket.sending.Lock()
	f := m.next
	m.held, m.next = false, nil
	m.socket.sending.Unlock()
	if f != nil {
		m.Deliver(*f)
	}
}

// Sent implements [engineio.Receipt].
func (m *membership) Sent() { m.subscription.Sent() }

// Restarted implements [rooms.Sink]: it tells the client where events continue.
func (m *membership) Restarted(from domain.Cursor) {
	m.emitPlace("joined", client.JoinedAt(m.system, from, false), from.Position)
}
