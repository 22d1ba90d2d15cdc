// Package timeline makes one numbered sequence per system out of two stores: the archive, which
// has the old events, and the log in Redis, which has the new ones. Readers need not know which
// store an event came from.
package timeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

var (
	// ErrMiscounted ends a subscription whose numbers differ from those in the archive,
	// because an event was missed. Subscribe again.
	ErrMiscounted = errors.New("timeline: the sequence differs from the archive")
	// ErrClosed is returned once the timeline is closed.
	ErrClosed = errors.New("timeline: closed")
)

// History is the archive. It answers for one system at a time, and its answers stay true.
type History interface {
	// Base returns one consistent pair: the checkpoint of the system's partition, and the
	// cursor of the system's newest archived event. All of the system's events at or before the
	// checkpoint are archived and counted in head.Seq, and none after it is.
	Base(ctx context.Context, system domain.SystemID) (checkpoint domain.Position, head domain.Cursor, err error)
	// Locate returns the cursor of the newest archived event at or before a position, zero if
	// there is none.
	Locate(ctx context.Context, system domain.SystemID, at domain.Position) (domain.Cursor, error)
	// Page returns up to max archived events after a position, in ascending order and with Seq.
	Page(ctx context.Context, system domain.SystemID, after domain.Position, max int) ([]domain.Event, error)
}

// Defaults of [Config].
const (
	DefaultWindow       = 4 << 20
	DefaultCompareEvery = time.Second
)

// Config holds the settings of a [Timeline]. The zero value is fine.
type Config struct {
	// Window is how many bytes of the newest events are kept in memory, for each partition in
	// use, so that a subscription or a page need not read them from Redis again;
	// [DefaultWindow] if 0.
	Window int
	// CompareEvery is the interval at which a few systems are compared with the archive;
	// [DefaultCompareEvery] if 0, never if negative.
	CompareEvery time.Duration
	// Logger gets mismatches and gaps. Nil discards them.
	Logger *slog.Logger
}

// Timeline reads both stores as one. It is safe for concurrent use. It follows a partition of
// the log while a system in it has subscriptions, once for all of them.
type Timeline struct {
	log     *streams.Log
	history History
	config  Config
	logger  *slog.Logger

	partitions []partition
	closing    context.Context
	close      context.CancelFunc
	working    sync.WaitGroup
	comparing  sync.Once // starts compareLoop
}

// New returns a Timeline. It starts nothing: the first subscription starts the comparison with
// the archive, and Close ends it.
func New(log *streams.Log, history History, cfg Config) *Timeline {
	if cfg.Window == 0 {
		cfg.Window = DefaultWindow
	}
	if cfg.CompareEvery == 0 {
		cfg.CompareEvery = DefaultCompareEvery
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Timeline{
		log: log, history: history, config: cfg, logger: cfg.Logger,
		partitions: make([]partition, log.Partitions()),
	}
	for i := range t.partitions {
		t.partitions[i].timeline, t.partitions[i].number = t, i
	}
	t.closing, t.close = context.WithCancel(context.Background())
	return t
}

// Close ends all subscriptions with [ErrClosed] and waits until every goroutine of the timeline
// has ended. Closing twice is no error.
func (t *Timeline) Close() error {
	t.close()
	for i := range t.partitions {
		t.partitions[i].close()
	}
	t.working.Wait()
	return nil
}

// partitionOf returns the partition of a system.
func (t *Timeline) partitionOf(system domain.SystemID) *partition {
	return &t.partitions[t.log.Partition(system)]
}

// maxTries bounds how often an operation starts again because the archive advanced, and the log
// was trimmed behind it, during the operation.
const maxTries = 5

// retryable reports whether an operation that failed with err should start again.
func retryable(err error) bool { return errors.Is(err, streams.ErrTrimmed) }

func wrap(operation string, system domain.SystemID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("timeline: %s %s: %w", operation, system, err)
}
