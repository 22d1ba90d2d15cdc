// Package backend connects a process to Redis and Postgres.
package backend

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

// Config says where both are.
type Config struct {
	RedisURL    string
	PostgresURL string
	Partitions  int // of a new deployment; 0 takes what is there, or the default
}

// Backend is the two stores and the one sequence that is made of them.
type Backend struct {
	Store    *projections.Store
	Log      *streams.Log
	Timeline *timeline.Timeline
}

// Open connects to both stores. It refuses a schema that is not this build's.
func Open(ctx context.Context, c Config, logger *slog.Logger) (*Backend, error) {
	b := &Backend{}
	store, err := openStore(ctx, c.PostgresURL, func(system domain.SystemID) int { return b.Log.Partition(system) }, logger)
	if err != nil {
		return nil, err
	}
	b.Store = store
	b.Log, err = streams.Open(ctx, streams.Config{
		URL: c.RedisURL, Partitions: c.Partitions, Floor: store.Checkpoint, Logger: logger,
	})
	if err != nil {
		store.Close()
		return nil, err
	}
	b.Timeline = timeline.New(b.Log, store, timeline.Config{Logger: logger})
	return b, nil
}

// OpenStore connects to Postgres alone, for what never asks about checkpoints. It
// refuses a schema that is not this build's.
func OpenStore(ctx context.Context, postgresURL string, logger *slog.Logger) (*projections.Store, error) {
	return openStore(ctx, postgresURL, nil, logger)
}

func openStore(ctx context.Context, url string, partition func(domain.SystemID) int, logger *slog.Logger) (*projections.Store, error) {
	if err := CheckSchema(ctx, url); err != nil {
		return nil, err
	}
	return projections.Open(ctx, projections.Config{URL: url, Partition: partition, Logger: logger})
}

// ConnectLimit bounds the first word with Postgres, which may accept a connection and
// never answer.
const ConnectLimit = 5 * time.Second

// CheckSchema fails when the schema is not this build's, or within [ConnectLimit].
func CheckSchema(ctx context.Context, postgresURL string) error {
	ctx, cancel := context.WithTimeout(ctx, ConnectLimit)
	defer cancel()
	return migrations.Check(ctx, postgresURL)
}

// Close ends everything that reads before what it reads from.
func (b *Backend) Close() error {
	err := b.Timeline.Close()
	if closing := b.Log.Close(); err == nil {
		err = closing
	}
	b.Store.Close()
	if err != nil {
		return fmt.Errorf("close the backends: %w", err)
	}
	return nil
}
