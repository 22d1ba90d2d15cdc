package projections

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/plugcast/plugcast/domain"
)

// Export calls fn with every event that matches the query, with its link in the hash chain, in
// order. It reads one page at a time. A Limit of 0 means no limit. A link contains the previous
// hash if the link before it is not the previous event, so that each link can be checked.
// Export returns fn's error as it is.
//
// It holds no transaction: events that are archived while it runs are included.
func (s *Store) Export(
	ctx context.Context, actor domain.Actor, system domain.SystemID, q domain.EventQuery, fn func(*domain.HashedEvent) error,
) error {
	q.Descending = false
	left := q.Limit
	var last uint64 // seq of the previous link
	for {
		q.Limit = MaxPage
		if left > 0 {
			q.Limit = min(left, MaxPage)
		}
		links, more, err := s.links(ctx, actor, system, &q)
		if err != nil {
			return readError("export history", err)
		}
		for i := range links {
			l := &links[i]
			if l.Event.Seq == last+1 {
				l.Previous = nil // the previous link has it, or this is the first event
			}
			if err := fn(l); err != nil {
				return err
			}
			last = l.Event.Seq
		}
		if n := len(links); n > 0 {
			at := links[n-1].Event.Position
			q.After = &at
		}
		left -= len(links)
		if !more || left == 0 {
			return nil
		}
	}
}

// links reads a page. The previous hash of a link comes from the row before it. For a filtered
// query that row has to be looked up, otherwise only for the first link of the page.
func (s *Store) links(ctx context.Context, actor domain.Actor, system domain.SystemID, q *domain.EventQuery) (
	links []domain.HashedEvent, more bool, err error,
) {
	const before = `(SELECT p.hash FROM history p
		WHERE p.system_id = h.system_id AND p.position_ms <= h.position_ms AND (p.position_ms, p.position_seq) < (h.position_ms, h.position_seq)
		ORDER BY p.position_ms DESC, p.position_seq DESC LIMIT 1)`
	previous := before
	if !isFiltered(q) {
		previous = `CASE WHEN row_number() OVER in_order = 1 THEN ` + before + ` ELSE lag(h.hash) OVER in_order END`
	}
	w := whereOf(system, q)
	query := "SELECT h.*, " + previous + " AS previous FROM history h" + w.sql
	if !isFiltered(q) {
		query += " WINDOW in_order AS (ORDER BY h.position_ms, h.position_seq)"
	}
	err = s.readPlanned(ctx, scopeOf(actor), func(rows pgx.Rows) error {
		links = append(links, domain.HashedEvent{Event: domain.Event{SystemID: system}})
		l := &links[len(links)-1]
		var hash, previous []byte
		if err := scanEvent(rows, &l.Event, &hash, &previous, &more); err != nil {
			return err
		}
		if previous != nil {
			l.Previous = new(domain.Hash)
			copy(l.Previous[:], previous)
		}
		copy(l.Hash[:], hash) // an altered hash may have another length: then the check fails
		return nil
	}, eventPage(q, eventColumns+", hash, previous", query), w.args...)
	return links, more, err
}
