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

// Namespace decides about a client that connects to it, with what the client sent
// along, or nil. The client waits for the answer, and nobody else does. A
// [Refusal] is shown to the client, which then does not come back by itself. After
// any other error, which is logged, the connection is closed, and an unmodified
// client tries again after a random pause.
//
// Nothing is sent to the socket before the handler's Connected is called.
type Namespace func(s *Socket, auth json.RawMessage) (Accepted, error)

// Accepted is the answer to a client that may connect.
type Accepted struct {
	Handler Handler
	// PID is what the client shows when it comes back, so that it can go on where
	// it was; "" when that is not offered. See connection state recovery in the
	// client: one that gets the same id again knows that it missed nothing.
	PID string
}

// Refusal is an error that the client is shown, as the error of connect_error.
type Refusal struct {
	Message string
	Data    any // for the error's data; nil for none
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Handler takes what a client sends to a namespace.
type Handler interface {
	// Connected is called first, when the client was told that it is connected.
	Connected()
	// Event takes an event, one after the other. While it works, the client waits.
	Event(Event)
	// Control counts what the client sent that is no event, such as a pong; see
	// [engineio.Handler]. It may be called while Event works.
	Control() (answer, stays bool)
	// Refused is told of what ends the connection when the client may hear of it, as
	// of an event with attachments where none may be.
	Refused(err error)
	// Disconnected is called once, last of all but possibly while Event works. The
	// reason is [ReasonClient], [ReasonServer], or why the connection ended.
	Disconnected(reason string)
}

// AckHandler is a [Handler] whose events the client may have to acknowledge. Other
// handlers do not hear of acknowledgements.
type AckHandler interface {
	// Acknowledged takes an acknowledgement of the event that had the id, or had none: the
	// client says which it means. It is called as Event is.
	Acknowledged(id string, args []json.RawMessage, attachments [][]byte)
}

// Config holds names and bounds. Zero fields take their defaults.
type Config struct {
	Namespaces map[string]Namespace // by name, which begins with a slash
	// OnHandshake looks at the request that begins a connection, and makes what
	// [Socket.HandshakeData] returns. It may be nil.
	OnHandshake    func(r *http.Request) any
	MaxAttachments int        // of one packet from a client; default 0
	Controls       rate.Limit // packets per second without a message, before a namespace accepts the client, with ten times that at once; default 10
	MaxRefused     int        // refusals to connect after which the connection is closed; default 16
	MaxConnects    int        // connects at once, and one more each second; the connection is closed beyond that; default 32
	Logger         *slog.Logger

	// Engine is the configuration of what is below. Open and SettleTimeout are set
	// here: a connection is settled when a namespace accepted it.
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

// Shutdown closes all connections, takes no new ones, and waits until all are
// gone. When ctx ends before that, the rest is cut off, and Shutdown returns
// ctx's error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context) error { return s.engine.Shutdown(ctx) }

// Connections is how many there are, with and without a namespace.
func (s *Server) Connections() int { return s.engine.Len() }

// encode writes a packet as the message of a payload.
func encode(p packet.Packet) []byte {
	size := 2 + len(p.Namespace) + 1 + len(p.ID) + len(p.Data)
	return packet.Append(append(make([]byte, 0, size), '4'), &p)
}
