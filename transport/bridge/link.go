package bridge

import (
	"context"
	"errors"

	"github.com/plugcast/plugcast/domain"
)

// Link is one far end. It is safe for concurrent use: its systems run apart.
type Link interface {
	// Name is unique among the links of the configuration.
	Name() string
	// Kind is what the configuration calls it.
	Kind() string
	// Systems are what goes over it.
	Systems() []System
	// Run bridges one of its systems over one connection, and says in state how
	// that goes. It returns when ctx ends or the connection fails; the runner calls
	// it again after a pause. An error that [ErrRefused] is in means that the far
	// end does not want us, and makes the pause long. Two processes may run the same
	// system at once for a moment: what they append must be the same, once.
	Run(ctx context.Context, system System, state *State) error
}

// ErrRefused says that the far end refused us, which asking again soon does not
// change: a token that is wrong, or for other systems.
var ErrRefused = errors.New("bridge: refused by the far end")

// Intake is where events of elsewhere are appended, each once. See
// streams/intake for how.
type Intake interface {
	// Cursor returns up to where a source's log of a system was taken, and false
	// when nothing is known of the source.
	Cursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error)
	// SkipTo leaves out what a source has up to a position, unless something was taken
	// from it before.
	SkipTo(ctx context.Context, system domain.SystemID, source string, at domain.Position) error
	// Rewind moves a cursor back to a position that it is after.
	Rewind(ctx context.Context, system domain.SystemID, source string, to domain.Position) error
	// Import appends what is new in the batch and moves the cursor, together. A batch
	// may be given again after any error. It fails with a [*domain.ImportGapError] when
	// something before the batch was not taken.
	Import(ctx context.Context, b domain.ImportBatch) (domain.ImportResult, error)
}

// Reader reads our own log of one system: see streams/timeline.
type Reader interface {
	// Locate returns the cursor of the newest event at or before a position. It fails
	// with [domain.ErrAhead] for a position beyond all that our log gave: what was
	// there was lost here.
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)
	// End is the last position that the system's partition ever gave: what is appended
	// from now on comes after it.
	End(ctx context.Context, system domain.SystemID) (domain.Position, error)
	// Follow calls fn with the events after a position, in order, in batches, and with
	// how many more are known to come. It ends with fn's error, with the cause of ctx's
	// end, with domain.ErrAhead, with [domain.ErrGap], or when the log cannot be read.
	Follow(ctx context.Context, system domain.SystemID, after domain.Position, fn func(events []domain.Event, behind uint64) error) error
}
