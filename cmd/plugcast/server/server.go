// Package server wires the parts of the platform together into one process.
package server

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/cmd/plugcast/backend"
	"github.com/plugcast/plugcast/cmd/plugcast/metrics"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/quota"
	"github.com/plugcast/plugcast/streams/ban"
	"github.com/plugcast/plugcast/streams/presence"
	"github.com/plugcast/plugcast/streams/reactions"
	"github.com/plugcast/plugcast/transport/disconnect"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/rest"
	"github.com/plugcast/plugcast/transport/shelly/vault"
)

// Server is one process of the platform. Its parts are in the order in which Open makes
// them: each depends only on those before it, and none is changed afterwards.
type Server struct {
	config Config

	backend     *backend.Backend
	vault       *vault.Vault
	sockets     *presence.Registry
	bans        *ban.List
	deadLetters *reactions.DeadLetters
	quota       *quota.Devices
	devices     *devices
	bridging    *bridging
	draining    atomic.Bool
	readiness   *rest.Readiness
	dashboard   *metrics.Feed
	gateway     *gateway // nil without the role
	disconnects *disconnect.Enforcer
	reactions   *reactions.Dispatcher
	worker      *projections.Worker // nil without the role
	clients     listening
	operators   listening
	sampler     *metrics.Sampler
}

// listening is a listener and its server.
type listening struct {
	net.Listener
	server *edge.Server
}

// Open connects to Redis and Postgres and listens, so that Addr is known and a
// mistake in the configuration is an error here and not later. It serves nothing
// before [Server.Run]. After success, Close must follow. A [ConfigError] is about a field of
// the configuration.
func Open(ctx context.Context, config Config) (s *Server, err error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	s = &Server{config: config.withDefaults()}
	defer func() {
		if err != nil {
			s.Close()
			s = nil
		}
	}()
	c := &s.config
	if s.backend, err = backend.Open(ctx, c.Backend, c.Logger); err != nil {
		return s, err
	}
	log, store := s.backend.Log, s.backend.Store
	s.vault = vault.New(store, c.Keyring, c.CloudHosts)
	if err = s.vault.Warn(ctx, c.Logger); err != nil {
		return s, err
	}
	s.sockets = presence.New(log.Client(), log.Prefix(), c.NodeName, c.Logger)
	s.bans = ban.New(log.Client(), log.Prefix(), c.Logger)
	s.deadLetters = reactions.NewDeadLetters(log)
	s.quota = quota.New(c.MaxSystemDevices, store, log)
	if s.devices, err = s.newDevices(); err != nil {
		return s, err
	}
	if s.bridging, err = s.newBridging(ctx); err != nil {
		return s, err
	}
	s.readiness = s.newReadiness()
	s.dashboard = metrics.NewFeed(s.sockets, c.Logger)
	enforcing := disconnect.Config{Node: c.NodeName, Log: log, Bans: s.bans, Logger: c.Logger}
	for _, one := range s.devices.holders {
		enforcing.Devices = append(enforcing.Devices, one)
	}
	if c.has(RoleGateway) {
		if s.gateway, err = s.newGateway(); err != nil {
			return s, err
		}
		for _, one := range s.gateway.faces {
			enforcing.Clients = append(enforcing.Clients, one)
		}
	}
	s.disconnects = disconnect.New(enforcing)
	s.reactions = reactions.New(reactions.Config{
		On: reactionsTo(s.devices, s.disconnects), Log: log, DeadLetters: s.deadLetters, Node: c.NodeName, Logger: c.Logger,
	})
	if c.has(RoleWorker) {
		s.worker = projections.NewWorker(projections.WorkerConfig{
			Store: store, Log: log, Jobs: append(s.devices.jobs(store), s.bridging.jobs()...), Logger: c.Logger,
		})
	}
	return s, s.listen()
}

// listen opens both listeners, makes their servers, and then the sampler, which measures
// all parts.
func (s *Server) listen() (err error) {
	c := &s.config
	if s.clients.Listener, err = Listen(c.Listen); err != nil {
		return unavailable("Listen", err)
	}
	if s.operators.Listener, err = listenAdmin(c.AdminListen); err != nil {
		return unavailable("AdminListen", err)
	}
	// The handlers serve the figures. The sampler fills them. It is made last, because it
	// also measures the servers of the handlers.
	figures := metrics.NewRegistry()
	if s.clients.server, err = edge.New(c.Edge, s.clientHandler(figures)); err != nil {
		return err
	}
	s.operators.server, err = edge.New(edge.Config{
		MaxConnections: adminConnections, MaxPerAddress: adminConnections, Logger: c.Logger,
	}, s.adminHandler(figures))
	if err != nil {
		return err
	}
	parts := metrics.Parts{
		Node: c.NodeName, Roles: c.Roles, Log: s.backend.Log, Store: s.backend.Store, Sockets: s.sockets, Reactions: s.reactions,
		Bridges: s.bridging.runner, Worker: s.worker, Cloud: s.devices.cloud, Outbound: s.devices.outbound, Refusals: s.devices.refusals,
		Clients: s.clients.server, Logger: c.Logger,
	}
	if s.gateway != nil {
		parts.Hub, parts.Work, parts.Answers = s.gateway.hub, s.gateway.work, s.gateway.answers
		if parts.Address, err = advertised(c.Advertise, s.clients); err != nil {
			return unavailable("Advertise", err)
		}
	}
	s.sampler = metrics.NewSampler(parts)
	return figures.Register(s.sampler)
}

// adminConnections is the largest number of connections of operators. They have a limit
// of their own, so that operators can still read the metrics while clients flood the server.
const adminConnections = 64

// Addr is the address that clients are served on.
func (s *Server) Addr() string { return s.clients.Addr().String() }

// AdminAddr is the address of metrics, health and profiles.
func (s *Server) AdminAddr() string { return s.operators.Addr().String() }

// Node is the name of this process in the deployment.
func (s *Server) Node() string { return s.config.NodeName }

// Run serves until ctx ends, and returns when everything has stopped. At the end it
// tells the sockets to reconnect elsewhere, gives the requests in progress up to
// DrainTimeout to finish, cuts off the rest, and gives the partitions back. Call it once.
func (s *Server) Run(ctx context.Context) error {
	// All parts run until the drain is over, also when one of them has failed: the faces'
	// clocks end the sockets that are drained.
	group, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	// A part that panics is restarted; an error ends the process.
	background := func(what string, run func(context.Context) error) {
		group.Go(func() (err error) {
			isolate.Loop(running, s.config.Logger, what, func() { err = run(running) })
			if err != nil && running.Err() == nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	background("metrics", s.sampler.Run)
	background("dashboard", s.dashboard.Run)
	if s.worker != nil {
		background("worker", s.worker.Run)
	}
	background("admin server", func(context.Context) error { return s.operators.server.Serve(s.operators.Listener) })
	hearing := make(chan struct{})
	background("reactions", func(ctx context.Context) error {
		return reactions.Follow(ctx, s.backend.Log, s.reactions, hearing)
	})
	background("heartbeats", s.devices.run)
	select {
	case <-hearing:
		s.begin(ctx, background)
	case <-ctx.Done():
	case <-failed.Done():
	}
	select {
	case <-ctx.Done():
	case <-failed.Done():
	}
	s.drain(ctx)
	stop()
	return group.Wait()
}

// begin registers this process as a node and lets clients in. Run calls it once the
// process reads the log: callers expect an answer from every node in the registry, and
// before that, this process could not give one. begin loads the bans only after the process
// reads the log, so that it misses none that is raised in between; see package ban.
func (s *Server) begin(ctx context.Context, background func(string, func(context.Context) error)) {
	if err := s.bans.Load(ctx); err != nil {
		s.config.Logger.Warn("cannot load bans: clients banned before this process started may reconnect for some seconds", "error", err)
	}
	background("bans", func(ctx context.Context) error { return s.bans.Run(ctx, s.disconnects.Enforce) })
	background("presence", func(ctx context.Context) error { return s.sockets.Run(ctx, s.sampler.Own) })
	background("server", func(context.Context) error { return s.clients.server.Serve(s.clients.Listener) })
	if s.gateway != nil {
		background("tokens", s.gateway.tokens.Run)
		for _, one := range s.gateway.faces {
			background(one.name, one.Run)
		}
	}
}

// drain stops accepting requests, and gives those in progress DrainTimeout to finish.
func (s *Server) drain(ctx context.Context) {
	s.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.DrainTimeout)
	defer cancel()
	logger := s.config.Logger
	if s.gateway != nil {
		if err := s.gateway.shutdown(ctx); err != nil {
			logger.Warn("sockets were cut off", "error", err)
		}
		if err := s.devices.outbound.Shutdown(ctx); err != nil {
			logger.Warn("devices were cut off", "error", err)
		}
	}
	for _, server := range []*edge.Server{s.clients.server, s.operators.server} {
		if err := server.Shutdown(ctx); err != nil {
			logger.Warn("requests were cut off", "error", err)
			_ = server.Close()
		}
	}
}

// Close releases what Open acquired. Closing twice is fine.
func (s *Server) Close() {
	if s.gateway != nil {
		s.gateway.close()
	}
	if s.devices != nil {
		s.devices.switching.Close()
	}
	for _, one := range []listening{s.clients, s.operators} {
		if one.Listener != nil {
			_ = one.Close() // closed already by a server that ran
		}
	}
	if s.backend != nil {
		if err := s.backend.Close(); err != nil {
			s.config.Logger.Error("closing", "error", err)
		}
		s.backend = nil
	}
}
