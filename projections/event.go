package projections

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// EventQuery picks events of one system's history. Zero fields pick all.
type EventQuery struct {
	After, Before domain.Position // both exclusive
	From, To      time.Time       // bounds of the event's time, from inclusive, to exclusive

	Type          domain.EventType
	DeviceID      domain.DeviceID
	Actor         string
	CorrelationID string

	Limit      int  // up to [MaxPage]; 0 means that
	Descending bool // the newest first
}

// Events returns a page of what the query picks, in order of position, and whether
// there is more behind it: a page of large events ends before its limit.
func (s *Store) Events(ctx context.Context, actor domain.Actor, system domain.SystemID, q EventQuery) (
	events []domain.Event, more bool, err error,
) {
	w := q.where(system)
	err = s.readPlanned(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		events = append(events, domain.Event{SystemID: system})
		return scanEvent(rows, &events[len(events)-1], &more)
	}, q.page(eventColumns, "SELECT "+eventColumns+" FROM history h"+w.sql), w.args...)
	return events, more, readError("query history", err)
}

// where is a condition that grows, with its arguments.
type where struct {
	sql  string
	args []any
}

// and adds a condition, whose ? stand for the arguments in order.
func (w *where) and(condition string, args ...any) {
	for _, arg := range args {
		w.args = append(w.args, arg)
		condition = strings.Replace(condition, "?", fmt.Sprintf("$%d", len(w.args)), 1)
	}
	if w.sql == "" {
		w.sql = " WHERE " + condition
	} else {
		w.sql += " AND " + condition
	}
}

func (q *EventQuery) where(system domain.SystemID) *where {
	w := &where{}
	w.and("h.system_id = ?", system)
	if !q.After.IsZero() {
		p := placeOf(q.After)
		// The first condition says nothing new, but it leaves out whole months.
		w.and("h.position_ms >= ? AND (h.position_ms, h.position_seq) > (?, ?)", p.ms, p.ms, p.n)
	}
	if !q.Before.IsZero() {
		p := placeOf(q.Before)
		w.and("h.position_ms <= ? AND (h.position_ms, h.position_seq) < (?, ?)", p.ms, p.ms, p.n)
	}
	// The bounds of the position leave out whole months.
	if !q.From.IsZero() {
		w.and("h.position_ms >= ? AND h.time >= ?", q.From.Add(-maxSkew).UnixMilli(), q.From)
	}
	if !q.To.IsZero() {
		w.and("h.position_ms <= ? AND h.time < ?", q.To.Add(maxSkew).UnixMilli(), q.To)
	}
	if q.Type != "" {
		w.and("h.type = ?", q.Type)
	}
	if q.DeviceID != "" {
		w.and("h.device_id = ?", q.DeviceID)
	}
	if q.Actor != "" {
		w.and("h.actor = ?", q.Actor)
	}
	if q.CorrelationID != "" {
		w.and("h.correlation_id = ?", q.CorrelationID)
	}
	return w
}

// page orders a query on history h, and bounds it.
func (q *EventQuery) page(columns, query string) string {
	order := inOrder
	if q.Descending {
		order = "position_ms DESC, position_seq DESC"
	}
	return rowPage(columns, query, order, pageSize(q.Limit))
}

// filtered reports whether the query may leave out events between others. Times
// need not be in the order of positions.
func (q *EventQuery) filtered() bool {
	return !q.From.IsZero() || !q.To.IsZero() || q.Type != "" || q.DeviceID != "" || q.Actor != "" || q.CorrelationID != ""
}
