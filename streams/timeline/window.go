package timeline

import (
	"sort"

	"github.com/plugcast/plugcast/domain"
)

// window is the newest part of a partition that was followed: every event after
// first, up to and including last. It is bounded, and pure.
type window struct {
	first, last domain.Position
	limit       int // bytes, about

	events []domain.Event // those from head on
	head   int
	bytes  int
}

// eventSize is about what an event takes in memory.
func eventSize(e *domain.Event) int { return 256 + len(e.Data) }

// push adds events and forgets the oldest ones beyond the limit.
func (w *window) push(events []domain.Event) {
	for i := range events {
		w.bytes += eventSize(&events[i])
	}
	w.events = append(w.events, events...)
	if n := len(w.events); n > 0 {
		w.last = w.events[n-1].Position
	}
	for w.bytes > w.limit && w.head < len(w.events) {
		e := &w.events[w.head]
		w.bytes -= eventSize(e)
		w.first = e.Position
		*e = domain.Event{} // the data may go
		w.head++
	}
	if w.head > 64 && w.head > len(w.events)/2 {
		n := copy(w.events, w.events[w.head:])
		clear(w.events[n:])
		w.events, w.head = w.events[:n], 0
	}
}

// covers reports whether no event after p, up to last, is missing.
func (w *window) covers(p domain.Position) bool { return !p.Before(w.first) }

// after returns the events after p. The caller must not keep the slice.
func (w *window) after(p domain.Position) []domain.Event {
	events := w.events[w.head:]
	return events[sort.Search(len(events), func(i int) bool { return events[i].Position.After(p) }):]
}
