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

// maxSkew is how far an event's time, on the clock of who appended it, and the
// milliseconds of its position, on the clock of Redis, may lie apart. Searches by
// time look at no more positions than that around it; an event whose clocks
// differ by more may be missing from them.
const maxSkew = time.Minute

// PositionAt returns the position of the system's newest archived event, by
// position, whose time is at or before t; zero when there is none. Events before
// it may have a later time, because their appenders' clocks differ.
func (s *Store) PositionAt(ctx context.Context, actor domain.Actor, system domain.SystemID, t time.Time) (domain.Position, error) {
	var found place
	err := s.readPlanned(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		return rows.Scan(&found.ms, &found.n)
	}, `SELECT position_ms, position_seq FROM history
		 WHERE system_id = $1 AND position_ms <= $2 AND time <= $3
		 ORDER BY position_ms DESC, position_seq DESC LIMIT 1`, system, t.Add(maxSkew).UnixMilli(), t)
	return found.position(), readError("find a time in history", err)
}

// Base returns how far the system's partition is archived, and the newest
// archived event of the system: both from one moment.
func (s *Store) Base(ctx context.Context, system domain.SystemID) (checkpoint domain.Position, head domain.Cursor, err error) {
	var at, newest place
	var seq int64
	err = s.read(ctx, within(system), func(rows pgx.Rows) error {
		return rows.Scan(&at.ms, &at.n, &newest.ms, &newest.n, &seq)
	}, `SELECT coalesce(c.position_ms, 0), coalesce(c.position_seq, 0),
		       coalesce(h.position_ms, 0), coalesce(h.position_seq, 0), coalesce(h.seq, 0)
		  FROM (SELECT) AS one
		  LEFT JOIN checkpoints c ON c.partition = $2
		  LEFT JOIN heads h ON h.system_id = $1`, system, s.partition(system))
	return at.position(), domain.Cursor{Position: newest.position(), Seq: uint64(seq)}, readError("read the base of a system", err)
}

// Locate returns the cursor of the system's newest archived event at or before a
// position; zero when there is none.
func (s *Store) Locate(ctx context.Context, system domain.SystemID, at domain.Position) (domain.Cursor, error) {
	p := placeOf(at)
	var found place
	var seq int64
	err := s.read(ctx, within(system), func(rows pgx.Rows) error {
		return rows.Scan(&found.ms, &found.n, &seq)
	}, `SELECT position_ms, position_seq, seq FROM history
		 WHERE system_id = $1 AND position_ms <= $2 AND (position_ms, position_seq) <= ($2, $3)
		 ORDER BY position_ms DESC, position_seq DESC LIMIT 1`, system, p.ms, p.n)
	return domain.Cursor{Position: found.position(), Seq: uint64(seq)}, readError("locate in history", err)
}

// eventColumns are what scanEvent reads.
const eventColumns = "seq, position_ms, position_seq, id, type, version, time, actor, correlation_id, causation_id, origin, data"

func scanEvent(rows pgx.Rows, e *domain.Event, also ...any) error {
	var at place
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

// Page returns up to max archived events of the system after a position, in
// order, with their seq. A page of large events has fewer; only an empty one says
// that there are no more.
func (s *Store) Page(ctx context.Context, system domain.SystemID, after domain.Position, limit int) ([]domain.Event, error) {
	events, err := s.page(ctx, within(system), system, after, limit)
	return events, readError("read history", err)
}

// pageQuery is the query of a page of all events of a system ($1) after a position.
func pageQuery(limit int) string {
	return rowPage(eventColumns, "SELECT "+eventColumns+` FROM history
		WHERE system_id = $1 AND position_ms >= $2 AND (position_ms, position_seq) > ($2, $3)`, inOrder, pageSize(limit))
}

func (s *Store) page(ctx context.Context, sc scope, system domain.SystemID, after domain.Position, limit int) ([]domain.Event, error) {
	p := placeOf(after)
	var events []domain.Event
	var more bool
	err := s.read(ctx, sc, func(rows pgx.Rows) error {
		events = append(events, domain.Event{SystemID: system})
		return scanEvent(rows, &events[len(events)-1], &more)
	}, pageQuery(limit), system, p.ms, p.n)
	return events, err
}

// makeRoom sees to it that history has the partitions of a batch, and of the
// month after it, so that nobody has to make one at the turn of a month.
func (s *Store) makeRoom(ctx context.Context, events []domain.Event) error {
	const end = 253402300800000 // the year 10000
	var month time.Time
	var until int64
	for i := range events {
		ms := events[i].Position.Ms
		if ms >= end || int64(ms) < until { // beyond the end there is one for all
			continue
		}
		month = monthOf(events[i].Position)
		until = month.AddDate(0, 1, 0).UnixMilli()
		if err := s.makeMonth(ctx, month); err != nil {
			return err
		}
	}
	if next := month.AddDate(0, 1, 0); until > 0 && next.UnixMilli() < end {
		return s.makeMonth(ctx, next)
	}
	return nil
}

func (s *Store) makeMonth(ctx context.Context, month time.Time) error {
	ms := month.UnixMilli()
	if _, known := s.months.Load(ms); known {
		return nil
	}
	if _, err := s.pool.Exec(ctx, "SELECT create_history_partition($1)", ms); err != nil {
		return fmt.Errorf("projections: make a partition of history: %w", err)
	}
	s.months.Store(ms, struct{}{})
	return nil
}

func monthOf(p domain.Position) time.Time {
	t := p.Time()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}
