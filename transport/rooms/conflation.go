package rooms

import (
	"strconv"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// conflation collects the events for a reader that is behind, and drops the updates that a
// newer update supersedes.
type conflation struct {
	collected []collected // ascending
	dropped   int         // how many of collected are dropped
	bytes     int         // the size of the others
	devices   map[domain.DeviceID]*deviceUpdates
}

type collected struct {
	event   *Encoded
	skipped span // the seqs dropped right before it or, if it is dropped itself, up to and including it
	dropped bool
}

// deviceUpdates are the collected updates of one device.
type deviceUpdates struct {
	updates []int     // indexes in collected of the updates that are not superseded
	newest  time.Time // the latest device time
}

// span is a range of seqs; the zero span is empty.
type span struct{ from, to uint64 }

// with returns the range that covers both ranges.
func (s span) with(o span) span {
	switch {
	case s == span{}:
		return o
	case o == span{}:
		return s
	}
	return span{min(s.from, o.from), max(s.to, o.to)}
}

// add collects the next event.
//
// The fold ignores a stale update: one whose device time is before the latest device time
// that it knows. So a stale update supersedes nothing, and the update that made it stale
// must be sent before it.
func (c *conflation) add(e *Encoded) {
	switch e.Type {
	case domain.TypeDeviceUpdate:
		c.supersede(e)
	case domain.TypeEnergyCorrected:
		// It corrects the updates before it, so they must stay.
		if known := c.devices[e.about().device]; known != nil {
			known.updates = known.updates[:0]
		}
	}
	c.collected = append(c.collected, collected{event: e})
	c.bytes += len(e.Envelope) + 1
	const slack = 256 // how many dropped events are not worth a compaction
	if c.dropped > slack && c.dropped > len(c.collected)/2 {
		c.compact()
	}
}

func (c *conflation) supersede(e *Encoded) {
	about := e.about()
	known := c.devices[about.device]
	if known == nil {
		if c.devices == nil {
			c.devices = map[domain.DeviceID]*deviceUpdates{}
		}
		known = &deviceUpdates{}
		c.devices[about.device] = known
	}
	if !about.time.IsZero() && about.time.Before(known.newest) {
		// Stale: the updates that made it stale must stay, whatever follows.
		known.updates = known.updates[:0]
	}
	still := known.updates[:0]
	for _, i := range known.updates {
		old := &c.collected[i]
		if !about.supersedes(old.event.about()) {
			still = append(still, i)
			continue
		}
		old.dropped = true
		old.skipped = old.skipped.with(span{old.event.Cursor.Seq, old.event.Cursor.Seq})
		c.bytes -= len(old.event.Envelope) + 1
		c.dropped++
	}
	known.updates = append(still, len(c.collected))
	if about.time.After(known.newest) {
		known.newest = about.time
	}
}

// compact removes the dropped events, and adds their seqs to the next remaining event.
// There always is one: the update that superseded them.
func (c *conflation) compact() {
	moved := make([]int, len(c.collected)) // old index to new
	n, run := 0, span{}
	for i, k := range c.collected {
		moved[i] = n
		run = run.with(k.skipped)
		if !k.dropped {
			c.collected[n] = collected{event: k.event, skipped: run}
			n, run = n+1, span{}
		}
	}
	clear(c.collected[n:])
	c.collected, c.dropped = c.collected[:n], 0
	for _, known := range c.devices {
		for i, at := range known.updates {
			known.updates[i] = moved[at]
		}
	}
}

// take returns the remaining events, up to limit bytes but at least one, with the skipped
// ranges written into them, and clears the conflation. more reports that some did not fit.
func (c *conflation) take(limit int) (events []*Encoded, more bool) {
	size, run := 0, span{}
	for _, k := range c.collected {
		run = run.with(k.skipped)
		if k.dropped {
			continue
		}
		e := k.event
		if run != (span{}) {
			e = e.withSkipped(run)
			run = span{}
		}
		if size += len(e.Envelope) + 1; size > limit && len(events) > 0 {
			more = true
			break
		}
		events = append(events, e)
	}
	*c = conflation{}
	return events, more
}

// withSkipped returns a copy whose envelope names the seqs that were skipped before it.
func (e *Encoded) withSkipped(s span) *Encoded {
	const around = 64 // enough for the member and its two numbers
	b := make([]byte, 0, len(e.Envelope)+around)
	b = append(b, e.Envelope[:len(e.Envelope)-1]...)
	b = append(b, `,"skipped":{"from":`...)
	b = strconv.AppendUint(b, s.from, 10)
	b = append(b, `,"to":`...)
	b = strconv.AppendUint(b, s.to, 10)
	b = append(b, "}}"...)
	copied := *e
	copied.Envelope, copied.skips = b, true
	return &copied
}
