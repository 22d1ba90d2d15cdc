package ws

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Subprotocol is the name of the protocol, for Sec-WebSocket-Protocol. A client
// that offers it gets it; one that offers none is served just as well.
const Subprotocol = "plugcast.v1"

// Server serves sockets. It is an [http.Handler] for GET /ws.
type Server struct {
	config Config
	parts  Parts
	melody *melody.Melody

	ctx     context.Context // ends when the server shuts down
	cancel  context.CancelFunc
	gone    context.Context // ends when all sockets are gone after that
	drained context.CancelFunc
	ticking sync.WaitGroup

	open    handoff.Open
	mu      sync.Mutex
	sockets map[string]*socket
}

// New makes a Server. [Server.Shutdown] ends it.
func New(config Config, parts Parts) (*Server, error) {
	if err := config.validate(parts); err != nil {
		return nil, err
	}
	s := &Server{config: config.withDefaults(), parts: parts, sockets: map[string]*socket{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.gone, s.drained = context.WithCancel(context.Background())
	s.melody = s.newMelody()
	s.ticking.Go(func() { isolate.Loop(s.gone, parts.Logger, where, s.tick) })
	return s, nil
}

// sessionSocket is the key under which a Melody session knows its socket.
const sessionSocket = "socket"

func (s *Server) newMelody() *melody.Melody {
	m := melody.New()
	m.Upgrader = &websocket.Upgrader{
		CheckOrigin:     func(*http.Request) bool { return true }, // checked before, see ServeHTTP
		Subprotocols:    []string{Subprotocol},
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 4 << 10,
	}
	m.Config.MaxMessageSize = s.config.MaxFrame
	m.Config.MessageBufferSize = 4 // one frame and a close are all there ever is
	m.Config.PongWait = s.config.PongWait
	m.Config.WriteWait = s.config.PongWait
	m.Config.PingPeriod = s.config.PongWait / 4
	m.HandleConnect(func(session *melody.Session) { defer s.caught(session); socketOf(session).connected(session) })
	m.HandleDisconnect(func(session *melody.Session) { defer s.caught(session); socketOf(session).disconnected() })
	m.HandleMessage(func(session *melody.Session, message []byte) { socketOf(session).receiveApart(message) })
	m.HandleMessageBinary(func(session *melody.Session, _ []byte) { defer s.caught(session); socketOf(session).receiveBinary() })
	m.HandlePong(func(session *melody.Session) {
		defer s.caught(session)
		handoff.Whole(session.WebsocketConnection())
		socketOf(session).control()
	})
	m.HandleSentMessage(func(session *melody.Session, _ []byte) { defer s.caught(session); socketOf(session).sent() })
	return m
}

// where names this face among the panics that were caught.
const where = "ws"

// caught ends what Melody calls for a socket, in goroutines of its own, when that
// panics: it closes the socket. It is to be deferred.
func (s *Server) caught(session *melody.Session) {
	if value := recover(); value != nil {
		isolate.Recovered(s.parts.Logger, where, value)
		_ = session.WebsocketConnection().Close()
	}
}

func socketOf(session *melody.Session) *socket { return session.MustGet(sessionSocket).(*socket) }

// ServeHTTP upgrades the request. Who shows no valid credential is upgraded too
// and closed with 4401 at once: browsers do not let a page see HTTP statuses.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is a WebSocket endpoint", http.StatusUpgradeRequired)
		return
	}
	// Before the credential is looked at: a foreign page must not use up a ticket.
	if !s.config.CheckOrigin(r) {
		http.Error(w, "pages of this origin are not allowed", http.StatusForbidden)
		return
	}
	if !s.open.Enter() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.open.Leave()
	actor, err := s.parts.Authenticator.Authenticate(r.Context(), r)
	if err == nil {
		err = limit.Handshake(r.Context(), s.parts.Limiter, actor)
	}
	so := newSocket(s, r.RemoteAddr, actor)
	if err != nil {
		so.refused = s.shown(err, "authenticate")
	}
	handoff.Serve(w, &s.open, s.parts.Logger, func(w http.ResponseWriter) {
		if err := s.melody.HandleRequestWithKeys(w, r, map[string]any{sessionSocket: so}); err != nil {
			s.parts.Logger.Debug("ws: no upgrade", "remote", so.remote, "error", err)
		}
	})
}

// add lists a socket, and reports whether the server is shutting down.
func (s *Server) add(so *socket) (closing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sockets[so.id] = so
	return s.open.Closing()
}

func (s *Server) remove(so *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, so.id)
}

func (s *Server) all() []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*socket, 0, len(s.sockets))
	for _, so := range s.sockets {
		list = append(list, so)
	}
	return list
}

// Sockets describes the sockets of this server that are open.
func (s *Server) Sockets() []rooms.Socket {
	var list []rooms.Socket
	for _, so := range s.all() {
		if !so.isEnding() {
			list = append(list, so.describe())
		}
	}
	return list
}

// Disconnect throws out the sockets that match: they are told why and closed
// with 4409, or leave one room. It returns how many there were, without waiting for
// them.
func (s *Server) Disconnect(match func(rooms.Socket) bool, why ForcedDisconnect) int {
	n := 0
	frame := encodeFrame(eventForcedDisconnect, nil, why)
	for _, so := range s.all() {
		switch about := so.describe(); {
		case !match(about):
		case about.LivesWithout(why.Room):
			if so.dismiss(why.Room, why.Reason) {
				n++
			}
		case so.end(closeThrownOut, frame):
			n++
		}
	}
	return n
}

// Shutdown closes all sockets with 1012, takes no new ones, and waits until all
// are gone. When ctx ends before that, the rest is cut off, and Shutdown returns
// ctx's error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context) error {
	s.open.Close()
	s.cancel()
	for _, so := range s.all() {
		so.end(closeRestart)
	}
	err := s.open.Drain(ctx, func() {
		for _, so := range s.all() {
			so.cut()
		}
	})
	s.drained()
	s.ticking.Wait()
	return err
}

// tick looks after the times that sockets have to keep, until the last is gone.
// One goroutine for all of them costs less than a timer or two each.
func (s *Server) tick() {
	ticker := time.NewTicker(s.config.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-s.gone.Done():
			return
		case now := <-ticker.C:
			for _, so := range s.due(now) {
				if !isolate.Do(s.parts.Logger, where, func() { so.tick(now) }) {
					so.cut()
				}
			}
		}
	}
}

// due returns the sockets that want to be looked at.
func (s *Server) due(now time.Time) []*socket {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*socket
	at := now.UnixNano()
	for _, so := range s.sockets {
		if so.due.Load() <= at {
			list = append(list, so)
		}
	}
	return list
}

// shown is what a client is shown of an error. What is not meant for clients is
// logged, and shown as something to try again.
func (s *Server) shown(err error, doing string) *domain.Error {
	e := domain.AsError(err)
	if e.Kind == domain.KindInternal {
		s.parts.Logger.Warn("ws: cannot "+doing, "error", err)
		return domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this cannot be done now; try again in a moment")
	}
	return e
}

func newSocketID() string { return uuid.NewString() }
