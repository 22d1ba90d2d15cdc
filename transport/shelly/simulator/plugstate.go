package simulator

import (
	"fmt"
	"math"
	"time"
)

// plugChannel is one relay and its meter.
type plugChannel struct {
	on       bool
	was      bool // before it was set last
	source   string
	watts    float64 // drawn when on, wavering around nominal
	nominal  float64
	shownA   float64 // the current that was told last
	energyWh float64
	settled  time.Time  // up to when energyWh is counted
	minutes  [3]float64 // mWh of the last three whole minutes, newest first
	minute   float64    // mWh of the running one

	timerFrom time.Time // zero without a timer
	timerFor  time.Duration
	timerTold bool
}

// draw is what the channel draws now, as a meter shows it.
func (c *plugChannel) draw() float64 {
	if !c.on {
		return 0
	}
	return plugRound(c.watts, 1)
}

// settle counts the energy up to now. It must be called before what is drawn
// changes.
func (c *plugChannel) settle(now time.Time) {
	for {
		end := c.settled.Truncate(time.Minute).Add(time.Minute)
		whole := !end.After(now)
		if !whole {
			end = now
		}
		if d := end.Sub(c.settled); d > 0 {
			wh := c.draw() * d.Hours()
			c.energyWh += wh
			c.minute += 1000 * wh
			c.settled = end
		}
		if !whole {
			return
		}
		c.minutes = [3]float64{c.minute, c.minutes[0], c.minutes[1]}
		c.minute = 0
	}
}

func plugRound(v float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(v*scale) / scale
}

// plugHex is the lower twelve hex digits of a hash.
func plugHex(hash uint64) string { return fmt.Sprintf("%012x", hash&(1<<48-1)) }

// plugDue is what is due at some time.
type plugDue int

const (
	plugDueBeat    plugDue = iota // meters of all channels
	plugDueChange                 // something happens by itself
	plugDueCurrent                // the current, after the power
	plugDueRelay                  // what a Switch.Set did
	plugDueTruth                  // the output as it is, after a stale one
	plugDueTimer                  // toggle_after
	plugDueClock                  // the time is known
)

// plugPlan is something that is due.
type plugPlan struct {
	at      time.Time
	due     plugDue
	channel int
}

// plan has something done at a time, in place of the same thing at another. The
// caller holds mu.
func (p *Plug) plan(at time.Time, due plugDue, channel int) {
	for i := range p.plans {
		if p.plans[i].due == due && p.plans[i].channel == channel {
			p.plans[i].at = at
			return
		}
	}
	p.plans = append(p.plans, plugPlan{at, due, channel})
}

func (p *Plug) unplan(due plugDue, channel int) {
	for i := range p.plans {
		if p.plans[i].due == due && p.plans[i].channel == channel {
			p.plans[i] = p.plans[len(p.plans)-1]
			p.plans = p.plans[:len(p.plans)-1]
			return
		}
	}
}

// planRoutine plans what a plug does without being asked. The caller holds mu.
func (p *Plug) planRoutine(now time.Time) {
	if !p.cfg.Unmetered {
		p.planBeat(now)
	}
	p.planChange(now)
}

// planBeat plans the next beat. Beats are at whole minutes of the device's clock
// (measured); clocks are up to two seconds apart.
func (p *Plug) planBeat(now time.Time) {
	apart := time.Duration(p.rng.Int64N(int64(min(2*time.Second, p.cfg.Beat/2)) + 1))
	p.plan(now.Truncate(p.cfg.Beat).Add(p.cfg.Beat+apart), plugDueBeat, 0)
}

func (p *Plug) planChange(now time.Time) {
	if p.cfg.ChangesPerMinute > 0 {
		wait := p.rng.ExpFloat64() * float64(time.Minute) / p.cfg.ChangesPerMinute
		p.plan(now.Add(time.Duration(min(wait, float64(plugNever)))), plugDueChange, 0)
	}
}

// runDue does what is due and returns when to look again. The caller holds mu.
func (p *Plug) runDue(now time.Time) (next time.Time) {
	for p.powered {
		first := -1
		for i := range p.plans {
			if first < 0 || p.plans[i].at.Before(p.plans[first].at) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		due := p.plans[first]
		if due.at.After(now) {
			return due.at
		}
		p.unplan(due.due, due.channel)
		p.do(now, due)
	}
	return now.Add(plugNever)
}

// do does one thing that is due. The caller holds mu.
func (p *Plug) do(now time.Time, due plugPlan) {
	switch i, c := due.channel, &p.channels[due.channel]; due.due {
	case plugDueBeat:
		p.voltage += 0.2 * (p.rng.Float64() - 0.5)
		for i := range p.channels {
			p.notify(now, i, p.meter(now, i))
		}
		p.planBeat(now)
	case plugDueChange:
		p.change(now)
		p.planChange(now)
	case plugDueCurrent:
		if a := p.current(c); a != c.shownA {
			c.shownA = a
			p.notify(now, i, plugObject{"id": i, "current": a})
		}
	case plugDueRelay:
		if p.stale && c.was != c.on {
			p.notify(now, i, p.staleDelta(i))
			p.plan(now.Add(p.cfg.StaleFor), plugDueTruth, i)
			return
		}
		p.notify(now, i, p.relayDelta(i))
	case plugDueTruth:
		p.notify(now, i, p.relayDelta(i))
	case plugDueTimer:
		p.turn(now, i, !c.on, "timer")
		p.notify(now, i, p.relayDelta(i))
	case plugDueClock:
		p.synced = true
		clock := plugObject{}
		p.tellTime(now, clock)
		p.notifyOf(now, "sys", clock)
	}
}

// change lets something happen: power wavers, and now and then a relay flips. A
// channel that is off can do nothing but go on.
func (p *Plug) change(now time.Time) {
	i := p.rng.IntN(len(p.channels))
	c := &p.channels[i]
	if !c.on || p.cfg.Unmetered || p.rng.IntN(8) == 0 {
		p.turn(now, i, !c.on, "schedule")
		p.notify(now, i, p.relayDelta(i))
		return
	}
	c.settle(now)
	c.watts = c.nominal * (0.8 + 0.4*p.rng.Float64())
	// One field each, seconds apart (measured), the current only when it moved by
	// 0.05 A and 5 % (Webhook).
	p.notify(now, i, plugObject{"id": i, "apower": c.draw()})
	if d := math.Abs(p.current(c) - c.shownA); d >= 0.05 && d >= 0.05*c.shownA {
		p.plan(now.Add(2*time.Second+time.Duration(p.rng.Int64N(int64(4*time.Second)))), plugDueCurrent, i)
	}
}

// turn sets a relay, which ends its timer. The caller holds mu and tells.
func (p *Plug) turn(now time.Time, i int, on bool, source string) {
	c := &p.channels[i]
	c.settle(now)
	c.was, c.on, c.source = c.on, on, source
	c.timerFrom, c.timerFor = time.Time{}, 0
	p.unplan(plugDueTimer, i)
	p.unplan(plugDueTruth, i)
}

// current is what flows, in A as a meter shows it.
func (p *Plug) current(c *plugChannel) float64 { return plugRound(c.draw()/p.voltage, 3) }
