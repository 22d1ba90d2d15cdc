// Package suite is the server that the public test suites of the Engine.IO and
// Socket.IO protocols expect. It is for tests, and for command testserver.
package suite

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/sio"
)

// Server serves Engine.IO at /engine.io/, which echoes, and Socket.IO at
// /socket.io/ with the namespaces / and /custom.
type Server struct {
	http.Handler
	echo *engineio.Server
	sio  *sio.Server
}

// Config is what the suites expect of the times and bounds of both protocols.
func Config() engineio.Config {
	return engineio.Config{
		PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond, MaxPayload: 1_000_000,
		SettleTimeout: time.Second, CloseTimeout: time.Second, Tick: 10 * time.Millisecond,
	}
}

// New makes a Server. [Server.Shutdown] ends it.
func New(engine engineio.Config) (*Server, error) {
	s := &Server{}
	var err error
	s.sio, err = sio.New(sio.Config{
		Namespaces: map[string]sio.Namespace{"/": connect, "/custom": connect}, MaxAttachments: 10, Engine: engine,
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

// Shutdown ends all sessions and waits for them until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	return errors.Join(s.echo.Shutdown(ctx), s.sio.Shutdown(ctx))
}

// Sessions is how many there are.
func (s *Server) Sessions() int { return s.echo.Len() + s.sio.Connections() }

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

// client is a socket in one of the namespaces.
type client struct {
	socket *sio.Socket
	auth   json.RawMessage
}

func connect(s *sio.Socket, auth json.RawMessage) (sio.Accepted, error) {
	if auth == nil {
		auth = json.RawMessage("{}")
	}
	return sio.Accepted{Handler: &client{s, auth}}, nil
}

func (c *client) Connected() { _ = c.socket.Emit("auth", c.auth) }

func (c *client) Event(e sio.Event) {
	switch e.Name {
	case "message":
		_ = c.socket.EmitBinary("message-back", e.Args, e.Attachments)
	case "message-with-ack":
		_ = c.socket.AckBinary(e, e.Args, e.Attachments)
	case "ask":
		_ = c.socket.Ask(c.answered, "question", e.Args, e.Attachments)
	}
}

func (c *client) answered(args []json.RawMessage, attachments [][]byte) {
	_ = c.socket.EmitBinary("answered", args, attachments)
}

func (c *client) Control() (answer, stays bool) { return true, true }

func (c *client) Refused(error) {}

func (c *client) Disconnected(string) {}
