package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/backoff"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/socketio/engineio"
	"github.com/plugcast/plugcast/transport/socketio/packet"
	"github.com/plugcast/plugcast/transport/socketio/sio"
	"github.com/plugcast/plugcast/transport/strictjson"
)

// Server serves unmodified socket.io-client applications. It is an [http.Handler]
// for /socket.io/.
type Server struct {
	config   Config
	parts    client.Parts
	sessions Sessions
	clients  *client.Server
	sio      *sio.Server
}

// New makes a Server that keeps its clients' sessions in a store. [Server.Run] has to run
// while it serves.
func New(config Config, parts client.Parts, sessions Sessions) (*Server, error) {
	if parts.Authenticator == nil || sessions == nil {
		return nil, errors.New("socketio: an authenticator and sessions are needed")
	}
	s := &Server{config: config.withDefaults(), parts: parts, sessions: sessions}
	c := &s.config
	var err error
	s.sio, err = sio.New(sio.Config{
		Namespaces: map[string]sio.Namespace{packet.Main: s.connect}, OnHandshake: s.readHandshake, Logger: parts.Logger,
		Engine: engineio.Config{
			PingInterval: c.PingInterval, PingTimeout: c.PingTimeout, Tick: c.Tick, MaxPayload: c.MaxFrame, MaxUnsettled: c.MaxUnsettled,
			CheckOrigin: c.CheckOrigin, NewID: c.NewID, Elsewhere: c.Elsewhere,
			Known: func(r *http.Request) { limit.Attributed(r.Context()) }, Logger: parts.Logger,
		},
	})
	if err != nil {
		return nil, err
	}
	s.clients, err = client.NewServer(client.Config{
		Face: where, MaxRooms: c.MaxRooms, MaxRoomsStaff: c.MaxRooms, OneSubject: true, JoinTimeout: c.JoinTimeout, Tick: c.Tick,
		Rates: c.Rates, Position: positionIn, Encoding: encoding{},
	}, parts)
	return s, err
}

// Run enforces the deadlines of sockets and extends the saved sessions of connected clients
// until ctx ends, and then returns nil. It has to run until [Server.Shutdown] has returned.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.sio.Run(ctx) })
	group.Go(func() error { return s.clients.Run(ctx) })
	group.Go(func() error {
		isolate.Loop(ctx, s.parts.Logger, where, func() { s.keep(ctx) })
		return nil
	})
	return group.Wait()
}

// timeout returns a context for a change of a session, or for a handshake.
func (s *Server) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.clients.Context(), s.config.JoinTimeout)
}

// where names this face in lists of sockets and in the log lines of recovered panics.
const where = "socketio"

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.sio.ServeHTTP(w, r) }

// Shutdown closes all sockets so that their clients reconnect to another process, accepts no
// new ones, and waits until all are gone. If ctx ends first, it aborts the remaining
// connections and returns ctx's error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context) error {
	s.clients.Stop()
	err := s.sio.Shutdown(ctx)
	_ = s.clients.Shutdown(ctx, func(client.Face) {}) // all are gone
	return err
}

// Sockets returns the open sockets.
func (s *Server) Sockets() []domain.Socket { return s.clients.Sockets() }

// Disconnect disconnects the sockets that match, or takes them out of one room, and tells
// their clients the reason. It returns the number of sockets without waiting for them.
func (s *Server) Disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) int {
	return s.clients.Disconnect(match, why)
}

// handshakeCredential is the result of the authentication of the request that began a
// connection.
type handshakeCredential struct {
	actor domain.Actor
	err   error
}

// readHandshake authenticates the request itself if it has a credential, which clients other
// than browsers can put there.
func (s *Server) readHandshake(r *http.Request) any {
	query := r.URL.Query()
	if r.Header.Get("Authorization") == "" && !query.Has("ticket") && !query.Has("token") && !query.Has("access_token") {
		return nil // the usual case: the credential is auth.token
	}
	ctx, cancel := s.timeout()
	defer cancel()
	actor, err := s.parts.Authenticator.Authenticate(ctx, r)
	return handshakeCredential{actor, err}
}

// connectAuth is the auth option of a client. Unknown members belong to the application.
type connectAuth struct {
	Token, PID, Offset string
	// After is a place that the application keeps, for clients without connection state
	// recovery. Joins without a place begin after it.
	After string
}

// readAuth parses a client's auth option, which may be null or missing.
func readAuth(sent []byte) (a connectAuth, err error) {
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
		return sio.Accepted{}, refusal(domain.Invalid(CodeInvalidEvent,
			"auth's token, pid, offset and after must be strings, and appear at most once"))
	}
	if a.After != "" {
		if _, err := positionIn(a.After, ""); err != nil {
			return sio.Accepted{}, refusal(domain.AsError(err))
		}
	}
	ctx, cancel := s.timeout()
	defer cancel()
	actor, err := s.authenticate(ctx, io, a.Token)
	if err == nil {
		err = limit.Handshake(ctx, s.parts.Limiter, actor)
	}
	if err != nil {
		return sio.Accepted{}, shown(err)
	}
	if f, banned := s.clients.Ban(actor, ""); banned {
		return sio.Accepted{}, refusal(f.Refusal(time.Now()))
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
		if at, ok := io.HandshakeData().(handshakeCredential); ok {
			return at.actor, at.err
		}
	}
	return s.parts.Authenticator.Verify(ctx, token)
}

// restore makes the socket of a client, in its previous rooms if it can resume them.
func (s *Server) restore(ctx context.Context, io *sio.Socket, actor domain.Actor, a connectAuth) (*socket, error) {
	var shown *offset
	if o, ok := parseOffset(a.Offset); ok && len(a.Offset) <= maxOffset {
		shown = &o
	}
	if ref, ok := parsePID(a.PID, actor); ok {
		so := newSocket(s, io, actor, ref)
		if err := so.reclaim(ctx, shown); err == nil {
			return so, nil
		} else if !errors.Is(err, errNotResumable) {
			return nil, err
		}
	}
	so := newSocket(s, io, actor, newRef(actor))
	if shown != nil {
		so.saved.Revision = shown.revision // the client will send this offset again, and the new session must not treat it as its own
	}
	return so, nil
}

// keep extends the expiry of the connected clients' sessions every KeepEvery until ctx ends.
func (s *Server) keep(ctx context.Context) {
	backoff.Every(ctx, s.config.KeepEvery, func(time.Time) {
		var refs []domain.SessionRef
		s.clients.Each(func(f client.Face) {
			if so := f.(*socket); so.hasJoined() {
				refs = append(refs, so.ref)
			}
		})
		if err := s.sessions.Keep(ctx, refs); err != nil && ctx.Err() == nil {
			s.parts.Logger.Warn("socketio: cannot extend the expiry of sessions; will retry", "error", err)
		}
	})
}
