// Package sse serves a system's events as Server-Sent Events: a text stream that curl and
// the EventSource of any browser can read.
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
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rooms"
)

// Pattern is the pattern of the stream for a mux.
const Pattern = "GET /api/v1/systems/{systemId}/events/stream"

// Config holds the dependencies and limits of a [Server]. Refuse is required, as are
// Authenticator, Rooms and Logger in Parts.
type Config struct {
	Parts client.Parts // a stream counts as a join
	// Refuse answers a request that gets no stream, in the form of the HTTP API.
	Refuse func(http.ResponseWriter, *http.Request, error)
	// Beat is the interval of the comments that keep an idle connection open; 15 s if 0.
	Beat time.Duration
	// Stall is how long one write may take before the stream ends; 90 s if 0. A reader that
	// stops for a shorter time loses nothing.
	Stall time.Duration
	// CloseWait is how long the reader of an ending stream may take for the write in progress;
	// 5 s if 0.
	CloseWait time.Duration
}

// Server serves streams. It is safe for concurrent use.
type Server struct {
	config  Config
	clients *client.Server
}

// New makes a Server. [Server.Run] has to run while it serves.
func New(c Config) (*Server, error) {
	c.Beat = cmp.Or(c.Beat, 15*time.Second)
	c.Stall = cmp.Or(c.Stall, 90*time.Second)
	c.CloseWait = cmp.Or(c.CloseWait, 5*time.Second)
	clients, err := client.NewServer(client.Config{Face: "sse", OneRoom: true, Tick: 250 * time.Millisecond}, c.Parts)
	if err != nil {
		return nil, err
	}
	return &Server{config: c, clients: clients}, nil
}

// Run enforces the deadlines of streams until ctx ends, and then returns nil. It has to run
// until [Server.Shutdown] has returned.
func (s *Server) Run(ctx context.Context) error { return s.clients.Run(ctx) }

// Shutdown ends all streams and waits until they are gone. Their readers reconnect to
// another process. If ctx ends first, it does not wait for writes in progress, and returns
// ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	return s.clients.Shutdown(ctx, func(client.Face) {}) // streams end with the server's context
}

// Disconnect ends the streams that match, after it told their readers the reason. It returns
// the number of streams without waiting for them. An EventSource reconnects by itself: only
// a ban, or a page that handles forced-disconnect, keeps it away.
func (s *Server) Disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) int {
	return s.clients.Disconnect(match, why)
}

// ServeHTTP serves a stream until the reader goes or is disconnected, the token expires, or
// the server shuts down.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.clients.Open().Enter() {
		s.config.Refuse(w, r, domain.Fail(domain.KindUnavailable, domain.CodeUnavailable, "this process is shutting down; connect again"))
		return
	}
	defer s.clients.Open().Leave()
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	defer context.AfterFunc(s.clients.Context(), func() { end(nil) })()
	r = r.WithContext(ctx)
	actor, system, options, err := s.admit(r)
	if err != nil {
		s.config.Refuse(w, r, err)
		return
	}
	one := newStream(end)
	one.session = s.clients.NewSession(one, rand.Text(), r.RemoteAddr, actor)
	defer one.session.Close()
	joined, err := one.session.Restore(ctx, system, options)
	if err != nil {
		s.config.Refuse(w, r, domain.Fail(
			domain.KindUnavailable, domain.CodeUnavailable, "the stream cannot be opened now; try again in a moment").WithCause(err))
		return
	}
	one.session.List()
	one.session.Start()

	// A ban may have been raised since the check in admit, and its command may not have found
	// this stream.
	if b, banned := s.clients.Ban(actor, system); banned {
		s.config.Refuse(w, r, b.Refusal(time.Now()))
		return
	}
	out := &writer{w: w, control: http.NewResponseController(w), stall: s.config.Stall}
	one.out.Store(out)
	defer out.finish()
	defer context.AfterFunc(ctx, func() { out.hurry(s.config.CloseWait) })()
	if out.begin() != nil {
		return
	}
	if options.After != nil && !joined.Recovered && out.restarted(joined.Cursor) != nil {
		return
	}
	one.session.Begin(func(domain.SystemID, client.Room) {})
	one.pass(ctx, out, s.config.Beat)
	if why := new(disconnected); errors.As(context.Cause(ctx), &why) {
		_ = out.event("forced-disconnect", why.ForcedDisconnect) // fails only if the reader is gone
	}
}

// admit authenticates the request, applies the limits and bans, and parses the options.
func (s *Server) admit(r *http.Request) (domain.Actor, domain.SystemID, rooms.Options, error) {
	var options rooms.Options
	system, err := domain.ParseSystemID(r.PathValue("systemId"))
	if err != nil {
		return domain.Actor{}, "", options, err
	}
	actor, err := s.config.Parts.Authenticator.AuthenticateStream(r.Context(), r, system)
	if err != nil {
		return actor, system, options, err
	}
	// The quota comes before the authorization, so that refused joins count as well.
	if err := limit.Joins(r.Context(), s.config.Parts.Limiter, actor.QuotaSystem(system)); err != nil {
		return actor, system, options, err
	}
	if err := actor.Authorize(domain.ActionRead, system); err != nil {
		return actor, system, options, err
	}
	if b, banned := s.clients.Ban(actor, system); banned {
		return actor, system, options, b.Refusal(time.Now())
	}
	options, err = readOptions(r)
	return actor, system, options, err
}

// parameters are the permitted query parameters. Others are refused, because a misspelt
// filter would otherwise have no effect.
var parameters = []string{"after", "lastEventId", "types", "type", "devices", "deviceId", "ticket"}

// readOptions parses the start position and the filters. Last-Event-ID, which an EventSource
// sends when it reconnects, takes precedence over ?lastEventId=, which is for clients that
// cannot set a header. That takes precedence over ?after=, which stays in the URL that the
// page made.
func readOptions(r *http.Request) (rooms.Options, error) {
	options := rooms.Options{Encoding: encoding{}}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return options, domain.Invalid(codeInvalidRequest, "the query of the URL is malformed")
	}
	for name := range query {
		if !slices.Contains(parameters, name) {
			return options, domain.Invalid(codeInvalidRequest,
				fmt.Sprintf("query.%.64q: unknown parameter; the parameters are %s", name, strings.Join(parameters, ", ")))
		}
	}
	if after := cmp.Or(r.Header.Get("Last-Event-ID"), query.Get("lastEventId"), query.Get("after")); after != "" {
		position, err := domain.ParsePosition(after)
		if err != nil {
			return options, err
		}
		options.After = &position
	}
	options.Filter, err = domain.ParseEventFilter(
		slices.Concat(query["type"], query["types"]), slices.Concat(query["deviceId"], query["devices"]))
	return options, err
}

// codeInvalidRequest is the HTTP API's code for an invalid request.
const codeInvalidRequest domain.Code = "invalid-request"
