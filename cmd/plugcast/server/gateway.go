package server

import (
	"context"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams/ratelimit"
	"github.com/plugcast/plugcast/streams/sessions"
	"github.com/plugcast/plugcast/streams/tickets"
	"github.com/plugcast/plugcast/streams/timeline"
	"github.com/plugcast/plugcast/transport/admission"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/client"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/socketio"
	"github.com/plugcast/plugcast/transport/socketio/forward"
	"github.com/plugcast/plugcast/transport/sse"
	"github.com/plugcast/plugcast/transport/ws"
)

// gateway is what serves clients: the rooms and all faces of them.
type gateway struct {
	tickets    *tickets.Store
	tokens     *auth.Verifier
	addresses  *limit.Addresses
	limiter    *ratelimit.Limiter
	work       *admission.Controller // reads of the database
	answers    *admission.Controller // bytes that clients have not read yet
	snapshots  *snapshot.Cache
	hub        *rooms.Hub
	webSockets *ws.Server
	forwarder  *forward.Forwarder
	socketIO   *socketio.Server
	streams    *sse.Server
	api        *rest.API
}

// roomsPerSocket is how many systems one socket may have joined: a back end has
// many.
const roomsPerSocket = 128

func (s *Server) newGateway() (g *gateway, err error) {
	c, log, store := &s.config, s.backend.Log, s.backend.Store
	g = &gateway{
		tickets: tickets.New(log.Client(), log.Prefix()), addresses: limit.NewAddresses(c.Unauthenticated),
		limiter: ratelimit.New(log.Client(), log.Prefix(), c.Limits, c.Logger),
	}
	if g.tokens, err = auth.New(c.Auth, g.tickets, c.Logger); err != nil {
		return nil, err
	}
	if err := g.bound(); err != nil {
		return nil, err
	}
	const costOfSnapshot = 3 // units of work; see bound
	g.snapshots = snapshot.New(snapshot.Config{
		Source: store, Work: g.work, Cost: costOfSnapshot, Memory: g.answers, Timeout: 30 * time.Second, Logger: c.Logger,
	})
	if g.hub, err = rooms.New(source{s.backend.Timeline, g.snapshots}, rooms.Config{}, c.Logger); err != nil {
		return nil, err
	}
	parts := client.Parts{
		Rooms: g.hub, Authenticator: g.addresses.Authenticated(g.tokens), Limiter: g.limiter, Registry: s.sockets, Metrics: s.dashboard,
		Bans: s.bans, Logger: c.Logger,
	}
	if err := s.newFaces(g, parts); err != nil {
		return nil, err
	}
	g.api, err = rest.New(rest.Config{
		Service: domain.NewService(log, store, s.quota, func() string { return uuid.Must(uuid.NewV7()).String() }),
		Reads:   store, Snapshots: g.snapshots, Work: g.work, Answers: g.answers,
		Authenticator: parts.Authenticator, Tickets: g.tickets, Sockets: s.sockets, Credentials: s.vault, PublicURL: c.PublicURL,
		Outcomes: rest.NewOutcomes(s.backend.Timeline), Nodes: s.sockets, Limiter: g.limiter, Readiness: s.readiness, Origins: c.Origins,
		Stream: g.streams, Bridges: s.bridging, Findings: store, Quarantine: store,
		DeadLetters: s.deadLetters, Refusals: s.devices.refusals, Version: c.Version, Log: c.Logger,
	})
	return g, err
}

// newFaces makes the faces of the rooms.
func (s *Server) newFaces(g *gateway, parts client.Parts) (err error) {
	c, log := &s.config, s.backend.Log
	g.webSockets, err = ws.New(ws.Config{
		Node: c.NodeName, Deployment: s.bridging.Deployment(), CheckOrigin: c.Origins.Allow,
		MaxRooms: roomsPerSocket, MaxRoomsStaff: roomsPerSocket,
	}, parts)
	if err != nil {
		return err
	}
	g.forwarder = forward.New(s.sockets, c.NodeName, c.Logger)
	g.socketIO, err = socketio.New(socketio.Config{
		Node: c.NodeName, CheckOrigin: c.Origins.Allow, NewID: g.forwarder.NewID, Elsewhere: g.forwarder.Elsewhere,
	}, parts, sessions.New(log.Client(), log.Prefix(), sessions.Limits{}))
	if err != nil {
		return err
	}
	g.streams, err = sse.New(sse.Config{Parts: parts, Refuse: rest.Refuse(c.Logger)})
	return err
}

// source is the [rooms.Source]: log and archive as one, and snapshots.
type source struct {
	*timeline.Timeline
	*snapshot.Cache
}

// bound makes what bounds the concurrent work of systems.
//
// A unit of work is about a connection to Postgres. A quarter of the pool is left
// to projectors, commands and rooms, and no system has more than a third of the
// rest: two of them at their worst leave a third one room. A fold of the past takes
// a system's whole share, so it makes one at a time.
func (g *gateway) bound() (err error) {
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
	return err
}

// shutdown tells the sockets to reconnect elsewhere and waits until they are
// gone, or ctx ends.
func (g *gateway) shutdown(ctx context.Context) error {
	var group errgroup.Group
	for _, shutdown := range []func(context.Context) error{
		g.webSockets.Shutdown, g.socketIO.Shutdown, g.streams.Shutdown, g.forwarder.Shutdown,
	} {
		group.Go(func() error { return shutdown(ctx) })
	}
	return group.Wait()
}

func (g *gateway) close() {
	g.hub.Close()
	g.snapshots.Close()
}
