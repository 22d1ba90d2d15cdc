package projections

import (
	"context"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// State returns the system's state at or after a position, and waits for it
// until ctx ends. It implements [domain.States]: the caller owns what it gets.
func (s *Store) State(ctx context.Context, system domain.SystemID, atLeast domain.Position) (*domain.State, error) {
	return s.state(ctx, within(system), system, atLeast)
}

// StateFor is [Store.State] within what an actor sees.
func (s *Store) StateFor(ctx context.Context, actor domain.Actor, system domain.SystemID, atLeast domain.Position) (*domain.State, error) {
	return s.state(ctx, scopeOf(actor), system, atLeast)
}

func (s *Store) state(ctx context.Context, sc scope, system domain.SystemID, atLeast domain.Position) (*domain.State, error) {
	for {
		l := newLoading(system)
		if err := s.read(ctx, sc, l.scan, string(loadQuery), []domain.SystemID{system}, s.partition(system)); err != nil {
			return nil, readError("read the state of "+string(system), err)
		}
		st := l.ledgers[system].state
		if !atLeast.After(st.Cursor.Position) || !atLeast.After(l.checkpoint) {
			return st, nil
		}
		if err := s.WaitForSystem(ctx, system, atLeast); err != nil {
			return nil, readError("wait for the projection", err)
		}
	}
}

// Snapshot returns the system's current state as lists, and its cursor, from one
// moment.
func (s *Store) Snapshot(ctx context.Context, system domain.SystemID) (*domain.Snapshot, error) {
	st, err := s.State(ctx, system, domain.Position{})
	if err != nil {
		return nil, err
	}
	return st.Snapshot(), nil
}

// StateAt returns the system's state as it was at a position: what the fold
// makes of all its events up to it, inclusively. See [Store.PositionAt] for a time. It takes
// time in proportion to the history before; the present is answered from the
// read models.
func (s *Store) StateAt(ctx context.Context, actor domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error) {
	st, err := s.StateFor(ctx, actor, system, domain.Position{})
	if err != nil || !st.Cursor.Position.After(at) {
		return st, err
	}
	past := &ledger{state: domain.NewState(system)}
	for {
		events, err := s.page(ctx, scopeOf(actor), system, past.state.Cursor.Position, MaxPage)
		if err != nil {
			return nil, readError("fold history", err)
		}
		for i := range events {
			if events[i].Position.After(at) {
				return past.state, nil
			}
			if _, err := past.fold(&events[i]); isGap(err) {
				return nil, fmt.Errorf("projections: fold history of %s: %w", system, err)
			}
		}
		if len(events) == 0 {
			return past.state, nil
		}
	}
}
