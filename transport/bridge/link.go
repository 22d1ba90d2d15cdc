package bridge

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
)

// Link is a configured link to one far end. It is safe for concurrent use: each of its
// systems runs on its own.
type Link interface {
	// Name is unique among the configured links.
	Name() string
	// Kind is the link's kind in the configuration.
	Kind() string
	// Systems lists the systems that the link bridges.
	Systems() []System
	// Run bridges one of its systems over one connection, and updates state. It returns
	// when ctx ends or the connection fails; the runner calls it again after a pause. If
	// the error wraps [ErrRefused], the pause is long. Two processes may run the same
	// system at once for a moment, and must append each event only once between them.
	Run(ctx context.Context, system System, state *State) error
}

// ErrRefused reports that the far end refused the link, and would refuse it again: the token
// is wrong, or is for other systems.
var ErrRefused = errors.New("bridge: refused by the far end")

// Intake imports the events of other deployments, each once. See streams/intake.
type Intake interface {
	// Cursor returns the position up to which a source's log of a system is imported, and
	// false if the source is unknown.
	Cursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error)
	// SkipTo sets the cursor of an unknown source, so that its events up to the position
	// are not imported. It does nothing if the source is known.
	SkipTo(ctx context.Context, system domain.SystemID, source string, at domain.Position) error
	// Rewind moves the cursor back to a position. It does nothing if the cursor is not
	// after it.
	Rewind(ctx context.Context, system domain.SystemID, source string, to domain.Position) error
	// Import appends the new events of the batch and moves the cursor, atomically. The
	// caller may repeat a batch after any error. Import fails with a
	// [*domain.ImportGapError] if the cursor is before the start of the batch.
	Import(ctx context.Context, b domain.ImportBatch) (domain.ImportResult, error)
}

// Reader reads our own log of one system. See streams/timeline.
type Reader interface {
	// Locate returns the cursor of the newest event at or before a position. It fails with
	// [domain.ErrAhead] if our log has never assigned the position, or lost it.
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)
	// End returns the last position that the system's partition has assigned. Every later
	// append gets a position after it.
	End(ctx context.Context, system domain.SystemID) (domain.Position, error)
	// Follow calls fn with the events after a position, in order and in batches, and with
	// the number of events that are known to follow. It returns fn's error, the cause of
	// ctx's end, [domain.ErrAhead], [domain.ErrGap], or the error of a read.
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error) error
}
