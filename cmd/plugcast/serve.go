package main

import (
	"context"
	"log/slog"
)

// serveCommand runs one process of the platform.
type serveCommand struct {
	Roles []string `help:"What this process does: gateway serves clients, worker projects." default:"gateway,worker"`

	Server   serverFlags  `embed:""`
	Backends backendFlags `embed:""`
	Auth     authFlags    `embed:""`
	Secret   secretFlags  `embed:""`
}

// Run implements the command.
func (c *serveCommand) Run(ctx context.Context, logger *slog.Logger) error {
	return untilStopped(ctx, c.serve(ctx, logger))
}

func (c *serveCommand) serve(ctx context.Context, logger *slog.Logger) error {
	p := &Program{Backends: c.Backends, Auth: c.Auth, Secret: c.Secret, Server: c.Server, Roles: c.Roles, Logger: logger}
	if err := p.Open(ctx); err != nil {
		return err
	}
	defer p.Close()
	logger.Info("serving", "address", p.Addr(), "admin", p.AdminAddr(), "node", p.Server.NodeName, "roles", p.Roles)
	return p.Run(ctx)
}
