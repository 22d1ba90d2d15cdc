package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/domain/isolate"
)

// ErrRebuilding means that another rebuild is running.
var ErrRebuilding = errors.New("projections: a rebuild is running already")

// ReadModels returns the names of the read models, as [Store.Rebuild] takes them.
func ReadModels() []string {
	return []string{"devices", "equipment", "assignments", "connections"}
}

const (
	nextModels = readModels + "_next" // the schema that a rebuild fills
	oldModels  = readModels + "_old"  // the schema of the replaced tables, until they are dropped
)

// Rebuild makes read models again from history and replaces the live ones: those that are
// named, or all. The platform serves during a rebuild.
//
// The new tables are made beside the live ones. Once they have nearly caught up, projectors
// wait for a moment while the rest is folded and the tables change places, in one transaction.
// A reader sees the old or the new tables, both as of the newest archived event. Rebuild also
// works if the live tables were dropped. A killed rebuild leaves the live tables as they are,
// and the next one drops its schema.
//
// An event that the read models cannot hold is left out of them, put into quarantine, and named
// in the result.
//
// report, which may be nil, is called with the number of folded events and the number of all
// events. Rebuild fails with [ErrRebuilding] if another rebuild is running.
func (s *Store) Rebuild(ctx context.Context, names []string, report func(done, total uint64)) (Rebuilt, error) {
	names, err := chooseModels(names)
	if err != nil {
		return Rebuilt{}, err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return Rebuilt{}, readError("rebuild", err)
	}
	defer conn.Release()
	r := &rebuild{
		conn: conn.Conn(), names: names, report: report, logger: s.logger,
		folded: map[domain.SystemID]domain.Cursor{},
	}
	if err := r.lock(ctx); err != nil {
		return Rebuilt{}, readError("rebuild", err)
	}
	err = r.run(ctx)
	if cleaning := r.unlock(context.WithoutCancel(ctx)); cleaning != nil {
		// The rebuild itself is complete or failed; the next one drops the leftovers.
		s.logger.Warn("cleaning up after a rebuild failed", "error", cleaning)
	}
	return Rebuilt{Events: r.done, Skipped: r.skipped, FirstSkipped: r.first}, readError("rebuild", err)
}

// Rebuilt is the result of a rebuild.
type Rebuilt struct {
	Events       uint64               // number of folded events
	Skipped      uint64               // number of events that the read models cannot hold
	FirstSkipped []domain.Quarantined // the first few of them
}

// maxNamed is how many skipped events the result names.
const maxNamed = 5

func chooseModels(names []string) ([]string, error) {
	if len(names) == 0 {
		return ReadModels(), nil
	}
	for _, name := range names {
		if !slices.Contains(ReadModels(), name) {
			return nil, domain.Invalid(domain.CodeInvalidCommand,
				fmt.Sprintf("there is no projection %q; the projections are %s", name, strings.Join(ReadModels(), ", ")))
		}
	}
	return names, nil
}

// rebuild is one run of [Store.Rebuild].
type rebuild struct {
	conn   *pgx.Conn
	names  []string
	report func(done, total uint64)
	logger *slog.Logger

	folded      map[domain.SystemID]domain.Cursor // how far each system is folded
	done, total uint64                            // numbers of events
	skipped     uint64
	first       []domain.Quarantined
}

func (r *rebuild) lock(ctx context.Context) error {
	var locked bool
	if err := r.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1::int, 0)", rebuildLocks).Scan(&locked); err != nil {
		return err
	}
	if !locked {
		return ErrRebuilding
	}
	return nil
}

// unlock drops leftovers and ends the run. On a broken connection both happen by themselves:
// the lock ends with the session, and the next run drops the leftovers.
func (r *rebuild) unlock(ctx context.Context) error {
	if r.conn.IsClosed() {
		return nil
	}
	return errors.Join(r.clean(ctx), exec(ctx, r.conn, "SELECT pg_advisory_unlock($1::int, 0)", rebuildLocks))
}

func (r *rebuild) clean(ctx context.Context) error {
	return exec(ctx, r.conn, "DROP SCHEMA IF EXISTS "+nextModels+", "+oldModels+" CASCADE")
}

func exec(ctx context.Context, q execer, statement string, args ...any) error {
	_, err := q.Exec(ctx, statement, args...)
	return err
}

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// closeEnough is the number of events that may be left for the moment when projectors wait, and
// maxRounds is how often to try to get there beside projectors that keep writing.
const (
	closeEnough = 2000
	maxRounds   = 20
)

func (r *rebuild) run(ctx context.Context) error {
	if err := r.clean(ctx); err != nil {
		return err
	}
	if err := exec(ctx, r.conn, "SELECT create_read_models($1)", nextModels); err != nil {
		return err
	}
	for range maxRounds {
		before := r.done
		if err := r.catchUp(ctx, r.conn); err != nil {
			return err
		}
		if r.done-before < closeEnough {
			break
		}
	}
	// The swap gives up if a reader makes it wait, because later readers wait behind it; then
	// it is tried again.
	for {
		before := *r
		before.folded = maps.Clone(r.folded)
		err := pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error { return r.swap(ctx, tx) })
		if waited := new(pgconn.PgError); !errors.As(err, &waited) || waited.Code != lockNotAvailable {
			return err
		}
		*r = before // the transaction was rolled back
		if err := r.catchUp(ctx, r.conn); err != nil {
			return err
		}
	}
}

// lockNotAvailable is the SQLSTATE of a lock_timeout.
const lockNotAvailable = "55P03"

// backlog is a system with events that are not folded yet.
type backlog struct {
	system    domain.SystemID
	partition int
	head      domain.Cursor
}

// catchUp folds the events of history that are not folded yet.
func (r *rebuild) catchUp(ctx context.Context, db database) error {
	rows, err := db.Query(ctx, "SELECT system_id, partition, position_ms, position_seq, seq FROM heads")
	if err != nil {
		return err
	}
	var work []backlog
	var system domain.SystemID
	var partition int
	var at pos
	var seq uint64
	r.total = 0
	if _, err := pgx.ForEachRow(rows, []any{&system, &partition, &at.ms, &at.n, &seq}, func() error {
		r.total += seq
		if seq > r.folded[system].Seq {
			work = append(work, backlog{system, partition, domain.Cursor{Position: at.position(), Seq: seq}})
		}
		return nil
	}); err != nil {
		return err
	}
	for _, b := range work {
		if err := r.foldSystem(ctx, db, b); err != nil {
			return fmt.Errorf("system %s: %w", b.system, err)
		}
	}
	return nil
}

// database is a connection, or a transaction on it.
type database interface {
	querier
	execer
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	Begin(ctx context.Context) (pgx.Tx, error)
}

// foldSystem folds one system up to its head. It finds events that the rows cannot hold by
// halving the number of events that it folds at once, and leaves them out.
func (r *rebuild) foldSystem(ctx context.Context, db database, b backlog) error {
	last := b.head.Seq
	for r.folded[b.system].Seq < b.head.Seq {
		from := r.folded[b.system].Seq
		err := r.foldUpTo(ctx, db, b, last)
		switch {
		case err == nil:
			last = b.head.Seq
		case causeOf(err) != causeContent:
			return err
		case last-from > 1:
			last = from + (last-from)/2
		default:
			if err := r.skip(ctx, db, b, err); err != nil {
				return err
			}
			last = b.head.Seq
		}
	}
	return nil
}

// foldUpTo folds a system's next events, up to the seq last, and writes the rows, or nothing.
func (r *rebuild) foldUpTo(ctx context.Context, db database, b backlog, last uint64) error {
	done := r.done
	err := isolate.Run(r.logger, foldName, func() error { return r.foldIn(ctx, db, b, last) })
	if err != nil {
		r.done = done
	}
	return err
}

func (r *rebuild) foldIn(ctx context.Context, db database, b backlog, last uint64) error {
	from := r.folded[b.system]
	l := &stateCache{state: domain.NewState(b.system)}
	if from.Seq > 0 {
		loaded, err := loadStates(ctx, db, nextModels, []domain.SystemID{b.system}, nil)
		if err != nil {
			return err
		}
		l = loaded[b.system]
		l.state.Cursor = from // the loaded head is ahead of the rows
	}
	for l.state.Cursor.Seq < last {
		at := posOf(l.state.Cursor.Position)
		rows, err := db.Query(ctx, pageQuery(MaxPage), b.system, at.ms, at.n)
		if err != nil {
			return err
		}
		folded, err := l.foldRows(rows, b.system, last)
		if err != nil {
			return err
		}
		if folded == 0 {
			return fmt.Errorf("%w: history ends at %s, before the head %s", errIncomplete, l.state.Cursor, b.head)
		}
		r.done += uint64(folded)
		if r.report != nil {
			r.report(r.done, max(r.total, r.done))
		}
	}
	var c changes
	if err := c.gather(l); err != nil {
		return err
	}
	writing := &pgx.Batch{}
	c.queue(writing, nextModels)
	// During the swap this is a savepoint: if it fails, the transaction continues.
	if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return tx.SendBatch(ctx, writing).Close() }); err != nil {
		return err
	}
	r.folded[b.system] = l.state.Cursor
	return nil
}

// errIncomplete means that events are missing in history, so nothing can be rebuilt from it.
var errIncomplete = errors.New("history is incomplete")

// skip leaves the next event of a system out of the read models. The event stays in history
// unchanged, because the hash covers it, and is put into quarantine.
func (r *rebuild) skip(ctx context.Context, db database, b backlog, cause error) error {
	from := r.folded[b.system]
	at := posOf(from.Position)
	rows, err := db.Query(ctx, pageQuery(1), b.system, at.ms, at.n)
	if err != nil {
		return err
	}
	e, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (e domain.Event, err error) {
		e.SystemID = b.system
		var more bool
		return e, scanEvent(row.(pgx.Rows), &e, &more)
	})
	if err != nil {
		return err
	}
	r.logger.Error("an event cannot be projected and is omitted from the read models", "system", b.system,
		"position", e.Position.String(), "event", e.ID, "type", e.Type, "error", cause)
	reason := "it cannot be projected: " + reasonOf(cause)
	var quarantined quarantineColumns
	quarantined.add(&e, errors.New(reason))
	writing := &pgx.Batch{}
	quarantined.queue(writing, b.partition)
	skipped := posOf(e.Position)
	writing.Queue("UPDATE history SET fault = $4 WHERE system_id = $1 AND position_ms = $2 AND position_seq = $3",
		b.system, skipped.ms, skipped.n, printable(reason))
	if err := db.SendBatch(ctx, writing).Close(); err != nil {
		return err
	}
	r.folded[b.system] = e.Cursor()
	r.done++
	r.skipped++
	if len(r.first) < maxNamed {
		r.first = append(r.first, domain.Quarantined{
			Partition: b.partition, Position: e.Position, SystemID: e.SystemID, EventID: e.ID, Type: e.Type, Reason: reason,
		})
	}
	return nil
}

// foldRows folds a page of history, up to the event with the seq last.
func (s *stateCache) foldRows(rows pgx.Rows, system domain.SystemID, last uint64) (folded int, err error) {
	defer rows.Close()
	var more bool
	for rows.Next() {
		e := domain.Event{SystemID: system}
		if err := scanEvent(rows, &e, &more); err != nil {
			return folded, err
		}
		if e.Seq > last {
			continue // written since; the next round folds it
		}
		if _, err := s.fold(&e); isGap(err) {
			return folded, err
		}
		folded++
	}
	return folded, rows.Err()
}

// swap replaces the live read models with the new ones. It takes locks in this order:
// checkpoints, so that no projector is in a transaction or begins one; then the live tables, so
// that no reader is in the middle of a statement on them. Projectors and readers take them in
// the same order.
func (r *rebuild) swap(ctx context.Context, tx pgx.Tx) error {
	if err := exec(ctx, tx, "SET LOCAL lock_timeout = '2s'"); err != nil {
		return err
	}
	if err := exec(ctx, tx, "LOCK TABLE checkpoints IN EXCLUSIVE MODE"); err != nil {
		return err
	}
	if err := r.catchUp(ctx, tx); err != nil {
		return err
	}
	statements := []string{
		"CREATE SCHEMA IF NOT EXISTS " + readModels,
		"GRANT USAGE ON SCHEMA " + readModels + " TO plugcast_reader",
		"CREATE SCHEMA " + oldModels,
	}
	for _, name := range r.names {
		statements = append(statements,
			"ALTER TABLE IF EXISTS "+readModels+"."+name+" SET SCHEMA "+oldModels,
			"ALTER TABLE "+nextModels+"."+name+" SET SCHEMA "+readModels)
	}
	for _, statement := range append(statements, "UPDATE checkpoints SET generation = generation + 1") {
		if err := exec(ctx, tx, statement); err != nil {
			return err
		}
	}
	return nil
}
