// Package sse is the Server-Sent Events face of the rooms: a system's events as
// a text stream that curl and any browser's EventSource can read.
package sse

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Pattern is where the stream is on a mux.
const Pattern = "GET /api/v1/systems/{systemId}/events/stream"

// Authenticator tells who sent a request. Package auth has one.
type Authenticator interface {
	AuthenticateStream(ctx context.Context, r *http.Request, system domain.SystemID) (domain.Actor, error)
}

// Config holds the parts that the face uses. All but the ban and the times are
// required.
type Config struct {
	Hub           *rooms.Hub
	Authenticator Authenticator
	Limiter       limit.Limiter // a stream counts as a join
	Registry      rooms.Registry
	// Ban tells which clients are banned; nil bans none.
	Ban rooms.Ban
	// Refuse answers a request that gets no stream, in the words of the HTTP API.
	Refuse func(http.ResponseWriter, *http.Request, error)
	// Beat is the pace of the comments that keep an idle line open; 15 s when 0.
	Beat time.Duration
	// Stall is how long one write may take before the reader counts as gone;
	// 90 s when 0. A reader that stops for less is waited for.
	Stall time.Duration
	// CloseWait is how long a reader may take for what is under way when its
	// stream is being ended; 5 s when 0.
	CloseWait time.Duration
}

// Server serves streams. It is safe for concurrent use.
type Server struct {
	config  Config
	closing context.Context
	close   context.CancelFunc
	mu      sync.Mutex
	open    sync.WaitGroup
	streams map[string]*stream // by socket id
}

// stream is one open stream.
type stream struct {
	socket rooms.Socket
	end    context.CancelCauseFunc
}

// ForcedDisconnect tells a reader why it is thrown out: the data of the last
// event of its stream, which is named forced-disconnect.
type ForcedDisconnect struct {
	Reason    string `json:"reason"`
	CommandID string `json:"commandId"`
	Reconnect bool   `json:"reconnect"` // whether the reader may come back at once
	// Room is the system whose room this is about: a socket that lives on without it,
	// see [rooms.Socket.LivesWithout], is not closed but leaves it. Empty is all rooms.
	Room domain.SystemID `json:"-"`
}

// Error makes it the cause for which a stream's context ends.
func (*ForcedDisconnect) Error() string { return "sse: thrown out" }

// New makes a Server.
func New(c Config) *Server {
	if c.Beat == 0 {
		c.Beat = 15 * time.Second
	}
	if c.Stall == 0 {
		c.Stall = 90 * time.Second
	}
	if c.CloseWait == 0 {
		c.CloseWait = 5 * time.Second
	}
	s := &Server{config: c, streams: map[string]*stream{}}
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Shutdown ends all streams, whose readers then connect elsewhere by themselves,
// and waits until they are gone or ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.close()
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		s.open.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

// Disconnect ends the streams that match, after telling their readers why. It
// returns how many there were, without waiting for them. An EventSource comes
// back by itself: only what refuses it then, or the page when it hears
// forced-disconnect, keeps it away.
func (s *Server) Disconnect(match func(rooms.Socket) bool, why ForcedDisconnect) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for id, one := range s.streams {
		if match(one.socket) {
			delete(s.streams, id)
			one.end(&why)
			n++
		}
	}
	return n
}

// enlist puts an open stream where Disconnect and everybody else see it.
func (s *Server) enlist(one *stream) (leave func()) {
	id := one.socket.SocketID
	leave = func() {
		s.mu.Lock()
		delete(s.streams, id)
		s.mu.Unlock()
		s.config.Registry.Remove(id)
	}
	s.mu.Lock()
	s.streams[id] = one
	s.mu.Unlock()
	listed := false
	defer func() {
		if !listed { // the registry panicked, and nobody will call leave
			leave()
		}
	}()
	s.config.Registry.Put(one.socket)
	listed = true
	return leave
}

// ServeHTTP answers with a stream that ends when the reader goes or is thrown
// out, the token expires, or the server shuts down.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		s.config.Refuse(w, r, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this process is stopping; connect again"))
		return
	}
	s.open.Add(1)
	s.mu.Unlock()
	defer s.open.Done()

	actor, system, options, err := s.admit(r)
	if err != nil {
		s.config.Refuse(w, r, err)
		return
	}
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	defer context.AfterFunc(s.closing, func() { end(nil) })()
	if !actor.ExpiresAt.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, actor.ExpiresAt)
		defer cancel()
	}
	sink := newSink()
	cursor, joined, err := s.config.Hub.Join(ctx, system, options, sink)
	if err != nil {
		s.config.Refuse(w, r, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "the stream cannot be opened now; repeat").Because(err))
		return
	}
	defer cursor.Leave()
	defer s.enlist(&stream{end: end, socket: rooms.Socket{
		SocketID: rand.Text(), Face: "sse", Subject: actor.Subject, Role: actor.Role, Systems: []domain.SystemID{system},
		Remote: r.RemoteAddr, ConnectedAt: time.Now().UTC(),
	}})()

	// A ban may have been raised since the request came, and its command may not have
	// found this stream.
	if f, banned := rooms.CheckBan(s.config.Ban, actor, system); banned {
		s.config.Refuse(w, r, f.Refusal())
		return
	}
	out := &writer{w: w, control: http.NewResponseController(w), stall: s.config.Stall}
	defer out.finish()
	defer context.AfterFunc(ctx, func() { out.hurry(s.config.CloseWait) })()
	if out.begin() != nil {
		return
	}
	if options.After != nil && !joined.Recovered && out.restarted(joined.Cursor) != nil {
		return
	}
	cursor.Start()
	sink.pass(ctx, cursor, out, s.config.Beat)
	if why := new(ForcedDisconnect); errors.As(context.Cause(ctx), &why) {
		_ = out.event("forced-disconnect", why) // a reader that is gone needs it no more
	}
}

// admit reads and checks everything that the request asks for.
func (s *Server) admit(r *http.Request) (domain.Actor, domain.SystemID, rooms.Options, error) {
	var options rooms.Options
	system, err := domain.ParseSystemID(r.PathValue("systemId"))
	if err != nil {
		return domain.Actor{}, "", options, err
	}
	actor, err := s.config.Authenticator.AuthenticateStream(r.Context(), r, system)
	if err != nil {
		return actor, system, options, err
	}
	if err := limit.Joins(r.Context(), s.config.Limiter, actor.Account(system)); err != nil { // also one that is refused
		return actor, system, options, err
	}
	if err := actor.Authorize(domain.ActionRead, system); err != nil {
		return actor, system, options, err
	}
	if f, banned := rooms.CheckBan(s.config.Ban, actor, system); banned {
		return actor, system, options, f.Refusal()
	}
	options, err = readOptions(r)
	return actor, system, options, err
}

// parameters are what a request may have in its URL: a misspelt filter must not pass
// for none.
var parameters = []string{"after", "lastEventId", "types", "type", "devices", "deviceId", "ticket"}

// readOptions reads where to begin and what to leave out. Last-Event-ID, which
// an EventSource sends by itself when it reconnects, wins over ?lastEventId=, which
// those send that cannot set a header, and that over ?after=, which stays in the URL
// that the page made.
func readOptions(r *http.Request) (rooms.Options, error) {
	options := rooms.Options{Encoding: encoding{}}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return options, domain.Invalid(codeInvalidRequest, "the query of the URL is malformed")
	}
	for name := range query {
		if !slices.Contains(parameters, name) {
			return options, domain.Invalid(codeInvalidRequest,
				fmt.Sprintf("query.%.64q: there is no such parameter; there are %s", name, strings.Join(parameters, ", ")))
		}
	}
	if after := cmp.Or(r.Header.Get("Last-Event-ID"), query.Get("lastEventId"), query.Get("after")); after != "" {
		position, err := domain.ParsePosition(after)
		if err != nil {
			return options, err
		}
		options.After = &position
	}
	options.Filter, err = domain.ParseEventFilter(slices.Concat(query["type"], query["types"]), slices.Concat(query["deviceId"], query["devices"]))
	return options, err
}

// codeInvalidRequest is the HTTP API's code for a request that does not fit.
const codeInvalidRequest domain.Code = "invalid-request"
