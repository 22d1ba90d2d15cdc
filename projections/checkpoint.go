package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// checkpoints returns the position up to which each partition is archived.
func (s *Store) checkpoints(ctx context.Context) (map[int]domain.Position, error) {
	rows, err := s.pool.Query(ctx, "SELECT partition, position_ms, position_seq FROM checkpoints")
	if err != nil {
		return nil, readError("read checkpoints", err)
	}
	reached := map[int]domain.Position{}
	var partition int
	var at pos
	_, err = pgx.ForEachRow(rows, []any{&partition, &at.ms, &at.n}, func() error {
		reached[partition] = at.position()
		return nil
	})
	return reached, readError("read checkpoints", err)
}

// Checkpoint returns the position up to which, inclusively, a partition is archived; zero if
// nothing is.
func (s *Store) Checkpoint(ctx context.Context, partition int) (domain.Position, error) {
	reached, err := s.checkpoints(ctx)
	return reached[partition], err
}

// WaitFor returns once the partition is archived up to the position: at once if a projector of
// this process archives it, and within milliseconds otherwise. It fails if ctx ends, the store
// is closed, or the database cannot be reached.
func (s *Store) WaitFor(ctx context.Context, partition int, at domain.Position) error {
	return s.progress.wait(ctx, partition, at)
}

// WaitForSystem is [Store.WaitFor] for the partition of a system.
func (s *Store) WaitForSystem(ctx context.Context, system domain.SystemID, at domain.Position) error {
	return s.WaitFor(ctx, s.partition(system), at)
}

// Lag is how far the projection of a partition is behind the log.
type Lag struct {
	Partition  int
	Checkpoint domain.Position // archived up to here
	Tail       domain.Position // of the log
	// Behind is the age of the oldest event that is not archived, or 0. It is as precise as the
	// clocks here and at the log agree.
	Behind time.Duration
}

// Lags compares every partition of the log with its checkpoint. A partition that cannot be read
// is left at zero, and the error names it; the other partitions are still returned.
func (s *Store) Lags(ctx context.Context, log Log) ([]Lag, error) {
	reached, err := s.checkpoints(ctx)
	if err != nil {
		return nil, err
	}
	lags := make([]Lag, log.Partitions())
	var failures []error
	for p := range lags {
		lags[p] = Lag{Partition: p, Checkpoint: reached[p]}
		if err := lags[p].measure(ctx, log); err != nil {
			failures = append(failures, fmt.Errorf("projections: lag of partition %d: %w", p, err))
		}
	}
	return lags, errors.Join(failures...)
}

func (l *Lag) measure(ctx context.Context, log Log) (err error) {
	if l.Tail, err = log.Tail(ctx, l.Partition); err != nil || !l.Tail.After(l.Checkpoint) {
		return err
	}
	next, err := log.Read(ctx, l.Partition, l.Checkpoint, 1)
	if err == nil && len(next) > 0 {
		l.Behind = max(0, time.Since(next[0].Position.Time()))
	}
	return err
}

// endStaleTransaction ends the transaction of the previous owner, if it is still open: a
// process that froze in a transaction would otherwise hold the row of the checkpoint for as
// long as it is frozen. Only the owner of the partition may call it.
func (s *Store) endStaleTransaction(ctx context.Context, partition int) error {
	var ended int
	err := s.pool.QueryRow(ctx, `
		SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_locks
		 WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid::bigint = $1 AND objid::bigint = $2
		   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
		int64(writeLocks), int64(partition)).Scan(&ended)
	if ended > 0 {
		s.logger.Warn("ended the transaction of the previous owner", "partition", partition)
	}
	return err
}

// claimPartitions stores the number of partitions at the first start, and later fails if it
// differs.
func (s *Store) claimPartitions(ctx context.Context, partitions int) error {
	var claimed int
	err := s.pool.QueryRow(ctx, `
		WITH claim AS (INSERT INTO deployment (partitions) VALUES ($1) ON CONFLICT DO NOTHING RETURNING partitions)
		SELECT partitions FROM claim UNION ALL SELECT partitions FROM deployment LIMIT 1`, partitions).Scan(&claimed)
	if err != nil {
		return readError("claim partitions", err)
	}
	if claimed != partitions {
		return &partitionsError{claimed: claimed, ours: partitions}
	}
	return nil
}

// partitionsError means that a process is configured with another number of partitions than the
// deployment.
type partitionsError struct{ claimed, ours int }

func (e *partitionsError) Error() string {
	return fmt.Sprintf("projections: this database belongs to a deployment with %d partitions, and this process is configured with %d: "+
		"the number cannot change; set it to %d", e.claimed, e.ours, e.claimed)
}
