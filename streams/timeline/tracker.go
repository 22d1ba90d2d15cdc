package timeline

import (
	"github.com/plugcast/plugcast/domain"
)

// tracker is where replay meets live delivery, for one partition: it numbers the events of the
// systems with subscriptions as the run reads them, and finds the number at which a new
// subscription starts. It has no lock, no goroutine and no I/O. It guarantees that each
// subscription gets every event of its system after its start once, in order and numbered
// without holes, regardless of the order in which events were appended, archived, followed and
// subscribed to.
type tracker struct {
	window  window
	systems map[domain.SystemID]*tracked
}

// tracked is a system with at least one subscription.
type tracked struct {
	system domain.SystemID
	cursor domain.Cursor   // the last event delivered
	subs   []*subscription // never changed in place: deliveries hold it
	sample domain.Cursor   // a cursor that waits to be compared with the archive
	batch  []domain.Event  // collected by advance
}

// delivery is a batch of events for the subscriptions of one system.
type delivery struct {
	subs   []*subscription
	events []domain.Event
}

func newTracker(start domain.Position, limit int) *tracker {
	return &tracker{window: window{first: start, last: start, limit: limit}, systems: map[domain.SystemID]*tracked{}}
}

// join adds a subscription to a system that is tracked already, and returns the cursor at which
// it starts.
func (t *tracker) join(system domain.SystemID, sub *subscription) (start domain.Cursor, ok bool) {
	s := t.systems[system]
	if s == nil {
		return domain.Cursor{}, false
	}
	s.subs = append(s.subs[:len(s.subs):len(s.subs)], sub)
	return s.cursor, true
}

// joinFrom adds the first subscription to a system. at is the system's cursor as of the
// partition's position upTo: it counts every event of the system at or before upTo, and none
// after. joinFrom fails if the window does not reach back to upTo. The caller then counts on,
// at least up to [tracker.need], and calls it again.
func (t *tracker) joinFrom(
	system domain.SystemID, at domain.Cursor, upTo domain.Position, sub *subscription,
) (start domain.Cursor, ok bool) {
	if start, ok := t.join(system, sub); ok {
		return start, true
	}
	if !t.window.covers(upTo) {
		return domain.Cursor{}, false
	}
	// The run may still read events at or before upTo, if the caller's count was ahead of it.
	// advance drops those by their positions.
	at = count(at, system, t.window.after(upTo))
	t.systems[system] = &tracked{system: system, cursor: at, subs: []*subscription{sub}}
	return at, true
}

// need returns the position up to which joinFrom's caller has to count, at least.
func (t *tracker) need() domain.Position { return t.window.first }

// count moves a cursor over the events of its system.
func count(at domain.Cursor, system domain.SystemID, events []domain.Event) domain.Cursor {
	for i := range events {
		if events[i].SystemID == system {
			at = domain.Cursor{Position: events[i].Position, Seq: at.Seq + 1}
		}
	}
	return at
}

// leave removes a subscription.
func (t *tracker) leave(system domain.SystemID, sub *subscription) {
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
}

// advance takes the next contiguous events of the partition, and returns the deliveries, with
// sequence numbers.
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
