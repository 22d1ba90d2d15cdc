package projections

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// scope is the set of systems that a read may see. Postgres enforces it: see the function
// guard_by_system in package migrations.
type scope string

const (
	everySystem   scope = "**"
	everyCustomer scope = "*" // all but the platform's own system
)

// within returns the scope of one system.
func within(system domain.SystemID) scope {
	if _, err := domain.ParseSystemID(string(system)); err != nil {
		return "" // an invalid id must not act as a list or a star
	}
	return scope(system)
}

// scopeOf returns the scope of an actor, as [domain.Actor.Sees] defines it.
func scopeOf(actor domain.Actor) scope {
	switch {
	case actor.Role == domain.RoleStaff:
		return everySystem
	case actor.AllSystems:
		return everyCustomer
	}
	systems := make([]string, 0, len(actor.Systems))
	for _, system := range actor.Systems {
		if s := within(system); s != "" && system != domain.PlatformSystem {
			systems = append(systems, string(s))
		}
	}
	return scope(strings.Join(systems, ","))
}

// These statements make the rest of the transaction run as the reader, within a scope. The
// second also plans the following query for its actual arguments, which a filter on skewed
// columns needs.
const (
	becomeReader        = `SELECT set_config('role', 'plugcast_reader', true), set_config('plugcast.systems', $1, true)`
	becomeReaderAndPlan = becomeReader + `, set_config('plan_cache_mode', 'force_custom_plan', true)`
)

// becomeReaderInOrder also runs the parts of a UNION ALL one after the other, in the order in
// which they are written.
const becomeReaderInOrder = becomeReader + `, set_config('max_parallel_workers_per_gather', '0', true)`

// read runs a query within a scope, and calls scan for each row. The change of role and the
// query share one round trip and one transaction. The role ends with the transaction, so the
// connection returns to the pool as the owner's.
func (s *Store) read(ctx context.Context, sc scope, scan func(pgx.Rows) error, query string, args ...any) error {
	return s.readAs(ctx, becomeReader, sc, scan, query, args...)
}

// readPlanned is read for queries that are built from filters.
func (s *Store) readPlanned(ctx context.Context, sc scope, scan func(pgx.Rows) error, query string, args ...any) error {
	return s.readAs(ctx, becomeReaderAndPlan, sc, scan, query, args...)
}

func (s *Store) readAs(ctx context.Context, become string, sc scope, scan func(pgx.Rows) error, query string, args ...any) error {
	batch := &pgx.Batch{}
	batch.Queue(become, string(sc))
	batch.Queue(query, args...)
	results := s.pool.SendBatch(ctx, batch)
	_, err := results.Exec()
	if err == nil {
		var rows pgx.Rows
		rows, err = results.Query()
		for err == nil && rows.Next() {
			err = scan(rows)
		}
		rows.Close()
		if err == nil {
			err = rows.Err()
		}
	}
	if closing := results.Close(); err == nil {
		err = closing
	}
	return err
}
