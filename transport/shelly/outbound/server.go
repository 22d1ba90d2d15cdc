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

	"github.com/gorilla/websocket"
	"github.com/olahol/melody"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/transport/handoff"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/shelly"
	"github.com/plugcast/plugcast/transport/shelly/credential"
)

// Pattern is the mux pattern of the URL that devices dial. A mux should route everything
// below [Prefix] to the server as well, because a mistyped URL has a key in it that other
// handlers would log.
const (
	Pattern = "GET /shelly/{connectionId}/{key}"
	Prefix  = "/shelly/"
)

// Server serves the devices that dial in. It is an [http.Handler] for [Pattern], and safe
// for concurrent use.
type Server struct {
	config    Config
	parts     Parts
	melody    *melody.Melody
	admission *admission
	limit     *deviceLimit

	ctx    context.Context // ends when Shutdown is done or gives up
	cancel context.CancelFunc
	open   handoff.Group

	mu       sync.Mutex
	sessions map[domain.ConnectionRef]map[*session]struct{}
	devices  map[domain.DeviceRef]*session // by the name that the device gives itself

	sockets, frames atomic.Int64
}

var _ shelly.Holder = (*Server)(nil)

// New returns a Server. It starts nothing; [Server.Shutdown] ends the served sockets.
func New(config Config, parts Parts) (*Server, error) {
	if err := parts.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		config: config.withDefaults(), parts: parts,
		sessions: map[domain.ConnectionRef]map[*session]struct{}{}, devices: map[domain.DeviceRef]*session{},
	}
	s.admission = newAdmission(&s.config)
	s.limit = newDeviceLimit(&s.config, parts.Devices, parts.Quota)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.melody = s.newMelody()
	return s, nil
}

const sessionKey = "session"

func (s *Server) newMelody() *melody.Melody {
	m := melody.New()
	m.Upgrader = &websocket.Upgrader{
		CheckOrigin:     func(*http.Request) bool { return true }, // the key decides, and no web page has one
		Subprotocols:    []string{"json-rpc"},                     // other servers offer it to devices (measured)
		WriteBufferPool: &sync.Pool{},
		WriteBufferSize: 1 << 10,
	}
	m.Config.MaxMessageSize = s.config.MaxFrame
	m.Config.MessageBufferSize = s.config.MaxPending + 6 // commands, requests of our own, and a close
	m.Config.PingPeriod = s.config.PingEvery
	m.Config.PongWait = s.pongWait()
	m.Config.WriteWait = s.config.RequestTimeout
	m.HandleConnect(func(ms *melody.Session) { defer s.recoverPanic(ms); sessionOf(ms).connected(ms) })
	receive := func(ms *melody.Session, message []byte) { defer s.recoverPanic(ms); sessionOf(ms).receive(message) }
	m.HandleMessage(receive)
	m.HandleMessageBinary(receive) // some devices send JSON in binary messages
	m.HandlePong(func(ms *melody.Session) {
		defer s.recoverPanic(ms)
		handoff.FrameRead(ms.WebsocketConnection())
		sessionOf(ms).pong()
	})
	m.HandleError(func(ms *melody.Session, err error) { defer s.recoverPanic(ms); sessionOf(ms).onError(err) })
	m.HandleDisconnect(func(ms *melody.Session) { defer s.recoverPanic(ms); sessionOf(ms).disconnected() })
	return m
}

// where names this server in the log of caught panics.
const where = "shelly outbound"

// recoverPanic closes the socket when one of its Melody callbacks panics. Callbacks run in
// Melody's own goroutines and must defer it.
func (s *Server) recoverPanic(session *melody.Session) {
	if value := recover(); value != nil {
		isolate.Recovered(s.parts.Logger, where, value)
		_ = session.WebsocketConnection().Close()
	}
}

// pongWait is how long a device may leave pings unanswered: two, and time for an answer.
func (s *Server) pongWait() time.Duration { return 2*s.config.PingEvery + s.config.PingEvery/2 }

func sessionOf(ms *melody.Session) *session { return ms.MustGet(sessionKey).(*session) }

// ServeHTTP upgrades a device's request, or answers with an HTTP status, which devices log.
// It never logs the URL, because the key is in it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.PathValue("key") == "":
		http.Error(w, "devices dial /shelly/CONNECTION/KEY", http.StatusNotFound)
		return
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Shelly devices open a WebSocket here", http.StatusMethodNotAllowed)
		return
	}
	if !websocket.IsWebSocketUpgrade(r) {
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "Shelly devices open a WebSocket here", http.StatusUpgradeRequired)
		return
	}
	found, err := s.credential(r)
	switch {
	case err != nil && domain.AsError(err).Kind != domain.KindNotFound && domain.AsError(err).Kind != domain.KindInvalid:
		s.parts.Logger.Warn("outbound: cannot look up a connection", "error", err)
		s.refuse(w, "unavailable", http.StatusServiceUnavailable, 5*time.Second)
		return
	case err != nil || !credential.Match(found.KeyHash, r.PathValue("key")):
		// Checked after the key, because all devices may share a proxy's address.
		if s.admission.addWrongKey(r.RemoteAddr, time.Now()) {
			s.refuse(w, "too-many-wrong-keys", http.StatusTooManyRequests, time.Minute)
			return
		}
		// The path is not logged, because a mistyped one may have the key in any part.
		s.parts.Refusals.Note(domain.ConnectionRef{}, domain.DeviceRefusal{Reason: "unknown-key", Remote: r.RemoteAddr})
		s.refuse(w, "unknown-key", http.StatusUnauthorized, 0)
		return
	}
	limit.Attributed(r.Context()) // devices with a valid key have no limit per address
	switch {
	case s.admission.isStopped(&found):
		s.parts.Refusals.Note(found.ConnectionRef, domain.DeviceRefusal{Reason: "stopped", Remote: r.RemoteAddr})
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
			one.cancel() // the session never runs
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

// refusalTexts are the texts of HTTP refusals, by reason.
var refusalTexts = map[string]string{
	"too-many-wrong-keys": "too many wrong keys from this address",
	"unavailable":         "the connection cannot be looked up now",
	"unknown-key":         "unknown connection or key",
	"stopped":             "the connection is stopped",
	"shutting-down":       "the server is shutting down",
}

func (s *Server) refuse(w http.ResponseWriter, reason string, status int, retryAfter time.Duration) {
	s.parts.Refusals.Count(reason)
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	http.Error(w, refusalTexts[reason], status)
}

// add registers a session. If the session must end at once, because something changed
// after the handshake, add returns the close frame and the reason.
func (s *Server) add(one *session) (frame *closeFrame, why endReason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := one.credential.ConnectionRef
	if s.sessions[id] == nil {
		s.sessions[id] = map[*session]struct{}{}
	}
	s.sessions[id][one] = struct{}{}
	switch {
	case s.open.Closing():
		return &closeRestart, endRestart
	case s.admission.isStopped(&one.credential):
		return &closeStopped, endStopped
	case s.admission.isOutdated(&one.credential):
		return &closeLater, endClosed
	case len(s.sessions[id]) > s.config.MaxDevices:
		s.parts.Refusals.Count("too-many-devices")
		s.parts.Refusals.Note(one.credential.ConnectionRef, domain.DeviceRefusal{
			Reason: "too-many-devices", Remote: one.remote, Detail: fmt.Sprintf("there are %d on this process", s.config.MaxDevices),
		})
		return &closeTooMany, endClosed
	}
	return nil, endClosed
}

func (s *Server) remove(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := one.credential.ConnectionRef
	delete(s.sessions[id], one)
	if len(s.sessions[id]) == 0 {
		delete(s.sessions, id)
	}
	if ref := one.ref(); s.devices[ref] == one {
		delete(s.devices, ref)
	}
}

// setHolder makes the session the holder of its device in this process, and returns the
// former holder, if any.
func (s *Server) setHolder(one *session) (old *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old = s.devices[one.ref()]
	s.devices[one.ref()] = one
	return old
}

// holder returns the session that holds a device or a channel of it, or nil.
func (s *Server) holder(d domain.DeviceRef) *session {
	base, _, _ := strings.Cut(string(d.Device), ":")
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.devices[domain.DeviceRef{System: d.System, Device: domain.DeviceID(base)}]
}

func (s *Server) sessionsOf(id domain.ConnectionRef) []*session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.sessions[id]))
}

// Allow tells the server that a connection was started, at a position of the log.
func (s *Server) Allow(id domain.ConnectionRef, at domain.Position) {
	s.admission.setState(id, at, started)
}

// Refuse tells the server that a connection was stopped, at a position of the log. From now
// on the server refuses its devices. Open sockets stay open until [Server.Drop].
func (s *Server) Refuse(id domain.ConnectionRef, at domain.Position) {
	s.admission.setState(id, at, stopped)
}

// Remove is [Server.Refuse] for a connection that was deleted.
func (s *Server) Remove(id domain.ConnectionRef, at domain.Position) {
	s.admission.setState(id, at, deleted)
}

// Renew tells the server that a connection's key was replaced, at a position of the log. A
// handshake that is under way with an older credential ends with 1013. Open sockets stay
// open until [Server.Drop].
func (s *Server) Renew(id domain.ConnectionRef, at domain.Position) { s.admission.renew(id, at) }

// Drop closes those sockets of a connection that were opened by openedBy, and returns their
// number without waiting for them. When Drop returns, the watch over silent devices has
// already ended for the devices of a stopped connection. Devices of a deleted connection
// count as silent after CloseGrace, and others after SilentAfter, unless they are back.
func (s *Server) Drop(id domain.ConnectionRef, openedBy time.Time) int {
	n, why := 0, s.admission.dropReason(id)
	for _, one := range s.sessionsOf(id) {
		if !one.began.After(openedBy) && one.end(closeDropped, why) {
			n++
		}
	}
	return n
}

// Lost tells the server that another process holds the device now. The server closes the
// session's socket.
func (s *Server) Lost(d domain.DeviceRef, session string) {
	if one := s.holder(d); one != nil && one.id == session {
		one.end(closeReplaced, endReplaced)
	}
}

// Shutdown accepts no new sockets, closes the open ones with 1012, and waits until all are
// gone. When ctx ends before that, it cuts the others off and returns ctx's error. Calling
// it twice is fine.
func (s *Server) Shutdown(ctx context.Context) error {
	err := handoff.Shutdown(ctx, &s.open, s.all, func(one *session) { one.end(closeRestart, endRestart) }, func() {
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

// Stats are the counts of a [Server].
type Stats struct {
	Sockets int   // open now
	Frames  int64 // received since the start
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	return Stats{Sockets: int(s.sockets.Load()), Frames: s.frames.Load()}
}
