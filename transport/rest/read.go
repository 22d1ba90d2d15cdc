package rest

import (
	"context"
	"errors"
	"slices"
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
	StateFor(ctx context.Context, actor domain.Actor, system domain.SystemID, needs domain.Needs,
		atLeast domain.Position) (*domain.State, error)
	// StateAt returns the state as of the last event at or before the position.
	StateAt(ctx context.Context, actor domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error)
	// PositionAt returns the position of the newest event, by position, whose time
	// is at or before t; zero when there is none.
	PositionAt(ctx context.Context, actor domain.Actor, system domain.SystemID, t time.Time) (domain.Position, error)
	// WaitForSystem returns once the reads have the system's events up to the
	// position, or fails when ctx ends.
	WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error
	// DevicePage returns up to limit devices after an id, in order of id, as the
	// part of the present state that has them, their assignments and their
	// connections; more says whether there are others behind them. A page of large
	// rows may end before limit. It waits as StateFor does.
	DevicePage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int,
		atLeast domain.Position) (st *domain.State, more bool, err error)
	// EquipmentPage is DevicePage for equipment, with the assignments of the plugs
	// that feed it. Equipment that is retired is left out unless it is asked for.
	EquipmentPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.EquipmentID, limit int, retired bool,
		atLeast domain.Position) (st *domain.State, more bool, err error)
	// ConnectionPage is DevicePage for connections.
	ConnectionPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.ConnectionID, limit int,
		atLeast domain.Position) (st *domain.State, more bool, err error)
	// Events returns archived events that match, in the query's order, and whether
	// there are more behind them: a page of large events ends before its limit.
	Events(ctx context.Context, actor domain.Actor, system domain.SystemID, query domain.EventQuery) (page []domain.Event, more bool, err error)
	// Head returns the newest link of the system's hash chain.
	Head(ctx context.Context, actor domain.Actor, system domain.SystemID) (domain.Cursor, domain.Hash, error)
	// SystemOfConnection finds the system of a connection that the actor can see.
	// Systems that the actor's token names go first, and then connections that were
	// created in this deployment. It fails with [domain.CodeUnknownConnection] when
	// there is none, and with [domain.CodeAmbiguousConnection] when several are left.
	SystemOfConnection(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error)
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

// patiently waits for the read model to reach the position.
func patiently(ctx context.Context, at domain.Position, patience time.Duration, wait func(context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := wait(waiting)
	if err != nil && !at.IsZero() && ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return domain.Fail(domain.KindUnavailable, CodeProjectionBehind,
			"the read model has not reached "+at.String()+" yet").WithCause(err)
	}
	return err
}

// reading is a read that may begin: the caller has the right to it, and the read
// model is where the caller asked for.
type reading struct {
	actor    domain.Actor
	system   domain.SystemID
	past     bool            // as of a moment: that is history, and needs the right to it
	position domain.Position // of the moment, or then is its time
	then     time.Time
}

// begin waits for the position that a caller asked for. That may take seconds, so
// it comes before anything is reserved and before the caller takes its turn to read.
func (a *API) begin(ctx context.Context, in *InSystem, fresh *Freshness, at *Moment) (r reading, err error) {
	r.system, r.past = in.SystemID, at.At != ""
	action := domain.ActionRead
	if r.past {
		action = domain.ActionHistory
	}
	if r.actor, err = in.authorize(ctx, action); err != nil {
		return r, err
	}
	if r.past {
		if r.position, r.then, err = at.parse(); err != nil {
			return r, err
		}
	}
	return r, a.caughtUp(ctx, in.SystemID, fresh)
}

// stateOf answers with what present reads, at the cost, or with the whole state as of
// the moment.
func (a *API) stateOf(ctx context.Context, r reading, cost int, present func(context.Context) (*domain.State, error)) (*domain.State, error) {
	if r.past {
		cost = costFold
	}
	done, err := a.admitRead(ctx, r.system, cost)
	if err != nil {
		return nil, err
	}
	defer done()
	if !r.past {
		return present(ctx)
	}
	if !r.then.IsZero() {
		if r.position, err = a.reads.PositionAt(ctx, r.actor, r.system, r.then); err != nil {
			return nil, err
		}
	}
	return a.reads.StateAt(ctx, r.actor, r.system, r.position)
}

// partOf answers with the rows that are named.
func (a *API) partOf(ctx context.Context, in *InSystem, fresh *Freshness, at *Moment, needs domain.Needs) (*domain.State, error) {
	r, err := a.begin(ctx, in, fresh, at)
	if err != nil {
		return nil, err
	}
	return a.stateOf(ctx, r, costRow, func(ctx context.Context) (*domain.State, error) {
		return a.reads.StateFor(ctx, r.actor, r.system, needs, domain.Position{})
	})
}

// pageOf answers with a page of a list. The page counts as unsent until the answer is
// out.
func pageOf[T any](ctx context.Context, a *API, in *InSystem, fresh *Freshness, at *Moment, paged *Paged,
	read func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error), list listed[T],
) (st *domain.State, entries []T, next string, err error) {
	r, err := a.begin(ctx, in, fresh, at)
	if err != nil {
		return nil, nil, "", err
	}
	answer, err := a.reserve(ctx, in.SystemID, inMemory*min(paged.Limit*maxRowBytes, pageBytes))
	if err != nil {
		return nil, nil, "", err
	}
	more := false
	st, err = a.stateOf(ctx, r, costPage, func(ctx context.Context) (st *domain.State, err error) {
		st, more, err = read(ctx, r.actor)
		return st, err
	})
	if err != nil {
		return nil, nil, "", err
	}
	if entries = list.of(st.Snapshot()); r.past {
		entries, next = cut(paged, entries, list.id, list.size)
	} else if more {
		next = list.id(entries[len(entries)-1])
	}
	bytes := 0
	for _, entry := range entries {
		bytes += list.size(entry)
	}
	answer.Shrink(inMemory * bytes)
	return st, entries, next, nil
}

// The memory that a page takes until it is sent.
const (
	inMemory    = 2       // times its bytes: as rows, and as JSON
	maxRowBytes = 6 << 10 // of a row as JSON, with its attributes
)

// listed says how the entries of a list are found in a state.
type listed[T any] struct {
	of   func(*domain.Snapshot) []T
	id   func(T) string
	size func(T) int // roughly, as JSON
}

// rowBytes is roughly what a row without attributes takes, as JSON.
const rowBytes = 512

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
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"1000" doc:"Entries per page; a page of large entries ends earlier, at 4 MiB"`
}

// pageBytes is where a page ends besides its number of entries.
const pageBytes = 4 << 20

// cut returns the page of an ordered list, and the id to go on from when there
// is more. A page has at least one entry.
func cut[T any](in *Paged, list []T, id func(T) string, size func(T) int) (entries []T, next string) {
	begin, _ := slices.BinarySearchFunc(list, in.After, func(entry T, after string) int {
		if id(entry) <= after {
			return -1
		}
		return 1
	})
	if in.After == "" {
		begin = 0
	}
	list = list[begin:]
	end, bytes := 0, 0
	for end < len(list) && end < in.Limit {
		if bytes += size(list[end]); end > 0 && bytes > pageBytes {
			break
		}
		end++
	}
	if end == len(list) {
		return list, ""
	}
	return list[:end], id(list[end-1])
}
