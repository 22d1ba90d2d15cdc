package sio

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/packet"
)

// The reasons with which a client leaves a namespace while its connection stays open, in the
// words of the Node server.
const (
	// ReasonClient means that the client disconnected.
	ReasonClient = "client namespace disconnect"
	// ReasonServer means that [Socket.Disconnect] was called.
	ReasonServer = "server namespace disconnect"
)

// connection is an Engine.IO session with its sockets, one per namespace.
type connection struct {
	server        *Server
	session       *engineio.Session
	handshakeData any
	assembly      packet.Assembly // used for one message at a time, like refused
	refused       int
	connects      *rate.Limiter // nil before the first

	mu       sync.Mutex
	closed   bool
	reason   string
	sockets  []*Socket
	controls *rate.Limiter // nil before the first, and for a client that was accepted
}

func newConnection(s *Server, session *engineio.Session) *connection {
	return &connection{server: s, session: session, assembly: packet.Assembly{MaxAttachments: s.config.MaxAttachments}}
}

// Message implements [engineio.Handler].
func (c *connection) Message(data []byte, binary bool) {
	take := c.assembly.Text
	if binary {
		take = c.assembly.Binary
	}
	p, whole, err := take(data)
	if err == nil && whole {
		err = c.handle(&p)
	}
	if err != nil {
		if errors.Is(err, packet.ErrAttachments) {
			for _, s := range c.all() {
				s.handler.Refused(err)
			}
		}
		c.session.Close(engineio.ReasonParse)
	}
}

// Control implements [engineio.Handler].
func (c *connection) Control() (answer, stays bool) {
	if connected := c.all(); len(connected) > 0 {
		return connected[0].handler.Control()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, true
	}
	if c.controls == nil {
		c.controls = rate.NewLimiter(c.server.config.Controls, int(10*c.server.config.Controls))
	}
	stays = c.controls.Allow()
	return stays, stays
}

func (c *connection) all() []*Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.sockets)
}

// handle handles a packet, or returns an error if a client must not send it.
func (c *connection) handle(p *packet.Packet) error {
	s := c.find(p.Namespace)
	if p.Type == packet.Connect {
		if s != nil {
			return errors.New("sio: already connected")
		}
		if !c.mayConnect() {
			return errors.New("sio: too many connects")
		}
		return c.connect(p)
	}
	if s == nil {
		return errors.New("sio: not connected")
	}
	switch p.Type {
	case packet.Event, packet.BinaryEvent:
		name, args, err := p.Arguments()
		if err != nil {
			return err
		}
		s.handler.Event(Event{Name: name, Args: args, Attachments: p.Attachments, ID: p.ID})
	case packet.Disconnect:
		c.drop(s, ReasonClient)
	case packet.Ack, packet.BinaryAck:
		if _, stays := s.handler.Control(); !stays {
			c.session.Close(engineio.ReasonForced)
			return nil
		}
		_, args, err := p.Arguments()
		if a, asks := s.handler.(AckHandler); asks && err == nil {
			a.Acknowledged(p.ID, args, p.Attachments)
		}
		return err
	default:
		return errors.New("sio: only servers send this type of packet")
	}
	return nil
}

// mayConnect counts a connect, because each may cost a signature check.
func (c *connection) mayConnect() bool {
	if c.connects == nil {
		c.connects = rate.NewLimiter(1, c.server.config.MaxConnects)
	}
	return c.connects.Allow()
}

func (c *connection) connect(p *packet.Packet) error {
	s := &Socket{connection: c, namespace: p.Namespace, id: engineio.NewID()}
	accepted, err := c.accept(s, p.Data)
	if err != nil {
		c.refuse(p.Namespace, err)
		return nil
	}
	s.handler = accepted.Handler
	if reason, open := c.add(s); !open {
		s.disconnected(reason)
		return nil
	}
	c.session.Settle()
	answer, _ := json.Marshal(struct { // texts
		ID  string `json:"sid"`
		PID string `json:"pid,omitempty"`
	}{s.id, accepted.PID})
	s.send(packet.Packet{Type: packet.Connect, Data: answer})
	s.handler.Connected()
	return nil
}

func (c *connection) accept(s *Socket, auth json.RawMessage) (Accepted, error) {
	namespace := c.server.config.Namespaces[s.namespace]
	if namespace == nil {
		return Accepted{}, &Refusal{Message: "Invalid namespace"}
	}
	return namespace(s, auth)
}

// refuse sends the client the refusal, or makes it retry later. It closes the connection of
// a client that keeps trying.
func (c *connection) refuse(namespace string, err error) {
	shown := new(Refusal)
	if !errors.As(err, &shown) {
		c.server.config.Logger.Warn("sio: cannot accept a client; it will retry", "namespace", namespace, "error", err)
		c.session.Close(engineio.ReasonForced)
		return
	}
	data, err := json.Marshal(struct {
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}{shown.Message, shown.Data})
	if err != nil {
		c.server.config.Logger.Error("sio: encode a refusal", "error", err)
		data = []byte(`{"message":"refused"}`)
	}
	c.session.Refused()
	c.session.Send(encode(packet.Packet{Type: packet.ConnectError, Namespace: namespace, Data: data}), nil)
	if c.refused++; c.refused >= c.server.config.MaxRefused {
		c.session.Close(engineio.ReasonForced)
	}
}

// Closed implements [engineio.Handler].
func (c *connection) Closed(reason string) {
	c.mu.Lock()
	c.closed, c.reason = true, reason
	gone := c.sockets
	c.sockets = nil
	c.mu.Unlock()
	for _, s := range gone {
		s.disconnected(reason)
	}
}

func (c *connection) find(namespace string) *Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sockets {
		if s.namespace == namespace {
			return s
		}
	}
	return nil
}

// add lists a socket, unless the connection was closed in the meantime.
func (c *connection) add(s *Socket) (reason string, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.reason, false
	}
	c.sockets = append(c.sockets, s)
	return "", true
}

// drop removes a socket, and reports whether it was listed.
func (c *connection) drop(s *Socket, reason string) bool {
	c.mu.Lock()
	at := -1
	for i := range c.sockets {
		if c.sockets[i] == s {
			at = i
		}
	}
	if at < 0 {
		c.mu.Unlock()
		return false
	}
	c.sockets = append(c.sockets[:at:at], c.sockets[at+1:]...)
	c.mu.Unlock()
	s.disconnected(reason)
	return true
}
