package timeline

import (
	"context"

	"github.com/plugcast/plugcast/domain"
)

// scanPage is how many entries of a partition one read from Redis asks for.
const scanPage = 1000

// Subscribe calls fn with every event of the system after start, in order, with Seq and without
// gap, in batches. fn may be called before Subscribe returns. Calls do not overlap. fn must not
// block, must not change the events but may keep them, and must not call cancel.
//
// A call with an error is the last one: the caller then subscribes again, and reads the events
// that it missed with Page. cancel ends the subscription; when it returns, fn is not running
// and will not be called again. cancel may be called more than once.
func (t *Timeline) Subscribe(
	ctx context.Context, system domain.SystemID, fn func([]domain.Event, error),
) (start domain.Cursor, cancel func(), err error) {
	p, sub := t.partitionOf(system), &subscription{fn: fn}
	for range maxTries {
		var r *run
		if start, r, err = p.join(ctx, system, sub); err == nil {
			return start, func() { r.leave(system, sub) }, nil
		}
		if !retryable(err) {
			break
		}
	}
	return domain.Cursor{}, nil, wrap("subscribe to", system, err)
}

func (p *partition) join(ctx context.Context, system domain.SystemID, sub *subscription) (domain.Cursor, *run, error) {
	p.mu.Lock()
	if r := p.run; r != nil {
		if start, ok := r.tracker.join(system, sub); ok {
			p.mu.Unlock()
			return start, r, nil
		}
	}
	p.mu.Unlock()

	upTo, at, err := p.timeline.history.Base(ctx, system)
	if err != nil {
		return domain.Cursor{}, nil, err
	}
	for {
		need, start, r, err := p.joinFrom(system, at, upTo, sub)
		if err != nil || r != nil {
			return start, r, err
		}
		// The events between the archive and the window are counted in Redis.
		for upTo.Before(need) {
			events, err := p.timeline.log.Read(ctx, p.number, upTo, scanPage)
			if err != nil {
				return domain.Cursor{}, nil, err
			}
			if len(events) == 0 {
				break // that run has ended, and Redis was set back
			}
			at = count(at, system, events)
			upTo = events[len(events)-1].Position
		}
	}
}

// joinFrom adds the subscription, or returns the position up to which the caller has to count
// first.
func (p *partition) joinFrom(system domain.SystemID, at domain.Cursor, upTo domain.Position, sub *subscription) (
	need domain.Position, start domain.Cursor, r *run, err error,
) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return need, start, nil, ErrClosed
	}
	r = p.run
	if r == nil {
		r = p.start(upTo)
	}
	start, ok := r.tracker.joinFrom(system, at, upTo, sub)
	if !ok {
		return r.tracker.need(), start, nil, nil
	}
	return need, start, r, nil
}
