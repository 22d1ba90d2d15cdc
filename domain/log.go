package domain

import (
	"context"
	"errors"
	"fmt"
)

// Log is what commands append to. It is the one way in: an event that is in the
// log has happened.
type Log interface {
	// Append adds the events, in the order given, and returns once they are
	// safe on disk. It fills nothing in: what was given to the events is in the
	// answer.
	//
	// Events of one partition, and so of one system, are added together: all of
	// them or none. Events of several partitions are added partition by
	// partition. Conditions other than the idempotency key need all events in
	// one system.
	//
	// Errors: [*ConflictError] when Expect does not hold and [CodeKeyReused]
	// when the key was used for something else: nothing was appended.
	// [CodeUnavailable]: nothing was appended. [CodeUnknownOutcome]: the events
	// may or may not have been appended; repeating with the same key is safe.
	Append(ctx context.Context, events []Event, opts AppendOptions) (Appended, error)

	// Recall answers what an earlier append to the system under the same key
	// answered, with Replayed set, or the zero Appended when the key is not
	// known. It fails with [CodeKeyReused] as Append does. A command asks before
	// it decides, because its own first run changed what it would decide on.
	Recall(ctx context.Context, system SystemID, key Idempotency) (Appended, error)

	// Newest returns a position at or after the newest event of the system.
	Newest(ctx context.Context, system SystemID) (Position, error)
}

// AppendOptions are the conditions of an append. The zero value has none.
type AppendOptions struct {
	Expect      *Expectation
	Idempotency *Idempotency
}

// Aggregate names what a decision is about within a system.
type Aggregate string

// AggregateInventory is the system's equipment and its assignments.
const AggregateInventory Aggregate = "inventory"

// AggregateConnection is one connection.
func AggregateConnection(id ConnectionID) Aggregate { return Aggregate("connection/" + string(id)) }

// Expectation makes an append conditional: nothing newer than Head may have
// been appended under the same aggregate. The append then moves the head.
type Expectation struct {
	Aggregate Aggregate
	Head      Position
}

// Idempotency makes a repeated append give back the first one's positions. Keys
// are kept for 24 hours. Scope keeps one caller's keys apart from another's.
type Idempotency struct {
	Scope       string
	Key         string
	Fingerprint string // of the request; the same key with another one is refused
	// Counted says that a caller chose the key. How many such keys a system may have
	// is bounded: beyond that an append fails with [CodeTooManyKeys], and appends nothing.
	Counted bool
}

// Appended is the answer to an append.
type Appended struct {
	Positions []Position // one per event, in the order given
	Replayed  bool       // the idempotency key was known: nothing was appended now
}

// Last returns the position of the last event, or zero when there is none.
func (a Appended) Last() Position {
	if len(a.Positions) == 0 {
		return Position{}
	}
	return a.Positions[len(a.Positions)-1]
}

// ConflictError says that an [Expectation] did not hold.
type ConflictError struct {
	Aggregate Aggregate
	Expected  Position
	Head      Position // what the head is: load the state at it and decide again
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("domain: %s moved on from %s to %s", e.Aggregate, e.Expected, e.Head)
}

var (
	// ErrGap says that events are missing between two that follow each other.
	ErrGap = errors.New("domain: events are missing")
	// ErrAhead says that a position is beyond all that the log ever gave: it comes from
	// another deployment, or Redis was set back behind it.
	ErrAhead = errors.New("domain: the position is ahead of the log")
)

// States is where decisions read from.
type States interface {
	// State returns the part of the system's state that is needed, as of one
	// moment at or after the given position, waiting for it until ctx ends. Its
	// Cursor is the system's; rows that are not needed may be missing. The caller
	// owns what it gets. A system without events has the empty state.
	State(ctx context.Context, system SystemID, needs Needs, atLeast Position) (*State, error)
}
