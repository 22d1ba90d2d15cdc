package projections

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Events returns a page of the events that match the query, in order of position. more reports
// whether there are further ones: a page of large events ends before its limit.
func (s *Store) Events(ctx context.Context, actor domain.Actor, system domain.SystemID, q domain.EventQuery) (
	events []domain.Event, more bool, err error,
) {
	w := whereOf(system, &q)
	err = s.readPlanned(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		events = append(events, domain.Event{SystemID: system})
		return scanEvent(rows, &events[len(events)-1], &more)
	}, eventPage(&q, eventColumns, "SELECT "+eventColumns+" FROM history h"+w.sql), w.args...)
	return events, more, readError("query history", err)
}

// where builds a WHERE clause with its arguments.
type where struct {
	sql  string
	args []any
}

// and adds a condition. Its ? stand for the arguments in order.
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

func whereOf(system domain.SystemID, q *domain.EventQuery) *where {
	w := &where{}
	w.and("h.system_id = ?", system)
	if q.After != nil {
		p := posOf(*q.After)
		// The first condition is redundant, but it excludes whole months.
		w.and("h.position_ms >= ? AND (h.position_ms, h.position_seq) > (?, ?)", p.ms, p.ms, p.n)
	}
	if q.Before != nil {
		p := posOf(*q.Before)
		w.and("h.position_ms <= ? AND (h.position_ms, h.position_seq) < (?, ?)", p.ms, p.ms, p.n)
	}
	// The bounds of the position exclude whole months.
	if q.From != nil {
		w.and("h.position_ms >= ? AND h.time >= ?", q.From.Add(-maxSkew).UnixMilli(), *q.From)
	}
	if q.To != nil {
		w.and("h.position_ms <= ? AND h.time < ?", q.To.Add(maxSkew).UnixMilli(), *q.To)
	}
	andOneOf(w, "h.type", q.Filter.Types)
	andOneOf(w, "h.device_id", q.Filter.Devices)
	if q.Actor != "" {
		w.and("h.actor = ?", q.Actor)
	}
	if q.CorrelationID != "" {
		w.and("h.correlation_id = ?", q.CorrelationID)
	}
	return w
}

// andOneOf adds that a column has one of some values; none is no condition. A single
// one is compared by itself: only then does the index on the column give rows in the
// order of positions, and a page without a sort.
func andOneOf[T ~string](w *where, column string, values []T) {
	switch len(values) {
	case 0:
	case 1:
		w.and(column+" = ?", values[0])
	default:
		w.and(column+" = ANY (?::text[])", values)
	}
}

// eventPage orders a query on history h, and bounds it.
func eventPage(q *domain.EventQuery, columns, query string) string {
	order := inOrder
	if q.Descending {
		order = "position_ms DESC, position_seq DESC"
	}
	return rowPage(columns, query, order, pageSize(q.Limit))
}

// isFiltered reports whether the query may leave out events between others. Times
// need not be in the order of positions.
func isFiltered(q *domain.EventQuery) bool {
	return q.From != nil || q.To != nil || !q.Filter.IsZero() || q.Actor != "" || q.CorrelationID != ""
}
