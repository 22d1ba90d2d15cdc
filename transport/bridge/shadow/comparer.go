// Package shadow compares two streams of events about the same devices, event for
// event, as they arrive: what this platform says, and what another one says. It is
// pure: it has no clock, no goroutine and does no I/O.
package shadow

import (
	"cmp"
	"time"
)

// Side is where an event was seen.
type Side int

// The sides.
const (
	Here  Side = iota // on this platform
	There             // on the other
)

// Kind is what a comparison found.
type Kind string

// The kinds of finding. What is the same on both sides is counted only.
const (
	OnlyHere  Kind = "only-here"
	OnlyThere Kind = "only-there"
	Different Kind = "different" // mostly the same, but not all
	Late      Kind = "late"      // the same, and one side had it much later
	Reordered Kind = "reordered" // the same, in another order among the device's events
	Gap       Kind = "gap"       // one side could not be seen for a while
)

// Observation is an event that was seen on one side.
type Observation struct {
	Event   string
	Device  string
	At      time.Time // when it was seen; never before the one seen before it on this side
	Members map[string]any
	Ref     string // whatever the caller needs to find it again
}

// Finding is one difference.
type Finding struct {
	Kind    Kind
	Here    *Observation // nil when it is not there
	There   *Observation
	Members []string      // of Different: the names of what differs, sorted
	Delay   time.Duration // of Late and Reordered: how much later it was there; negative when later here
	Side    Side          // of Gap: which could not be seen
	From    time.Time     // of Gap
	To      time.Time
}

// Counts are how comparisons ended since the beginning.
type Counts struct {
	Same, OnlyHere, OnlyThere, Different, Late, Reordered, Gaps uint64
	// Uncompared is how many events had nothing to be compared with, because the
	// other side could not be seen, or because too many waited.
	Uncompared uint64
}

// Defaults of [Config].
const (
	DefaultWindow       = 30 * time.Second
	DefaultLate         = 2 * time.Second
	DefaultMaxPending   = 20_000
	DefaultMaxPerDevice = 128
)

// Config says what counts as the same.
type Config struct {
	// Window is how long an event waits for its counterpart; [DefaultWindow] when 0.
	Window time.Duration
	// Late is the delay that is worth a finding; [DefaultLate] when 0.
	Late time.Duration
	// Compare names the members that are compared; when empty, those that the other
	// side's event has. More on this side is no difference.
	Compare []string
	// Ignore names members that are not compared.
	Ignore []string
	// MaxPending bounds the events that wait, on both sides together, and
	// MaxPerDevice those of one device on one side.
	MaxPending   int
	MaxPerDevice int
}

// Comparer pairs the events of each device in order, so that as few differences as
// possible are left. An event that has no counterpart within the window is a
// finding; so two findings may be one change, if it left nothing alike.
//
// It is not safe for concurrent use.
type Comparer struct {
	config  Config
	lanes   map[string]*lane
	pending int
	down    [2]*time.Time // since when a side cannot be seen
	upAt    [2]time.Time  // when a side was seen again without what it said meanwhile
	resumed [2]time.Time  // when a side was seen again that says it now
	counts  Counts
	found   []Finding
}

// lane is what waits of one device.
type lane struct{ queue [2][]waiting }

// waiting is an event without a counterpart so far.
type waiting struct {
	Observation
	until   time.Time // its counterpart may come until then
	excused bool      // it may have none, because the other side was not seen
	delayed bool      // its counterpart was held up, which is nobody's fault
	slot    int       // in the table of what is being settled
}

// New makes a Comparer.
func New(cfg Config) *Comparer {
	cfg.Window = cmp.Or(max(cfg.Window, 0), DefaultWindow)
	cfg.Late = cmp.Or(max(cfg.Late, 0), DefaultLate)
	cfg.MaxPending = cmp.Or(max(cfg.MaxPending, 0), DefaultMaxPending)
	cfg.MaxPerDevice = cmp.Or(max(cfg.MaxPerDevice, 0), DefaultMaxPerDevice)
	return &Comparer{config: cfg, lanes: map[string]*lane{}}
}

// Observe takes an event that was seen.
func (c *Comparer) Observe(side Side, o Observation) {
	l := c.lanes[o.Device]
	if l == nil {
		l = &lane{}
		c.lanes[o.Device] = l
	}
	other := side.other()
	// Around the moment at which a side is seen again, its first events may have been
	// missed by a hair.
	w := waiting{Observation: o, until: o.At.Add(c.config.Window)}
	w.excused = !c.upAt[other].IsZero() && o.At.Sub(c.upAt[other]) < c.config.Late
	if o.At.Before(c.resumed[other]) { // read only now, as what it is compared with
		w.until, w.delayed = c.resumed[other].Add(c.config.Window), true
	}
	l.queue[side] = append(l.queue[side], w)
	c.pending++
	c.match(l)
	for len(l.queue[side]) > c.config.MaxPerDevice || c.pending > c.config.MaxPending && len(l.queue[side]) > 0 {
		l.queue[side][0].excused = true // we do not wait until it would be found
		c.drop(l, side, 0)
		c.counts.Uncompared++
		c.match(l)
	}
	c.tidy(o.Device, l)
}

// Advance settles what has waited long enough. It is to be called now and then.
func (c *Comparer) Advance(now time.Time) {
	for device, l := range c.lanes {
		if over := c.overdue(l, now); over[Here] || over[There] {
			t := c.compareAll(l)
			for c.settle(l, t, now) {
				c.match(l)
			}
		}
		c.tidy(device, l)
	}
}

// Down says that a side cannot be seen since a moment: what it says is not heard.
func (c *Comparer) Down(side Side, since time.Time) {
	if c.down[side] == nil {
		c.down[side] = &since
	}
}

// Up says that a side can be seen again. If recovered, what it said meanwhile is
// going to come; otherwise nobody knows what it was: that is a finding, and events
// of the other side from that time are not compared.
func (c *Comparer) Up(side Side, at time.Time, recovered bool) {
	since := c.down[side]
	if since == nil {
		return
	}
	c.down[side] = nil
	for _, l := range c.lanes {
		queue := l.queue[side.other()]
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

// Take returns what was found since the last time.
func (c *Comparer) Take() []Finding {
	found := c.found
	c.found = nil
	return found
}

// Counts returns how comparisons ended so far.
func (c *Comparer) Counts() Counts { return c.counts }

func (s Side) other() Side { return 1 - s }

// match takes away what is the same at the front of both queues. That is never
// wrong: whatever else could be done with the two leaves as many differences.
func (c *Comparer) match(l *lane) {
	for len(l.queue[Here]) > 0 && len(l.queue[There]) > 0 {
		here, there := &l.queue[Here][0], &l.queue[There][0]
		if !inTime(here, there) || here.Event != there.Event || c.differing(here, there) != nil {
			return
		}
		c.same(l, 0, 0)
	}
}

// same takes away two that are the same.
func (c *Comparer) same(l *lane, h, t int) {
	here, there := l.queue[Here][h], l.queue[There][t]
	delay := there.At.Sub(here.At)
	if delay.Abs() > c.config.Late && !here.delayed && !there.delayed {
		c.counts.Late++
		c.found = append(c.found, Finding{Kind: Late, Here: &here.Observation, There: &there.Observation, Delay: delay})
	} else {
		c.counts.Same++
	}
	c.drop(l, Here, h)
	c.drop(l, There, t)
}

func (c *Comparer) drop(l *lane, side Side, i int) {
	queue := l.queue[side]
	copy(queue[i:], queue[i+1:])
	queue[len(queue)-1] = waiting{} // let go of what it holds
	l.queue[side] = queue[:len(queue)-1]
	c.pending--
}

func (c *Comparer) tidy(device string, l *lane) {
	if len(l.queue[Here])+len(l.queue[There]) == 0 {
		delete(c.lanes, device)
	}
}

// inTime tells whether the one that was seen later came while the other waited.
func inTime(here, there *waiting) bool {
	if here.At.Before(there.At) {
		return !there.At.After(here.until)
	}
	return !here.At.After(there.until)
}
