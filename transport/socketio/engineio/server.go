package engineio

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/transport/handoff"
)

// The transports, as a request names them.
const (
	transportPolling   = "polling"
	transportWebSocket = "websocket"
)

// version is the version of the protocol in a handshake.
const version = "4"

// Server serves sessions. It is an [http.Handler] for one path.
type Server struct {
	config Config
	melody *melody.Melody

	open handoff.Set[*socket] // WebSockets, also of sessions that ended; counts sessions too

	mu        sync.Mutex
	sessions  map[string]*Session
	admission admission
}

// New makes a Server. [Server.Run] has to run while it serves.
func New(config Config) (*Server, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	s := &Server{config: config.withDefaults(), sessions: map[string]*Session{}}
	s.admission.sources = map[string]*group{}
	s.melody = s.newMelody()
	return s, nil
}

// Run sends pings and enforces the deadlines of sessions until ctx ends, and then returns
// nil. It has to run until [Server.Shutdown] has returned.
func (s *Server) Run(ctx context.Context) error {
	clock := handoff.Clock[*Session]{
		Every: s.config.Tick, Due: func(now time.Time) []*Session { return s.due(&now) }, Tick: (*Session).tick,
		Panicked: func(session *Session) { session.fail(ReasonError) }, Where: where, Logger: s.config.Logger,
	}
	return clock.Run(ctx)
}

// ServeHTTP begins a session or serves an existing one.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.config.CheckOrigin(r) {
		failForbidden.write(w)
		return
	}
	if AllowPage(w, r) {
		return
	}
	query := r.URL.Query()
	transport, upgrade := query.Get("transport"), websocket.IsWebSocketUpgrade(r)
	if transport != transportPolling && transport != transportWebSocket {
		failTransport.write(w)
		return
	}
	if !query.Has("sid") {
		s.handshake(w, r, transport, query.Get("EIO"), upgrade)
		return
	}
	id := query.Get("sid")
	session := s.find(id)
	if session == nil || !session.check(time.Now()) {
		if elsewhere := s.config.Elsewhere(r, id); elsewhere != nil {
			elsewhere.ServeHTTP(w, r)
			return
		}
		failSession.write(w)
		return
	}
	s.config.Known(r)
	switch {
	case transport == transportWebSocket && upgrade:
		if !session.control() { // a client upgrades once
			failRequest.write(w)
			return
		}
		s.serveWebSocket(w, r, session)
	case transport == transportWebSocket || session.Transport() != transport:
		session.control()
		failRequest.write(w)
	case r.Method == http.MethodGet:
		session.servePoll(w, r)
	case r.Method == http.MethodPost:
		session.servePost(w, r)
	default:
		session.control()
		failMethod.write(w)
	}
}

// AllowPage sets the headers for a page of another origin, and answers a preflight request.
// The caller has checked that the origin is allowed.
func AllowPage(w http.ResponseWriter, r *http.Request) (answered bool) {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", origin)
	header.Set("Access-Control-Allow-Credentials", "true") // clients may ask with them; nothing here looks at cookies
	header.Add("Vary", "Origin")
	if r.Method != http.MethodOptions {
		return false
	}
	header.Set("Access-Control-Allow-Methods", "GET, POST")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		header.Set("Access-Control-Allow-Headers", asked)
	}
	header.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

func (s *Server) handshake(w http.ResponseWriter, r *http.Request, transport, asked string, upgrade bool) {
	switch {
	case r.Method != http.MethodGet:
		failMethod.write(w)
	case (transport == transportWebSocket) != upgrade:
		failRequest.write(w)
	case asked != version:
		failVersion.write(w)
	case !s.hasRoom(r.RemoteAddr, time.Now()):
		failBusy.write(w)
	case upgrade:
		s.config.Known(r)
		s.serveWebSocket(w, r, nil)
	case !s.open.Enter():
		failStopping.write(w)
	default:
		defer s.open.Leave()
		s.config.Known(r)
		s.begin(r, nil).servePoll(w, r)
	}
}

// begin makes a session, with carrier as its carrier unless that is nil. The caller must be
// counted as open. If Open panics, nothing refers to the session, so it must not be
// finished.
func (s *Server) begin(r *http.Request, carrier *socket) *Session {
	session := newSession(s, r.RemoteAddr, time.Now())
	upgrades := []string{transportWebSocket}
	if carrier != nil {
		upgrades = []string{}
	}
	session.push(outgoing{bytes: s.openPacket(session, upgrades)})
	session.handler = s.config.Open(session, r)
	s.open.AddMember() // until finish, which has to be called from here on
	if carrier != nil {
		session.mu.Lock()
		carrier.session, session.socket = session, carrier
		session.mu.Unlock()
	}
	victim, stopping := s.add(session)
	if victim != nil {
		victim.fail(ReasonForced)
	}
	session.schedule()
	session.mu.Lock()
	next := writing{}
	if carrier != nil {
		next = carrier.next()
	}
	session.mu.Unlock()
	next.write()
	if stopping {
		session.Close(ReasonStop)
	}
	return session
}

// openData is the content of the first packet.
type openData struct {
	ID           string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int64    `json:"pingInterval"` // ms
	PingTimeout  int64    `json:"pingTimeout"`  // ms
	MaxPayload   int64    `json:"maxPayload"`   // bytes
}

// openPacket returns the first packet of a session.
func (s *Server) openPacket(session *Session, upgrades []string) []byte {
	c := &s.config
	data, _ := json.Marshal(openData{ // texts and numbers
		session.id, upgrades, c.PingInterval.Milliseconds(), c.PingTimeout.Milliseconds(), c.MaxPayload,
	})
	return append([]byte{packetOpen}, data...)
}

// add lists a session, and returns a session that has to end for it.
func (s *Server) add(session *Session) (victim *Session, stopping bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[session.id] = session
	return s.enter(session, time.Now()), s.open.Closing()
}

// find returns the session of a request.
func (s *Server) find(id string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	session := s.sessions[id]
	if session != nil {
		s.spoke(session)
	}
	return session
}

// Len returns the number of sessions.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Shutdown closes all sessions, accepts no new ones, and waits until all are gone. If ctx
// ends first, it cuts the remaining connections and returns ctx's error. Calling it twice is
// fine.
func (s *Server) Shutdown(ctx context.Context) error {
	all := func() []*Session { return s.due(nil) }
	return handoff.Shutdown(ctx, &s.open.Group, all, func(one *Session) { one.Close(ReasonStop) }, func() {
		for _, one := range all() {
			one.cut()
		}
		for _, k := range s.open.All() {
			k.cut()
		}
	})
}

// due returns the sessions whose deadline has come, or all if now is nil.
func (s *Server) due(now *time.Time) []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*Session
	for _, session := range s.sessions {
		if now == nil || session.due.Load() <= now.UnixNano() {
			found = append(found, session)
		}
	}
	return found
}
