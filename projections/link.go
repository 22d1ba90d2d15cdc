package projections

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

const linkQuery = "SELECT " + eventColumns + `, hash FROM history
 WHERE system_id = $1 AND position_ms >= $2 AND (position_ms, position_seq) > ($2, $3)
 ORDER BY position_ms, position_seq LIMIT $4`

// Links returns up to limit archived events of the system after a position, in
// order, each with its place in the hash chain. Previous is not set.
func (s *Store) Links(ctx context.Context, system domain.SystemID, after domain.Position, limit int) ([]domain.Link, error) {
	p := placeOf(after)
	var links []domain.Link
	err := s.read(ctx, within(system), func(rows pgx.Rows) error {
		var hash []byte
		l := domain.Link{Event: domain.Event{SystemID: system}}
		if err := scanEvent(rows, &l.Event, &hash); err != nil {
			return err
		}
		copy(l.Hash[:], hash)
		links = append(links, l)
		return nil
	}, linkQuery, system, p.ms, p.n, pageSize(limit))
	return links, readError("read the hash chain", err)
}
