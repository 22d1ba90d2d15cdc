package rooms

import (
	"math/bits"
	"sort"

	"github.com/plugcast/plugcast/domain"
)

// tail holds the newest events of a system, of bounded size and without holes.
// Because they are numbered without holes, an event is found by arithmetic.
type tail struct {
	base  domain.Cursor // everything after it, up to the head, is here
	list  []*Encoded    // list[first:] is the tail
	first int
	bytes int
	limit int // of bytes; the newest event stays in any case
}

func (t *tail) head() domain.Cursor {
	if len(t.list) == t.first {
		return t.base
	}
	return t.list[len(t.list)-1].Cursor
}

// push adds the next event. One that is there already is ignored; one that does
// not follow fails with errGap.
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

// after returns the events with a seq above the given one, which must not be
// below the base's. The slice is good until the next push.
func (t *tail) after(seq uint64) []*Encoded {
	if seq >= t.head().Seq {
		return nil
	}
	return t.list[t.first+int(seq-t.base.Seq):]
}

// locate returns the cursor of the newest event at or before a position, if the
// tail reaches back that far and is not behind it.
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

// continues reports whether events after start go on where the tail is, so that
// nothing has to be read anew.
func (t *tail) continues(start domain.Cursor) bool {
	at, ok := t.locate(start.Position)
	return ok && at == start
}

// reset empties the tail and puts it somewhere else.
func (t *tail) reset(start domain.Cursor) {
	clear(t.list)
	t.base, t.list, t.first, t.bytes = start, t.list[:0], 0, 0
}

// perFrame guesses how many events fill a frame, from those that are here, so
// that a page of history is not read in vain; at most most. It is a power of
// two, so that readers at the same place ask for the same page.
func (t *tail) perFrame(frame, most int) int {
	const least, unknown = 16, 128
	events := len(t.list) - t.first
	if events == 0 {
		return min(unknown, most)
	}
	envelope := max(t.bytes/events-bookkeeping, 1)
	return min(max(1<<bits.Len(uint(frame/envelope)), least), most)
}
