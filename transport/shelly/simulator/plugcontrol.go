package simulator

import (
	"math"
	"slices"
	"time"
)

// State is what a channel does: its relay, the power in W and the energy counter
// in Wh, as the plug would tell them now. Without power nothing is drawn. A
// channel that the plug has not is off.
func (p *Plug) State(channel int) (on bool, powerW, energyWh float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.has(channel) {
		return false, 0, 0
	}
	c := &p.channels[channel]
	if !p.powered {
		return c.on, 0, plugRound(c.energyWh, 3)
	}
	c.settle(time.Now())
	return c.on, c.draw(), plugRound(c.energyWh, 3)
}

func (p *Plug) has(channel int) bool { return channel >= 0 && channel < len(p.channels) }

// Button presses the button of a channel, which flips its relay.
func (p *Plug) Button(channel int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.powered || !p.has(channel) {
		return
	}
	now := time.Now()
	p.turn(now, channel, !p.channels[channel].on, "button")
	p.notify(now, channel, p.relayDelta(channel))
	p.kick()
}

// Reboot closes the socket and starts the plug again: its first status has no
// time, its uptime is 0, timers are gone, and of the counters is left what had
// been saved, which is whole Wh.
func (p *Plug) Reboot() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.powered {
		return
	}
	p.shutDown(time.Now(), plugReboots)
	p.boot()
	p.kick()
}

// PowerCut takes the power away. Nothing is sent and nothing read any more, not
// even by the plug's side of TCP: the server has to find out. The old connection
// is reset when the plug is connected again, or [Plug.Run] ends.
func (p *Plug) PowerCut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.powered {
		return
	}
	p.shutDown(time.Now(), plugDies)
	p.powered = false
	p.kick()
}

// PowerUp gives the power back: the plug boots as after [Plug.Reboot], and dials
// at once.
func (p *Plug) PowerUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.powered {
		return
	}
	p.powered, p.redial = true, true
	p.boot()
	p.kick()
}

// Drop resets the connection, without a close frame. The plug itself goes on and
// dials again after its usual pause.
func (p *Plug) Drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inSession && p.ending == plugStays {
		p.ending = plugDrops
		p.kick()
	}
}

// shutDown ends what a plug does. The caller holds mu.
func (p *Plug) shutDown(now time.Time, end plugEnd) {
	for i := range p.channels {
		c := &p.channels[i]
		c.settle(now)
		c.energyWh = math.Floor(c.energyWh)
	}
	p.plans = nil
	if p.inSession && p.ending == plugStays || end == plugDies {
		p.ending = end
	}
}

// boot starts what a plug does. Relays are as they were before, by the usual
// setting. The caller holds mu.
func (p *Plug) boot() {
	now := time.Now()
	p.booted, p.synced, p.rebooted = now, false, true
	for i := range p.channels {
		c := &p.channels[i]
		*c = plugChannel{
			on: c.on, source: "init", watts: c.watts, nominal: c.nominal, energyWh: c.energyWh, settled: now,
		}
	}
	p.planRoutine(now)
}

// ResetCounters sets the energy counters to 0, and tells.
func (p *Plug) ResetCounters() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.powered {
		return
	}
	now := time.Now()
	for i := range p.channels {
		c := &p.channels[i]
		c.settle(now)
		c.energyWh, c.minute, c.minutes = 0, 0, [3]float64{}
		if !p.cfg.Unmetered {
			p.notify(now, i, plugObject{"id": i, "aenergy": p.energy(now, c)})
		}
	}
	p.kick()
}

// Sleep makes the plug one that sleeps: it connects, sends its status, closes the
// socket with "Bye" and sleeps for the period, again and again. A period of 0
// wakes it for good.
func (p *Plug) Sleep(period time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sleep = max(period, 0)
	if p.sleep == 0 {
		p.redial = !p.inSession
	} else if p.open {
		p.enqueue(p.fullStatus(time.Now())) // has the period
	}
	p.kick()
}

// SetClockSkew sets how far the plug's clock is ahead of ours.
func (p *Plug) SetClockSkew(ahead time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skew = ahead
}

// SetStaleOutput makes the plug tell the old output after a Switch.Set that
// switched it, as firmware 2.0.1-beta1 does (measured), and the real one after
// PlugConfig.StaleFor.
func (p *Plug) SetStaleOutput(stale bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = stale
}

// SetMute makes the plug do what it is asked without answering.
func (p *Plug) SetMute(mute bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = mute
}

// SetFrozen makes the plug read nothing: it neither obeys, nor answers, nor pongs,
// but still tells what happens to it. What it did not read is there when it reads
// again.
func (p *Plug) SetFrozen(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case frozen && p.thaw == nil:
		p.thaw = make(chan struct{})
	case !frozen && p.thaw != nil:
		close(p.thaw)
		p.thaw = nil
	}
}

// Send has raw sent as a text frame, whatever it is. It answers false when the
// plug is not connected, or cannot get rid of what it has to say.
func (p *Plug) Send(raw []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	queued := p.enqueue(slices.Clone(raw))
	p.kick()
	return queued
}
