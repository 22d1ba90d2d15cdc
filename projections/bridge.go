package projections

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/intake"
)

var _ intake.Archive = (*Store)(nil)

// Deployment returns the id of this deployment. The first who asks makes it, and
// it stays for as long as the database does: a copy of the database that goes on
// by itself is not another deployment, and must not be bridged with this one.
func (s *Store) Deployment(ctx context.Context) (string, error) {
	if _, err := s.pool.Exec(ctx, "INSERT INTO deployment_identity DEFAULT VALUES ON CONFLICT DO NOTHING"); err != nil {
		return "", readError("make the id of the deployment", err)
	}
	var id string
	err := s.pool.QueryRow(ctx, "SELECT id::text FROM deployment_identity").Scan(&id)
	return id, readError("read the id of the deployment", err)
}

// Foreign implements intake.Archive.
func (s *Store) Foreign(ctx context.Context, system domain.SystemID, events []intake.Key) (domain.Position, map[intake.Key]bool, error) {
	var at place
	known := map[intake.Key]bool{}
	ids := make([]string, len(events))
	for i, e := range events {
		ids[i] = e.ID
	}
	err := s.read(ctx, within(system), func(rows pgx.Rows) error {
		var origin, id *string
		if err := rows.Scan(&at.ms, &at.n, &origin, &id); err != nil {
			return err
		}
		if origin != nil && id != nil {
			known[intake.Key{Origin: *origin, ID: *id}] = true
		}
		return nil
	}, `SELECT coalesce(c.position_ms, 0), coalesce(c.position_seq, 0), h.origin::text, h.id
		  FROM (SELECT) AS one
		  LEFT JOIN checkpoints c ON c.partition = $2
		  LEFT JOIN history h ON h.system_id = $1 AND h.origin <> '' AND h.id = ANY ($3::text[])`,
		system, s.partition(system), ids)
	return at.position(), known, readError("look for events from elsewhere", err)
}

// Fence implements intake.Archive: a batch that a projector read before is refused
// by the generation, as after a rebuild.
func (s *Store) Fence(ctx context.Context, partition int) error {
	_, err := s.pool.Exec(ctx, "UPDATE checkpoints SET generation = generation + 1 WHERE partition = $1", partition)
	return readError("fence a partition", err)
}

// BridgeCursor returns the position up to which the log of a source is in history,
// and false when none was saved.
func (s *Store) BridgeCursor(ctx context.Context, system domain.SystemID, source string) (domain.Position, bool, error) {
	var at place
	err := s.pool.QueryRow(ctx, "SELECT position_ms, position_seq FROM bridge_cursors WHERE system_id = $1 AND source = $2",
		system, source).Scan(&at.ms, &at.n)
	if errors.Is(err, pgx.ErrNoRows) {
		return domain.Position{}, false, nil
	}
	return at.position(), err == nil, readError("read the cursor of a bridge", err)
}

// SaveBridgeCursor keeps that the log of a source is in history up to a position.
// It never goes back.
func (s *Store) SaveBridgeCursor(ctx context.Context, system domain.SystemID, source string, at domain.Position) error {
	p := placeOf(at)
	_, err := s.pool.Exec(ctx, `
		INSERT INTO bridge_cursors AS kept (system_id, source, position_ms, position_seq) VALUES ($1, $2, $3, $4)
		ON CONFLICT (system_id, source) DO UPDATE
		   SET position_ms = excluded.position_ms, position_seq = excluded.position_seq, saved_at = now()
		 WHERE (kept.position_ms, kept.position_seq) < (excluded.position_ms, excluded.position_seq)`,
		system, source, p.ms, p.n)
	return readError("save the cursor of a bridge", err)
}

// RewindBridgeCursor moves a saved cursor back, if it is after the position.
func (s *Store) RewindBridgeCursor(ctx context.Context, system domain.SystemID, source string, to domain.Position) error {
	p := placeOf(to)
	_, err := s.pool.Exec(ctx, `
		UPDATE bridge_cursors SET position_ms = $3, position_seq = $4, saved_at = now()
		 WHERE system_id = $1 AND source = $2 AND (position_ms, position_seq) > ($3, $4)`, system, source, p.ms, p.n)
	return readError("rewind the cursor of a bridge", err)
}
