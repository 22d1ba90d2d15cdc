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

// New makes a Server. [Server.Shutdown] ends it.
func New() (*Server, error) {
	engine := engineio.Config{
		PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond,
		SettleTimeout: time.Second, Tick: 10 * time.Millisecond,
	}
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
	e.session.Send(append([]byte{'4'}, data...), nil)
}

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
		if len(e.Attachments) > 0 {
			_ = c.socket.EmitBinary("message-back", e.Args, e.Attachments)
			return
		}
		_ = c.socket.Emit("message-back", values(e.Args)...)
	case "message-with-ack":
		if len(e.Attachments) > 0 {
			_ = c.socket.AckBinary(e, e.Args, e.Attachments)
			return
		}
		_ = c.socket.Ack(e, values(e.Args)...)
	}
}

func (c *client) Disconnected(string) {}

func values(args []json.RawMessage) []any {
	list := make([]any, len(args))
	for i := range args {
		list[i] = args[i]
	}
	return list
}
