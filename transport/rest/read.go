package rest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// Reads reads states and history. Each read names the actor, so that the database can
// check the authorization once more. An error that the caller can act on is a
// [domain.Error].
type Reads interface {
	// StateFor returns a part of the system's present state, at or after the given
	// position; it waits for that position until ctx ends. A system without events
	// has the empty state.
	StateFor(ctx context.Context, actor domain.Actor, system domain.SystemID, needs domain.Needs,
		atLeast domain.Position) (*domain.State, error)
	// StateAt returns the state as of the last event at or before the position.
	StateAt(ctx context.Context, actor domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error)
	// PositionAt returns the highest position of an event whose time is at or before
	// t, or zero if there is none.
	PositionAt(ctx context.Context, actor domain.Actor, system domain.SystemID, t time.Time) (domain.Position, error)
	// WaitForSystem returns once the read model has the system's events up to the
	// position, or fails when ctx ends.
	WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error
	// DevicePage returns up to limit devices after an id, in order of id, as a part of
	// the present state with their assignments and connections. more reports whether
	// further devices follow. A page of large rows may end before limit.
	DevicePage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.DeviceID, limit int,
	) (st *domain.State, more bool, err error)
	// EquipmentPage is DevicePage for equipment, with the assignments of the plugs that
	// feed it. It leaves out retired equipment unless retired is true.
	EquipmentPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.EquipmentID, limit int, retired bool,
	) (st *domain.State, more bool, err error)
	// ConnectionPage is DevicePage for connections.
	ConnectionPage(ctx context.Context, actor domain.Actor, system domain.SystemID, after domain.ConnectionID, limit int,
	) (st *domain.State, more bool, err error)
	// Events returns archived events that match, in the query's order. more reports
	// whether further events follow: a page of large events ends before its limit.
	Events(ctx context.Context, actor domain.Actor, system domain.SystemID, query domain.EventQuery) (
		page []domain.Event, more bool, err error)
	// Head returns the head of the system's hash chain: its place and its hash.
	Head(ctx context.Context, actor domain.Actor, system domain.SystemID) (domain.Cursor, domain.Hash, error)
	// SystemOfConnection returns the system of a connection that the actor can see. It
	// prefers systems that the actor's token names, and then connections that were
	// created in this deployment. Errors: [domain.CodeUnknownConnection] if there is
	// none, [domain.CodeAmbiguousConnection] if several remain.
	SystemOfConnection(ctx context.Context, actor domain.Actor, id domain.ConnectionID) (domain.SystemID, error)
}

// maxLag is how long a read waits for the projection.
const maxLag = 10 * time.Second

// FreshnessParam is part of the input of every read.
type FreshnessParam struct {
	AfterPosition string `query:"after-position" doc:"Wait up to 10 s for the read model to reach this" example:"1795461046705-0"`
}

func (in *FreshnessParam) position() (domain.Position, error) {
	if in.AfterPosition == "" {
		return domain.Position{}, nil
	}
	return domain.ParsePosition(in.AfterPosition)
}

// waiting returns the time by which register extends the operation's timeout.
func (in *FreshnessParam) waiting() time.Duration {
	if in.AfterPosition == "" {
		return 0
	}
	return maxLag
}

// AtParam is part of the input of reads that can return a past state, which requires
// the right to read history. A state at a time includes the events of exactly that time.
type AtParam struct {
	At string `query:"at" doc:"Read the past state at this position or RFC 3339 time" example:"2026-11-23T18:00:00Z"`
}

// parse returns At as a position or as a time; the other one is zero.
func (in *AtParam) parse() (domain.Position, time.Time, error) {
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

// ReadParams is part of the input of reads that can wait for the read model or return
// a past state.
type ReadParams struct {
	FreshnessParam
	AtParam
}

// awaitProjection calls wait, which waits for the read model to reach the position. It
// returns [CodeProjectionBehind] after the timeout.
func awaitProjection(ctx context.Context, at domain.Position, timeout time.Duration, wait func(context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := wait(waiting)
	if err != nil && !at.IsZero() && ctx.Err() == nil && errors.Is(waiting.Err(), context.DeadlineExceeded) {
		return domain.Fail(domain.KindUnavailable, CodeProjectionBehind,
			"the read model has not reached "+at.String()+" yet").WithCause(err)
	}
	return err
}

// authorizedRead is a read that the actor is authorized to do, once the read model has
// the position that the caller asked for.
type authorizedRead struct {
	actor    domain.Actor
	system   domain.SystemID
	past     bool            // a read at pastTime or, if that is zero, at position
	position domain.Position // only if past
	pastTime time.Time
}

// beginRead authorizes a read, and waits for the position that the caller asked for.
// That may take seconds, so call it before [API.reserve] and [API.admitRead].
func (a *API) beginRead(ctx context.Context, in *InSystem, params *ReadParams) (r authorizedRead, err error) {
	r.system, r.past = in.SystemID, params.At != ""
	action := domain.ActionRead
	if r.past {
		action = domain.ActionHistory
	}
	if r.actor, err = in.authorize(ctx, action); err != nil {
		return r, err
	}
	if r.past {
		if r.position, r.pastTime, err = params.parse(); err != nil {
			return r, err
		}
	}
	return r, a.awaitPosition(ctx, in.SystemID, &params.FreshnessParam)
}

// readState returns the whole past state that the caller asked for, or else the result
// of present, whose cost is given.
func (a *API) readState(
	ctx context.Context, r authorizedRead, cost int, present func(context.Context) (*domain.State, error),
) (*domain.State, error) {
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
	if !r.pastTime.IsZero() {
		if r.position, err = a.reads.PositionAt(ctx, r.actor, r.system, r.pastTime); err != nil {
			return nil, err
		}
	}
	return a.reads.StateAt(ctx, r.actor, r.system, r.position)
}

// readRows returns the part of the state that needs names.
func (a *API) readRows(ctx context.Context, in *InSystem, params *ReadParams, needs domain.Needs) (*domain.State, error) {
	r, err := a.beginRead(ctx, in, params)
	if err != nil {
		return nil, err
	}
	return a.readState(ctx, r, costRow, func(ctx context.Context) (*domain.State, error) {
		return a.reads.StateFor(ctx, r.actor, r.system, needs, domain.Position{})
	})
}

// readPage returns a page of a list. The page counts against the system's unsent
// answers until it is sent.
func readPage[T any](ctx context.Context, a *API, in *InSystem, params *ReadParams, page *PageParams,
	read func(ctx context.Context, actor domain.Actor) (*domain.State, bool, error), list listing[T],
) (st *domain.State, entries []T, next string, err error) {
	r, err := a.beginRead(ctx, in, params)
	if err != nil {
		return nil, nil, "", err
	}
	answer, err := a.reserve(ctx, in.SystemID, memoryPerByte*min(page.Limit*maxRowBytes, pageBytes))
	if err != nil {
		return nil, nil, "", err
	}
	more := false
	st, err = a.readState(ctx, r, costPage, func(ctx context.Context) (st *domain.State, err error) {
		st, more, err = read(ctx, r.actor)
		return st, err
	})
	if err != nil {
		return nil, nil, "", err
	}
	if entries = list.of(st.Snapshot()); r.past {
		entries, next = paginate(page, entries, list.id, list.size)
	} else if more {
		next = list.id(entries[len(entries)-1])
	}
	bytes := 0
	for _, entry := range entries {
		bytes += list.size(entry)
	}
	answer.Shrink(memoryPerByte * bytes)
	return st, entries, next, nil
}

// Estimates of the memory that a page takes until it is sent.
const (
	memoryPerByte = 2       // bytes of memory per byte of JSON: for the rows, and for the JSON
	maxRowBytes   = 6 << 10 // the maximum size of a row as JSON, with its attributes
	rowBytes      = 512     // the usual size of a row as JSON, without attributes
)

// listing tells readPage how to find the entries of a list in a state.
type listing[T any] struct {
	of   func(*domain.Snapshot) []T
	id   func(T) string
	size func(T) int // the approximate size as JSON in bytes
}

// awaitPosition waits until the read model has the position that the caller asked for.
func (a *API) awaitPosition(ctx context.Context, system domain.SystemID, fresh *FreshnessParam) error {
	at, err := fresh.position()
	if err != nil || at.IsZero() {
		return err
	}
	return awaitProjection(ctx, at, maxLag, func(ctx context.Context) error { return a.reads.WaitForSystem(ctx, system, at) })
}

// PageParams is part of the input of lists that are ordered by id.
type PageParams struct {
	After string `query:"after" doc:"Begin after this id, the next of the previous page"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"1000" doc:"Entries per page; a page also ends at 4 MiB"`
}

// pageBytes is the approximate maximum size of a page.
const pageBytes = 4 << 20

// paginate returns the page of an ordered list, and the id after which the next page
// begins, if there is one. A page of a list with further entries has at least one.
func paginate[T any](in *PageParams, list []T, id func(T) string, size func(T) int) (entries []T, next string) {
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
