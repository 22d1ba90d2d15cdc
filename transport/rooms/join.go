package rooms

import (
	"context"

	"github.com/plugcast/plugcast/domain"
)

// join locates the reader's place and adds the reader, parked.
func (r *room) join(ctx context.Context, o Options, sink Sink) (*Subscription, Joined, error) {
	r.mu.Lock()
	epoch := r.core.epoch
	r.mu.Unlock()

	place, resumed, err := r.resume(ctx, o.After)
	if err != nil {
		return nil, Joined{}, err
	}
	joined := Joined{Cursor: place, Recovered: resumed}
	if o.Snapshot {
		if joined.Snapshot, err = r.hub.source.Snapshot(ctx, r.system); err != nil {
			return nil, Joined{}, err
		}
		joined.Cursor = joined.Snapshot.Cursor
		joined.Recovered = resumed && joined.Cursor.Seq == place.Seq // otherwise the events in between are only in the state
	}

	c := &Subscription{room: r, sink: sink}
	c.reader = reader{subscription: c, filter: o.Filter, conflate: o.Conflate, encoding: o.Encoding}
	if o.Encoding == nil {
		c.reader.encoding = JSON
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !resumed && !o.Snapshot {
		joined.Cursor = r.core.tail.head()
	} else {
		c.reader.lost = epoch != r.core.epoch
	}
	c.reader.place = joined.Cursor
	r.core.add(&c.reader)
	return c, joined, nil
}

// resume returns the place of a position. It returns false without a position, or with one
// that the log does not have; then the reader begins at the head.
func (r *room) resume(ctx context.Context, after *domain.Position) (domain.Cursor, bool, error) {
	if after == nil {
		return domain.Cursor{}, false, nil
	}
	r.mu.Lock()
	place, ok := r.core.tail.locate(*after)
	r.mu.Unlock()
	if ok {
		return place, true, nil
	}
	place, err := r.hub.source.Locate(ctx, r.system, *after)
	if isAhead(err) {
		return domain.Cursor{}, false, nil
	}
	return place, err == nil, err
}
