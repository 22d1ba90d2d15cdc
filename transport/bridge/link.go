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
	// Start leaves out what a source has up to a position, unless something was taken
	// from it before.
	Start(ctx context.Context, system domain.SystemID, source string, at domain.Position) error
	// Rewind moves a cursor back to a position that it is after.
	Rewind(ctx context.Context, system domain.SystemID, source string, to domain.Position) error
	// Take appends what is new in the batch and moves the cursor, together. A batch
	// may be given again after any error. It fails with a [*domain.BehindError] when
	// something before the batch was not taken.
	Take(ctx context.Context, b domain.Batch) (domain.Taken, error)
}

// Reader reads our own log of one system, in order, with seq. Page returns up to
// limit events after a cursor, and none when there are none yet.
type Reader interface {
	Page(ctx context.Context, system domain.SystemID, after domain.Cursor, limit int) ([]domain.Event, error)
	// Locate returns the cursor of the newest event at or before a position.
	Locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error)
	// Subscribe calls fn with every event after start, in batches, until cancel is
	// called; fn must not block. An error is the last that fn gets.
	Subscribe(ctx context.Context, system domain.SystemID, fn func([]domain.Event, error)) (start domain.Cursor, cancel func(), err error)
}

// ErrAhead is what a [Reader] says of a position beyond all that our log gave: it
// was lost here.
var ErrAhead = errors.New("bridge: the position is ahead of our log")
