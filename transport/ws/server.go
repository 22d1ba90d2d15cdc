package ws

import (
	"context"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
)

// Subprotocol is the protocol's name in Sec-WebSocket-Protocol. It is selected if the client
// offers it, and not required.
const Subprotocol = "plugcast.v1"

// Server serves sockets. It is an [http.Handler] for GET /ws.
type Server struct {
	config  Config
	parts   client.Parts
	melody  *melody.Melody
	clients *client.Server
}

// New makes a Server. [Server.Run] has to run while it serves.
func New(config Config, parts client.Parts) (*Server, error) {
	if err := config.validate(parts); err != nil {
		return nil, err
	}
	s := &Server{config: config.withDefaults(), parts: parts}
	c := &s.config
	var err error
	s.clients, err = client.NewServer(client.Config{
		Face: where, MaxRooms: c.MaxRooms, MaxRoomsStaff: c.MaxRoomsStaff, JoinWithin: c.JoinWithin, JoinTimeout: c.JoinTimeout,
		Tick: c.Tick, Rates: c.Rates,
	}, parts)
	if err != nil {
		return nil, err
	}
	s.melody = s.newMelody()
	return s, nil
}

// Run enforces the deadlines of sockets until ctx ends, and then returns nil. It has to run
// until [Server.Shutdown] has returned.
func (s *Server) Run(ctx context.Context) error { return s.clients.Run(ctx) }

// sessionSocket is the key under which a Melody session knows its socket.
const sessionSocket = "socket"

func (s *Server) newMelody() *melody.Melody {
	m := melody.New()
	m.Upgrader = &websocket.Upgrader{
		CheckOrigin:     func(*http.Request) bool { return true }, // ServeHTTP has checked it
		Subprotocols:    []string{Subprotocol},
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 4 << 10,
	}
	m.Config.MaxMessageSize = s.config.MaxFrame
	m.Config.MessageBufferSize = 4 // at most one frame and a close
	m.Config.PongWait = s.config.PongWait
	m.Config.WriteWait = s.config.PongWait
	m.Config.PingPeriod = s.config.PongWait / 4
	m.HandleConnect(func(session *melody.Session) { defer s.recoverPanic(session); socketOf(session).connected(session) })
	m.HandleDisconnect(func(session *melody.Session) { defer s.recoverPanic(session); socketOf(session).disconnected() })
	m.HandleMessage(func(session *melody.Session, message []byte) { socketOf(session).receiveInGoroutine(message) })
	m.HandleMessageBinary(func(session *melody.Session, _ []byte) {
		defer s.recoverPanic(session)
		socketOf(session).receiveBinary()
	})
	m.HandlePong(func(session *melody.Session) {
		defer s.recoverPanic(session)
		handoff.FrameRead(session.WebsocketConnection())
		socketOf(session).control()
	})
	m.HandleSentMessage(func(session *melody.Session, _ []byte) { defer s.recoverPanic(session); socketOf(session).sent() })
	return m
}

// where names this face in lists of sockets and in the log lines of recovered panics.
const where = "ws"

// recoverPanic, deferred in a callback that Melody runs in its own goroutine, recovers a
// panic and closes the socket.
func (s *Server) recoverPanic(session *melody.Session) {
	if value := recover(); value != nil {
		isolate.Recovered(s.parts.Logger, where, value)
		_ = session.WebsocketConnection().Close()
	}
}

func socketOf(session *melody.Session) *socket { return session.MustGet(sessionSocket).(*socket) }

// ServeHTTP upgrades the request. A client without valid credentials is still upgraded and
// then closed with 4401, because browsers hide HTTP status codes from scripts.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this path serves WebSocket only", http.StatusUpgradeRequired)
		return
	}
	// Before authentication, because a foreign page must not use up a ticket.
	if !s.config.CheckOrigin(r) {
		http.Error(w, "pages of this origin are not allowed", http.StatusForbidden)
		return
	}
	open := s.clients.Open()
	if !open.Enter() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer open.Leave()
	actor, err := s.parts.Authenticator.Authenticate(r.Context(), r)
	if err == nil {
		err = limit.Handshake(r.Context(), s.parts.Limiter, actor)
	}
	so := newSocket(s, r.RemoteAddr, actor)
	if err != nil {
		so.refused = s.clients.Public(err, "authenticate")
	}
	handoff.Serve(w, open, s.parts.Logger, func(w http.ResponseWriter) {
		if err := s.melody.HandleRequestWithKeys(w, r, map[string]any{sessionSocket: so}); err != nil {
			s.parts.Logger.Debug("ws: no upgrade", "remote", r.RemoteAddr, "error", err)
		}
	})
}

// Sockets returns the open sockets.
func (s *Server) Sockets() []domain.Socket { return s.clients.Sockets() }

// Disconnect disconnects the sockets that match: their clients get the reason and close code
// 4409, or leave one room. It returns the number of sockets without waiting for them.
func (s *Server) Disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) int {
	return s.clients.Disconnect(match, why)
}

// Shutdown closes all sockets with 1012, accepts no new ones, and waits until all are gone.
// If ctx ends first, it aborts the remaining connections and returns ctx's error. Calling it
// twice is fine.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.clients.Shutdown(ctx, func(f client.Face) { f.(*socket).end(closeRestart) })
}
