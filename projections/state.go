package projections

import (
	"context"
	"fmt"

	"github.com/plugcast/plugcast/domain"
)

// State returns the needed part of the system's state at or after a position, and waits for it
// until ctx ends. It implements [domain.StateReader]: the caller owns the result.
func (s *Store) State(ctx context.Context, system domain.SystemID, needs domain.Needs, atLeast domain.Position) (*domain.State, error) {
	return s.part(ctx, within(system), system, needs, atLeast)
}

// StateFor is [Store.State] for the systems that an actor sees.
func (s *Store) StateFor(ctx context.Context, actor domain.Actor, system domain.SystemID, needs domain.Needs,
	atLeast domain.Position,
) (*domain.State, error) {
	return s.part(ctx, scopeOf(actor), system, needs, atLeast)
}

// partQuery reads the rows that a [domain.Needs] names in one statement, and so from one
// snapshot.
const partQuery = selectHead + ofSystem +
	" UNION ALL " + selectDevices + ofSystem + " AND device_id = ANY ($3::text[])" +
	" UNION ALL " + selectEquipment + ofSystem + " AND equipment_id = ANY ($4::text[])" +
	" UNION ALL " + selectAssignments + ofSystem + " AND (device_id = ANY ($3::text[]) OR equipment_id = ANY ($4::text[]))" +
	" UNION ALL " + selectConnections + ofSystem + ` AND (connection_id = ANY ($5::text[]) OR connection_id IN (
		SELECT connection_id FROM projection.devices WHERE system_id = $1 AND device_id = ANY ($3::text[])))` +
	" UNION ALL " + selectCheckpoint

const ofSystem = " WHERE system_id = $1"

func (s *Store) part(ctx context.Context, sc scope, system domain.SystemID, needs domain.Needs, atLeast domain.Position,
) (*domain.State, error) {
	return s.reach(ctx, system, atLeast, func(l *loading) error {
		return s.read(ctx, sc, l.scan, partQuery, system, s.partition(system), needs.Devices, needs.Equipment, needs.Connections)
	})
}

func (s *Store) whole(ctx context.Context, sc scope, system domain.SystemID, atLeast domain.Position) (*domain.State, error) {
	return s.reach(ctx, system, atLeast, func(l *loading) error {
		return s.read(ctx, sc, l.scan, string(loadQuery), []domain.SystemID{system}, s.partition(system))
	})
}

// reach loads until the result is at or after a position. load must read the system's head and
// the checkpoint of its partition.
func (s *Store) reach(ctx context.Context, system domain.SystemID, atLeast domain.Position, load func(*loading) error,
) (*domain.State, error) {
	for {
		l := newLoading(system)
		if err := load(l); err != nil {
			return nil, readError("read the state of "+string(system), err)
		}
		st := l.states[system].state
		if !atLeast.After(st.Cursor.Position) || !atLeast.After(l.checkpoint) {
			return st, nil
		}
		if err := s.WaitForSystem(ctx, system, atLeast); err != nil {
			return nil, readError("wait for the projection", err)
		}
	}
}

// StateAt returns the system's state as of a position: the fold of all its events up to it,
// inclusively. See [Store.PositionAt] for a time. It takes time in proportion to the history
// before the position, unless the position is the present, which the read models have.
func (s *Store) StateAt(ctx context.Context, actor domain.Actor, system domain.SystemID, at domain.Position) (*domain.State, error) {
	st, err := s.whole(ctx, scopeOf(actor), system, domain.Position{})
	if err != nil || !st.Cursor.Position.After(at) {
		return st, err
	}
	past := &stateCache{state: domain.NewState(system)}
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
