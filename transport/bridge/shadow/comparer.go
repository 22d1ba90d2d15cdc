// Package shadow compares two streams of events about the same devices, one from this
// platform and one from another, while they arrive. It pairs the events of each device and
// reports the differences. It is pure: it has no clock and no goroutine, and does no I/O.
package shadow

import (
	"cmp"
	"time"
)

// Side is the platform that an event comes from.
type Side int

// The sides.
const (
	Here  Side = iota // this platform
	There             // the other platform
)

// Kind is the kind of a [Finding].
type Kind string

// The kinds of finding. Equal events are only counted.
const (
	OnlyHere  Kind = "only-here"
	OnlyThere Kind = "only-there"
	Different Kind = "different" // some members differ
	Late      Kind = "late"      // equal, but much later on one side
	Reordered Kind = "reordered" // equal, but in another order among the device's events
	Gap       Kind = "gap"       // one side could not be observed for a while
)

// Observation is an event that one side has.
type Observation struct {
	Event   string
	Device  string
	At      time.Time // when it was observed; never decreases on one side
	Members map[string]any
	Ref     string // for the caller, to find the event again
}

// Finding is one difference.
type Finding struct {
	Kind    Kind
	Here    *Observation // nil if this side does not have it
	There   *Observation
	Members []string      // of Different: names of the members that differ, sorted
	Delay   time.Duration // of all kinds with two observations: time There minus time Here
	Side    Side          // of Gap: the side that could not be observed
	From    time.Time     // of Gap
	To      time.Time
}

// Counts are the numbers of results since the start.
type Counts struct {
	Same, OnlyHere, OnlyThere, Different, Late, Reordered, Gaps uint64
	// Uncompared counts the events that could not be compared, because the other side could
	// not be observed, or because too many events waited.
	Uncompared uint64
}

// Defaults of [Config].
const (
	DefaultWindow       = 30 * time.Second
	DefaultLate         = 2 * time.Second
	DefaultMaxPending   = 20_000
	DefaultMaxPerDevice = 128
)

// Config says which events count as equal.
type Config struct {
	// Window is how long an event waits for its counterpart; [DefaultWindow] when 0.
	Window time.Duration
	// Late is the least delay that is a finding; [DefaultLate] when 0.
	Late time.Duration
	// Compare names the members to compare; when empty, all members that the event There
	// has. Additional members Here are no difference.
	Compare []string
	// Ignore names members that are never compared.
	Ignore []string
	// MaxPending bounds the waiting events of both sides together ([DefaultMaxPending] when
	// 0), and MaxPerDevice those of one device on one side ([DefaultMaxPerDevice] when 0).
	// Beyond them the oldest event of the device is given up and counts as uncompared.
	MaxPending   int
	MaxPerDevice int
}

// Comparer pairs the events of each device in order, so that it finds as few differences as
// possible. An event without a counterpart within the window is a finding of its own. If most
// of the members differ, two events are not paired, and become two findings.
//
// It is not safe for concurrent use.
type Comparer struct {
	config  Config
	queues  map[string]*deviceQueues
	pending int
	down    [2]*time.Time // since when a side cannot be observed
	upAt    [2]time.Time  // when a side could be observed again, without its events of the gap
	resumed [2]time.Time  // when a side could be observed again, followed by its events of the gap
	counts  Counts
	found   []Finding
}

// deviceQueues holds the waiting events of one device, per side, oldest first.
type deviceQueues [2][]waiting

// waiting is an event that has no counterpart yet.
type waiting struct {
	Observation
	until   time.Time // the counterpart may arrive until then
	excused bool      // it may have no counterpart, because the other side could not be observed
	delayed bool      // it was read late after a gap, so that its delay means nothing
	slot    int       // its index in the table
}

// New returns a Comparer.
func New(cfg Config) *Comparer {
	cfg.Window = cmp.Or(max(cfg.Window, 0), DefaultWindow)
	cfg.Late = cmp.Or(max(cfg.Late, 0), DefaultLate)
	cfg.MaxPending = cmp.Or(max(cfg.MaxPending, 0), DefaultMaxPending)
	cfg.MaxPerDevice = cmp.Or(max(cfg.MaxPerDevice, 0), DefaultMaxPerDevice)
	return &Comparer{config: cfg, queues: map[string]*deviceQueues{}}
}

// Observe adds an event of a side. Events of one side must be added in order of At.
func (c *Comparer) Observe(side Side, o Observation) {
	q := c.queues[o.Device]
	if q == nil {
		q = &deviceQueues{}
		c.queues[o.Device] = q
	}
	other := side.other()
	// The counterpart may have come just before the other side could be observed again.
	w := waiting{Observation: o, until: o.At.Add(c.config.Window)}
	w.excused = !c.upAt[other].IsZero() && o.At.Sub(c.upAt[other]) < c.config.Late
	if o.At.Before(c.resumed[other]) { // its counterpart is sent only after the gap
		w.until, w.delayed = c.resumed[other].Add(c.config.Window), true
	}
	q[side] = append(q[side], w)
	c.pending++
	c.match(q)
	for len(q[side]) > c.config.MaxPerDevice || c.pending > c.config.MaxPending && len(q[side]) > 0 {
		q[side][0].excused = true // the counterpart may still arrive
		c.drop(q, side, 0)
		c.counts.Uncompared++
		c.match(q)
	}
	c.forgetIfEmpty(o.Device, q)
}

// Advance decides about the events that have waited long enough. The caller calls it
// regularly.
func (c *Comparer) Advance(now time.Time) {
	for device, q := range c.queues {
		if over := c.overdue(q, now); over[Here] || over[There] {
			t := c.newTable(q)
			for c.settle(q, t, now) {
				c.match(q)
			}
		}
		c.forgetIfEmpty(device, q)
	}
}

// Down notes that a side cannot be observed since a moment.
func (c *Comparer) Down(side Side, since time.Time) {
	if c.down[side] == nil {
		c.down[side] = &since
	}
}

// Up notes that a side can be observed again. If recovered is true, its events of the gap
// follow. Otherwise they are lost: Up adds a finding, and the other side's events of that time
// are not compared.
func (c *Comparer) Up(side Side, at time.Time, recovered bool) {
	since := c.down[side]
	if since == nil {
		return
	}
	c.down[side] = nil
	for _, q := range c.queues {
		queue := q[side.other()]
		for i := range queue {
			w := &queue[i]
			switch {
			case recovered:
				w.until, w.delayed = at.Add(c.config.Window), true
			case w.At.After(since.Add(-c.config.Late)):
				w.excused = true
			}
		}
	}
	if recovered {
		c.resumed[side] = at
	} else {
		c.upAt[side] = at
		c.counts.Gaps++
		c.found = append(c.found, Finding{Kind: Gap, Side: side, From: *since, To: at})
	}
}

// Take returns the findings since the last Take.
func (c *Comparer) Take() []Finding {
	found := c.found
	c.found = nil
	return found
}

// Counts returns the numbers of results so far.
func (c *Comparer) Counts() Counts { return c.counts }

func (s Side) other() Side { return 1 - s }

// match removes equal events from the front of both queues. That is always best: any other
// pairing of the two leaves at least as many differences.
func (c *Comparer) match(q *deviceQueues) {
	for len(q[Here]) > 0 && len(q[There]) > 0 {
		here, there := &q[Here][0], &q[There][0]
		if !inTime(here, there) || here.Event != there.Event || c.differing(here, there) != nil {
			return
		}
		c.settleEqual(q, 0, 0)
	}
}

// settleEqual removes two equal events.
func (c *Comparer) settleEqual(q *deviceQueues, h, t int) {
	here, there := q[Here][h], q[There][t]
	delay := there.At.Sub(here.At)
	if delay.Abs() > c.config.Late && !here.delayed && !there.delayed {
		c.counts.Late++
		c.found = append(c.found, Finding{Kind: Late, Here: &here.Observation, There: &there.Observation, Delay: delay})
	} else {
		c.counts.Same++
	}
	c.drop(q, Here, h)
	c.drop(q, There, t)
}

func (c *Comparer) drop(q *deviceQueues, side Side, i int) {
	queue := q[side]
	copy(queue[i:], queue[i+1:])
	queue[len(queue)-1] = waiting{} // release its members
	q[side] = queue[:len(queue)-1]
	c.pending--
}

func (c *Comparer) forgetIfEmpty(device string, q *deviceQueues) {
	if len(q[Here])+len(q[There]) == 0 {
		delete(c.queues, device)
	}
}

// inTime reports whether the later of two events came while the other waited.
func inTime(here, there *waiting) bool {
	if here.At.Before(there.At) {
		return !there.At.After(here.until)
	}
	return !here.At.After(there.until)
}
