package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/plugcast/plugcast/cmd/plugcast/demo"
	"github.com/plugcast/plugcast/cmd/plugcast/dev"
	"github.com/plugcast/plugcast/cmd/plugcast/server"
	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/transport/auth"
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
	services, err := dev.Start(ctx, dir, logger)
	if err != nil {
		return err
	}
	defer services.Stop()
	if err := migrations.Apply(ctx, services.Env()[dev.PostgresURL], logger); err != nil {
		return err
	}
	if c.ServicesOnly {
		fmt.Fprintf(t.out, "Redis and Postgres run. For a second process: source %s\n", shellWord(relative(filepath.Join(dir, "env"))))
		<-ctx.Done()
		return nil
	}
	return c.serve(ctx, t, services.Env(), logger)
}

// portIsFree finds out early, before two databases are started for nothing.
func (c *devCommand) portIsFree() error {
	if c.ServicesOnly {
		return nil
	}
	listener, err := server.Listen(c.Server.Listen)
	if err != nil {
		return inFlags(&server.ConfigError{Field: "Listen", Err: err})
	}
	return listener.Close()
}

func (c *devCommand) serve(ctx context.Context, t terminal, env dev.Env, logger *slog.Logger) error {
	process := processFlags{
		Roles: []string{server.RoleGateway, server.RoleWorker}, Server: c.Server,
		Backends: backendFlags{RedisURL: env[dev.RedisURL], PostgresURL: env[dev.PostgresURL]},
		Auth:     authFlags{JWTSecret: env[dev.JWTSecret]},
		Secret:   secretFlags{SecretKey: env[dev.SecretKey]},
	}
	config, err := process.config(logger)
	if err != nil {
		return err
	}
	s, err := server.Open(ctx, config)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := c.welcome(t, s, config.Auth); err != nil {
		return err
	}
	var feeding sync.WaitGroup
	defer feeding.Wait()
	if c.Demo {
		token, err := sign(config.Auth, "demo", demo.Systems(), time.Now().AddDate(1, 0, 0))
		if err != nil {
			return err
		}
		feed := demo.New("http://"+reachable(s.Addr()), token, logger)
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		feeding.Go(func() { feed.Run(ctx) })
	}
	return s.Run(ctx)
}

// sign makes the token of an admin of the systems.
func sign(by auth.Config, subject string, systems []domain.SystemID, expires time.Time) (string, error) {
	return by.Sign(domain.Actor{Subject: subject, Role: domain.RoleAdmin, Systems: systems, ExpiresAt: expires}, time.Now())
}

// loginTTL is how long the printed link works.
const loginTTL = 12 * time.Hour

// welcome prints where to look.
func (c *devCommand) welcome(t terminal, s *server.Server, by auth.Config) error {
	base := "http://" + reachable(s.Addr())
	fmt.Fprintf(t.out, "\nplugcast serves at %s   (API: %s/docs, metrics: http://%s/metrics)\n", base, base, reachable(s.AdminAddr()))
	if c.Demo {
		for _, system := range []domain.SystemID{"clinica-sol", "centro-luna"} {
			token, err := sign(by, "dev", []domain.SystemID{system}, time.Now().Add(loginTTL))
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
