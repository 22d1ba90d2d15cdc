package socketio

import (
	"encoding/json"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
)

// membership is a socket in the room of a system: the receipt of the events that it
// sends.
type membership struct {
	socket       *socket
	system       domain.SystemID
	subscription *rooms.Subscription

	// Guarded by the socket's sending.
	sent   domain.Position // of the last event that was queued, or where it joined; zero before its snapshot is
	silent bool            // offsets go on to name the room until the session has lost it
	held   bool            // nothing is sent until Release
	next   *rooms.Frame    // which came while it was held
}

var (
	_ client.Room   = (*membership)(nil)
	_ client.Pauser = (*membership)(nil)
)

// Enter implements [client.Room]. A snapshot is still to come then: offsets of other
// rooms' events must not say that the client has it.
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

// isQuiet reports whether nothing is for the client. The caller holds sending.
func (m *membership) isQuiet() bool { return m.silent || m.socket.ended }

// Begin implements [client.Room].
func (m *membership) Begin(state *snapshot.Snapshot) bool {
	if err := m.sendSnapshot(state); err != nil {
		m.socket.emit("error", client.Problem(m.socket.server.clients.Public(err, "send a snapshot")))
		m.socket.Abort() // it comes back after a pause, and asks again
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
	if unsent { // else the socket was over before, and let go of it
		r.state.Release()
	}
}

// sendSnapshot queues a snapshot, and releases it when it was sent or the socket
// is over.
func (m *membership) sendSnapshot(state *snapshot.Snapshot) error {
	s := m.socket
	kept := false // by its receipt
	defer func() {
		if !kept { // also after a panic
			state.Release()
		}
	}()
	at := state.Cursor.Position
	wrap := func(rest []byte) ([]byte, error) {
		return state.Wrap(`42["snapshot",`, `,"`+at.String()+string(rest)+`"]`)
	}
	_, _ = wrap(m.rest()) // takes a while the first time, and deliveries wait for sending
	s.sending.Lock()
	defer s.sending.Unlock()
	if m.isQuiet() {
		return nil
	}
	m.sent = at
	packet, err := wrap(s.rest(m))
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

// rest is [socket.rest] for a caller that does not hold sending.
func (m *membership) rest() []byte {
	m.socket.sending.Lock()
	defer m.socket.sending.Unlock()
	return m.socket.rest(m)
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
	if m.isQuiet() {
		return
	}
	m.sent = at
	s.emit(name, json.RawMessage(encoded), at.String()+string(s.rest(m)))
}

// Broken implements [rooms.Breaker].
func (m *membership) Panicked() { m.socket.Abort() }

// Deliver implements [rooms.Sink].
func (m *membership) Deliver(f rooms.Frame) {
	s := m.socket
	s.sending.Lock()
	defer s.sending.Unlock()
	if m.held {
		later := f // or f would be allocated for each delivery
		m.next = &later
		return
	}
	if m.isQuiet() {
		return
	}
	m.sent = lastPosition(f.Bytes)
	packets := f.Bytes
	if rest := s.rest(m); len(rest) > 0 {
		packets = withRest(packets, rest)
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

// Resume implements [client.Pauser]. There is at most one frame to go on with: the next
// comes when that is sent.
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

// Restarted implements [rooms.Sink]: the client is told where it goes on.
func (m *membership) Restarted(from domain.Cursor) {
	m.emitPlace("joined", client.JoinedAt(m.system, from, false), from.Position)
}
