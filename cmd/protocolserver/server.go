package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/packet"
	"github.com/plugcast/plugcast/transport/socketio/sio"
)

// protocolServer serves Engine.IO at /engine.io/, which echoes, and Socket.IO at
// /socket.io/ with the namespaces / and /custom.
type protocolServer struct {
	http.Handler
	echo *engineio.Server
	sio  *sio.Server
}

// suites is what the suites expect of the times and bounds of both protocols.
func suites() engineio.Config {
	return engineio.Config{
		PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond, MaxPayload: 1_000_000,
		SettleTimeout: time.Second, CloseTimeout: time.Second, Tick: 10 * time.Millisecond,
	}
}

// newProtocolServer makes a server. Run has to run while it serves.
func newProtocolServer(engine engineio.Config) (*protocolServer, error) {
	s := &protocolServer{}
	var err error
	s.sio, err = sio.New(sio.Config{
		Namespaces:     map[string]sio.Namespace{packet.Main: connect(packet.Main), "/custom": connect("/custom")},
		MaxAttachments: 10, Engine: engine,
	})
	if err != nil {
		return nil, err
	}
	engine.SettleTimeout = time.Hour // there is nobody to be known
	engine.Open = func(session *engineio.Session, _ *http.Request) engineio.Handler { return echo{session} }
	if s.echo, err = engineio.New(engine); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/engine.io/", s.echo)
	mux.Handle("/socket.io/", s.sio)
	s.Handler = mux
	return s, nil
}

// Run runs the clocks of both protocols until ctx ends.
func (s *protocolServer) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.echo.Run(ctx) })
	group.Go(func() error { return s.sio.Run(ctx) })
	return group.Wait()
}

// Shutdown ends all sessions and waits for them until ctx ends.
func (s *protocolServer) Shutdown(ctx context.Context) error {
	return errors.Join(s.echo.Shutdown(ctx), s.sio.Shutdown(ctx))
}

// Sessions is how many there are.
func (s *protocolServer) Sessions() int { return s.echo.Len() + s.sio.Connections() }

// echo sends back what it gets.
type echo struct{ session *engineio.Session }

func (e echo) Message(data []byte, binary bool) {
	if binary {
		e.session.SendBinary(data)
		return
	}
	e.session.SendText(data)
}

func (e echo) Control() (answer, stays bool) { return true, true }

func (e echo) Closed(string) {}

// client is a socket in one of the namespaces. All that it sends answers something that
// its client sent, and that is handled one after the other: so attachments are right
// behind their packet.
type client struct {
	socket    *sio.Socket
	namespace string
	auth      json.RawMessage
	asked     uint64          // questions so far
	open      map[string]bool // questions that are not answered, by id
}

func connect(namespace string) sio.Namespace {
	return func(s *sio.Socket, auth json.RawMessage) (sio.Accepted, error) {
		if auth == nil {
			auth = json.RawMessage("{}")
		}
		return sio.Accepted{Handler: &client{socket: s, namespace: namespace, auth: auth, open: map[string]bool{}}}, nil
	}
}

// Connected implements [sio.Handler].
func (c *client) Connected() { _ = c.socket.Emit("auth", c.auth) }

// Event implements [sio.Handler].
func (c *client) Event(e sio.Event) {
	switch e.Name {
	case "message":
		c.emit("", "message-back", e.Args, e.Attachments)
	case "message-with-ack":
		if e.WantsAck() {
			c.send(packet.Packet{Type: packet.Ack, ID: e.ID, Data: array(e.Args), Attachments: e.Attachments})
		}
	case "ask":
		id := strconv.FormatUint(c.asked, 10)
		c.asked++
		c.open[id] = true
		c.emit(id, "question", e.Args, e.Attachments)
	}
}

// Acknowledged implements [sio.AckHandler].
func (c *client) Acknowledged(id string, args []json.RawMessage, attachments [][]byte) {
	if c.open[id] {
		delete(c.open, id)
		c.emit("", "answered", args, attachments)
	}
}

func (c *client) emit(id, name string, args []json.RawMessage, attachments [][]byte) {
	args = slices.Insert(args, 0, json.RawMessage(strconv.Quote(name)))
	c.send(packet.Packet{Type: packet.Event, ID: id, Data: array(args), Attachments: attachments})
}

// send sends an event or an acknowledgement.
func (c *client) send(p packet.Packet) {
	p.Namespace = c.namespace
	if len(p.Attachments) > 0 {
		p.Type += packet.BinaryEvent - packet.Event
	}
	c.socket.Session().Send(packet.Append([]byte{engineMessage}, &p), nil)
	for _, attachment := range p.Attachments {
		c.socket.Session().SendBinary(attachment)
	}
}

// engineMessage is the type of the packet of Engine.IO that carries one of Socket.IO.
const engineMessage = '4'

func array(of []json.RawMessage) json.RawMessage {
	b := []byte{'['}
	for i, one := range of {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, one...)
	}
	return append(b, ']')
}

// Control implements [sio.Handler].
func (c *client) Control() (answer, stays bool) { return true, true }

// Refused implements [sio.Handler].
func (c *client) Refused(error) {}

// Disconnected implements [sio.Handler].
func (c *client) Disconnected(string) {}
