package sio

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/packet"
)

// Socket is a client in a namespace. Its methods are safe for concurrent use.
type Socket struct {
	connection *connection
	namespace  string
	id         string
	handler    Handler
	gone       sync.Once
}

// Event is an event from a client.
type Event struct {
	Name        string
	Args        []json.RawMessage // with placeholders for attachments
	Attachments [][]byte
	id          string
}

// WantsAck reports whether the client waits for [Socket.Ack].
func (e *Event) WantsAck() bool { return e.id != "" }

// ID is the client's in this namespace, new with each connect.
func (s *Socket) ID() string { return s.id }

// Greeting is what Config.Greet made of the request that began the connection.
func (s *Socket) Greeting() any { return s.connection.greeting }

// Remote is the network address of the client.
func (s *Socket) Remote() string { return s.connection.session.Remote() }

// Transport is what carries the connection now: polling or websocket.
func (s *Socket) Transport() string { return s.connection.session.Transport() }

// Emit sends an event. Its arguments are anything that JSON can say.
func (s *Socket) Emit(name string, args ...any) error {
	data, err := json.Marshal(append([]any{name}, args...))
	if err != nil {
		return fmt.Errorf("sio: emit %s: %w", name, err)
	}
	s.emit(packet.Packet{Type: packet.Event, Namespace: s.namespace, Data: data})
	return nil
}

// EmitBinary sends an event with attachments; its arguments have placeholders for
// them.
func (s *Socket) EmitBinary(name string, args []json.RawMessage, attachments [][]byte) error {
	quoted, err := json.Marshal(name)
	if err != nil {
		return fmt.Errorf("sio: emit %s: %w", name, err)
	}
	data, err := json.Marshal(append([]json.RawMessage{quoted}, args...))
	if err != nil {
		return fmt.Errorf("sio: emit %s: %w", name, err)
	}
	s.emit(packet.Packet{Type: packet.BinaryEvent, Namespace: s.namespace, Data: data, Attachments: attachments})
	return nil
}

// Ack answers an event that wants it. To others it does nothing.
func (s *Socket) Ack(e Event, args ...any) error {
	data, err := json.Marshal(append([]any{}, args...))
	if err != nil {
		return fmt.Errorf("sio: acknowledge %s: %w", e.Name, err)
	}
	if e.WantsAck() {
		s.emit(packet.Packet{Type: packet.Ack, Namespace: s.namespace, ID: e.id, Data: data})
	}
	return nil
}

// AckBinary answers an event that wants it, with attachments.
func (s *Socket) AckBinary(e Event, args []json.RawMessage, attachments [][]byte) error {
	data, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("sio: acknowledge %s: %w", e.Name, err)
	}
	if e.WantsAck() {
		s.emit(packet.Packet{Type: packet.BinaryAck, Namespace: s.namespace, ID: e.id, Data: data, Attachments: attachments})
	}
	return nil
}

// emit sends a packet and its attachments, which must follow each other.
func (s *Socket) emit(p packet.Packet) {
	session := s.connection.session
	if len(p.Attachments) == 0 {
		session.Send(encode(p), nil)
		return
	}
	session.SendWithAttachments(encode(p), p.Attachments)
}

// Send sends packets that are encoded already, as messages of a payload: a client
// in another namespace than the main one does not understand what was made for
// that. See [engineio.Session.Send].
func (s *Socket) Send(payload []byte, receipt engineio.Receipt) {
	s.connection.session.Send(payload, receipt)
}

// Disconnect takes the client out of the namespace, behind what was sent before.
// An unmodified client does not come back by itself after that.
func (s *Socket) Disconnect() {
	if s.connection.drop(s, ReasonServer) {
		s.connection.session.Send(encode(packet.Packet{Type: packet.Disconnect, Namespace: s.namespace}), nil)
	}
}

// Close closes the connection below, behind what was sent before. An unmodified
// client comes back after a random pause.
func (s *Socket) Close(reason string) { s.connection.session.Close(reason) }

// disconnected tells the handler.
func (s *Socket) disconnected(reason string) { s.gone.Do(func() { s.handler.Disconnected(reason) }) }

func newID() string {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
