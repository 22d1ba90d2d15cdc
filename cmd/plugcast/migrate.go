package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"text/tabwriter"

	"github.com/plugcast/plugcast/cmd/plugcast/backend"
	"github.com/plugcast/plugcast/migrations"
)

// migrateCommand brings the schema up to date, or shows where it stands.
type migrateCommand struct {
	Up     migrateUpCommand     `cmd:"" default:"withargs" help:"Apply what is missing (the default)."`
	Status migrateStatusCommand `cmd:"" help:"List the migrations and when each was applied."`
}

type migrateUpCommand struct {
	Backends backendFlags `embed:""`
}

// Run implements the command.
func (c *migrateUpCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	if err := c.Backends.requirePostgres(); err != nil {
		return err
	}
	// Applying may take long, so only the first word with the database is bounded.
	if err := backend.CheckSchema(ctx, c.Backends.PostgresURL); err != nil && !errors.Is(err, migrations.ErrOlder) {
		return err
	}
	if err := migrations.Apply(ctx, c.Backends.PostgresURL, logger); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.out, "the schema is up to date")
	return err
}

type migrateStatusCommand struct {
	Backends backendFlags `embed:""`
}

// Run implements the command.
func (c *migrateStatusCommand) Run(ctx context.Context, t terminal) error {
	if err := c.Backends.requirePostgres(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, backend.ConnectLimit)
	defer cancel()
	list, err := migrations.Status(ctx, c.Backends.PostgresURL)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, m := range list {
		applied := "not applied"
		if !m.AppliedAt.IsZero() {
			applied = m.AppliedAt.UTC().Format("2006-01-02 15:04:05Z")
		}
		fmt.Fprintf(table, "%d\t%s\t%s\n", m.Version, m.Name, applied)
	}
	return table.Flush()
}
