package projections

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// faultOf returns why an event cannot be decoded: unreadable, or the reason that the log found.
func faultOf(e *domain.Event, unreadable error) error {
	if unreadable != nil || e.Type != domain.TypeUndecodable {
		return unreadable
	}
	if data, err := e.Decode(); err == nil {
		if u, ok := data.(domain.Undecodable); ok {
			return errors.New(u.Reason)
		}
	}
	return errors.New("undecodable")
}

type quarantineColumns struct {
	positionColumns
	ids, types, reasons, data []string
}

func (c *quarantineColumns) add(e *domain.Event, fault error) {
	c.positionColumns.add(e.SystemID, e.Position)
	c.ids, c.types = append(c.ids, e.ID), append(c.types, string(e.Type))
	c.reasons, c.data = append(c.reasons, printable(fault.Error())), append(c.data, string(e.Data))
}

func (c *quarantineColumns) queue(b *pgx.Batch, partition int) {
	if len(c.ids) == 0 {
		return
	}
	// An entry that exists already was added before a restore, or by a rebuild.
	b.Queue(`
WITH added AS (
	INSERT INTO quarantine (partition, system_id, position_ms, position_seq, event_id, type, reason, data)
	SELECT $1, nullif(s, ''), m, n, e, t, r, d
	  FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[]) AS new (s, m, n, e, t, r, d)
	    ON CONFLICT DO NOTHING RETURNING 1)
INSERT INTO quarantine_sizes AS size (partition, entries) SELECT $1, count(*) FROM added HAVING count(*) > 0
    ON CONFLICT (partition) DO UPDATE SET (entries, newest) = (size.entries + excluded.entries, now())`,
		partition, c.systems, c.ms, c.n, c.ids, c.types, c.reasons, c.data)
}

// Quarantine returns a page of the entries that could not be decoded or projected, the newest
// first: those of the systems that the actor sees and, for staff, those without a system.
func (s *Store) Quarantine(ctx context.Context, actor domain.Actor, q domain.QuarantineQuery) (page domain.QuarantinePage, err error) {
	const columns = "partition, position_ms, position_seq, coalesce(system_id, '') AS system, event_id, type, reason, data, quarantined_at"
	before, partition := posOf(endOfTime), math.MaxInt32
	if q.Before != nil {
		before, partition = posOf(q.Before.Position), q.Before.Partition
	}
	w := &where{}
	w.and("(position_ms, position_seq, partition) < (?, ?, ?)", before.ms, before.n, partition)
	if q.System != "" {
		w.and("system_id = ?", q.System)
	}
	err = s.readPlanned(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		var entry domain.Quarantined
		var at pos
		if err := rows.Scan(&entry.Partition, &at.ms, &at.n, &entry.SystemID, &entry.EventID, &entry.Type, &entry.Reason, &entry.Data,
			&entry.QuarantinedAt, &page.More); err != nil {
			return err
		}
		entry.Position, entry.QuarantinedAt = at.position(), entry.QuarantinedAt.UTC()
		page.Entries = append(page.Entries, entry)
		return nil
	}, rowPage("partition, position_ms, position_seq, system, event_id, type, reason, data, quarantined_at",
		"SELECT "+columns+" FROM quarantine"+w.sql, "position_ms DESC, position_seq DESC, partition DESC", pageSize(q.Limit)),
		w.args...)
	return page, readError("read quarantine", err)
}

// QuarantineSize returns how many entries could not be decoded or projected since the
// deployment was created.
func (s *Store) QuarantineSize(ctx context.Context) (domain.QuarantineSize, error) {
	size := domain.QuarantineSize{ByPartition: map[int]int64{}}
	rows, err := s.pool.Query(ctx, "SELECT partition, entries, oldest, newest FROM quarantine_sizes")
	if err != nil {
		return size, readError("count quarantine", err)
	}
	var partition int
	var n int64
	var oldest, newest time.Time
	_, err = pgx.ForEachRow(rows, []any{&partition, &n, &oldest, &newest}, func() error {
		size.Entries += n
		size.ByPartition[partition] = n
		if size.Oldest.IsZero() || oldest.Before(size.Oldest) {
			size.Oldest = oldest.UTC()
		}
		if newest.After(size.Newest) {
			size.Newest = newest.UTC()
		}
		return nil
	})
	return size, readError("count quarantine", err)
}
