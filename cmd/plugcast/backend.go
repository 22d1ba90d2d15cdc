package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/migrations"
	"github.com/plugcast/plugcast/projections"
	"github.com/plugcast/plugcast/streams"
	"github.com/plugcast/plugcast/streams/timeline"
)

// backend is the two stores and the one sequence that is made of them.
type backend struct {
	store    *projections.Store
	log      *streams.Log
	timeline *timeline.Timeline
}

// openBackend connects to both stores. It refuses a schema that is not this
// build's.
func openBackend(ctx context.Context, flags backendFlags, logger *slog.Logger) (*backend, error) {
	if err := flags.require(); err != nil {
		return nil, err
	}
	b := &backend{}
	store, err := openStore(ctx, flags, func(system domain.SystemID) int { return b.log.Partition(system) }, logger)
	if err != nil {
		return nil, err
	}
	b.store = store
	b.log, err = streams.Open(ctx, streams.Config{
		URL: flags.RedisURL, Partitions: flags.Partitions, Floor: store.Checkpoint, Logger: logger,
	})
	if err != nil {
		store.Close()
		return nil, err
	}
	b.timeline = timeline.New(b.log, store, timeline.Config{Logger: logger})
	return b, nil
}

// openStore connects to Postgres alone. partition may be nil for what never asks
// about checkpoints.
func openStore(ctx context.Context, flags backendFlags, partition func(domain.SystemID) int, logger *slog.Logger) (*projections.Store, error) {
	if err := flags.requirePostgres(); err != nil {
		return nil, err
	}
	if err := checkSchema(ctx, flags.PostgresURL); err != nil {
		return nil, err
	}
	return projections.Open(ctx, projections.Config{URL: flags.PostgresURL, Partition: partition, Logger: logger})
}

// connectLimit bounds the first word with Postgres, which may accept a connection
// and never answer.
const connectLimit = 5 * time.Second

func checkSchema(ctx context.Context, postgresURL string) error {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	return migrations.Check(ctx, postgresURL)
}

// close ends everything that reads before what it reads from.
func (b *backend) close() error {
	err := b.timeline.Close()
	if closing := b.log.Close(); err == nil {
		err = closing
	}
	b.store.Close()
	if err != nil {
		return fmt.Errorf("close the backends: %w", err)
	}
	return nil
}
