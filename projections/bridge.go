package projections

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams/intake"
)

var _ intake.Archive = (*Store)(nil)

// Deployment returns the id of this deployment. The first call creates it, and it stays for as
// long as the database does. A copy of the database that continues on its own has the same id,
// and so must not be bridged with this one.
func (s *Store) Deployment(ctx context.Context) (string, error) {
	if _, err := s.pool.Exec(ctx, "INSERT INTO deployment_identity DEFAULT VALUES ON CONFLICT DO NOTHING"); err != nil {
		return "", readError("create the id of the deployment", err)
	}
	var id string
	err := s.pool.QueryRow(ctx, "SELECT id::text FROM deployment_identity").Scan(&id)
	return id, readError("read the id of the deployment", err)
}

// ArchivedImports implements intake.Archive.
func (s *Store) ArchivedImports(
	ctx context.Context, system domain.SystemID, events []intake.Key,
) (domain.Position, map[intake.Key]bool, error) {
	var at pos
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
		  FROM (SELECT) AS single
		  LEFT JOIN checkpoints c ON c.partition = $2
		  LEFT JOIN history h ON h.system_id = $1 AND h.origin <> '' AND h.id = ANY ($3::text[])`,
		system, s.partition(system), ids)
	return at.position(), known, readError("look up events of other deployments", err)
}

// Fence implements intake.Archive. It increments the generation of the partition's checkpoint,
// as a rebuild does: a transaction that a projector prepared before is then refused.
func (s *Store) Fence(ctx context.Context, partition int) error {
	_, err := s.pool.Exec(ctx, "UPDATE checkpoints SET generation = generation + 1 WHERE partition = $1", partition)
	return readError("fence a partition", err)
}

// BridgeCursor returns the position up to which the log of a source is in history. ok is false
// if none was saved.
func (s *Store) BridgeCursor(ctx context.Context, system domain.SystemID, source string) (at domain.Position, ok bool, err error) {
	var saved pos
	err = s.pool.QueryRow(ctx, "SELECT position_ms, position_seq FROM bridge_cursors WHERE system_id = $1 AND source = $2",
		system, source).Scan(&saved.ms, &saved.n)
	if errors.Is(err, pgx.ErrNoRows) {
		return domain.Position{}, false, nil
	}
	return saved.position(), err == nil, readError("read the cursor of a bridge", err)
}

// SaveBridgeCursor saves the position up to which the log of a source is in history. It never
// moves the cursor back.
func (s *Store) SaveBridgeCursor(ctx context.Context, system domain.SystemID, source string, at domain.Position) error {
	p := posOf(at)
	_, err := s.pool.Exec(ctx, `
		INSERT INTO bridge_cursors AS saved (system_id, source, position_ms, position_seq) VALUES ($1, $2, $3, $4)
		ON CONFLICT (system_id, source) DO UPDATE
		   SET position_ms = excluded.position_ms, position_seq = excluded.position_seq, saved_at = now()
		 WHERE (saved.position_ms, saved.position_seq) < (excluded.position_ms, excluded.position_seq)`,
		system, source, p.ms, p.n)
	return readError("save the cursor of a bridge", err)
}

// RewindBridgeCursor moves a saved cursor back, if it is after the position.
func (s *Store) RewindBridgeCursor(ctx context.Context, system domain.SystemID, source string, to domain.Position) error {
	p := posOf(to)
	_, err := s.pool.Exec(ctx, `
		UPDATE bridge_cursors SET position_ms = $3, position_seq = $4, saved_at = now()
		 WHERE system_id = $1 AND source = $2 AND (position_ms, position_seq) > ($3, $4)`, system, source, p.ms, p.n)
	return readError("rewind the cursor of a bridge", err)
}
