package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/sessions"
	"github.com/plugcast/plugcast/streams/timeline"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/socketio"
	"github.com/plugcast/plugcast/transport/sse"
	"github.com/plugcast/plugcast/transport/web"
	"github.com/plugcast/plugcast/transport/ws"
)

// gateway is what serves clients: the rooms and all faces of them.
type gateway struct {
	tokens    *auth.Verifier
	addresses *limit.Addresses
	hub       *rooms.Hub
	work      *admission.Controller // reads of the database
	answers   *admission.Controller // bytes that clients have not read yet
	snapshots *snapshot.Cache
	sockets   *ws.Server
	socketIO  *socketio.Server
	peers     *peers // where sessions of socketIO are that others have
	streams   *sse.Server
	api       *rest.API
	devices   http.Handler // where Shelly devices dial in
	metrics   http.Handler
	logger    *slog.Logger
}

// roomsPerSocket is how many systems one socket may have joined: a back end has
// many.
const roomsPerSocket = 128

func (p *Program) newGateway() (*gateway, error) {
	tokens, ticketStore, limiter, origins, err := p.newGuards()
	if err != nil {
		return nil, err
	}
	g := &gateway{
		tokens: tokens, addresses: limit.NewAddresses(p.Server.Limits.unauthenticated()),
		devices: p.shelly.outbound, metrics: p.metricsHandler(),
		logger: p.Logger,
	}
	if err := g.newSnapshots(p.backend.store, p.Logger); err != nil {
		return nil, err
	}
	if g.hub, err = rooms.New(roomSource{p.backend.timeline, g.snapshots}, rooms.Config{}, p.Logger); err != nil {
		return nil, err
	}
	authenticator := g.addresses.Authenticated(tokens)
	parts := client.Parts{
		Rooms: g.hub, Authenticator: authenticator, Limiter: limiter, Registry: p.registry, Metrics: p.figures, Bans: p.bans, Logger: p.Logger,
	}
	g.sockets, err = ws.New(ws.Config{
		Node: p.Server.NodeName, Deployment: p.bridges.deployment, CheckOrigin: origins.Allow,
		MaxRooms: roomsPerSocket, MaxRoomsStaff: roomsPerSocket,
	}, parts)
	if err != nil {
		return nil, err
	}
	g.peers = newPeers(p.registry, p.Server.NodeName, p.Logger)
	g.socketIO, err = socketio.New(socketio.Config{
		Node: p.Server.NodeName, CheckOrigin: origins.Allow, NewID: g.peers.newID, Elsewhere: g.peers.elsewhere,
	}, parts, sessions.New(p.backend.log.Client(), p.backend.log.Prefix(), sessions.Limits{}))
	if err != nil {
		return nil, err
	}
	g.streams, err = sse.New(sse.Config{
		Parts:  parts,
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) { g.api.Refuse(w, r, err) },
	})
	if err != nil {
		return nil, err
	}
	publicURL, err := p.Server.Connections.publicURL()
	if err != nil {
		return nil, err
	}
	g.api, err = rest.New(rest.Config{
		Service: p.newService(), Reads: p.backend.store, Snapshots: g.snapshots, Work: g.work, Answers: g.answers,
		Authenticator: authenticator, Tickets: ticketStore,
		Sockets: p.registry, Credentials: p.credentials, PublicURL: publicURL,
		Outcomes: newOutcomes(p.backend.timeline), Nodes: p.registry, Limiter: limiter, Readiness: p.readiness, Origins: origins,
		Stream: g.streams, Bridges: p.bridges, Findings: p.backend.store, Quarantine: p.backend.store,
		DeadLetters: p.deadLetters, Refusals: p.shelly.refusals,
		Version: version(), Log: p.Logger,
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// newSnapshots makes what bounds the concurrent work of systems, and what makes
// snapshots within that.
//
// A unit of work is about a connection to Postgres. A quarter of the pool is left
// to projectors, commands and rooms, and no system has more than a third of the
// rest: two of them at their worst leave a third one room. A fold of the past takes
// a system's whole share, so it makes one at a time.
func (g *gateway) newSnapshots(store *projections.Store, logger *slog.Logger) (err error) {
	const costOfSnapshot = 3
	units := projections.DefaultMaxConns * 3 / 4
	g.work, err = admission.New(admission.Config{
		Capacity: units, Share: units / 3, Queue: 256, QueueAll: 4096, Patience: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	g.answers, err = admission.New(admission.Config{
		Capacity: 256 << 20, Share: 32 << 20, Queue: 256, QueueAll: 4096, Patience: 5 * time.Second,
	})
	if err != nil {
		return err
	}
	g.snapshots = snapshot.New(snapshot.Config{
		Source: store, Work: g.work, Cost: costOfSnapshot, Memory: g.answers, Timeout: 30 * time.Second, Logger: logger,
	})
	return nil
}

// handler is everything that clients reach.
func (g *gateway) handler() http.Handler {
	mux := http.NewServeMux()
	page := web.Handler()
	mux.Handle("GET /{$}", page)
	mux.Handle("GET /web/", page)
	mux.Handle("GET /ws", g.sockets)
	mux.Handle("/socket.io/", g.socketIO)
	// For clients with addTrailingSlash: false. A redirect would lack the CORS headers.
	mux.Handle("/socket.io", g.socketIO)
	mux.HandleFunc("/api/socket/init", g.socketIO.Init)
	mux.Handle(outbound.Pattern, g.devices)
	mux.Handle(outbound.Prefix, g.devices)
	mux.Handle("GET /metrics", g.metrics)
	mux.Handle("/", g.api)
	return isolated(g.addresses.Guard(mux, isSpared), g.logger, g.api.Refuse)
}

// roomSource is [rooms.Source]: log and archive as one, and snapshots.
type roomSource struct {
	*timeline.Timeline
	*snapshot.Cache
}

// isSpared reports whether a request is served also when others of its address have
// used up what is for requests without a valid token: one of a load balancer, or one
// whose credential comes later.
func isSpared(r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics":
		return true
	}
	return strings.HasPrefix(r.URL.Path, "/socket.io") || strings.HasPrefix(r.URL.Path, outbound.Prefix)
}

// disconnect throws out the clients of all faces that match, and returns how many
// there were.
func (g *gateway) disconnect(match func(domain.Socket) bool, why client.ForcedDisconnect) int {
	return g.sockets.Disconnect(match, why) + g.socketIO.Disconnect(match, why) + g.streams.Disconnect(match, why)
}

// shutdown tells the sockets to reconnect elsewhere and waits until they are
// gone, or ctx ends.
func (g *gateway) shutdown(ctx context.Context) error {
	var group errgroup.Group
	for _, shutdown := range []func(context.Context) error{
		g.sockets.Shutdown, g.socketIO.Shutdown, g.streams.Shutdown, g.peers.shutdown,
	} {
		group.Go(func() error { return shutdown(ctx) })
	}
	return group.Wait()
}

func (g *gateway) close() {
	g.hub.Close()
	g.snapshots.Close()
}
