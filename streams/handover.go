package streams

import (
	"sort"

	"github.com/plugcast/plugcast/domain"
)

// Bounds of what waits for one consumer. A single batch is always taken, so that a
// batch of large entries is no reason to read it twice.
const (
	maxWaiting      = 4 * maxBatch
	maxWaitingBytes = 2 << 20
)

// batch is a piece of a partition as the reader read it: all entries after one
// position, up to and including the last of them. Consumers share it, and nobody
// changes it.
type batch struct {
	after  domain.Position
	events []domain.Event // at least one
	bytes  int            // about what they take in memory
}

func (b *batch) to() domain.Position { return b.events[len(b.events)-1].Position }

// handover is where the pages that a consumer reads on its own meet the live
// batches of the reader. It has no lock, goroutine, clock or I/O. It promises that
// the consumer is given every entry after its start once and in order, in
// whatever order pages arrive and batches are offered.
//
// The consumer asks [handover.next] what to do and reports what it did with gave
// or reachedEnd. The reader calls offer and cut.
type handover struct {
	at   domain.Position // the consumer was given all entries up to here
	seen bool            // at is the position of an entry that the consumer was given

	// live says that the reader offers what it reads. It began to at from: entries
	// between at and from are the consumer's to read.
	live bool
	from domain.Position

	queue          []batch         // offered, and not given yet; each follows the one before closely
	to             domain.Position // the end of the queue, also while it is empty
	entries, bytes int             // of the queue

	// target is how far the consumer reads on its own before it joins again: the queue
	// overflowed there.
	target domain.Position
}

// step is what a consumer does next.
type step int

const (
	stepWait    step = iota // until the reader offers a batch or cuts
	stepDeliver             // give events to the consumer's function, then call gave
	stepRead                // try to join, then read a page after at
)

// next returns what to do and, for stepDeliver, the events.
func (h *handover) next() (step, []domain.Event) {
	for len(h.queue) > 0 && !h.queue[0].to().After(h.at) {
		h.pop() // a page had all of it
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

// contradicted reports whether the next batch should have the entry that the consumer
// was given last, from a page that was ahead of the reader, and does not. The partition
// may have been set back before the reader came to that entry, so that the reader did
// not notice: the next page tells.
func (h *handover) contradicted() bool {
	if !h.seen || len(h.queue) == 0 || !h.at.After(h.queue[0].after) {
		return false
	}
	events := h.queue[0].events
	i := sort.Search(len(events), func(i int) bool { return !events[i].Position.Before(h.at) })
	return i == len(events) || events[i].Position != h.at
}

// take removes as many batches from the queue as make one page, and returns their
// events after at: a consumer that was busy gets all that came since at once.
func (h *handover) take() []domain.Event {
	first := h.pop()
	events := first.events[sort.Search(len(first.events), func(i int) bool { return first.events[i].Position.After(h.at) }):]
	bytes, owned := first.bytes, false
	for len(h.queue) > 0 && len(events)+len(h.queue[0].events) <= maxBatch && bytes+h.queue[0].bytes <= maxPageBytes {
		if !owned {
			events, owned = events[:len(events):len(events)], true // others share it
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

// gave says that the consumer was given events, those of next or of a page.
func (h *handover) delivered(events []domain.Event) {
	h.at, h.seen = events[len(events)-1].Position, true
}

// reachedEnd says that a page was empty. last is the last position that the
// partition had given by then. A page that began after the consumer joined closes
// the gap up to from, unless the partition was set back behind it. That is what early
// means: the next page will be empty as well until the reader notices, or more comes.
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

// join makes the reader, which has read up to a position, offer what follows. It
// reports false while the consumer is ahead of the reader, which has yet to find
// out whether what the consumer has is still there, or too far behind it.
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

// offer hands over the next batch of the reader. A batch that does not fit ends
// live reading: the consumer is given what waits, and reads the rest on its own.
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

// cut ends live reading. What waits and follows closely on what the consumer has is
// kept; the rest may not follow on it any more.
func (h *handover) cut() {
	h.live, h.target = false, domain.Position{}
	if h.at.Before(h.from) {
		h.queue, h.entries, h.bytes = nil, 0, 0
	}
}
