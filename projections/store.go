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

var _ domain.States = (*Store)(nil)

// DefaultMaxConns is how many connections a [Store] opens at most.
const DefaultMaxConns = 24

// Config says where the database is and how the log is cut.
type Config struct {
	// URL of Postgres, as pgx understands it; required. Its user owns the tables.
	// It leads to Postgres itself or to a pooler of whole sessions: locks that
	// last as long as a session are held on it.
	URL string
	// MaxConns bounds the connections; [DefaultMaxConns] when 0. Projectors and
	// readers share them.
	MaxConns int
	// Partition returns where the log has a system. Without it the store reads
	// history and rebuilds, but answers nothing that is about checkpoints.
	Partition func(domain.SystemID) int
	// Logger gets what goes on in the background. Nil drops it.
	Logger *slog.Logger
}

// Store is the database. It is safe for concurrent use.
//
// A method that takes an actor answers within the systems that the actor sees,
// as Postgres enforces it; a system that the actor does not see looks like one
// without events. Whether the actor's role allows the question is for the caller
// to ask. Methods without an actor are for the platform itself.
//
// Errors for callers are a [domain.Error]: of [domain.KindUnavailable] when the
// database cannot be reached.
type Store struct {
	pool      *pgxpool.Pool
	partition func(domain.SystemID) int
	logger    *slog.Logger
	progress  *progress
	counts    counts
	failing   failing
	months    sync.Map // months of history that are known to have a partition: int64 -> struct{}
}

// Open connects. It does not look at the schema: that is for migrations.Check.
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

// sessionSettings are for every connection of a [Store], whatever the database's
// defaults are.
var sessionSettings = map[string]string{
	"application_name": "plugcast",
	// Each statement sees what is committed when it begins: what a rebuild's swap
	// relies on.
	"default_transaction_isolation": "read committed",
	// A process that froze in a transaction, or whose machine is gone, must not
	// keep others waiting for ever.
	"idle_in_transaction_session_timeout": "5s",
	"lock_timeout":                        "10s",
	"tcp_keepalives_idle":                 "10",
	"tcp_keepalives_interval":             "5",
	"tcp_keepalives_count":                "3",
}

// noPartition is no number that a partition has.
const noPartition = -1

// Close ends waits that are under way, with an error, and closes the
// connections once they are given back.
func (s *Store) Close() {
	s.progress.close()
	s.pool.Close()
}

// Ping returns nil when the database answers.
func (s *Store) Ping(ctx context.Context) error { return readError("ping", s.pool.Ping(ctx)) }

// Stats counts what the projectors of a [Store] have done since it was opened.
type Stats struct {
	Archived    uint64        // events written to history
	Quarantined uint64        // entries that could not be read
	Batches     uint64        // transactions
	Writing     time.Duration // spent in transactions, of all projectors together
}

type counts struct {
	archived, quarantined, batches atomic.Uint64
	writing                        atomic.Int64
}

// Stats returns the counts. It costs next to nothing.
func (s *Store) Stats() Stats {
	return Stats{
		Archived: s.counts.archived.Load(), Quarantined: s.counts.quarantined.Load(),
		Batches: s.counts.batches.Load(), Writing: time.Duration(s.counts.writing.Load()),
	}
}

// readModels is the schema that readers and projectors use.
const readModels = "projection"

// errClosed is what waits get when the store is closed.
var errClosed = errors.New("projections: the store is closed")
