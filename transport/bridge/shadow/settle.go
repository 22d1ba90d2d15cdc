package shadow

import (
	"math"
	"slices"
	"time"
)

// expired reports whether an event has waited long enough for its counterpart. It has not while
// the other side cannot be observed.
func (c *Comparer) expired(side Side, w *waiting, now time.Time) bool {
	if since := c.down[side.other()]; since != nil && w.until.After(*since) {
		return false
	}
	return now.After(w.until)
}

// overdue reports for each side whether its first event has expired.
func (c *Comparer) overdue(q *deviceQueues, now time.Time) (over [2]bool) {
	for side := range over {
		over[side] = len(q[side]) > 0 && c.expired(Side(side), &q[side][0], now)
	}
	return over
}

// settle decides about the events at the front, if one of them has expired. It reports whether
// it removed any.
func (c *Comparer) settle(q *deviceQueues, t table, now time.Time) bool {
	over := c.overdue(q, now)
	if !over[Here] && !over[There] {
		return false
	}
	steps := align(q[Here], q[There], t)
	for _, s := range steps {
		switch {
		case s.here >= 0 && s.there >= 0:
			here, there := &q[Here][s.here], &q[There][s.there]
			if s.members == nil {
				c.settleEqual(q, s.here, s.there)
				return true
			}
			// Until both have expired, an equal event may still come for one of them.
			if !c.expired(Here, here, now) || !c.expired(There, there, now) {
				return false
			}
			c.counts.Different++
			c.found = append(c.found, Finding{
				Kind: Different, Here: copyOf(here), There: copyOf(there), Members: s.members, Delay: there.At.Sub(here.At),
			})
			c.drop(q, Here, s.here)
			c.drop(q, There, s.there)
			return true
		case s.here >= 0:
			if !over[Here] {
				continue // the first event of the other side has expired; a later step has it
			}
			c.settleUnpaired(q, t, Here, steps)
			return true
		default:
			if !over[There] {
				continue
			}
			c.settleUnpaired(q, t, There, steps)
			return true
		}
	}
	return false
}

// settleUnpaired removes the first event of a side, which has no counterpart in order. An equal
// event that the other side has out of order makes it a reordering.
func (c *Comparer) settleUnpaired(q *deviceQueues, t table, side Side, steps []step) {
	first := q[side][0]
	other := side.other()
	for _, s := range steps {
		at := [2]int{s.here, s.there}
		if at[side] >= 0 || at[other] < 0 {
			continue // it has a counterpart, or is of this side
		}
		candidate := q[other][at[other]]
		here, there := &first, &candidate
		if side == There {
			here, there = there, here
		}
		if t.of(here, there).cost > 0 {
			continue
		}
		c.counts.Reordered++
		c.found = append(c.found, Finding{Kind: Reordered, Here: copyOf(here), There: copyOf(there), Delay: there.At.Sub(here.At)})
		c.drop(q, side, 0)
		c.drop(q, other, at[other])
		return
	}
	switch {
	case first.excused:
		c.counts.Uncompared++
	case side == Here:
		c.counts.OnlyHere++
		c.found = append(c.found, Finding{Kind: OnlyHere, Here: copyOf(&first)})
	default:
		c.counts.OnlyThere++
		c.found = append(c.found, Finding{Kind: OnlyThere, There: copyOf(&first)})
	}
	c.drop(q, side, 0)
}

func copyOf(w *waiting) *Observation {
	o := w.Observation
	return &o
}

// step is one step of an alignment: a pair of events, or one event without a counterpart (the
// index of the other side is -1).
type step struct {
	here, there int
	members     []string // of a pair: those that differ
}

// Costs of a step. An equal pair costs nothing, and a pair with few differences costs less than
// two events without counterparts.
const (
	costUnpaired  = 1.0
	costDifferent = 1.0 // plus up to half as much for the members that differ
)

// pair is the cost of pairing two events.
type pair struct {
	members []string // that differ
	cost    float64
}

// table has the pairs of a device's events. One Advance makes it once per device, because
// comparing is most of the work.
type table struct {
	pairs []pair
	width int
}

func (t *table) of(here, there *waiting) *pair { return &t.pairs[here.slot*t.width+there.slot] }

// newTable compares each event of one side with each event of the other.
func (c *Comparer) newTable(q *deviceQueues) table {
	for side := range q {
		for i := range q[side] {
			q[side][i].slot = i
		}
	}
	here, there := q[Here], q[There]
	t := table{pairs: make([]pair, len(here)*len(there)), width: len(there)}
	for i := range here {
		for j := range there {
			p := t.of(&here[i], &there[j])
			p.members, p.cost = c.pairing(&here[i], &there[j])
		}
	}
	return t
}

// align finds the cheapest alignment of two queues that keeps their order. MaxPerDevice bounds
// the length of both.
func align(here, there []waiting, t table) []step {
	n, m := len(here), len(there)
	width := m + 1
	cost := make([]float64, (n+1)*width) // of the rest, from i and j on
	for i := n; i >= 0; i-- {
		for j := m; j >= 0; j-- {
			at := i*width + j
			switch {
			case i == n:
				cost[at] = costUnpaired * float64(m-j)
			case j == m:
				cost[at] = costUnpaired * float64(n-i)
			default:
				cost[at] = min(t.of(&here[i], &there[j]).cost+cost[at+width+1], costUnpaired+cost[at+width], costUnpaired+cost[at+1])
			}
		}
	}
	var steps []step
	for i, j := 0, 0; i < n || j < m; {
		at := i*width + j
		if i < n && j < m {
			if p := t.of(&here[i], &there[j]); cost[at] == p.cost+cost[at+width+1] {
				steps = append(steps, step{here: i, there: j, members: p.members})
				i, j = i+1, j+1
				continue
			}
		}
		if i < n && cost[at] == costUnpaired+cost[at+width] {
			steps = append(steps, step{here: i, there: -1})
			i++
		} else {
			steps = append(steps, step{here: -1, there: j})
			j++
		}
	}
	return steps
}

// pairing returns the members that differ between two events, and the cost of pairing them.
func (c *Comparer) pairing(here, there *waiting) (members []string, cost float64) {
	if here.Event != there.Event || !inTime(here, there) {
		return nil, math.Inf(1)
	}
	members = c.differing(here, there)
	all := len(there.Members)
	if len(c.config.Compare) > 0 {
		all = len(c.config.Compare)
	}
	if 2*len(members) > all {
		return nil, math.Inf(1) // they have little in common
	}
	if members == nil {
		return nil, 0
	}
	return members, costDifferent + 0.5*float64(len(members))/float64(all)
}

// differing returns the names of the members that differ, sorted; nil if none does.
func (c *Comparer) differing(here, there *waiting) []string {
	var names []string
	compare := func(name string) {
		if slices.Contains(c.config.Ignore, name) {
			return
		}
		ours, has := here.Members[name]
		theirs, had := there.Members[name]
		if has != had || !equal(ours, theirs) {
			names = append(names, name)
		}
	}
	if len(c.config.Compare) > 0 {
		for _, name := range c.config.Compare {
			compare(name)
		}
	} else {
		for name := range there.Members {
			compare(name)
		}
	}
	slices.Sort(names)
	return names
}

// equal compares two JSON values as encoding/json decodes them. Numbers are equal by value: 1
// equals 1.0.
func equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for name, value := range a {
			if other, has := b[name]; !has || !equal(value, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, equal)
	default:
		switch b.(type) {
		case map[string]any, []any:
			return false // == would panic on them
		}
		return a == b
	}
}
