package outbound

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// Pattern is where devices dial in, on a mux. [Prefix] is all that is near it: a
// mux should give that to the server as well, because a mistyped URL has a key in
// it that others would log.
const (
	Pattern = "GET /shelly/{connectionId}/{key}"
	Prefix  = "/shelly/"
)

// Server lets devices in. It is an [http.Handler] for [Pattern], and safe for
// concurrent use.
type Server struct {
	config Config
	parts  Parts
	melody *melody.Melody
	door   *door
	new    *newcomers

	ctx    context.Context // ends when the server shuts down for good
	cancel context.CancelFunc
	open   handoff.Open

	mu       sync.Mutex
	sessions map[shelly.Connection]map[*session]struct{}
	devices  map[shelly.DeviceRef]*session // by the name that the device gives itself

	sockets, frames atomic.Int64
	refusals        *refusals
}

var _ shelly.Holder = (*Server)(nil)

// New makes a Server. [Server.Shutdown] ends it.
func New(config Config, parts Parts) (*Server, error) {
	if err := parts.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config: config.withDefaults(), parts: parts,
		sessions: map[shelly.Connection]map[*session]struct{}{}, devices: map[shelly.DeviceRef]*session{},
	}
	s.door = newDoor(&s.config)
	s.new = newNewcomers(&s.config, parts.Devices)
	s.refusals = newRefusals(parts.Logger)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.melody = s.newMelody()
	return s, nil
}

const sessionKey = "session"

func (s *Server) newMelody() *melody.Melody {
	m := melody.New()
	m.Upgrader = &websocket.Upgrader{
		CheckOrigin:     func(*http.Request) bool { return true }, // the key is what counts, and no page has one
		Subprotocols:    []string{"json-rpc"},                     // what other servers offer devices (measured)
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 1 << 10,
	}
	m.Config.MaxMessageSize = s.config.MaxFrame
	m.Config.MessageBufferSize = s.config.MaxPending + 6 // commands, questions of our own, and a close
	m.Config.PingPeriod = s.config.PingEvery
	m.Config.PongWait = s.pongWait()
	m.Config.WriteWait = s.config.AskWithin
	m.HandleConnect(func(ms *melody.Session) { defer s.caught(ms); sessionOf(ms).connected(ms) })
	receive := func(ms *melody.Session, message []byte) { defer s.caught(ms); sessionOf(ms).receive(message) }
	m.HandleMessage(receive)
	m.HandleMessageBinary(receive) // JSON all the same, from some
	m.HandlePong(func(ms *melody.Session) {
		defer s.caught(ms)
		handoff.Whole(ms.WebsocketConnection())
		sessionOf(ms).pong()
	})
	m.HandleError(func(ms *melody.Session, err error) { defer s.caught(ms); sessionOf(ms).broke(err) })
	m.HandleDisconnect(func(ms *melody.Session) { defer s.caught(ms); sessionOf(ms).disconnected() })
	return m
}

// where names this server among the panics that were caught.
const where = "shelly outbound"

// caught ends what Melody calls for a socket, in goroutines of its own, when that
// panics: it closes the socket. It is to be deferred.
func (s *Server) caught(session *melody.Session) {
	if value := recover(); value != nil {
		isolate.Recovered(s.parts.Logger, where, value)
		_ = session.WebsocketConnection().Close()
	}
}

// pongWait is how long a device may answer no ping: two, and time for the answer.
func (s *Server) pongWait() time.Duration { return 2*s.config.PingEvery + s.config.PingEvery/2 }

func sessionOf(ms *melody.Session) *session { return ms.MustGet(sessionKey).(*session) }

// ServeHTTP lets a device in, or says why not with an HTTP status: devices log it.
// Nothing of the URL goes anywhere, because the key is in it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.PathValue("key") == "":
		http.Error(w, "devices dial /shelly/CONNECTION/KEY", http.StatusNotFound)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "this is where Shelly devices open a WebSocket", http.StatusMethodNotAllowed)
		return
	}
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this is where Shelly devices open a WebSocket", http.StatusUpgradeRequired)
		return
	}
	found, err := s.credential(r)
	switch {
	case err != nil && domain.AsError(err).Kind != domain.KindNotFound && domain.AsError(err).Kind != domain.KindInvalid:
		s.parts.Logger.Warn("outbound: cannot look a connection up", "error", err)
		s.refuse(w, "unavailable", http.StatusServiceUnavailable, 5*time.Second)
		return
	case err != nil || !credential.Match(found.KeyHash, r.PathValue("key")):
		// Only after the key: the address may be a proxy's, and that of every device.
		if s.door.stranger(r.RemoteAddr, time.Now()) {
			s.refuse(w, "too-many-wrong-keys", http.StatusTooManyRequests, time.Minute)
			return
		}
		// Nothing of the path can be told: a mistyped one has the key anywhere in it.
		s.refusals.note(shelly.Connection{}, domain.DeviceRefusal{Reason: "unknown-key", Remote: r.RemoteAddr})
		s.refuse(w, "unknown-key", http.StatusUnauthorized, 0)
		return
	}
	limit.Attributed(r.Context()) // a device with a valid key, however many there are at its address
	switch {
	case s.door.refuses(&found):
		s.refusals.note(found.Connection, domain.DeviceRefusal{Reason: "stopped", Remote: r.RemoteAddr})
		s.refuse(w, "stopped", http.StatusForbidden, 0)
		return
	}
	if !s.open.Enter() {
		s.refuse(w, "shutting-down", http.StatusServiceUnavailable, time.Second)
		return
	}
	defer s.open.Leave()
	one := newSession(s, found, r.RemoteAddr)
	handoff.Serve(w, &s.open, s.parts.Logger, func(w http.ResponseWriter) {
		if err := s.melody.HandleRequestWithKeys(w, r, map[string]any{sessionKey: one}); err != nil {
			one.cancel() // it never runs
			s.parts.Logger.Debug("outbound: no upgrade", "connection", found.ID, "error", err)
		}
	})
}

func (s *Server) credential(r *http.Request) (Credential, error) {
	id, err := domain.ParseConnectionID(r.PathValue("connectionId"))
	if err != nil {
		return Credential{}, err
	}
	return s.parts.Credentials.Credential(r.Context(), id, credential.Conceal(r.PathValue("key")))
}

// refusal texts, by reason.
var refusalTexts = map[string]string{
	"too-many-wrong-keys": "too many wrong keys from this address",
	"unavailable":         "this cannot be looked up now",
	"unknown-key":         "unknown connection or key",
	"stopped":             "the connection is stopped",
	"shutting-down":       "the server is shutting down",
}

func (s *Server) refuse(w http.ResponseWriter, reason string, status int, retryAfter time.Duration) {
	s.refusals.count(reason)
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	http.Error(w, refusalTexts[reason], status)
}

// LastRefusals are the last refusals of devices by this process, for what came over
// a connection, the newest first.
func (s *Server) LastRefusals(system domain.SystemID, id domain.ConnectionID) []domain.DeviceRefusal {
	return s.refusals.of(shelly.Connection{System: system, ID: id})
}

// add lists a session, and says why it has to end at once, if it has to: what was
// true at the handshake may not be true any more.
func (s *Server) add(one *session) (rule *closeRule, f fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := one.credential.Connection
	if s.sessions[id] == nil {
		s.sessions[id] = map[*session]struct{}{}
	}
	s.sessions[id][one] = struct{}{}
	switch {
	case s.open.Closing():
		return &closeRestart, fateRestart
	case s.door.refuses(&one.credential):
		return &closeStopped, fateForget
	case s.door.isOld(&one.credential):
		return &closeLater, fateClosed
	case len(s.sessions[id]) > s.config.MaxDevices:
		s.refusals.count("too-many-devices")
		s.refusals.note(one.credential.Connection, domain.DeviceRefusal{
			Reason: "too-many-devices", Remote: one.remote, Detail: fmt.Sprintf("there are %d on this process", s.config.MaxDevices),
		})
		return &closeTooMany, fateClosed
	}
	return nil, fateClosed
}

func (s *Server) remove(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := one.credential.Connection
	delete(s.sessions[id], one)
	if len(s.sessions[id]) == 0 {
		delete(s.sessions, id)
	}
	if ref := one.ref(); s.devices[ref] == one {
		delete(s.devices, ref)
	}
}

// claim makes the session the one that holds its device here, and returns the one
// that did.
func (s *Server) claim(one *session) (old *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.devices[one.ref()]
	s.devices[one.ref()] = one
	return old
}

// holder is the session that holds a device or a channel of it, or nil.
func (s *Server) holder(d shelly.DeviceRef) *session {
	base, _, _ := strings.Cut(string(d.Device), ":")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[shelly.DeviceRef{System: d.System, Device: domain.DeviceID(base)}]
}

func (s *Server) of(id shelly.Connection) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.sessions[id]))
}

// Allow says that a connection was started, at that position of the log.
func (s *Server) Allow(id shelly.Connection, at domain.Position) { s.door.command(id, at, allowed) }

// Refuse says that a connection was stopped, at that position of the log: devices
// that dial in are refused from here on. Those that are in already stay until
// [Server.Drop].
func (s *Server) Refuse(id shelly.Connection, at domain.Position) { s.door.command(id, at, stopped) }

// Remove is [Server.Refuse] for a connection that was deleted.
func (s *Server) Remove(id shelly.Connection, at domain.Position) { s.door.command(id, at, deleted) }

// Renew says that the connection's key was replaced, at that position of the log:
// a handshake that is under way with what was known before ends with 1013. Those
// that are in already stay until [Server.Drop].
func (s *Server) Renew(id shelly.Connection, at domain.Position) { s.door.renew(id, at) }

// Drop closes the sockets of a connection that were opened by then and returns how
// many there were, without waiting for them. Nobody will find the devices of a
// stopped connection silent for it: that is known already when Drop returns. Those
// of a deleted one are silent unless they come back soon, and others have all the
// time that a device may be silent.
func (s *Server) Drop(id shelly.Connection, openedBy time.Time) int {
	n, f := 0, s.door.fateOf(id)
	for _, one := range s.of(id) {
		if !one.began.After(openedBy) && one.end(closeDropped, f) {
			n++
		}
	}
	return n
}

// Lost says that another process holds the device now: the session's socket is of
// no use any more.
func (s *Server) Lost(d shelly.DeviceRef, session string) {
	if one := s.holder(d); one != nil && one.id == session {
		one.end(closeReplaced, fateReplaced)
	}
}

// Shutdown closes all sockets with 1012, takes no new ones, and waits until all
// are gone. When ctx ends before that, the rest is cut off, and Shutdown returns
// ctx's error. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context) error {
	err := handoff.Shutdown(ctx, &s.open, s.all, func(one *session) { one.end(closeRestart, fateRestart) }, func() {
		s.cancel()
		for _, one := range s.all() {
			one.cut()
		}
	})
	s.cancel()
	return err
}

func (s *Server) all() (all []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.sessions {
		all = slices.AppendSeq(all, maps.Keys(of))
	}
	return all
}

// Stats counts what a [Server] does.
type Stats struct {
	Sockets  int              // that are open
	Frames   int64            // that came since the start
	Refusals map[string]int64 // since the start, by reason
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	return Stats{Sockets: int(s.sockets.Load()), Frames: s.frames.Load(), Refusals: s.refusals.counts()}
}

func newSessionID() string { return uuid.NewString() }
