package rooms

import (
	"strconv"
	"time"

	"github.com/plugcast/plugcast/domain"
)

// conflation gathers the events of a reader that is behind, and drops those
// updates that a newer one makes needless.
type conflation struct {
	kept    []gathered // ascending
	dropped int        // how many of kept are dropped
	bytes   int        // of those that are not
	devices map[domain.DeviceID]*standing
}

type gathered struct {
	event   *Encoded
	skipped span // what was left out right before it, or, if it is dropped itself, including it
	dropped bool
}

// standing is what is gathered of one device.
type standing struct {
	updates []int     // indexes in kept, of those that nothing made needless yet
	newest  time.Time // the latest device time seen
}

// span is a range of seqs; the zero span is none.
type span struct{ from, to uint64 }

// with returns the range that covers both.
func (s span) with(o span) span {
	switch {
	case s == span{}:
		return o
	case o == span{}:
		return s
	}
	return span{min(s.from, o.from), max(s.to, o.to)}
}

// add gathers the next event.
//
// The fold ignores an update whose device time is before the latest one that it
// knows. Such a stale update replaces nothing, and what made it stale must be
// sent before it.
func (c *conflation) add(e *Encoded) {
	switch e.Type {
	case domain.TypeDeviceUpdate:
		c.supersede(e)
	case domain.TypeEnergyCorrected:
		// It is a correction of what the updates before it said.
		if known := c.devices[e.about().device]; known != nil {
			known.updates = known.updates[:0]
		}
	}
	c.kept = append(c.kept, gathered{event: e})
	c.bytes += len(e.Envelope) + 1
	const slack = 256 // dropped ones to put up with
	if c.dropped > slack && c.dropped > len(c.kept)/2 {
		c.compact()
	}
}

func (c *conflation) supersede(e *Encoded) {
	about := e.about()
	known := c.devices[about.device]
	if known == nil {
		if c.devices == nil {
			c.devices = map[domain.DeviceID]*standing{}
		}
		known = &standing{}
		c.devices[about.device] = known
	}
	if !about.time.IsZero() && about.time.Before(known.newest) {
		// Stale: what made it so has to stay, whatever comes later.
		known.updates = known.updates[:0]
	}
	still := known.updates[:0]
	for _, i := range known.updates {
		old := &c.kept[i]
		if !about.supersedes(old.event.about()) {
			still = append(still, i)
			continue
		}
		old.dropped = true
		old.skipped = old.skipped.with(span{old.event.Cursor.Seq, old.event.Cursor.Seq})
		c.bytes -= len(old.event.Envelope) + 1
		c.dropped++
	}
	known.updates = append(still, len(c.kept))
	if about.time.After(known.newest) {
		known.newest = about.time
	}
}

// compact hands the ranges of dropped events on to those behind them, and
// forgets them. There always is one behind: the one that made them needless.
func (c *conflation) compact() {
	moved := make([]int, len(c.kept)) // old index to new
	n, run := 0, span{}
	for i, k := range c.kept {
		moved[i] = n
		run = run.with(k.skipped)
		if !k.dropped {
			c.kept[n] = gathered{event: k.event, skipped: run}
			n, run = n+1, span{}
		}
	}
	clear(c.kept[n:])
	c.kept, c.dropped = c.kept[:n], 0
	for _, known := range c.devices {
		for i, at := range known.updates {
			known.updates[i] = moved[at]
		}
	}
}

// take returns what is left of the gathered events, up to limit bytes but one at
// least, with what was skipped written into them, and forgets everything. rest
// says that there was more.
func (c *conflation) take(limit int) (events []*Encoded, rest bool) {
	size, run := 0, span{}
	for _, k := range c.kept {
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
			rest = true
			break
		}
		events = append(events, e)
	}
	*c = conflation{}
	return events, rest
}

// withSkipped returns a copy that says what was left out before it.
func (e *Encoded) withSkipped(s span) *Encoded {
	const around = 64 // more than the member and two numbers take
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
