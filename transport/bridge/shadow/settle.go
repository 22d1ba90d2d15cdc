package shadow

import (
	"math"
	"slices"
	"time"
)

// expired tells that an event's counterpart does not come any more. While the
// other side cannot be seen, nobody can tell.
func (c *Comparer) expired(side Side, w *waiting, now time.Time) bool {
	if since := c.down[side.other()]; since != nil && w.until.After(*since) {
		return false
	}
	return now.After(w.until)
}

// overdue tells of each side whether its first event has waited long enough.
func (c *Comparer) overdue(l *lane, now time.Time) (over [2]bool) {
	for side := range over {
		over[side] = len(l.queue[side]) > 0 && c.expired(Side(side), &l.queue[side][0], now)
	}
	return over
}

// settle decides about the events at the front, if one of them has waited long
// enough. It tells whether it did anything.
func (c *Comparer) settle(l *lane, t table, now time.Time) bool {
	over := c.overdue(l, now)
	if !over[Here] && !over[There] {
		return false
	}
	steps := align(l.queue[Here], l.queue[There], t)
	for _, s := range steps {
		switch {
		case s.here >= 0 && s.there >= 0:
			here, there := &l.queue[Here][s.here], &l.queue[There][s.there]
			if s.members == nil {
				c.same(l, s.here, s.there)
				return true
			}
			// Both must have waited, or one might still meet its like.
			if !c.expired(Here, here, now) || !c.expired(There, there, now) {
				return false
			}
			c.counts.Different++
			c.found = append(c.found, Finding{
				Kind: Different, Here: copyOf(here), There: copyOf(there), Members: s.members, Delay: there.At.Sub(here.At),
			})
			c.drop(l, Here, s.here)
			c.drop(l, There, s.there)
			return true
		case s.here >= 0:
			if !over[Here] {
				continue // the other side's first is what is over; it comes later among the steps
			}
			c.alone(l, t, Here, steps)
			return true
		default:
			if !over[There] {
				continue
			}
			c.alone(l, t, There, steps)
			return true
		}
	}
	return false
}

// alone takes away the first of a side, which has no counterpart in its place; it
// may have one in another.
func (c *Comparer) alone(l *lane, t table, side Side, steps []step) {
	first := l.queue[side][0]
	other := side.other()
	for _, s := range steps {
		at := [2]int{s.here, s.there}
		if at[side] >= 0 || at[other] < 0 {
			continue // it has a counterpart, or is on this side
		}
		candidate := l.queue[other][at[other]]
		here, there := &first, &candidate
		if side == There {
			here, there = there, here
		}
		if t.of(here, there).cost > 0 {
			continue
		}
		c.counts.Reordered++
		c.found = append(c.found, Finding{Kind: Reordered, Here: copyOf(here), There: copyOf(there), Delay: there.At.Sub(here.At)})
		c.drop(l, side, 0)
		c.drop(l, other, at[other])
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
	c.drop(l, side, 0)
}

func copyOf(w *waiting) *Observation {
	o := w.Observation
	return &o
}

// step is one of those that lead from one queue to the other: two events that
// belong together, or one that is alone (the other index is -1).
type step struct {
	here, there int
	members     []string // that differ, of two
}

// Costs of a step. Two that are mostly alike are cheaper than both alone, and
// whatever is the same costs nothing.
const (
	costAlone     = 1.0
	costDifferent = 1.0 // and up to half as much again for the members that differ
)

// pair is what it costs to take two events for the same one.
type pair struct {
	members []string // that differ
	cost    float64
}

// table has the pairs of a lane's events. It is made once for all that is settled at
// a time: most of the work is to compare.
type table struct {
	pairs []pair
	width int
}

func (t *table) of(here, there *waiting) *pair { return &t.pairs[here.slot*t.width+there.slot] }

// compareAll compares each event of one side with each of the other.
func (c *Comparer) compareAll(l *lane) table {
	for side := range l.queue {
		for i := range l.queue[side] {
			l.queue[side][i].slot = i
		}
	}
	here, there := l.queue[Here], l.queue[There]
	t := table{pairs: make([]pair, len(here)*len(there)), width: len(there)}
	for i := range here {
		for j := range there {
			p := t.of(&here[i], &there[j])
			p.members, p.cost = c.pairing(&here[i], &there[j])
		}
	}
	return t
}

// align finds the cheapest way from one queue to the other, in order. Both are
// bounded by MaxPerDevice.
func align(here, there []waiting, t table) []step {
	n, m := len(here), len(there)
	width := m + 1
	cost := make([]float64, (n+1)*width) // of what is left from i and j on
	for i := n; i >= 0; i-- {
		for j := m; j >= 0; j-- {
			at := i*width + j
			switch {
			case i == n:
				cost[at] = costAlone * float64(m-j)
			case j == m:
				cost[at] = costAlone * float64(n-i)
			default:
				cost[at] = min(t.of(&here[i], &there[j]).cost+cost[at+width+1], costAlone+cost[at+width], costAlone+cost[at+1])
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
		if i < n && cost[at] == costAlone+cost[at+width] {
			steps = append(steps, step{here: i, there: -1})
			i++
		} else {
			steps = append(steps, step{here: -1, there: j})
			j++
		}
	}
	return steps
}

// pairing is what it costs to take two events for the same one.
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
		return nil, math.Inf(1) // little in common: they are two events
	}
	if members == nil {
		return nil, 0
	}
	return members, costDifferent + 0.5*float64(len(members))/float64(all)
}

// differing names the members that are not the same, sorted; nil when all are.
func (c *Comparer) differing(here, there *waiting) []string {
	var names []string
	look := func(name string) {
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
			look(name)
		}
	} else {
		for name := range there.Members {
			look(name)
		}
	}
	slices.Sort(names)
	return names
}

// equal compares two JSON values as encoding/json decodes them. Numbers are
// compared by value: 1 and 1.0 are the same.
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
			return false // and == would panic on them
		}
		return a == b
	}
}
