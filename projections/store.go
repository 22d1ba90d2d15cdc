package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/plugcast/plugcast/domain"
)

var _ domain.StateReader = (*Store)(nil)

// DefaultMaxConns is the most connections that a [Store] opens by default.
const DefaultMaxConns = 24

// Config holds the settings of a [Store].
type Config struct {
	// URL is the URL of Postgres, in the form that pgx accepts; required. Its user owns the
	// tables. It leads to Postgres itself or to a pooler of whole sessions, because session
	// locks are held on it.
	URL string
	// MaxConns bounds the connections; [DefaultMaxConns] if 0. Projectors and readers share
	// them.
	MaxConns int
	// Partition returns the partition of a system in the log. Without it the store reads
	// history and rebuilds, but cannot answer questions about checkpoints.
	Partition func(domain.SystemID) int
	// Logger gets messages of background work. Nil discards them.
	Logger *slog.Logger
}

// Store reads and writes the database. It is safe for concurrent use.
//
// A method that takes an actor returns rows of the systems that the actor sees, and Postgres
// enforces it. A system that the actor does not see looks like one without events. The caller
// checks whether the actor's role allows the request. Methods without an actor are for the
// platform itself.
//
// If the database cannot be reached, methods return a [domain.Error] of
// [domain.KindUnavailable].
type Store struct {
	pool      *pgxpool.Pool
	partition func(domain.SystemID) int
	logger    *slog.Logger
	progress  *progress
	counts    counts
	failing   failing
	months    sync.Map // months of history that have a table partition: int64 -> struct{}
}

// Open connects to the database. It does not check the schema; that is the task of
// migrations.Check.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	config, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("projections: open: %w", err)
	}
	config.MaxConns = DefaultMaxConns
	if cfg.MaxConns > 0 {
		config.MaxConns = int32(cfg.MaxConns)
	}
	for name, value := range sessionSettings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	s := &Store{partition: cfg.Partition, logger: cfg.Logger}
	if s.partition == nil {
		s.partition = func(domain.SystemID) int { return noPartition }
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, fmt.Errorf("projections: open: %w", err)
	}
	if err := s.pool.Ping(ctx); err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("projections: open: %w", err)
	}
	s.progress = newProgress(s.checkpoints)
	return s, nil
}

// sessionSettings apply to every connection of a [Store], whatever the defaults of the database
// are.
var sessionSettings = map[string]string{
	"application_name": "plugcast",
	// Each statement sees what is committed when it begins. A rebuild's swap relies on that.
	"default_transaction_isolation": "read committed",
	// A process that froze in a transaction, or whose machine failed, must not block others for
	// ever.
	"idle_in_transaction_session_timeout": "5s",
	"lock_timeout":                        "10s",
	"tcp_keepalives_idle":                 "10",
	"tcp_keepalives_interval":             "5",
	"tcp_keepalives_count":                "3",
}

// noPartition is not the number of any partition.
const noPartition = -1

// Close ends waits with an error, and closes the connections once they are returned to the
// pool.
func (s *Store) Close() {
	s.progress.close()
	s.pool.Close()
}

// Ping returns nil if the database answers.
func (s *Store) Ping(ctx context.Context) error { return readError("ping", s.pool.Ping(ctx)) }

// Stats are the counts of the projectors of a [Store] since it was opened.
type Stats struct {
	Archived    uint64        // events written to history
	Quarantined uint64        // entries that could not be decoded
	Batches     uint64        // transactions
	Writing     time.Duration // time spent in transactions, summed over all projectors
}

type counts struct {
	archived, quarantined, batches atomic.Uint64
	writing                        atomic.Int64
}

// Stats returns the counts. It is cheap.
func (s *Store) Stats() Stats {
	return Stats{
		Archived: s.counts.archived.Load(), Quarantined: s.counts.quarantined.Load(),
		Batches: s.counts.batches.Load(), Writing: time.Duration(s.counts.writing.Load()),
	}
}

// readModels is the schema of the live read models.
const readModels = "projection"

// errClosed is the error of waits when the store is closed.
var errClosed = errors.New("projections: the store is closed")
