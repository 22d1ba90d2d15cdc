package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// MaxFindings is how many findings are kept for one system of one link. Beyond it
// the oldest go, and are counted.
const MaxFindings = 10_000

// LinkMemory returns what a link of the bridge keeps for one of its systems, as
// KeepLinkMemory got it, or nil when nothing was kept.
func (s *Store) LinkMemory(ctx context.Context, link string, system domain.SystemID) (json.RawMessage, error) {
	var kept json.RawMessage
	err := s.pool.QueryRow(ctx, "SELECT kept FROM bridge_sites WHERE link = $1 AND system_id = $2", link, system).Scan(&kept)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return kept, readError("read what a link keeps", err)
}

// KeepLinkMemory keeps a JSON object for one system of a link, unless its member
// turn there is another number than was; absent is 0. It tells whether it did.
func (s *Store) KeepLinkMemory(ctx context.Context, link string, system domain.SystemID, was uint64, kept json.RawMessage) (bool, error) {
	var of struct {
		Turn uint64 `json:"turn"`
	}
	if err := json.Unmarshal(kept, &of); err != nil {
		return false, fmt.Errorf("projections: keep what a link keeps: %w", err)
	}
	done, err := s.pool.Exec(ctx, `
		INSERT INTO bridge_sites AS site (link, system_id, kept, turn) VALUES ($1, $2, $3, $4)
		ON CONFLICT (link, system_id) DO UPDATE SET (kept, turn, changed_at) = (EXCLUDED.kept, EXCLUDED.turn, now())
		 WHERE site.turn = $5`, link, system, bytes.ToValidUTF8(kept, []byte("\uFFFD")), int64(of.Turn), int64(was))
	return done.RowsAffected() == 1, readError("keep what a link keeps", err)
}

// AddFindings keeps findings of one system of a link, and adds to its counts.
// dropped is how many findings were lost before. All of it is done, or nothing.
func (s *Store) AddFindings(ctx context.Context, link string, system domain.SystemID,
	findings []domain.Finding, counts map[string]uint64, dropped uint64,
) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		// The row is a lock as well: who adds at the same time counts after us.
		batch.Queue(`
			INSERT INTO bridge_sites (link, system_id, dropped) VALUES ($1, $2, $3)
			ON CONFLICT (link, system_id) DO UPDATE SET dropped = bridge_sites.dropped + EXCLUDED.dropped, changed_at = now()`,
			link, system, int64(dropped))
		for _, what := range slices.Sorted(maps.Keys(counts)) {
			batch.Queue(`
				INSERT INTO bridge_counts (link, system_id, what, count) VALUES ($1, $2, $3, $4)
				ON CONFLICT (link, system_id, what) DO UPDATE SET count = bridge_counts.count + EXCLUDED.count`,
				link, system, what, int64(counts[what]))
		}
		for i := range findings {
			document, err := domain.EncodeJSON(findings[i])
			if err != nil {
				return err
			}
			document = domain.CleanJSON(document) // payloads of others are in it
			batch.Queue("INSERT INTO bridge_findings (link, system_id, at, document) VALUES ($1, $2, $3, $4)",
				link, system, findings[i].At, document)
		}
		if len(findings) > 0 {
			batch.Queue(`
				WITH gone AS (
					DELETE FROM bridge_findings WHERE link = $1 AND system_id = $2 AND id <= (
						SELECT id FROM bridge_findings WHERE link = $1 AND system_id = $2 ORDER BY id DESC OFFSET $3 LIMIT 1)
					RETURNING 1)
				UPDATE bridge_sites SET dropped = dropped + (SELECT count(*) FROM gone) WHERE link = $1 AND system_id = $2`,
				link, system, MaxFindings)
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	return readError("keep findings", err)
}

// Findings returns a report. Findings come in the order in which they were kept,
// up to the filter's limit, which is 1000 at most, and to [PageBytes].
func (s *Store) Findings(ctx context.Context, filter domain.FindingsFilter) (*domain.FindingsReport, error) {
	report := &domain.FindingsReport{Links: []domain.FindingsOfLink{}, Findings: []domain.Finding{}}
	if err := s.findingsOfLinks(ctx, filter, report); err != nil {
		return nil, readError("read the report of bridges", err)
	}
	const wanted = `SELECT id, document::text AS data FROM bridge_findings
		 WHERE ($1 = '' OR system_id = $1) AND ($2 = '' OR link = $2) AND at >= $3 AND id > $4`
	rows, err := s.pool.Query(ctx, rowPage("id, data", wanted, "id", pageSize(filter.Limit)),
		filter.System, filter.Link, filter.Since, int64(filter.After))
	if err != nil {
		return nil, readError("read the report of bridges", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var document []byte
		var finding domain.Finding
		if err := rows.Scan(&id, &document, &report.More); err != nil {
			return nil, readError("read the report of bridges", err)
		}
		if err := json.Unmarshal(document, &finding); err != nil {
			return nil, readError("read the report of bridges", err)
		}
		finding.ID = uint64(id)
		report.Findings = append(report.Findings, finding)
	}
	return report, readError("read the report of bridges", rows.Err())
}

func (s *Store) findingsOfLinks(ctx context.Context, filter domain.FindingsFilter, report *domain.FindingsReport) error {
	rows, err := s.pool.Query(ctx, `
		SELECT s.link, s.system_id, s.dropped, s.created_at, s.changed_at,
		       coalesce((SELECT json_object_agg(c.what, c.count) FROM bridge_counts c
		                  WHERE c.link = s.link AND c.system_id = s.system_id), '{}')
		  FROM bridge_sites s WHERE ($1 = '' OR s.system_id = $1) AND ($2 = '' OR s.link = $2)
		 ORDER BY s.link, s.system_id`, filter.System, filter.Link)
	if err != nil {
		return err
	}
	report.Links, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l domain.FindingsOfLink, err error) {
		var dropped int64
		var alive time.Time
		if err = row.Scan(&l.Link, &l.System, &dropped, &l.Since, &alive, &l.Counts); err != nil {
			return l, err
		}
		alive = alive.UTC()
		l.Dropped, l.Since, l.AliveAt = uint64(dropped), l.Since.UTC(), &alive
		return l, nil
	})
	return err
}
