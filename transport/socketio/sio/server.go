package sio

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"golang.org/x/time/rate"

	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/packet"
)

// Namespace decides whether to accept a client that connects to it. auth is the client's
// auth, or nil. Only this client waits for the decision. A [Refusal] is sent to the client,
// which then does not reconnect by itself. After any other error, which is logged, the
// connection is closed, and an unmodified client retries after a random pause.
//
// Nothing may be sent to the socket before the handler's Connected is called.
type Namespace func(s *Socket, auth json.RawMessage) (Accepted, error)

// Accepted is the result for a client that may connect.
type Accepted struct {
	Handler Handler
	// PID is the id with which the client resumes (connection state recovery); "" if that is
	// not supported. A client that gets the same id again knows that it missed nothing.
	PID string
}

// Refusal is an error that the client gets as a connect_error.
type Refusal struct {
	Message string
	Data    any // for the error's data; nil for none
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Handler handles the input of a client in a namespace.
type Handler interface {
	// Connected is called first, after the client was told that it is connected.
	Connected()
	// Event handles an event. Events come one after the other; the client waits.
	Event(Event)
	// Control counts input that is no event, such as a pong; see [engineio.Handler]. It may be
	// called while Event runs.
	Control() (answer, stays bool)
	// Refused is called with an error that closes the connection and that the client should
	// know, such as an event with attachments where none are allowed.
	Refused(err error)
	// Disconnected is called once and last, but possibly while Event runs. The reason is
	// [ReasonClient], [ReasonServer], or the reason why the connection ended.
	Disconnected(reason string)
}

// AckHandler is a [Handler] that also handles the client's acknowledgements of events.
type AckHandler interface {
	// Acknowledged handles an acknowledgement with the id of an event, as the client sent it.
	// It is called like Event.
	Acknowledged(id string, args []json.RawMessage, attachments [][]byte)
}

// Config holds the names and limits of a [Server]. Zero fields take their defaults.
type Config struct {
	Namespaces map[string]Namespace // by name, which begins with a slash
	// OnHandshake is called with the request that begins a connection. [Socket.HandshakeData]
	// returns its result. It may be nil.
	OnHandshake    func(r *http.Request) any
	MaxAttachments int // of one packet from a client; default 0
	// Controls limits the packets without a message, per second, before a namespace accepts
	// the client, with a burst of ten times that; default 10.
	Controls    rate.Limit
	MaxRefused  int // refusals to connect after which the connection is closed; default 16
	MaxConnects int // connects at once, and one more each second; the connection is closed beyond that; default 32
	Logger      *slog.Logger

	// Engine is the configuration of Engine.IO. This package sets Open, and settles a
	// connection when a namespace accepts it.
	Engine engineio.Config
}

// Server is an [http.Handler] for one path, such as /socket.io/.
type Server struct {
	config Config
	engine *engineio.Server
}

// New makes a Server. [Server.Run] has to run while it serves.
func New(config Config) (*Server, error) {
	if len(config.Namespaces) == 0 {
		return nil, errors.New("sio: config: a namespace is needed")
	}
	config.MaxRefused = cmp.Or(config.MaxRefused, 16)
	config.MaxConnects = cmp.Or(config.MaxConnects, 32)
	config.Controls = cmp.Or(config.Controls, 10)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: config}
	config.Engine.Open = func(session *engineio.Session, r *http.Request) engineio.Handler {
		c := newConnection(s, session)
		if config.OnHandshake != nil {
			c.handshakeData = config.OnHandshake(r)
		}
		return c
	}
	var err error
	s.engine, err = engineio.New(config.Engine)
	return s, err
}

// Run sends pings and enforces the deadlines of connections until ctx ends, and then returns
// nil. It has to run until [Server.Shutdown] has returned.
func (s *Server) Run(ctx context.Context) error { return s.engine.Run(ctx) }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// Shutdown closes all connections, accepts no new ones, and waits until all are gone. If ctx
// ends first, it cuts the remaining connections and returns ctx's error. Calling it twice is
// fine.
func (s *Server) Shutdown(ctx context.Context) error { return s.engine.Shutdown(ctx) }

// Connections returns the number of connections, with and without a namespace.
func (s *Server) Connections() int { return s.engine.Len() }

// encode encodes a packet as an Engine.IO message.
func encode(p packet.Packet) []byte {
	size := 2 + len(p.Namespace) + 1 + len(p.ID) + len(p.Data)
	return packet.Append(append(make([]byte, 0, size), '4'), &p)
}
