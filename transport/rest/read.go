package rest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Reads is what the API reads from. Each read is on behalf of an actor, so that
// the database can enforce again what was checked here. Errors are a
// [domain.Error] where the caller can do something.
type Reads interface {
	// StateFor returns a part of the system's present state, at or after the given
	// position; it waits for that until ctx ends. A system without events has
	// the empty state.
	StateFor(ctx context.Context, actor domain.Actor, system domain.SystemID, needs domain.Needs, atLeast domain.Position) (*domain.State, error)
	// WholeState is StateFor without leaving anything out.
	WholeState(ctx context.Context, actor domain.Actor, system domain.SystemID, atLeast domain.Position) (*domain.State, error)
	// StateAt returns the state as of the last event at or before the position.
	StateAt(ctx context.Context, actor domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error)
	// PositionAt returns the position of the newest event, by position, whose time
	// is at or before t; zero when there is none.
	PositionAt(ctx context.Context, actor domain.Actor, system domain.SystemID, t time.Time) (domain.Position, error)
	// WaitForSystem returns once the reads have the system's events up to the
	// position, or fails when ctx ends.
	WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error
	// Device fails with [domain.CodeUnknownDevice].
	Device(ctx context.Context, actor domain.Actor, system domain.SystemID, id domain.DeviceID) (*domain.Device, error)
	// Assignment fails with [domain.CodeNotAssigned].
	Assignment(ctx context.Context, actor domain.Actor, system domain.SystemID, id domain.DeviceID) (*domain.Assignment, error)
	// Connection fails with [domain.CodeUnknownConnection].
	Connection(ctx context.Context, actor domain.Actor, system domain.SystemID, id domain.ConnectionID) (*domain.Connection, error)
	// Events returns archived events that match, in the query's order.
	Events(ctx context.Context, actor domain.Actor, system domain.SystemID, query EventQuery) ([]domain.Event, error)
	// Head returns the newest link of the system's hash chain.
	Head(ctx context.Context, actor domain.Actor, system domain.SystemID) (domain.Cursor, domain.Hash, error)
	// SystemOfConnection finds the system of a connection that the actor can
	// see, or fails with [domain.CodeUnknownConnection].
	SystemOfConnection(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error)
}

// EventQuery picks events of a system's history. Zero fields do not narrow.
type EventQuery struct {
	After, Before domain.Position // both exclusive
	From, To      time.Time       // bounds of the event's time, from inclusive, to exclusive

	Type          domain.EventType
	DeviceID      domain.DeviceID
	Actor         string
	CorrelationID string

	Limit      int // 1 to 1,000
	Descending bool
}

// maxLag is how long a read waits for the projection.
const maxLag = 10 * time.Second

// Freshness is part of the input of every read.
type Freshness struct {
	AfterPosition string `query:"after-position" doc:"Answer only from a state at or after this position; waits up to 10 s for it" example:"1795461046705-0"`
}

func (in *Freshness) position() (domain.Position, error) {
	if in.AfterPosition == "" {
		return domain.Position{}, nil
	}
	return domain.ParsePosition(in.AfterPosition)
}

// waiting lets register give the operation the time that it waits.
func (in *Freshness) waiting() time.Duration {
	if in.AfterPosition == "" {
		return 0
	}
	return maxLag
}

// Moment is part of the input of reads that can look into the past.
type Moment struct {
	At string `query:"at" doc:"As of this position or time (RFC 3339; an event's own time includes the event); needs the right to read history" example:"2026-11-23T18:00:00Z"`
}

// parse reads At, which is a time when that is not zero.
func (in *Moment) parse() (domain.Position, time.Time, error) {
	if !strings.Contains(in.At, ":") {
		at, err := domain.ParsePosition(in.At)
		return at, time.Time{}, err
	}
	at, err := domain.ParseTime(in.At)
	if err != nil || at.UnixMilli() < 0 {
		return domain.Position{}, time.Time{}, invalidRequest("at must be an RFC 3339 time since 1970 or a position")
	}
	return domain.Position{}, at, nil
}

// present reads the state that a caller asked for with after-position.
func (a *API) present(ctx context.Context, actor domain.Actor, system domain.SystemID, fresh *Freshness) (*domain.State, error) {
	atLeast, err := fresh.position()
	if err != nil {
		return nil, err
	}
	var st *domain.State
	err = patiently(ctx, atLeast, maxLag, func(ctx context.Context) (err error) {
		st, err = a.reads.WholeState(ctx, actor, system, atLeast)
		return err
	})
	return st, err
}

// patiently waits for the read model to reach the position.
func patiently(ctx context.Context, at domain.Position, patience time.Duration, wait func(context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := wait(waiting)
	if err != nil && !at.IsZero() && ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return domain.Fail(domain.KindUnavailable, CodeProjectionBehind,
			"the read model has not reached "+at.String()+" yet").Because(err)
	}
	return err
}

// stateOf reads the state that a caller asked for: of the present, or as of a
// moment, which is history and needs the right to it.
func (a *API) stateOf(ctx context.Context, in *InSystem, fresh *Freshness, at *Moment) (*domain.State, error) {
	action := domain.ActionRead
	if at.At != "" {
		action = domain.ActionHistory
	}
	actor, err := in.authorize(ctx, action)
	if err != nil {
		return nil, err
	}
	if at.At == "" {
		return a.present(ctx, actor, in.SystemID, fresh)
	}
	position, then, err := at.parse()
	if err != nil {
		return nil, err
	}
	if err := a.caughtUp(ctx, in.SystemID, fresh); err != nil {
		return nil, err
	}
	if !then.IsZero() {
		if position, err = a.reads.PositionAt(ctx, actor, in.SystemID, then); err != nil {
			return nil, err
		}
	}
	return a.reads.StateAt(ctx, actor, in.SystemID, position)
}

// caughtUp waits until the read models are where the caller asked for.
func (a *API) caughtUp(ctx context.Context, system domain.SystemID, fresh *Freshness) error {
	at, err := fresh.position()
	if err != nil || at.IsZero() {
		return err
	}
	return patiently(ctx, at, maxLag, func(ctx context.Context) error { return a.reads.WaitForSystem(ctx, system, at) })
}

// Paged is part of the input of lists that are ordered by id.
type Paged struct {
	After string `query:"after" doc:"Begin behind this id: next of the page before"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"1000" doc:"Entries per page"`
}

// cut returns the page of an ordered list, and the id to go on from when there
// is more.
func cut[T any](in *Paged, list []T, id func(T) string) (entries []T, next string) {
	begin := 0
	for begin < len(list) && in.After != "" && id(list[begin]) <= in.After {
		begin++
	}
	list = list[begin:]
	if len(list) <= in.Limit {
		return list, ""
	}
	return list[:in.Limit], id(list[in.Limit-1])
}
