package main

import (
	"context"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/streams/sessions"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/shelly/outbound"
	"github.com/plugcast/plugcast/transport/socketio"
	"github.com/plugcast/plugcast/transport/sse"
	"github.com/plugcast/plugcast/transport/web"
	"github.com/plugcast/plugcast/transport/ws"
)

// gateway is what serves clients: the rooms and all faces of them.
type gateway struct {
	tokens    *auth.Authenticator
	addresses *limit.Addresses
	hub       *rooms.Hub
	sockets   *ws.Server
	socketIO  *socketio.Server
	peers     *peers // where sessions of socketIO are that others have
	streams   *sse.Server
	api       *rest.API
	devices   http.Handler // where Shelly devices dial in
	metrics   http.Handler
}

// roomsPerSocket is how many systems one socket may have joined: a back end has
// many.
const roomsPerSocket = 128

func (p *Program) newGateway() (*gateway, error) {
	tokens, office, limiter, origins, err := p.newGuards()
	if err != nil {
		return nil, err
	}
	g := &gateway{tokens: tokens, addresses: limit.NewAddresses(p.Server.Limits.unauthenticated()), devices: p.shelly.outbound, metrics: p.metricsHandler()}
	if g.hub, err = rooms.New(roomSource{p.backend.timeline, p.backend.store}, rooms.Config{}, p.Logger); err != nil {
		return nil, err
	}
	authenticator := g.addresses.Authenticated(tokens)
	registry, ban := roomRegistry{p.registry}, roomBan{p.bans}
	g.sockets, err = ws.New(ws.Config{
		Node: p.Server.NodeName, Deployment: p.bridges.deployment, CheckOrigin: origins.Allow,
		MaxRooms: roomsPerSocket, MaxRoomsStaff: roomsPerSocket,
	}, ws.Parts{
		Rooms: g.hub, Authenticator: authenticator, Limiter: limiter, Registry: registry, Metrics: p.figures, Ban: ban, Logger: p.Logger,
	})
	if err != nil {
		return nil, err
	}
	g.peers = newPeers(p.registry, p.Server.NodeName, p.Logger)
	g.socketIO, err = socketio.New(socketio.Config{
		Node: p.Server.NodeName, CheckOrigin: origins.Allow, NewID: g.peers.newID, Elsewhere: g.peers.elsewhere,
	}, socketio.Parts{
		Rooms: g.hub, Authenticator: authenticator, Sessions: sessions.New(p.backend.log.Client(), p.backend.log.Prefix(), sessions.Limits{}),
		Limiter: limiter, Registry: registry, Metrics: p.figures, Ban: ban, Logger: p.Logger,
	})
	if err != nil {
		return nil, err
	}
	g.streams = sse.New(sse.Config{
		Hub: g.hub, Authenticator: authenticator, Limiter: limiter, Registry: registry, Ban: ban,
		Refuse: func(w http.ResponseWriter, r *http.Request, err error) { g.api.Refuse(w, r, err) },
	})
	publicURL, err := p.Server.Connections.publicURL()
	if err != nil {
		return nil, err
	}
	g.api, err = rest.New(rest.Config{
		Service: p.newService(), Reads: restReads{p.backend.store}, Authenticator: authenticator, Tickets: office,
		Sockets: restSockets{p.registry}, Credentials: p.credentials, PublicURL: publicURL,
		Outcomes: newOutcomes(p.backend.timeline), Nodes: p.registry, Limiter: limiter, Readiness: p.readiness, Origins: origins,
		Stream: g.streams, Bridges: p.bridges, Findings: p.backend.store, Quarantine: p.backend.store, DeadLetters: p.deadLetters,
		Version: version(), Log: p.Logger,
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

// handler is everything that clients reach.
func (g *gateway) handler() http.Handler {
	mux := http.NewServeMux()
	page := web.Handler()
	mux.Handle("GET /{$}", page)
	mux.Handle("GET /web/", page)
	mux.Handle("GET /ws", g.sockets)
	mux.Handle("/socket.io/", g.socketIO)
	mux.Handle("/socket.io", g.socketIO) // as clients with addTrailingSlash: false ask; a redirect would lack what pages of other origins need
	mux.HandleFunc("/api/socket/init", g.socketIO.Init)
	mux.Handle(outbound.Pattern, g.devices)
	mux.Handle(outbound.Prefix, g.devices)
	mux.Handle("GET /metrics", g.metrics)
	mux.Handle("/", g.api)
	return g.addresses.Guard(mux, isSpared)
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
func (g *gateway) disconnect(match func(rooms.Socket) bool, why ws.ForcedDisconnect) int {
	return g.sockets.Disconnect(match, why) + g.socketIO.Disconnect(match, socketio.ForcedDisconnect(why)) +
		g.streams.Disconnect(match, sse.ForcedDisconnect(why))
}

// shutdown tells the sockets to reconnect elsewhere and waits until they are
// gone, or ctx ends.
func (g *gateway) shutdown(ctx context.Context) error {
	var group errgroup.Group
	for _, shutdown := range []func(context.Context) error{g.sockets.Shutdown, g.socketIO.Shutdown, g.peers.shutdown} {
		group.Go(func() error { return shutdown(ctx) })
	}
	err := group.Wait()
	g.streams.Shutdown(ctx)
	return err
}

func (g *gateway) close() { g.hub.Close() }
