package projections

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Quarantined is an entry of the log that could not be read. One that names its
// system is in that system's history as well.
type Quarantined struct {
	Partition     int
	Position      domain.Position
	SystemID      domain.SystemID // empty when the entry names none
	EventID       string
	Type          domain.EventType
	Reason        string
	Data          string // the event's data: for [domain.TypeUndecodable] the fields of the entry
	QuarantinedAt time.Time
}

// faultOf says why an event could not be read: because of its data, or because
// of what the log found.
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
	placeColumns
	ids, types, reasons, data []string
}

func (c *quarantineColumns) add(e *domain.Event, fault error) {
	c.placeColumns.add(e.SystemID, e.Position)
	c.ids, c.types = append(c.ids, e.ID), append(c.types, string(e.Type))
	c.reasons, c.data = append(c.reasons, printable(fault.Error())), append(c.data, string(e.Data))
}

func (c *quarantineColumns) queue(b *pgx.Batch, partition int) {
	if len(c.ids) == 0 {
		return
	}
	b.Queue(`
INSERT INTO quarantine (partition, system_id, position_ms, position_seq, event_id, type, reason, data)
SELECT $1, nullif(s, ''), m, n, e, t, r, d
  FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[]) AS new (s, m, n, e, t, r, d)`,
		partition, c.systems, c.ms, c.n, c.ids, c.types, c.reasons, c.data)
}

// Quarantine lists what could not be read, the newest first: of the systems that
// the actor sees, and for staff also what names none. A page goes on before a
// position; zero begins with the newest.
func (s *Store) Quarantine(ctx context.Context, actor domain.Actor, before domain.Position, limit int) ([]Quarantined, error) {
	if before.IsZero() {
		before = endOfTime
	}
	at := placeOf(before)
	var list []Quarantined
	err := s.read(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		var q Quarantined
		var at place
		if err := rows.Scan(&q.Partition, &at.ms, &at.n, &q.SystemID, &q.EventID, &q.Type, &q.Reason, &q.Data, &q.QuarantinedAt); err != nil {
			return err
		}
		q.Position, q.QuarantinedAt = at.position(), q.QuarantinedAt.UTC()
		list = append(list, q)
		return nil
	}, `SELECT partition, position_ms, position_seq, coalesce(system_id, ''), event_id, type, reason, data, quarantined_at
		FROM quarantine WHERE (position_ms, position_seq) < ($1, $2)
		ORDER BY position_ms DESC, position_seq DESC LIMIT $3`, at.ms, at.n, pageSize(limit))
	return list, readError("read quarantine", err)
}

// QuarantineSize counts what could not be read, ever, in all systems and in
// none.
func (s *Store) QuarantineSize(ctx context.Context) (n int64, err error) {
	err = s.pool.QueryRow(ctx, "SELECT count(*) FROM quarantine").Scan(&n)
	return n, readError("count quarantine", err)
}
