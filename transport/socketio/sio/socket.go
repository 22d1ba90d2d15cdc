package sio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
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

	mu    sync.Mutex
	asked uint64            // questions so far
	waits map[string]Answer // who waits for an answer, by id
}

// maxAsked is how many questions to one client may be open.
const maxAsked = 64

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
	data, err := array(name, args)
	if err != nil {
		return fmt.Errorf("sio: emit %s: %w", name, err)
	}
	s.emit(packet.Packet{Type: packet.Event, Namespace: s.namespace, Data: data})
	return nil
}

// Answer takes what a client says to a question.
type Answer func(args []json.RawMessage, attachments [][]byte)

// Ask sends an event that the client is to acknowledge, and calls answered with
// what it says, from where events are handled. A client that goes first is not
// waited for.
func (s *Socket) Ask(answered Answer, name string, args []json.RawMessage, attachments [][]byte) error {
	data, err := array(name, args)
	if err != nil {
		return fmt.Errorf("sio: ask %s: %w", name, err)
	}
	s.mu.Lock()
	if len(s.waits) >= maxAsked {
		s.mu.Unlock()
		return fmt.Errorf("sio: ask %s: %d questions are open", name, maxAsked)
	}
	if s.waits == nil {
		s.waits = map[string]Answer{}
	}
	id := strconv.FormatUint(s.asked, 10)
	s.asked++
	s.waits[id] = answered
	s.mu.Unlock()
	s.emit(packet.Packet{Type: eventType(attachments), Namespace: s.namespace, ID: id, Data: data, Attachments: attachments})
	return nil
}

// answered takes an acknowledgement from the client. One that nobody waits for is
// let pass.
func (s *Socket) answered(p *packet.Packet) error {
	_, args, err := p.Arguments()
	if err != nil {
		return err
	}
	s.mu.Lock()
	waits := s.waits[p.ID]
	delete(s.waits, p.ID)
	s.mu.Unlock()
	if waits != nil {
		waits(args, p.Attachments)
	}
	return nil
}

// EmitBinary sends an event with attachments, if there are any; its arguments have
// placeholders for them.
func (s *Socket) EmitBinary(name string, args []json.RawMessage, attachments [][]byte) error {
	data, err := array(name, args)
	if err != nil {
		return fmt.Errorf("sio: emit %s: %w", name, err)
	}
	s.emit(packet.Packet{Type: eventType(attachments), Namespace: s.namespace, Data: data, Attachments: attachments})
	return nil
}

// Ack answers an event that wants it. To others it does nothing.
func (s *Socket) Ack(e Event, args ...any) error {
	data, err := array("", args)
	if err != nil {
		return fmt.Errorf("sio: acknowledge %s: %w", e.Name, err)
	}
	if e.WantsAck() {
		s.emit(packet.Packet{Type: packet.Ack, Namespace: s.namespace, ID: e.id, Data: data})
	}
	return nil
}

// AckBinary answers an event that wants it, with attachments, if there are any.
func (s *Socket) AckBinary(e Event, args []json.RawMessage, attachments [][]byte) error {
	data, err := array("", args)
	if err != nil {
		return fmt.Errorf("sio: acknowledge %s: %w", e.Name, err)
	}
	if e.WantsAck() {
		kind := packet.Ack
		if len(attachments) > 0 {
			kind = packet.BinaryAck
		}
		s.emit(packet.Packet{Type: kind, Namespace: s.namespace, ID: e.id, Data: data, Attachments: attachments})
	}
	return nil
}

func eventType(attachments [][]byte) packet.Type {
	if len(attachments) > 0 {
		return packet.BinaryEvent
	}
	return packet.Event
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

// array writes a JSON array: a name, if there is one, and arguments. What is JSON
// already is taken as it is, and there are no escapes for the sake of HTML.
func array[T any](name string, args []T) ([]byte, error) {
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
