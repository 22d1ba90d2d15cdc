package timeline

import (
	"github.com/plugcast/plugcast/domain"
)

// tracker is where replay meets live, for one partition: it numbers the events
// of the systems that somebody subscribed to, as a follower brings them, and
// finds the number at which a new subscription starts. It has no lock, no
// goroutine and no I/O; what it promises is that from its start on each
// subscription gets every event of its system once, in order and numbered
// without holes, whatever the order in which events were appended, archived,
// followed and subscribed to.
type tracker struct {
	window  window
	systems map[domain.SystemID]*tracked
}

// tracked is a system with at least one subscription.
type tracked struct {
	system domain.SystemID
	cursor domain.Cursor   // the last event given
	subs   []*subscription // never changed in place: deliveries hold it
	sample domain.Cursor   // a cursor that waits to be compared with history
	batch  []domain.Event  // being gathered by advance
}

// delivery is what advance wants to be given to subscriptions.
type delivery struct {
	subs   []*subscription
	events []domain.Event
}

func newTracker(start domain.Position, limit int) *tracker {
	return &tracker{window: window{first: start, last: start, limit: limit}, systems: map[domain.SystemID]*tracked{}}
}

// join adds a subscription to a system that is tracked already, and returns
// where it starts.
func (t *tracker) join(system domain.SystemID, sub *subscription) (start domain.Cursor, ok bool) {
	s := t.systems[system]
	if s == nil {
		return domain.Cursor{}, false
	}
	s.subs = append(s.subs[:len(s.subs):len(s.subs)], sub)
	return s.cursor, true
}

// joinFrom adds the first subscription to a system. at is the system's cursor
// as of the partition's position upTo: every event of the system at or before
// upTo is counted in it, and none after. It fails when events between upTo and
// the window's first are not known; the caller then counts on, at least as far
// as [tracker.need], and asks again.
func (t *tracker) joinFrom(system domain.SystemID, at domain.Cursor, upTo domain.Position, sub *subscription) (start domain.Cursor, ok bool) {
	if start, ok := t.join(system, sub); ok {
		return start, true
	}
	if !t.window.covers(upTo) {
		return domain.Cursor{}, false
	}
	// The follower may still bring events at or before upTo, if whoever counted
	// was faster. advance drops them by their positions.
	at = count(at, system, t.window.after(upTo))
	t.systems[system] = &tracked{system: system, cursor: at, subs: []*subscription{sub}}
	return at, true
}

// need is the position that a joinFrom has to be counted up to, at least.
func (t *tracker) need() domain.Position { return t.window.first }

// count moves a cursor over the events of its system among events.
func count(at domain.Cursor, system domain.SystemID, events []domain.Event) domain.Cursor {
	for i := range events {
		if events[i].SystemID == system {
			at = domain.Cursor{Position: events[i].Position, Seq: at.Seq + 1}
		}
	}
	return at
}

// leave removes a subscription, and reports whether any is left at all.
func (t *tracker) leave(system domain.SystemID, sub *subscription) (inUse bool) {
	if s := t.systems[system]; s != nil {
		kept := make([]*subscription, 0, len(s.subs))
		for _, other := range s.subs {
			if other != sub {
				kept = append(kept, other)
			}
		}
		s.subs = kept
		if len(kept) == 0 {
			delete(t.systems, system)
		}
	}
	return len(t.systems) > 0
}

// advance takes the next events of the partition, which follow the last ones
// closely, and says who is to get which, numbered.
func (t *tracker) advance(events []domain.Event) []delivery {
	t.window.push(events)
	var touched []*tracked
	for i := range events {
		s := t.systems[events[i].SystemID]
		if s == nil || !events[i].Position.After(s.cursor.Position) {
			continue
		}
		if len(s.batch) == 0 {
			touched = append(touched, s)
		}
		s.cursor = domain.Cursor{Position: events[i].Position, Seq: s.cursor.Seq + 1}
		e := events[i]
		e.Seq = s.cursor.Seq
		s.batch = append(s.batch, e)
	}
	deliveries := make([]delivery, len(touched))
	for i, s := range touched {
		deliveries[i] = delivery{subs: s.subs, events: s.batch}
		s.batch = nil
	}
	return deliveries
}
