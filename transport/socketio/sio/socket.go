package sio

import (
	"bytes"
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
	ID          string // of the acknowledgement that the client waits for; "" when it waits for none
}

// WantsAck reports whether the client waits for [Socket.Ack].
func (e *Event) WantsAck() bool { return e.ID != "" }

// ID returns the client's id in this namespace, new with each connect.
func (s *Socket) ID() string { return s.id }

// HandshakeData returns the result of Config.OnHandshake for the request that began the
// connection.
func (s *Socket) HandshakeData() any { return s.connection.handshakeData }

// Session returns the connection, which may carry other namespaces too. Packets that are
// sent there must name this socket's namespace, one packet per message.
func (s *Socket) Session() *engineio.Session { return s.connection.session }

// Emit sends an event. Its arguments are any values that JSON can represent.
func (s *Socket) Emit(name string, args ...any) error {
	data, err := array(name, args)
	if err != nil {
		return fmt.Errorf("sio: emit %s: %w", name, err)
	}
	s.send(packet.Packet{Type: packet.Event, Data: data})
	return nil
}

// Ack acknowledges an event that requests it. For other events it does nothing.
func (s *Socket) Ack(e Event, args ...any) error {
	data, err := array("", args)
	if err != nil {
		return fmt.Errorf("sio: acknowledge %s: %w", e.Name, err)
	}
	if e.WantsAck() {
		s.send(packet.Packet{Type: packet.Ack, ID: e.ID, Data: data})
	}
	return nil
}

// Disconnect disconnects the client from the namespace, after everything sent before. An
// unmodified client does not reconnect after that.
func (s *Socket) Disconnect() {
	if s.connection.drop(s, ReasonServer) {
		s.send(packet.Packet{Type: packet.Disconnect})
	}
}

func (s *Socket) send(p packet.Packet) {
	p.Namespace = s.namespace
	s.connection.session.Send(encode(p), nil)
}

// disconnected calls the handler's Disconnected, once.
func (s *Socket) disconnected(reason string) { s.gone.Do(func() { s.handler.Disconnected(reason) }) }

// array encodes a JSON array: a name, if there is one, and arguments. Raw JSON is copied,
// and HTML is not escaped.
func array(name string, args []any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('[')
	add := func(value any) error {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		if raw, ok := value.(json.RawMessage); ok {
			b.Write(raw)
			return nil
		}
		err := e.Encode(value)
		b.Truncate(b.Len() - 1) // the encoder ends with a line break
		return err
	}
	if name != "" {
		_ = add(name) // a string
	}
	for _, arg := range args {
		if err := add(arg); err != nil {
			return nil, err
		}
	}
	b.WriteByte(']')
	return b.Bytes(), nil
}
