package timeline

import (
	"sort"

	"github.com/plugcast/plugcast/domain"
)

// window holds the newest entries of a followed partition: every event after first, up to and
// including last, within a bound. It has no lock and no I/O.
type window struct {
	first, last domain.Position
	limit       int // approximate, in bytes

	events []domain.Event // the window begins at events[head]
	head   int
	bytes  int
}

// eventSize is the approximate size of an event in memory, in bytes.
func eventSize(e *domain.Event) int { return 256 + len(e.Data) }

// push adds events, and drops the oldest beyond the limit.
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
		*e = domain.Event{} // frees the data
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
