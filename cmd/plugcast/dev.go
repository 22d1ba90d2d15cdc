package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/migrations"
)

// devCommand is the whole platform on one machine, with nothing to set up.
type devCommand struct {
	Data         string `help:"Directory for data, secrets and logs." default:".plugcast" placeholder:"DIR"`
	Demo         bool   `help:"Feed two demo systems, clinica-sol and centro-luna." default:"true" negatable:""`
	ServicesOnly bool   `help:"Only start Redis and Postgres and bring the schema up to date; serve elsewhere with DATA/env."`

	Server serverFlags `embed:""`
}

// Run implements the command.
func (c *devCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	return untilStopped(ctx, c.run(ctx, t, logger))
}

func (c *devCommand) run(ctx context.Context, t terminal, logger *slog.Logger) error {
	dir, err := filepath.Abs(c.Data)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := c.portIsFree(); err != nil {
		return err
	}
	services, err := startServices(ctx, dir, logger)
	if err != nil {
		return err
	}
	defer services.stop()
	if err := migrations.Apply(ctx, services.env[envPostgresURL], logger); err != nil {
		return err
	}
	if c.ServicesOnly {
		fmt.Fprintf(t.out, "Redis and Postgres run. For a second process: source %s\n", shellWord(relative(filepath.Join(dir, "env"))))
		<-ctx.Done()
		return nil
	}
	return c.serve(ctx, t, services.env, logger)
}

// portIsFree finds out early, before two databases are started for nothing.
func (c *devCommand) portIsFree() error {
	if c.ServicesOnly {
		return nil
	}
	listener, err := net.Listen("tcp", c.Server.Listen)
	if err != nil {
		return listenError("--listen", c.Server.Listen, err)
	}
	return listener.Close()
}

func (c *devCommand) serve(ctx context.Context, t terminal, env envFile, logger *slog.Logger) error {
	p := &Program{
		Backends: backendFlags{RedisURL: env[envRedisURL], PostgresURL: env[envPostgresURL]},
		Auth:     authFlags{JWTSecret: env[envJWTSecret]},
		Secret:   secretFlags{SecretKey: env[envSecretKey]},
		Server:   c.Server, Roles: []string{roleGateway, roleWorker}, Logger: logger,
	}
	if err := p.Open(ctx); err != nil {
		return err
	}
	defer p.Close()
	if err := c.welcome(t, p); err != nil {
		return err
	}
	var feeding sync.WaitGroup
	defer feeding.Wait()
	if c.Demo {
		feed, err := newDemo(p, logger)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		feeding.Go(func() { feed.run(ctx) })
	}
	return p.Run(ctx)
}

// loginTTL is how long the printed link works.
const loginTTL = 12 * time.Hour

// welcome prints where to look.
func (c *devCommand) welcome(t terminal, p *Program) error {
	base := "http://" + reachable(p.Addr())
	fmt.Fprintf(t.out, "\nplugcast serves at %s   (API: %s/docs, metrics: http://%s/metrics)\n", base, base, reachable(p.AdminAddr()))
	if c.Demo {
		for _, system := range []domain.SystemID{"clinica-sol", "centro-luna"} {
			token, err := p.Auth.config().Sign(domain.Actor{
				Subject: "dev", Role: domain.RoleAdmin, Systems: []domain.SystemID{system}, ExpiresAt: time.Now().Add(loginTTL),
			}, time.Now())
			if err != nil {
				return err
			}
			fragment := url.Values{"system": {string(system)}, "token": {token}}
			fmt.Fprintf(t.out, "\n  %-12s %s/#%s\n", system, base, fragment.Encode())
		}
	}
	_, err := fmt.Fprintf(t.out, "\nFor a second terminal: source %s\nCtrl-C stops everything.\n\n",
		shellWord(relative(filepath.Join(c.Data, "env"))))
	return err
}

// reachable is a listener's address as this machine reaches it: one that takes
// connections for all addresses has none of its own.
func reachable(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsUnspecified() {
		return address
	}
	return fmt.Sprintf("localhost:%d", at.Port())
}

// shellWord is a path as a person can paste it into a shell.
func shellWord(path string) string {
	if !strings.ContainsAny(path, " \t\n'\"\\$`&;()<>|*?[]#~!") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// relative shortens a path for people, where it can. It keeps a slash in it,
// because a shell looks for a bare name elsewhere.
func relative(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil && len(short)+2 < len(path) {
		if !strings.ContainsRune(short, filepath.Separator) {
			short = "./" + short
		}
		return short
	}
	return path
}

func newDemo(p *Program, logger *slog.Logger) (*demo, error) {
	actor := domain.Actor{Subject: "demo", Role: domain.RoleAdmin, ExpiresAt: time.Now().AddDate(1, 0, 0)}
	for system := range demoSystems {
		actor.Systems = append(actor.Systems, system)
	}
	token, err := p.Auth.config().Sign(actor, time.Now())
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	return &demo{url: "http://" + reachable(p.Addr()), token: token, client: client, logger: logger}, nil
}
