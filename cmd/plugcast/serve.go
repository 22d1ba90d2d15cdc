package main

import (
	"context"
	"log/slog"

	"github.com/plugcast/plugcast/cmd/plugcast/server"
)

// serveCommand runs one process of the platform.
type serveCommand struct {
	processFlags `embed:""`
}

// Run implements the command.
func (c *serveCommand) Run(ctx context.Context, logger *slog.Logger) error {
	return untilStopped(ctx, c.serve(ctx, logger))
}

func (c *serveCommand) serve(ctx context.Context, logger *slog.Logger) error {
	config, err := c.config(logger)
	if err != nil {
		return err
	}
	s, err := server.Open(ctx, config)
	if err != nil {
		return err
	}
	defer s.Close()
	logger.Info("serving", "address", s.Addr(), "admin", s.AdminAddr(), "node", s.Node(), "roles", c.Roles)
	return s.Run(ctx)
}
