// Package timeline makes one numbered sequence per system out of two stores: the
// archive, which has what is old, and the log in Redis, which has what is new.
// Who reads through it does not see the seam.
package timeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
	"github.com/plugcast/plugcast/streams"
)

var (
	// ErrMiscounted says that the numbers given to a subscription differ from
	// those in the archive: something was missed. Subscribe anew.
	ErrMiscounted = errors.New("timeline: the sequence differs from the archive")
	// ErrClosed says that the timeline was closed.
	ErrClosed = errors.New("timeline: closed")
)

// History is the archive. It answers for one system at a time, and what it has
// once said stays true.
type History interface {
	// Base returns one consistent pair: the checkpoint of the system's
	// partition, and the cursor of the system's newest archived event. All of
	// the system's events at or before the checkpoint are archived and counted
	// in head.Seq, and none after.
	Base(ctx context.Context, system domain.SystemID) (checkpoint domain.Position, head domain.Cursor, err error)
	// Locate returns the cursor of the newest archived event at or before a
	// position, zero when there is none.
	Locate(ctx context.Context, system domain.SystemID, at domain.Position) (domain.Cursor, error)
	// Page returns up to max archived events after a position, ascending and
	// with Seq.
	Page(ctx context.Context, system domain.SystemID, after domain.Position, max int) ([]domain.Event, error)
}

// Defaults of [Config].
const (
	DefaultWindow       = 4 << 20
	DefaultCompareEvery = time.Second
)

// Config holds what a [Timeline] may be told. The zero value is fine.
type Config struct {
	// Window bounds, in bytes per partition in use, the newest events that are
	// kept so that a subscription or a page need not read them from Redis again;
	// [DefaultWindow] when 0.
	Window int
	// CompareEvery is the pace at which systems are compared with the archive,
	// a few at a time; [DefaultCompareEvery] when 0, never when negative.
	CompareEvery time.Duration
	// Logger gets mismatches and gaps. Nil drops them.
	Logger *slog.Logger
}

// Timeline is safe for concurrent use. It follows a partition of the log while
// anybody subscribes to a system in it, once for all of them.
type Timeline struct {
	log     *streams.Log
	history History
	config  Config
	logger  *slog.Logger

	partitions []partition
	closing    context.Context
	close      context.CancelFunc
	working    sync.WaitGroup
}

// New makes a Timeline and starts its comparing.
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
	if cfg.CompareEvery > 0 {
		t.working.Go(func() { isolate.Loop(t.closing, t.logger, "timeline", t.keepComparing) })
	}
	return t
}

// Close ends all subscriptions with [ErrClosed] and waits for everything that
// runs. Closing twice is no error.
func (t *Timeline) Close() error {
	t.close()
	for i := range t.partitions {
		t.partitions[i].refuse()
	}
	t.working.Wait()
	return nil
}

// partitionOf returns where a system is followed.
func (t *Timeline) partitionOf(system domain.SystemID) *partition {
	return &t.partitions[t.log.Partition(system)]
}

// tries bounds how often an operation begins anew because the archive moved on,
// and the log was trimmed behind it, while it read.
const tries = 5

// again reports whether an operation that failed like this should begin anew.
func again(err error) bool { return errors.Is(err, streams.ErrTrimmed) }

func wrap(operation string, system domain.SystemID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("timeline: %s %s: %w", operation, system, err)
}
