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
	"github.com/plugcast/plugcast/transport/disconnect"
	"github.com/plugcast/plugcast/transport/limit"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/rooms"
	"github.com/plugcast/plugcast/transport/snapshot"
	"github.com/plugcast/plugcast/transport/socketio"
	"github.com/plugcast/plugcast/transport/socketio/forward"
	"github.com/plugcast/plugcast/transport/sse"
	"github.com/plugcast/plugcast/transport/ws"
)

// face is a protocol through which clients connect to the rooms.
type face interface {
	disconnect.Clients
	Run(ctx context.Context) error
	Shutdown(ctx context.Context) error
}

// namedFace is a face and the name of its background work in the log.
type namedFace struct {
	face
	name string
}

// gateway serves clients: it holds the rooms and all faces.
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
	faces      []namedFace // webSockets, socketIO and streams: each is run, disconnected and shut down
	api        *rest.API
}

// roomsPerSocket is the number of rooms that one socket may join at a time. A back
// end joins many.
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
	if err := g.newAdmission(); err != nil {
		return nil, err
	}
	g.snapshots = snapshot.New(snapshot.Config{
		Source: store, Work: g.work, Cost: rest.SnapshotCost, Memory: g.answers, Timeout: 30 * time.Second, Logger: c.Logger,
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

// newFaces makes the faces, and lists them.
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
	if g.streams, err = sse.New(sse.Config{Parts: parts, Refuse: rest.Refuse(c.Logger)}); err != nil {
		return err
	}
	g.faces = []namedFace{{g.webSockets, "websockets"}, {g.socketIO, "socketio"}, {g.streams, "event streams"}}
	return nil
}

// source is the [rooms.Source]. It combines the timeline and the snapshots.
type source struct {
	*timeline.Timeline
	*snapshot.Cache
}

// newAdmission makes the controllers that limit the concurrent work and the unread
// bytes of each system.
//
// A unit of work is about one connection to Postgres. Projectors, commands and rooms
// keep a quarter of the pool. No system gets more than a third of the rest, so two
// busy systems leave a third for all others. A fold of the past takes the whole share
// of its system, so a system runs one at a time.
func (g *gateway) newAdmission() (err error) {
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
	for _, one := range g.faces {
		group.Go(func() error { return one.Shutdown(ctx) })
	}
	group.Go(func() error { return g.forwarder.Shutdown(ctx) })
	return group.Wait()
}

func (g *gateway) close() {
	g.hub.Close()
	g.snapshots.Close()
}
