package timeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/plugcast/plugcast/domain"
	"github.com/plugcast/plugcast/streams"
)

// Locate returns the cursor of the system's newest event at or before a position, archived or
// not. It fails with [domain.ErrAhead] if the partition has not reached the position yet.
func (t *Timeline) Locate(ctx context.Context, system domain.SystemID, after domain.Position) (at domain.Cursor, err error) {
	for range maxTries {
		if at, err = t.locate(ctx, system, after); !retryable(err) {
			break
		}
	}
	return at, wrap("locate in", system, err)
}

func (t *Timeline) locate(ctx context.Context, system domain.SystemID, after domain.Position) (domain.Cursor, error) {
	if after.IsZero() {
		return domain.Cursor{}, nil
	}
	upTo, at, err := t.history.Base(ctx, system)
	if err != nil {
		return domain.Cursor{}, err
	}
	if !after.After(upTo) {
		return t.history.Locate(ctx, system, after)
	}
	found := func(events []domain.Event) bool {
		for i := range events {
			if events[i].Position.After(after) {
				at = count(at, system, events[:i])
				return true
			}
		}
		at = count(at, system, events)
		return false
	}
	end, err := t.scan(ctx, system, upTo, found)
	if err != nil || !end.Before(after) {
		return at, err
	}
	tail, err := t.log.Tail(ctx, t.log.Partition(system))
	if err != nil {
		return domain.Cursor{}, err
	}
	if tail.Before(after) {
		return domain.Cursor{}, domain.ErrAhead
	}
	// The log may have passed the position after the scan ended. No later entry comes at or
	// before it, so a second scan finds all there are.
	_, err = t.scan(ctx, system, end, found)
	return at, err
}

// Page returns the next events of the system after a cursor, up to max, with Seq: from the
// archive or, beyond its checkpoint, from the log. It may return fewer events than there are,
// and returns none only if there are none yet. It fails with [domain.ErrGap] if the cursor's
// seq does not belong to its position, and with [domain.ErrAhead] if the partition has not
// reached the position yet.
func (t *Timeline) Page(ctx context.Context, system domain.SystemID, after domain.Cursor, max int) (events []domain.Event, err error) {
	for range maxTries {
		if events, err = t.page(ctx, system, after, max); !retryable(err) {
			break
		}
	}
	return events, wrap("page of", system, err)
}

func (t *Timeline) page(ctx context.Context, system domain.SystemID, after domain.Cursor, limit int) ([]domain.Event, error) {
	upTo, head, err := t.history.Base(ctx, system)
	if err != nil {
		return nil, err
	}
	if after.Position.Before(head.Position) {
		page, err := t.history.Page(ctx, system, after.Position, limit)
		if err == nil && len(page) > 0 && page[0].Seq != after.Seq+1 {
			err = fmt.Errorf("%w: %s follows %s", domain.ErrGap, page[0].Cursor(), after)
		}
		if err != nil {
			return nil, err
		}
		return page, nil
	}
	switch {
	case after.Position.After(upTo):
		upTo = after.Position
	case after.Seq != head.Seq:
		return nil, fmt.Errorf("%w: the archive ends with %s, and the reader is at %s", domain.ErrGap, head, after)
	}
	var page []domain.Event
	_, err = t.scan(ctx, system, upTo, func(events []domain.Event) bool {
		for i := range events {
			if events[i].SystemID != system {
				continue
			}
			after.Seq++
			page = append(page, events[i])
			page[len(page)-1].Seq = after.Seq
			if len(page) >= limit {
				break
			}
		}
		return len(page) > 0 // one page is enough
	})
	if errors.Is(err, streams.ErrRewound) {
		err = fmt.Errorf("%w: %w", domain.ErrAhead, err)
	}
	return page, err
}

// scan passes the entries of the system's partition after a position, in order, to enough,
// until enough returns true or there are no more entries. It returns the position of the last
// entry passed on. It takes entries from the run's memory if they are there, and else reads
// them from Redis.
func (t *Timeline) scan(
	ctx context.Context, system domain.SystemID, upTo domain.Position, enough func([]domain.Event) bool,
) (domain.Position, error) {
	p := t.partitionOf(system)
	for {
		events := p.recent(upTo)
		if len(events) == 0 {
			var err error
			if events, err = t.log.Read(ctx, p.number, upTo, scanPage); err != nil {
				return upTo, err
			}
		}
		if len(events) == 0 {
			return upTo, nil
		}
		upTo = events[len(events)-1].Position
		if enough(events) {
			return upTo, nil
		}
	}
}

// recent returns a copy of the run's remembered entries after a position, or none if the memory
// does not reach back that far.
func (p *partition) recent(after domain.Position) []domain.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run == nil || !p.run.tracker.window.covers(after) {
		return nil
	}
	return append([]domain.Event(nil), p.run.tracker.window.after(after)...)
}
