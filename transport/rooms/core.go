package rooms

import (
	"github.com/plugcast/plugcast/domain"
)

// core decides which events a reader gets next. It is the whole of delivery
// without goroutines, clock and I/O: what happens is told to it, and what is to
// be done comes back as steps. It is not safe for concurrent use.
//
// Two rules carry it. A reader's place moves only when events are taken from
// right behind it, be it from the tail or from a page; so nothing is lost,
// doubled or out of order wherever the two meet. And a reader has one thing to
// wait for at a time, so there is never a second frame or a second page.
type core struct {
	tail     tail
	readers  map[*reader]struct{}
	idle     []*reader
	batches  batchCache
	scratch  []*Encoded
	maxFrame int // bytes
	epoch    int // how often the sequence was counted anew
}

func newCore(start domain.Cursor, tailBytes, maxFrame int) *core {
	return &core{
		tail:     tail{base: start, limit: tailBytes},
		readers:  map[*reader]struct{}{},
		maxFrame: maxFrame,
	}
}

// add takes a reader in that waits to be started.
func (c *core) add(r *reader) {
	r.state, r.done = parked, r.place
	c.readers[r] = struct{}{}
}

// remove forgets a reader. It reports whether it was there.
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
	r.state, r.gathered = gone, conflation{}
	delete(c.readers, r)
	return true
}

// start lets events flow to a parked reader.
func (c *core) start(r *reader, out []step) []step {
	if r.state != parked {
		return out
	}
	return c.advance(r, out)
}

// sent says that the reader's frame is out.
func (c *core) sent(r *reader, out []step) []step {
	if r.state != sending {
		return out
	}
	r.done = r.place
	return c.advance(r, out)
}

// append adds events behind the head and gives them to the readers that wait.
// Events that are there already are ignored. It fails with errGap when some are
// missing; those before the gap are added.
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
	// Readers that stay idle go back into the list that is being read: never
	// further than the reading is.
	waiting := c.idle
	c.idle = c.idle[:0]
	for _, r := range waiting {
		out = c.advance(r, out)
	}
	clear(waiting[len(c.idle):])
	return out, err
}

// turn gives a page to a reader that waits for one. It reports false when the
// page cannot be right, because it leaves events out: then the reader's place is
// in doubt as well, and the reader still waits.
func (c *core) turn(r *reader, p page, out []step) ([]step, bool) {
	switch {
	case r.state != reading:
		return out, true
	case p.epoch != c.epoch:
		return c.advance(r, out), true // counted differently by now
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

// follows reports whether the events are the very next behind a place.
func follows(place domain.Cursor, events []*Encoded) bool {
	for _, e := range events {
		if e.Cursor.Seq != place.Seq+1 || !e.Cursor.Position.After(place.Position) {
			return false
		}
		place = e.Cursor
	}
	return true
}

// reset puts the tail somewhere else: what was between is for pages, and what
// was counted is in doubt. If the tail goes on from start, nothing changes.
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

// passed returns the place up to which the reader has everything.
func (c *core) progress(r *reader) domain.Cursor { return r.done }

// move puts a reader at a place that is known to be right.
func (c *core) move(r *reader, place domain.Cursor) {
	r.place, r.done, r.lost = place, place, false
	r.gathered = conflation{}
}

// advance finds out what a reader that waits for nothing waits for next.
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

// collect makes a frame of the events right behind the reader's place, and moves
// the place. There is none when the filter lets nothing through, or when a
// reader that conflates should gather more before: flush says that there is no
// more.
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
			r.gathered.add(e)
		}
		r.place = e.Cursor
	}
	if len(r.gathered.kept) == 0 {
		r.done = r.place
		return Frame{}, false
	}
	if !flush && r.gathered.bytes < c.maxFrame {
		return Frame{}, false
	}
	taken, rest := r.gathered.take(c.maxFrame - 1)
	if rest {
		r.place = taken[len(taken)-1].Cursor // the rest is read again, and conflated with what came by then
	}
	for _, e := range taken {
		if e.skips {
			return Frame{Bytes: encodeFrame(r.encoding, taken), Events: len(taken)}, true
		}
	}
	return c.frame(r, taken), true
}

// fitting returns how many of the events fit into a frame: one at least.
func fitting(events []*Encoded, limit int) int {
	size := 1 // the brackets and commas: one per event, and one more
	for i, e := range events {
		if size += len(e.Envelope) + 1; size > limit && i > 0 {
			return i
		}
	}
	return len(events)
}

// frame makes the frame of events that stand as they are in the sequence.
func (c *core) frame(r *reader, events []*Encoded) Frame {
	return Frame{Bytes: c.batches.encode(r.encoding, events), Events: len(events)}
}
