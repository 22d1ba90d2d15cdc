package projections

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// endOfTime is a position after all others.
var endOfTime = domain.Position{Ms: math.MaxUint64, N: math.MaxUint64}

// maxSkew bounds the difference between an event's time, from its appender's clock, and the
// milliseconds of its position, from Redis' clock. Searches by time read only positions within
// that distance; they may miss an event whose clocks differ by more.
const maxSkew = time.Minute

// PositionAt returns the position of the system's newest archived event, by position, whose
// time is at or before t; zero if there is none. Earlier events may have a later time, because
// the clocks of their appenders differ.
func (s *Store) PositionAt(ctx context.Context, actor domain.Actor, system domain.SystemID, t time.Time) (domain.Position, error) {
	var found pos
	err := s.readPlanned(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		return rows.Scan(&found.ms, &found.n)
	}, `SELECT position_ms, position_seq FROM history
		 WHERE system_id = $1 AND position_ms <= $2 AND time <= $3
		 ORDER BY position_ms DESC, position_seq DESC LIMIT 1`, system, t.Add(maxSkew).UnixMilli(), t)
	return found.position(), readError("find a time in history", err)
}

// Base returns how far the system's partition is archived, and the newest archived event of the
// system, both as of one moment.
func (s *Store) Base(ctx context.Context, system domain.SystemID) (checkpoint domain.Position, head domain.Cursor, err error) {
	var at, newest pos
	var seq int64
	err = s.read(ctx, within(system), func(rows pgx.Rows) error {
		return rows.Scan(&at.ms, &at.n, &newest.ms, &newest.n, &seq)
	}, `SELECT coalesce(c.position_ms, 0), coalesce(c.position_seq, 0),
		       coalesce(h.position_ms, 0), coalesce(h.position_seq, 0), coalesce(h.seq, 0)
		  FROM (SELECT) AS single
		  LEFT JOIN checkpoints c ON c.partition = $2
		  LEFT JOIN heads h ON h.system_id = $1`, system, s.partition(system))
	return at.position(), domain.Cursor{Position: newest.position(), Seq: uint64(seq)}, readError("read the base of a system", err)
}

// Locate returns the cursor of the system's newest archived event at or before a position; zero
// if there is none.
func (s *Store) Locate(ctx context.Context, system domain.SystemID, at domain.Position) (domain.Cursor, error) {
	p := posOf(at)
	var found pos
	var seq int64
	err := s.read(ctx, within(system), func(rows pgx.Rows) error {
		return rows.Scan(&found.ms, &found.n, &seq)
	}, `SELECT position_ms, position_seq, seq FROM history
		 WHERE system_id = $1 AND position_ms <= $2 AND (position_ms, position_seq) <= ($2, $3)
		 ORDER BY position_ms DESC, position_seq DESC LIMIT 1`, system, p.ms, p.n)
	return domain.Cursor{Position: found.position(), Seq: uint64(seq)}, readError("locate in history", err)
}

// eventColumns are the columns that scanEvent reads.
const eventColumns = "seq, position_ms, position_seq, id, type, version, time, actor, correlation_id, causation_id, origin, data"

func scanEvent(rows pgx.Rows, e *domain.Event, also ...any) error {
	var at pos
	var seq int64
	var data []byte
	into := [16]any{
		&seq, &at.ms, &at.n, &e.ID, &e.Type, &e.Version, &e.Time, &e.Actor, &e.CorrelationID, &e.CausationID, &e.Origin, &data,
	}
	if err := rows.Scan(append(into[:12], also...)...); err != nil {
		return err
	}
	e.Seq, e.Position, e.Time, e.Data = uint64(seq), at.position(), e.Time.UTC(), data
	return nil
}

// Page returns up to limit archived events of the system after a position, in order, with Seq.
// A page of large events has fewer; only an empty page means that there are no more.
func (s *Store) Page(ctx context.Context, system domain.SystemID, after domain.Position, limit int) ([]domain.Event, error) {
	events, err := s.page(ctx, within(system), system, after, limit)
	return events, readError("read history", err)
}

// pageQuery returns the query for a page of all events of a system ($1) after a position ($2,
// $3).
func pageQuery(limit int) string {
	return rowPage(eventColumns, "SELECT "+eventColumns+` FROM history
		WHERE system_id = $1 AND position_ms >= $2 AND (position_ms, position_seq) > ($2, $3)`, inOrder, pageSize(limit))
}

func (s *Store) page(ctx context.Context, sc scope, system domain.SystemID, after domain.Position, limit int) ([]domain.Event, error) {
	p := posOf(after)
	var events []domain.Event
	var more bool
	err := s.read(ctx, sc, func(rows pgx.Rows) error {
		events = append(events, domain.Event{SystemID: system})
		return scanEvent(rows, &events[len(events)-1], &more)
	}, pageQuery(limit), system, p.ms, p.n)
	return events, err
}

// ensureMonths ensures that history has the table partitions of a batch and of the month after
// it, so that no write has to create one at the turn of a month.
func (s *Store) ensureMonths(ctx context.Context, events []domain.Event) error {
	const end = 253402300800000 // the year 10000
	var month time.Time
	var until int64
	for i := range events {
		ms := events[i].Position.Ms
		if ms >= end || int64(ms) < until { // one table partition holds everything beyond the end
			continue
		}
		month = monthOf(events[i].Position)
		until = month.AddDate(0, 1, 0).UnixMilli()
		if err := s.ensureMonth(ctx, month); err != nil {
			return err
		}
	}
	if next := month.AddDate(0, 1, 0); until > 0 && next.UnixMilli() < end {
		return s.ensureMonth(ctx, next)
	}
	return nil
}

func (s *Store) ensureMonth(ctx context.Context, month time.Time) error {
	ms := month.UnixMilli()
	if _, known := s.months.Load(ms); known {
		return nil
	}
	if _, err := s.pool.Exec(ctx, "SELECT create_history_partition($1)", ms); err != nil {
		return fmt.Errorf("projections: create a table partition of history: %w", err)
	}
	s.months.Store(ms, struct{}{})
	return nil
}

func monthOf(p domain.Position) time.Time {
	t := p.Time()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}
