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

// MaxFindings is how many findings are stored for one system of one link. Beyond it the oldest
// are removed and counted.
const MaxFindings = 10_000

// LinkState returns the JSON object that a link of a bridge saved for one of its systems with
// SaveLinkState, or nil if it saved none.
func (s *Store) LinkState(ctx context.Context, link string, system domain.SystemID) (json.RawMessage, error) {
	var state json.RawMessage
	err := s.pool.QueryRow(ctx, "SELECT state FROM bridge_link_states WHERE link = $1 AND system_id = $2", link, system).Scan(&state)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return state, readError("read the state of a link", err)
}

// SaveLinkState saves a JSON object for one system of a link, if the revision of the stored
// object is still the given one. The revision is the object's member of that name; absent means
// 0. saved is false if the stored object has another revision.
func (s *Store) SaveLinkState(
	ctx context.Context, link string, system domain.SystemID, revision uint64, state json.RawMessage,
) (saved bool, err error) {
	var next struct {
		Revision uint64 `json:"revision"`
	}
	if err := json.Unmarshal(state, &next); err != nil {
		return false, fmt.Errorf("projections: save the state of a link: %w", err)
	}
	tag, err := s.pool.Exec(ctx, `
		INSERT INTO bridge_link_states AS stored (link, system_id, state, revision) VALUES ($1, $2, $3, $4)
		ON CONFLICT (link, system_id) DO UPDATE SET (state, revision, changed_at) = (EXCLUDED.state, EXCLUDED.revision, now())
		 WHERE stored.revision = $5`, link, system, bytes.ToValidUTF8(state, []byte("\uFFFD")), int64(next.Revision), int64(revision))
	return tag.RowsAffected() == 1, readError("save the state of a link", err)
}

// AddFindings stores findings of one system of a link, and adds to its counts, atomically.
// dropped is how many findings were lost before they could be stored.
func (s *Store) AddFindings(ctx context.Context, link string, system domain.SystemID,
	findings []domain.Finding, counts map[string]uint64, dropped uint64,
) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		// The row also serves as a lock: a concurrent call waits for this one.
		batch.Queue(`
			INSERT INTO bridge_link_states (link, system_id, dropped) VALUES ($1, $2, $3)
			ON CONFLICT (link, system_id) DO UPDATE SET dropped = bridge_link_states.dropped + EXCLUDED.dropped, changed_at = now()`,
			link, system, int64(dropped))
		for _, kind := range slices.Sorted(maps.Keys(counts)) {
			batch.Queue(`
				INSERT INTO bridge_counts (link, system_id, kind, count) VALUES ($1, $2, $3, $4)
				ON CONFLICT (link, system_id, kind) DO UPDATE SET count = bridge_counts.count + EXCLUDED.count`,
				link, system, kind, int64(counts[kind]))
		}
		for i := range findings {
			document, err := domain.EncodeJSON(findings[i])
			if err != nil {
				return err
			}
			document = domain.CleanJSON(document) // it contains payloads of other servers
			batch.Queue("INSERT INTO bridge_findings (link, system_id, at, document) VALUES ($1, $2, $3, $4)",
				link, system, findings[i].At, document)
		}
		if len(findings) > 0 {
			batch.Queue(`
				WITH gone AS (
					DELETE FROM bridge_findings WHERE link = $1 AND system_id = $2 AND id <= (
						SELECT id FROM bridge_findings WHERE link = $1 AND system_id = $2 ORDER BY id DESC OFFSET $3 LIMIT 1)
					RETURNING 1)
				UPDATE bridge_link_states SET dropped = dropped + (SELECT count(*) FROM gone) WHERE link = $1 AND system_id = $2`,
				link, system, MaxFindings)
		}
		return tx.SendBatch(ctx, batch).Close()
	})
	return readError("store findings", err)
}

// Findings returns a report of the links that match the filter. Findings are in the order in
// which they were stored, up to the filter's limit, which is at most [MaxPage], and to
// [PageBytes].
func (s *Store) Findings(ctx context.Context, filter domain.FindingsFilter) (*domain.FindingsReport, error) {
	report := &domain.FindingsReport{Links: []domain.LinkFindings{}, Findings: []domain.Finding{}}
	if err := s.findingsOfLinks(ctx, filter, report); err != nil {
		return nil, readError("read the report of bridges", err)
	}
	const query = `SELECT id, document::text AS data FROM bridge_findings
		 WHERE ($1 = '' OR system_id = $1) AND ($2 = '' OR link = $2) AND at >= $3 AND id > $4`
	rows, err := s.pool.Query(ctx, rowPage("id, data", query, "id", pageSize(filter.Limit)),
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
		       coalesce((SELECT json_object_agg(c.kind, c.count) FROM bridge_counts c
		                  WHERE c.link = s.link AND c.system_id = s.system_id), '{}')
		  FROM bridge_link_states s WHERE ($1 = '' OR s.system_id = $1) AND ($2 = '' OR s.link = $2)
		 ORDER BY s.link, s.system_id`, filter.System, filter.Link)
	if err != nil {
		return err
	}
	report.Links, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l domain.LinkFindings, err error) {
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
