package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/projections/quota"
	"github.com/plugcast/plugcast/streams/ban"
	"github.com/plugcast/plugcast/streams/presence"
	"github.com/plugcast/plugcast/streams/ratelimit"
	"github.com/plugcast/plugcast/streams/reactions"
	"github.com/plugcast/plugcast/streams/tickets"
	"github.com/plugcast/plugcast/transport/auth"
	"github.com/plugcast/plugcast/transport/edge"
	"github.com/plugcast/plugcast/transport/rest"
)

// Roles that a process may have.
const (
	roleGateway = "gateway" // serves clients
	roleWorker  = "worker"  // projects, and owns partitions
)

// Program is one process of the platform. Set the fields, call Open, then Run.
type Program struct {
	Backends backendFlags
	Auth     authFlags
	Secret   secretFlags
	Server   serverFlags
	Roles    []string
	Logger   *slog.Logger

	backend     *backend
	credentials *credentials
	registry    *presence.Registry
	bans        *ban.List
	disconnects *disconnects
	quota       *quota.Devices
	reactions   *reactions.Dispatcher
	deadLetters *reactions.DeadLetters
	shelly      *shellySide
	bridges     *bridgeSide
	worker      *projections.Worker // nil without the role
	gateway     *gateway            // nil without the role
	figures     *figures
	readiness   *rest.Readiness

	listener   net.Listener // for clients
	address    string       // of the listener, for the other processes
	admin      net.Listener // for operators
	clientEdge *edge.Server // serves listener
	adminEdge  *edge.Server // serves admin
	draining   atomic.Bool
}

// Open connects to Redis and Postgres and listens, so that Addr is known and a
// mistake in the configuration is an error here and not later. Close must follow.
func (p *Program) Open(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if err := p.checkConfig(); err != nil {
		return err
	}
	if p.backend, err = openBackend(ctx, p.Backends, p.Logger); err != nil {
		return err
	}
	if err := p.openCredentials(ctx); err != nil {
		return err
	}
	p.registry = presence.New(p.backend.log.Client(), p.backend.log.Prefix(), p.Server.NodeName, p.Logger)
	p.bans = ban.New(p.backend.log.Client(), p.backend.log.Prefix(), p.Logger)
	p.disconnects = newDisconnects(p.Server.NodeName, p.backend.log, p.bans, p.Logger)
	p.quota = quota.New(p.Server.Connections.MaxSystemDevices, p.backend.store, p.backend.log)
	if p.shelly, err = p.newShelly(); err != nil {
		return err
	}
	if p.bridges, err = p.newBridges(ctx); err != nil {
		return err
	}
	p.bridges.warnOfLinks(p, p.Logger)
	p.newReactions()
	if p.has(roleWorker) {
		p.worker = projections.NewWorker(projections.WorkerConfig{
			Store: p.backend.store, Log: p.backend.log, Jobs: append(p.shelly.jobs(), p.bridges.jobs()...), Logger: p.Logger,
		})
	}
	p.figures = newFigures(p)
	p.readiness = rest.NewReadiness(p.checks(), p.degradations, p.Logger)
	if p.has(roleGateway) {
		if p.gateway, err = p.newGateway(); err != nil {
			return err
		}
		p.disconnects.browsers = p.gateway
	}
	if err := p.newEdges(); err != nil {
		return err
	}
	if err := p.listen(); err != nil {
		return err
	}
	if p.has(roleGateway) {
		p.address, err = p.advertised()
	}
	return err
}

func (p *Program) checkConfig() error {
	for _, role := range p.Roles {
		if role != roleGateway && role != roleWorker {
			return usage("--roles are gateway and worker, not %q", role)
		}
	}
	if len(p.Roles) == 0 {
		return usage("--roles must name gateway, worker or both")
	}
	if err := p.Auth.config().Validate(); err != nil {
		return usage("%v", err)
	}
	if err := p.Server.Limits.config().Validate(); err != nil {
		return usage("%v", err)
	}
	if _, err := p.Server.Edge.config(p.Logger); err != nil {
		return err
	}
	if _, err := p.Server.origins(); err != nil {
		return err
	}
	if _, err := p.Secret.keyring(); err != nil {
		return err
	}
	if _, err := p.Server.Connections.publicURL(); err != nil {
		return err
	}
	if err := p.Server.Connections.validate(); err != nil {
		return err
	}
	if p.Server.NodeName == "" {
		host, _ := os.Hostname() // without a name the random part must do
		p.Server.NodeName = strings.ToLower(host + "-" + rand.Text()[:6])
	}
	return nil
}

func (p *Program) openCredentials(ctx context.Context) error {
	ring, err := p.Secret.keyring()
	if err != nil {
		return err
	}
	p.credentials = &credentials{store: p.backend.store, ring: ring, hosts: p.Server.Connections.CloudHosts}
	return p.credentials.warn(ctx, p.Logger)
}

func (p *Program) has(role string) bool {
	for _, r := range p.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// defaultAdminListen is taken when nothing is said, and left to whoever has it
// already: a second process on the same machine gets a free port.
const defaultAdminListen = "127.0.0.1:9090"

func (p *Program) listen() (err error) {
	if p.listener, err = net.Listen("tcp", p.Server.Listen); err != nil {
		return listenError("--listen", p.Server.Listen, err)
	}
	if p.Server.AdminListen != "" {
		p.admin, err = net.Listen("tcp", p.Server.AdminListen)
		return listenError("--admin-listen", p.Server.AdminListen, err)
	}
	if p.admin, err = net.Listen("tcp", defaultAdminListen); err != nil {
		p.admin, err = net.Listen("tcp", "127.0.0.1:0")
	}
	return listenError("--admin-listen", "127.0.0.1:0", err)
}

func listenError(flag, address string, err error) error {
	if operation := new(net.OpError); errors.As(err, &operation) {
		return fmt.Errorf("cannot listen on %s (%w): choose another address with %s", address, operation.Err, flag)
	}
	return err
}

// Addr is the address that clients are served on.
func (p *Program) Addr() string { return p.listener.Addr().String() }

// AdminAddr is the address of metrics, health and profiles.
func (p *Program) AdminAddr() string { return p.admin.Addr().String() }

// Run serves until ctx ends, and returns when everything has stopped: requests
// under way are finished, sockets are told to reconnect elsewhere, partitions
// are given back.
func (p *Program) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(context.WithoutCancel(ctx))
	running, stop := context.WithCancel(running)
	defer stop()
	// A part that panics is restarted; an error ends the process.
	background := func(what string, run func(context.Context) error) {
		group.Go(func() (err error) {
			isolate.Loop(running, p.Logger, what, func() { err = run(running) })
			if err != nil && running.Err() == nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return nil
		})
	}
	background("metrics", p.figures.run)
	if p.worker != nil {
		background("worker", p.worker.Run)
	}
	background("admin server", func(context.Context) error { return p.adminEdge.Serve(p.admin) })
	listening := make(chan struct{})
	background("reactions", func(ctx context.Context) error {
		return reactions.Follow(ctx, p.backend.log, p.reactions, listening)
	})
	background("heartbeats", p.shelly.beat)
	select {
	case <-listening:
		p.begin(ctx, background)
	case <-ctx.Done():
	case <-running.Done():
	}
	select {
	case <-ctx.Done():
	case <-running.Done():
	}
	p.drain(ctx, p.clientEdge, p.adminEdge)
	stop()
	return group.Wait()
}

// begin lets clients in, when this process hears what is asked of all: before, it
// must not be on the board, where everybody is expected to answer. Bans are
// loaded behind that, so that none falls in between; see package ban.
func (p *Program) begin(ctx context.Context, background func(string, func(context.Context) error)) {
	if err := p.bans.Load(ctx); err != nil {
		p.Logger.Warn("cannot load bans: clients banned before this process started may reconnect for some seconds", "error", err)
	}
	background("bans", func(ctx context.Context) error { return p.bans.Run(ctx, p.disconnects.enforce) })
	background("presence", func(ctx context.Context) error { return p.registry.Run(ctx, p.figures.own) })
	background("server", func(context.Context) error { return p.clientEdge.Serve(p.listener) })
	if p.gateway != nil {
		background("tokens", p.gateway.tokens.Run)
	}
}

// drain stops taking requests and lets those under way finish.
func (p *Program) drain(ctx context.Context, servers ...*edge.Server) {
	p.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(p.Server.DrainTimeout, time.Second))
	defer cancel()
	if p.gateway != nil {
		if err := p.gateway.shutdown(ctx); err != nil {
			p.Logger.Warn("sockets were cut off", "error", err)
		}
	}
	if err := p.shelly.shutdown(ctx); err != nil {
		p.Logger.Warn("devices were cut off", "error", err)
	}
	for _, server := range servers {
		if err := server.Shutdown(ctx); err != nil {
			p.Logger.Warn("requests were cut off", "error", err)
			_ = server.Close()
		}
	}
}

// Close lets go of what Open took. Closing twice is fine.
func (p *Program) Close() {
	if p.gateway != nil {
		p.gateway.close()
	}
	if p.shelly != nil {
		p.shelly.dispatcher.Close()
	}
	for _, listener := range []net.Listener{p.listener, p.admin} {
		if listener != nil {
			_ = listener.Close() // closed already by a server that ran
		}
	}
	if p.backend != nil {
		if err := p.backend.close(); err != nil {
			p.Logger.Error("closing", "error", err)
		}
		p.backend = nil
	}
}

// adminConnections is how many operators' connections there may be. They are not
// among those of clients, so that a flood there does not hide what it does.
const adminConnections = 64

// newEdges makes the servers of both listeners.
func (p *Program) newEdges() (err error) {
	clients, err := p.Server.Edge.config(p.Logger)
	if err != nil {
		return err
	}
	if p.clientEdge, err = edge.New(clients, p.handler()); err != nil {
		return err
	}
	p.adminEdge, err = edge.New(edge.Config{
		MaxConnections: adminConnections, MaxPerAddress: adminConnections, Logger: p.Logger,
	}, p.adminHandler())
	return err
}

// handler serves clients: everything for a gateway, health alone for a worker.
func (p *Program) handler() http.Handler {
	if p.gateway != nil {
		return p.gateway.handler()
	}
	return isolated(p.healthHandler(), p.Logger, brokenPlainly)
}

// checks are what must work before this process is sent requests.
func (p *Program) checks() []rest.Check {
	return []rest.Check{
		{Name: "draining", Ask: func(context.Context) error {
			if p.draining.Load() {
				return errors.New("the process is stopping")
			}
			return nil
		}},
		{Name: "redis", Ask: func(ctx context.Context) error { return p.backend.log.Client().Ping(ctx).Err() }},
		{Name: "postgres", Ask: p.backend.store.Ping},
	}
}

// newService makes the one place where commands are decided.
func (p *Program) newService() *domain.Service {
	return domain.NewService(p.backend.log, p.backend.store, p.quota, func() string { return uuid.Must(uuid.NewV7()).String() })
}

// newGuards makes what every face asks before it lets anybody in.
func (p *Program) newGuards() (*auth.Verifier, *tickets.Store, *ratelimit.Limiter, auth.Origins, error) {
	client, prefix := p.backend.log.Client(), p.backend.log.Prefix()
	ticketStore := tickets.New(client, prefix)
	authenticator, err := auth.New(p.Auth.config(), ticketStore, p.Logger)
	if err != nil {
		return nil, nil, nil, auth.Origins{}, err
	}
	origins, err := p.Server.origins()
	if err != nil {
		return nil, nil, nil, auth.Origins{}, err
	}
	return authenticator, ticketStore, ratelimit.New(client, prefix, p.Server.Limits.config(), p.Logger), origins, nil
}
