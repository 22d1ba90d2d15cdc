package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/packet"
	"github.com/plugcast/plugcast/transport/socketio/sio"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// Server serves unmodified socket.io-client applications. It is an [http.Handler]
// for /socket.io/.
type Server struct {
	config Config
	parts  Parts
	sio    *sio.Server

	ctx     context.Context // ends when the server shuts down
	cancel  context.CancelFunc
	keeping sync.WaitGroup

	dismissing handoff.Open  // sockets that a command takes out of a room
	saving     chan struct{} // one for each of those that saves it

	mu      sync.Mutex
	sockets map[string]*socket // by their ids
}

// New makes a Server. [Server.Shutdown] ends it.
func New(config Config, parts Parts) (*Server, error) {
	if err := parts.validate(); err != nil {
		return nil, err
	}
	s := &Server{config: config.withDefaults(), parts: parts, sockets: map[string]*socket{}, saving: make(chan struct{}, savedAtOnce)}
	c := &s.config
	var err error
	s.sio, err = sio.New(sio.Config{
		Namespaces: map[string]sio.Namespace{packet.Main: s.connect}, Greet: s.greet, Logger: parts.Logger,
		Engine: engineio.Config{
			PingInterval: c.PingInterval, PingTimeout: c.PingTimeout, Tick: c.Tick, MaxPayload: c.MaxFrame, MaxUnsettled: c.MaxUnsettled,
			CheckOrigin: c.CheckOrigin, NewID: c.NewID, Elsewhere: c.Elsewhere,
			Known: func(r *http.Request) { limit.Attributed(r.Context()) }, Logger: parts.Logger,
		},
	})
	if err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.keeping.Go(func() { isolate.Loop(s.ctx, parts.Logger, where, s.keep) })
	return s, nil
}

// savedAtOnce is how many sockets save at a time that a command took them out of a
// room.
const savedAtOnce = 32

// where names this face among the panics that were caught.
const where = "socketio"

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.sio.ServeHTTP(w, r) }

// Shutdown closes all sockets so that their clients come back elsewhere, takes no
// new ones, and waits until all are gone. When ctx ends before that, the rest is
// cut off, and Shutdown returns ctx's error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context) error {
	s.cancel()
	err := s.sio.Shutdown(ctx)
	s.dismissing.Close()
	_ = s.dismissing.Drain(ctx, func() {}) // what it waits for ends with s.ctx
	s.keeping.Wait()
	return err
}

// Sockets describes the sockets of this server that are open.
func (s *Server) Sockets() []rooms.Socket {
	var list []rooms.Socket
	for _, so := range s.all() {
		list = append(list, so.describe())
	}
	return list
}

// ForcedDisconnect says why a socket is thrown out.
type ForcedDisconnect struct {
	Reason    string `json:"reason"`
	CommandID string `json:"commandId"`
	Reconnect bool   `json:"reconnect"` // whether the client may come back at once
	// Room is the system whose room this is about: a socket that lives on without it,
	// see [rooms.Socket.LivesWithout], is not closed but leaves it. Empty is all rooms.
	Room domain.SystemID `json:"-"`
}

// Disconnect throws out the sockets that match: they are told why. Who may come
// back does so by itself; who may not is disconnected by the server, after which
// unmodified clients stay away. Some only leave one room. It returns how many there
// were, without waiting for them.
func (s *Server) Disconnect(match func(rooms.Socket) bool, why ForcedDisconnect) int {
	n := 0
	for _, so := range s.all() {
		switch about := so.describe(); {
		case !match(about):
		case about.LivesWithout(why.Room):
			if so.dismiss(why.Room, why.Reason) {
				n++
			}
		case so.throwOut(why):
			n++
		}
	}
	return n
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

// add lists a socket, unless it is over already: its connection may break before
// it is told that it is connected.
func (s *Server) add(so *socket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if so.isOver() {
		return false
	}
	s.sockets[so.io.ID()] = so
	return true
}

func (s *Server) remove(so *socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sockets, so.io.ID())
}

// shownAtHandshake is what the request showed that began a connection.
type shownAtHandshake struct {
	actor domain.Actor
	err   error
}

// greet looks for a credential in the request itself, where clients that are no
// browsers can put one.
func (s *Server) greet(r *http.Request) any {
	query := r.URL.Query()
	if r.Header.Get("Authorization") == "" && !query.Has("ticket") && !query.Has("token") && !query.Has("access_token") {
		return nil // nearly always: then auth.token says who it is
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.config.JoinTimeout)
	defer cancel()
	actor, err := s.parts.Authenticator.Authenticate(ctx, r)
	return shownAtHandshake{actor, err}
}

// auth is what a client sends when it connects. Members that are not known here
// are the application's own.
type auth struct {
	Token, PID, Offset string
	// After is the place that a client kept by itself which has no connection state
	// recovery: joins that name none begin behind it.
	After string
}

// readAuth reads a client's auth, which may be null or missing.
func readAuth(sent []byte) (a auth, err error) {
	if len(sent) == 0 || string(sent) == "null" {
		return a, nil
	}
	err = strictjson.Pick(sent, strictjson.Member{Name: "token", Into: &a.Token}, strictjson.Member{Name: "pid", Into: &a.PID},
		strictjson.Member{Name: "offset", Into: &a.Offset}, strictjson.Member{Name: "after", Into: &a.After})
	return a, err
}

// connect implements [sio.Namespace].
func (s *Server) connect(io *sio.Socket, sent json.RawMessage) (sio.Accepted, error) {
	a, err := readAuth(sent)
	if err != nil {
		return sio.Accepted{}, refusal(domain.Invalid(CodeInvalidEvent, "auth's token, pid, offset and after must be strings, each there once"))
	}
	if a.After != "" {
		if _, err := positionIn(a.After, ""); err != nil {
			return sio.Accepted{}, refusal(domain.AsError(err))
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.config.JoinTimeout)
	defer cancel()
	actor, err := s.authenticate(ctx, io, a.Token)
	if err == nil {
		err = limit.Handshake(ctx, s.parts.Limiter, actor)
	}
	if err != nil {
		return sio.Accepted{}, shown(err)
	}
	if f, banned := s.ban(actor, ""); banned {
		return sio.Accepted{}, refusal(f.Refusal())
	}
	so, err := s.restore(ctx, io, actor, a)
	if err != nil {
		return sio.Accepted{}, shown(err)
	}
	so.after = a.After
	return sio.Accepted{Handler: so, PID: pidOf(so.ref)}, nil
}

func (s *Server) authenticate(ctx context.Context, io *sio.Socket, token string) (domain.Actor, error) {
	if token == "" {
		if at, ok := io.Greeting().(shownAtHandshake); ok {
			return at.actor, at.err
		}
	}
	return s.parts.Authenticator.Verify(ctx, token)
}

// restore makes the socket of a client, in its rooms if it has been here before
// and nothing is missing.
func (s *Server) restore(ctx context.Context, io *sio.Socket, actor domain.Actor, a auth) (*socket, error) {
	var shown *offset
	if o, ok := parseOffset(a.Offset); ok && len(a.Offset) <= maxOffset {
		shown = &o
	}
	if ref, ok := parsePID(a.PID, actor); ok {
		so := newSocket(s, io, actor, ref)
		session, known, err := so.claim(ctx)
		if err != nil {
			return nil, err
		}
		if known {
			err := so.resume(ctx, session, shown)
			if err == nil {
				return so, nil
			}
			if so.leaveAll(); !errors.Is(err, errLost) {
				return nil, err
			}
		}
	}
	so := newSocket(s, io, actor, newRef(actor))
	if shown != nil {
		so.session.Turn = shown.turn // the client will show it again, and must not be taken at its word
	}
	return so, nil
}

// ban asks whether the actor may come back.
func (s *Server) ban(actor domain.Actor, system domain.SystemID) (rooms.Banned, bool) {
	return rooms.CheckBan(s.parts.Ban, actor, system)
}

// barred says why the actor may not be in a system's room, or returns "".
func (s *Server) barred(actor domain.Actor, system domain.SystemID) string {
	if actor.Authorize(domain.ActionRead, system) != nil {
		return notForIt
	}
	if f, banned := s.ban(actor, system); banned {
		return f.Refusal().Detail
	}
	return ""
}

// keep puts off the day when the sessions of those who are connected are
// forgotten, now and again until the server shuts down.
func (s *Server) keep() {
	ticker := time.NewTicker(s.config.KeepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		var refs []domain.SessionRef
		for _, so := range s.all() {
			if so.hasJoined() {
				refs = append(refs, so.ref)
			}
		}
		if err := s.parts.Sessions.Keep(s.ctx, refs); err != nil && s.ctx.Err() == nil {
			s.parts.Logger.Warn("socketio: sessions are not kept; trying again later", "error", err)
		}
	}
}
