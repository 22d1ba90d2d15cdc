package rooms

import (
	"math/bits"
	"sort"

	"github.com/plugcast/plugcast/domain"
)

// tail holds the newest events of a system, with a bounded size and without gaps. So an
// event's index follows from its seq.
type tail struct {
	base  domain.Cursor // the tail has everything after it, up to the head
	list  []*Encoded    // list[first:] is the tail
	first int
	bytes int
	limit int // of bytes; the newest event always stays
}

func (t *tail) head() domain.Cursor {
	if len(t.list) == t.first {
		return t.base
	}
	return t.list[len(t.list)-1].Cursor
}

// push adds the next event. It ignores an event that it already has, and fails with errGap
// if the event does not follow the head.
func (t *tail) push(e *Encoded) error {
	head := t.head()
	switch {
	case e.Cursor.Seq <= head.Seq:
		return nil
	case e.Cursor.Seq != head.Seq+1 || !e.Cursor.Position.After(head.Position):
		return errGap
	}
	t.list = append(t.list, e)
	t.bytes += e.cost()
	for t.bytes > t.limit && len(t.list)-t.first > 1 {
		t.evict()
	}
	return nil
}

func (t *tail) evict() {
	oldest := t.list[t.first]
	t.base = oldest.Cursor
	t.bytes -= oldest.cost()
	t.list[t.first] = nil
	t.first++
	if t.first*2 >= len(t.list) {
		n := copy(t.list, t.list[t.first:])
		clear(t.list[n:])
		t.list, t.first = t.list[:n], 0
	}
}

// after returns the events with a seq above the given one, which must not be below the
// base's. The slice is valid until the next push.
func (t *tail) after(seq uint64) []*Encoded {
	if seq >= t.head().Seq {
		return nil
	}
	return t.list[t.first+int(seq-t.base.Seq):]
}

// locate returns the cursor of the newest event at or before a position, if the position is
// within the tail.
func (t *tail) locate(at domain.Position) (domain.Cursor, bool) {
	if at.Before(t.base.Position) || at.After(t.head().Position) {
		return domain.Cursor{}, false
	}
	events := t.list[t.first:]
	n := sort.Search(len(events), func(i int) bool { return events[i].Cursor.Position.After(at) })
	if n == 0 {
		return t.base, true
	}
	return events[n-1].Cursor, true
}

// continues reports whether the tail contains start, so that nothing has to be read again.
func (t *tail) continues(start domain.Cursor) bool {
	at, ok := t.locate(start.Position)
	return ok && at == start
}

// reset empties the tail and moves it to start.
func (t *tail) reset(start domain.Cursor) {
	clear(t.list)
	t.base, t.list, t.first, t.bytes = start, t.list[:0], 0, 0
}

// perFrame estimates how many events fill a frame, from the events in the tail, so that a
// read of history does not return more than a frame can hold. The result is at most limit,
// and otherwise a power of two, so that readers at the same place request the same page.
func (t *tail) perFrame(frame, limit int) int {
	const least, unknown = 16, 128
	events := len(t.list) - t.first
	if events == 0 {
		return min(unknown, limit)
	}
	envelope := max(t.bytes/events-overhead, 1)
	return min(max(1<<bits.Len(uint(frame/envelope)), least), limit)
}
