package streams

import (
	"sort"

	"github.com/plugcast/plugcast/domain"
)

// Bounds of the queue of one consumer. The queue always takes a single batch, so that a batch
// of large entries is not read twice.
const (
	maxWaiting      = 4 * maxBatch
	maxWaitingBytes = 2 << 20
)

// batch is a part of a partition as the reader read it: all entries after one position, up to
// and including the last of them. Consumers share it and must not change it.
type batch struct {
	after  domain.Position
	events []domain.Event // at least one
	bytes  int            // approximate size in memory
}

func (b *batch) to() domain.Position { return b.events[len(b.events)-1].Position }

// handover is where the pages that a consumer reads on its own meet the live batches of the
// reader. It has no lock, goroutine, clock or I/O. It guarantees that the consumer gets every
// entry after its start once and in order, regardless of the order in which pages arrive and
// batches are offered.
//
// The consumer calls [handover.next] to learn its next step, and reports the result with
// delivered or reachedEnd. The reader calls offer and cut.
type handover struct {
	at   domain.Position // the consumer has had all entries up to here
	seen bool            // at is the position of an entry that the consumer has had

	// live means that the reader offers its batches. It began at the position from: the
	// consumer has to read the entries between at and from on its own.
	live bool
	from domain.Position

	queue          []batch         // offered and not delivered yet, contiguous
	to             domain.Position // end of the queue, even if it is empty
	entries, bytes int             // of the queue

	// target is the position up to which the consumer reads on its own before it joins again:
	// the queue overflowed there.
	target domain.Position
}

// step is what a consumer does next.
type step int

const (
	stepWait    step = iota // wait until the reader offers a batch or calls cut
	stepDeliver             // pass the events to the consumer's function, then call delivered
	stepRead                // try to join, then read a page after at
)

// next returns the next step and, for stepDeliver, the events.
func (h *handover) next() (step, []domain.Event) {
	for len(h.queue) > 0 && !h.queue[0].to().After(h.at) {
		h.pop() // a page contained all of it
	}
	switch {
	case h.contradicted():
		h.cut()
		h.queue, h.entries, h.bytes = nil, 0, 0
	case len(h.queue) > 0 && !h.at.Before(h.queue[0].after):
		return stepDeliver, h.take()
	case len(h.queue) == 0 && h.live && !h.at.Before(h.from):
		return stepWait, nil
	}
	return stepRead, nil
}

// contradicted reports whether the next batch lacks the last entry that the consumer has had,
// although it should contain it, because that entry came from a page that was ahead of the
// reader. The partition may have been set back before the reader came to that entry, so that
// the reader did not notice. The next page shows whether it was.
func (h *handover) contradicted() bool {
	if !h.seen || len(h.queue) == 0 || !h.at.After(h.queue[0].after) {
		return false
	}
	events := h.queue[0].events
	i := sort.Search(len(events), func(i int) bool { return !events[i].Position.Before(h.at) })
	return i == len(events) || events[i].Position != h.at
}

// take removes as many batches from the queue as fit into one page, and returns their events
// after at. So a consumer that was busy gets everything that came since at once.
func (h *handover) take() []domain.Event {
	first := h.pop()
	events := first.events[sort.Search(len(first.events), func(i int) bool { return first.events[i].Position.After(h.at) }):]
	bytes, owned := first.bytes, false
	for len(h.queue) > 0 && len(events)+len(h.queue[0].events) <= maxBatch && bytes+h.queue[0].bytes <= maxPageBytes {
		if !owned {
			events, owned = events[:len(events):len(events)], true // other consumers share it
		}
		b := h.pop()
		events, bytes = append(events, b.events...), bytes+b.bytes
	}
	return events
}

func (h *handover) pop() batch {
	b := h.queue[0]
	h.queue[0] = batch{}
	if h.queue = h.queue[1:]; len(h.queue) == 0 {
		h.queue = nil
	}
	h.entries -= len(b.events)
	h.bytes -= b.bytes
	return b
}

// delivered notes that the consumer has had events, from next or from a page.
func (h *handover) delivered(events []domain.Event) {
	h.at, h.seen = events[len(events)-1].Position, true
}

// reachedEnd notes that a page was empty. last is the last position that the partition had
// assigned by then. If the page was read after the consumer joined, it closes the gap up to
// from. It does not if the partition was set back behind from; then early is true: the next
// page will be empty as well, until the reader notices or new entries come.
func (h *handover) reachedEnd(last domain.Position) (early bool) {
	h.target = domain.Position{}
	if !h.live || !h.at.Before(h.from) {
		return false
	}
	if last.Before(h.from) {
		return true
	}
	h.at, h.seen = h.from, false
	return false
}

// join makes the reader, which has read up to a position, offer the following batches. It
// returns false while the consumer is ahead of the reader, which then has yet to check that the
// consumer's entries still exist, or while the consumer is too far behind.
func (h *handover) join(reader domain.Position) bool {
	switch {
	case h.live:
		return true
	case len(h.queue) > 0, reader.Before(h.at), h.at.Before(h.target):
		return false
	}
	h.live, h.from, h.to = true, reader, reader
	return true
}

// offer takes the next batch of the reader. A batch that does not fit ends live reading: the
// consumer gets the queue, and reads the rest on its own.
func (h *handover) offer(b batch) {
	switch {
	case !h.live:
	case b.after != h.to:
		h.cut()
	case len(h.queue) > 0 && (h.entries+len(b.events) > maxWaiting || h.bytes+b.bytes > maxWaitingBytes):
		h.cut()
		h.target = b.to()
	default:
		h.queue = append(h.queue, b)
		h.entries += len(b.events)
		h.bytes += b.bytes
		h.to = b.to()
	}
}

// cut ends live reading. The queue is kept if it continues where the consumer is. Otherwise it
// may no longer do so, and is dropped.
func (h *handover) cut() {
	h.live, h.target = false, domain.Position{}
	if h.at.Before(h.from) {
		h.queue, h.entries, h.bytes = nil, 0, 0
	}
}
