package rooms

import (
	"github.com/plugcast/plugcast/domain"
)

// core decides which events each reader gets next. It is all of the delivery logic, without
// goroutines, clock and I/O: callers report what happens, and get back the steps to
// perform. It is not safe for concurrent use.
//
// It follows two rules. A reader's place moves only over events that directly follow it,
// whether they come from the tail or from a page; so no event is lost, repeated or out of
// order where tail and pages meet. And a reader waits for one thing at a time, so it never
// has two frames or two pages in flight.
type core struct {
	tail     tail
	readers  map[*reader]struct{}
	idle     []*reader
	batches  batchCache
	scratch  []*Encoded
	maxFrame int // bytes
	epoch    int // incremented when the sequence is counted again
}

func newCore(start domain.Cursor, tailBytes, maxFrame int) *core {
	return &core{
		tail:     tail{base: start, limit: tailBytes},
		readers:  map[*reader]struct{}{},
		maxFrame: maxFrame,
	}
}

// add adds a reader, which waits for start.
func (c *core) add(r *reader) {
	r.state, r.done = parked, r.place
	c.readers[r] = struct{}{}
}

// remove removes a reader, and reports whether it was present.
func (c *core) remove(r *reader) bool {
	if _, ok := c.readers[r]; !ok {
		return false
	}
	if r.state == idle {
		last := len(c.idle) - 1
		c.idle[r.slot] = c.idle[last]
		c.idle[r.slot].slot = r.slot
		c.idle[last] = nil
		c.idle = c.idle[:last]
	}
	r.state, r.conflation = gone, conflation{}
	delete(c.readers, r)
	return true
}

// start starts the events of a parked reader.
func (c *core) start(r *reader, out []step) []step {
	if r.state != parked {
		return out
	}
	return c.advance(r, out)
}

// sent reports that the reader's frame has been sent.
func (c *core) sent(r *reader, out []step) []step {
	if r.state != sending {
		return out
	}
	r.done = r.place
	return c.advance(r, out)
}

// append adds events after the head and delivers them to idle readers. It ignores events
// that it already has. It fails with errGap if events are missing, and adds those before
// the gap.
func (c *core) append(events []*Encoded, out []step) ([]step, error) {
	var err error
	before := c.tail.head()
	for _, e := range events {
		if err = c.tail.push(e); err != nil {
			break
		}
	}
	if c.tail.head() == before {
		return out, err
	}
	// Readers that stay idle are appended to the list that this loop reads. The list never
	// grows beyond the loop's own place.
	waiting := c.idle
	c.idle = c.idle[:0]
	for _, r := range waiting {
		out = c.advance(r, out)
	}
	clear(waiting[len(c.idle):])
	return out, err
}

// deliverPage gives a page to a reader that waits for one. It returns false if the page
// cannot be right, because it omits events. Then the reader's place is uncertain as well,
// and the reader still waits.
func (c *core) deliverPage(r *reader, p page, out []step) ([]step, bool) {
	switch {
	case r.state != reading:
		return out, true
	case p.epoch != c.epoch:
		return c.advance(r, out), true // the sequence was counted again since
	case p.ahead:
		c.move(r, c.tail.head())
		out = append(out, step{reader: r, kind: restart, from: r.place})
		return c.advance(r, out), true
	case p.located:
		c.move(r, p.at)
	}
	if r.place.Seq >= c.tail.base.Seq {
		return c.advance(r, out), true
	}
	if len(p.events) == 0 || !follows(r.place, p.events) {
		r.lost = true
		r.goBack()
		return out, false
	}
	if frame, ok := c.collect(r, p.events, false); ok {
		r.state = sending
		return append(out, step{reader: r, kind: deliver, frame: frame}), true
	}
	return c.advance(r, out), true
}

// follows reports whether the events directly follow a place.
func follows(place domain.Cursor, events []*Encoded) bool {
	for _, e := range events {
		if e.Cursor.Seq != place.Seq+1 || !e.Cursor.Position.After(place.Position) {
			return false
		}
		place = e.Cursor
	}
	return true
}

// reset moves the tail to start: readers get the events in between from pages, and every
// place has to be located again. If the tail continues at start, reset does nothing.
func (c *core) reset(start domain.Cursor, out []step) []step {
	if c.tail.continues(start) {
		return out
	}
	c.epoch++
	c.tail.reset(start)
	c.batches.clear()
	for r := range c.readers {
		r.lost = true
		if r.state == reading {
			r.goBack()
		}
	}
	waiting := c.idle
	c.idle = nil
	for _, r := range waiting {
		out = c.advance(r, out)
	}
	return out
}

// progress returns the place up to which everything was sent to the reader.
func (c *core) progress(r *reader) domain.Cursor { return r.done }

// move puts a reader at a place that is known to be correct.
func (c *core) move(r *reader, place domain.Cursor) {
	r.place, r.done, r.lost = place, place, false
	r.conflation = conflation{}
}

// advance decides what a reader that waits for nothing waits for next.
func (c *core) advance(r *reader, out []step) []step {
	if r.lost || r.place.Seq < c.tail.base.Seq {
		r.state, r.live = reading, false
		return append(out, step{reader: r, kind: fetch})
	}
	events := c.tail.after(r.place.Seq)
	if frame, ok := c.collect(r, events, true); ok {
		if r.live {
			frame.appended = events[0].Time
		}
		r.state = sending
		return append(out, step{reader: r, kind: deliver, frame: frame})
	}
	r.done = r.place
	r.state, r.live, r.slot = idle, true, len(c.idle)
	c.idle = append(c.idle, r)
	return out
}

// collect makes a frame of the events that directly follow the reader's place, and moves
// the place. It returns false if the filter matches no event, or if a conflating reader
// should collect more events first. flush says that there are no more events.
func (c *core) collect(r *reader, events []*Encoded, flush bool) (Frame, bool) {
	switch {
	case r.conflate:
		return c.collectConflated(r, events, flush)
	case len(events) == 0:
		return Frame{}, false
	case r.filter.IsZero():
		events = events[:fitting(events, c.maxFrame)]
		r.place = events[len(events)-1].Cursor
		return c.frame(r, events), true
	}
	size, matching := 0, c.scratch[:0]
	for _, e := range events {
		if r.filter.Match(e.Type, e.device) {
			if size += len(e.Envelope) + 1; size >= c.maxFrame && len(matching) > 0 {
				break
			}
			matching = append(matching, e)
		}
		r.place = e.Cursor
	}
	c.scratch = matching
	defer clear(matching)
	if len(matching) == 0 {
		r.done = r.place
		return Frame{}, false
	}
	return c.frame(r, matching), true
}

func (c *core) collectConflated(r *reader, events []*Encoded, flush bool) (Frame, bool) {
	for _, e := range events {
		if r.filter.Match(e.Type, e.device) {
			r.conflation.add(e)
		}
		r.place = e.Cursor
	}
	if len(r.conflation.collected) == 0 {
		r.done = r.place
		return Frame{}, false
	}
	if !flush && r.conflation.bytes < c.maxFrame {
		return Frame{}, false
	}
	taken, more := r.conflation.take(c.maxFrame - 1)
	if more {
		r.place = taken[len(taken)-1].Cursor // the others are read again, and conflated with newer events
	}
	for _, e := range taken {
		if e.skips {
			return Frame{Bytes: encodeFrame(r.encoding, taken), Events: len(taken)}, true
		}
	}
	return c.frame(r, taken), true
}

// fitting returns how many of the events fit into a frame: at least one.
func fitting(events []*Encoded, limit int) int {
	size := 1 // one bracket or comma per event, and one more
	for i, e := range events {
		if size += len(e.Envelope) + 1; size > limit && i > 0 {
			return i
		}
	}
	return len(events)
}

// frame makes the frame of events with their shared envelopes.
func (c *core) frame(r *reader, events []*Encoded) Frame {
	return Frame{Bytes: c.batches.encode(r.encoding, events), Events: len(events)}
}
