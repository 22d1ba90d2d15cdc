package domain

import (
	"context"
	"errors"
	"fmt"
)

// Log is the log that commands append to. It is the only way in: an event has happened as soon as it is in the log. A
// Log is safe for concurrent use.
type Log interface {
	Appender

	// Recall returns the result of an earlier append to the system under the same key, with Replayed set, or the zero
	// Appended if the log does not know the key. It fails with [CodeKeyReused] as Append does. A command calls it
	// before it decides, because its own first run changed the state on which it would decide.
	Recall(ctx context.Context, system SystemID, key Idempotency) (Appended, error)

	// Newest returns a position at or after the system's newest event.
	Newest(ctx context.Context, system SystemID) (Position, error)
}

// Appender is the part of a [Log] that most writers need.
type Appender interface {
	// Append adds the events in the order given. It returns after they are safe on disk, with their positions. It does
	// not change the events.
	//
	// Append adds the events of one partition, and therefore of one system, together: all of them or none. It adds
	// those of several partitions one partition after the other. Every condition except the idempotency key requires
	// that all events belong to one system.
	//
	// Errors: [*ConflictError] if Expect does not hold, and [CodeKeyReused] if the key belongs to another request; both
	// mean that nothing was appended, and so does [CodeUnavailable]. [CodeUnknownOutcome]: the events may or may not
	// have been appended; it is safe to retry with the same key.
	Append(ctx context.Context, events []Event, opts AppendOptions) (Appended, error)
}

// AppendOptions contains the conditions of an append. The zero value has none.
type AppendOptions struct {
	Expect      *Expectation
	Idempotency *Idempotency
}

// Expectation makes an append conditional: the aggregate must have no event newer than Head. The append then moves the
// aggregate's head to its last event.
type Expectation struct {
	Aggregate Aggregate
	Head      Position
}

// Idempotency makes a repeated append return the positions of the first one. The log keeps keys for 24 hours.
type Idempotency struct {
	Scope       string // separates the keys of one caller from those of another
	Key         string
	Fingerprint string // of the request; the log refuses the same key with a different fingerprint
	// CallerChosen is set if a client of plugcast chose the key. The number of such keys per system is limited; beyond
	// the limit an append fails with [CodeTooManyKeys] and appends nothing.
	CallerChosen bool
}

// Appended is the result of an append.
type Appended struct {
	Positions []Position // one per event, in the order given
	Replayed  bool       // the log knew the idempotency key: this call appended nothing
}

// Last returns the position of the last event, or the zero Position if there is none.
func (a Appended) Last() Position {
	if len(a.Positions) == 0 {
		return Position{}
	}
	return a.Positions[len(a.Positions)-1]
}

// ConflictError reports that an [Expectation] did not hold.
type ConflictError struct {
	Aggregate Aggregate
	Expected  Position
	Head      Position // the actual head; load the state at it and decide again
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("domain: %s moved on from %s to %s", e.Aggregate, e.Expected, e.Head)
}

var (
	// ErrGap reports that events are missing between two events that should be adjacent.
	ErrGap = errors.New("domain: events are missing")
	// ErrAhead reports that a position is beyond every position that the log has assigned: it comes from another
	// deployment, or Redis lost events.
	ErrAhead = errors.New("domain: the position is ahead of the log")
)
