package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/plugcast/plugcast/projections"
)

// rebuildCommand makes the read models anew from history.
type rebuildCommand struct {
	Projection []string `help:"Only these: devices, equipment, assignments, connections. Default: all." placeholder:"NAME"`

	Backends backendFlags `embed:""`
}

// Run implements the command.
func (c *rebuildCommand) Run(ctx context.Context, t terminal, logger *slog.Logger) error {
	known := map[string]bool{}
	for _, name := range projections.ReadModels() {
		known[name] = true
	}
	for _, name := range c.Projection {
		if !known[name] {
			return usage("there is no projection %q; there are %v", name, projections.ReadModels())
		}
	}
	store, err := c.Backends.openStore(ctx, logger)
	if err != nil {
		return err
	}
	defer store.Close()
	bar := newProgress(t.err, 0, "events")
	rebuilt, err := store.Rebuild(ctx, c.Projection, func(done, total uint64) {
		bar.ChangeMax64(int64(total))
		_ = bar.Set64(int64(done))
	})
	_ = bar.Finish()
	if err != nil {
		return err
	}
	if rebuilt.Skipped > 0 {
		fmt.Fprintf(t.err, "%d events cannot be projected: they were left out, and put into quarantine. The first:\n", rebuilt.Skipped)
		for _, q := range rebuilt.FirstSkipped {
			fmt.Fprintf(t.err, "  system %s, position %s, id %q, type %q: %s\n", q.SystemID, q.Position, q.EventID, q.Type, q.Reason)
		}
	}
	_, err = fmt.Fprintf(t.out, "rebuilt from %d events\n", rebuilt.Events-rebuilt.Skipped)
	return err
}
